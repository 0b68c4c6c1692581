//! Metadata of one request: its id, its trace and its start, determined once by the outermost layer.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::{HttpMessage, HttpRequest};

use super::headers::REQUEST_ID;
use super::rate_limit::LimitStatus;
use crate::messaging::{CommonError, RequestContext, trace};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest request id that is taken over from a caller, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// Metadata of a request, shared by the middleware and the extractors through the request's extensions.
pub struct RequestMeta {
    /// Request id shared by all log lines of all domains.
    pub request_id: Arc<str>,
    /// W3C trace context of the caller, if its header is valid.
    pub trace: Option<Arc<str>>,
    /// Arrival of the request's head.
    pub started_at: Instant,
    /// Whether the response removes the caller's session cookie.
    pub remove_cookie: Cell<bool>,
    /// State of the limit that the response reports.
    pub limit: Cell<Option<LimitStatus>>,
    /// Context of the calls to domains, if the request has an idempotency key: an error may be a repeated one too.
    pub keyed_context: OnceCell<RequestContext>,
}

impl RequestMeta {
    /// Metadata of a request that arrives now.
    pub fn new(headers: &HeaderMap) -> Self {
        Self {
            request_id: request_id(headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok())),
            trace: headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(trace::parse),
            started_at: Instant::now(),
            remove_cookie: Cell::new(false),
            limit: Cell::new(None),
            keyed_context: OnceCell::new(),
        }
    }

    /// Metadata that the middleware has attached to a request.
    pub fn of(request: &HttpRequest) -> Result<Rc<Self>, CommonError> {
        request.extensions().get::<Rc<Self>>().map(Rc::clone).ok_or_else(|| {
            log::error!("web: missing RequestMeta in the request's extensions");
            CommonError::Internal
        })
    }
}

/// The caller's request id if it is 1 to 128 letters, digits, dots, hyphens and underscores; otherwise a new one.
pub fn request_id(given: Option<&str>) -> Arc<str> {
    let is_valid = |text: &&str| {
        (1..=REQUEST_ID_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match given.filter(is_valid) {
        Some(given) => given.into(),
        None => new_request_id(),
    }
}

/// Makes a UUIDv7 without a system call: the random part is drawn once per thread and counted up from there. It is a
/// name, not a secret.
fn new_request_id() -> Arc<str> {
    thread_local! {
        static RANDOM: Cell<u128> = Cell::new(uuid::Uuid::now_v7().as_u128());
    }
    let random = RANDOM.get().wrapping_add(1);
    RANDOM.set(random);
    let mut tail = [0; 10];
    tail.copy_from_slice(&random.to_be_bytes()[6..]);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(u64::MAX), &tail).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    Arc::from(&*id.hyphenated().encode_lower(&mut text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_of_caller_is_kept_only_if_plain() {
        assert_eq!(&*request_id(Some("a-Z_0.9")), "a-Z_0.9");
        for bad in [None, Some(""), Some("a b"), Some("a\"b"), Some(&*"x".repeat(129))] {
            let made = request_id(bad);
            assert!(uuid::Uuid::parse_str(&made).is_ok(), "{bad:?}: {made}");
        }
        assert_ne!(request_id(None), request_id(None));
    }
}
