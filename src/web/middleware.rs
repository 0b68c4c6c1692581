//! The outermost layer, once around every request: its id, its count, its log line, the headers every answer has,
//! a panic's 500, and every error's form.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::body::BoxBody;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::uri::PathAndQuery;
use actix_web::http::{StatusCode, Uri};
use actix_web::{Error, HttpMessage, HttpResponse};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::metrics;
use super::problem::Problem;
use super::state::GatewayState;
use crate::messaging::trace;

/// The cookie that a browser is signed in by.
pub const COOKIE: &str = "mercat_session";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id of a caller's own that is taken over.
const REQUEST_ID_MAX: usize = 128;

/// What the layers know of one request.
pub struct RequestMeta {
    /// The id under which all rooms log it.
    pub request_id: Arc<str>,
    /// Where it stands in its caller's trace, if it says so in a form that can be handed on.
    pub trace: Option<Arc<str>>,
    /// When it came.
    pub began: Instant,
    /// Whether the caller's cookie is worth nothing any more and is to go.
    pub drop_cookie: Cell<bool>,
}

/// Wraps the whole application.
pub struct RequestMiddleware(pub Arc<GatewayState>);

/// [`RequestMiddleware`] at work.
pub struct RequestMiddlewareService<S> {
    gate: Arc<GatewayState>,
    inner: S,
}

impl<S> Transform<S, ServiceRequest> for RequestMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type InitError = ();
    type Transform = RequestMiddlewareService<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(RequestMiddlewareService { gate: Arc::clone(&self.0), inner }))
    }
}

impl<S> Service<ServiceRequest> for RequestMiddlewareService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    forward_ready!(inner);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let trail = Rc::new(RequestMeta {
            request_id: request_id(request.headers()),
            trace: trace(request.headers()),
            began: Instant::now(),
            drop_cookie: Cell::new(false),
        });
        trim_slash(&mut request);
        request.extensions_mut().insert(Rc::clone(&trail));
        let gate = Arc::clone(&self.gate);
        let figures = metrics::InFlightRequest::begin(request.method());
        // A panic may come already here, before there is a future to poll.
        let inner = trace::during(trail.trace.clone(), || {
            std::panic::catch_unwind(AssertUnwindSafe(|| self.inner.call(request)))
        });
        Box::pin(trace::within(trail.trace.clone(), async move {
            let result = match inner {
                Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            gate.count();
            let Ok(result) = result else {
                figures.lost(StatusCode::INTERNAL_SERVER_ERROR, trail.began);
                log::error!("the gateway panicked [{}]", trail.request_id);
                return Err(Problem::panicked().of_request(Arc::clone(&trail.request_id)).into());
            };
            let mut answer = match result {
                Ok(answer) => formed(answer, &trail),
                Err(error) => {
                    figures.lost(error.as_response_error().status_code(), trail.began);
                    return Err(problem_of(&error).of_request(Arc::clone(&trail.request_id)).into());
                }
            };
            dress(answer.headers_mut(), &trail.request_id);
            // A cookie that was just set is not taken away again.
            if trail.drop_cookie.get()
                && !answer.headers().contains_key(header::SET_COOKIE)
                && let Ok(gone) = HeaderValue::from_str(&cleared(gate.settings.http.secure_cookies).to_string())
            {
                answer.headers_mut().append(header::SET_COOKIE, gone);
            }
            if gate.is_draining() {
                answer.response_mut().head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
            }
            note(&answer, &trail);
            figures.answered(&answer, trail.began);
            Ok(answer)
        }))
    }
}

/// Gives an error its form; any other answer stays as it is.
fn formed(answer: ServiceResponse, trail: &RequestMeta) -> ServiceResponse {
    if answer.status().as_u16() < 400 {
        return answer;
    }
    let problem = match answer.response().error() {
        Some(error) => problem_of(error),
        // A page or a document that was made on purpose.
        None if answer.headers().contains_key(header::CONTENT_TYPE) => return answer,
        None => Problem::of_status(answer.status()),
    };
    let (request, bare) = answer.into_parts();
    let mut told: HttpResponse = problem.answer(&trail.request_id);
    for name in [header::ALLOW, header::CONTENT_RANGE, header::SEC_WEBSOCKET_VERSION] {
        if let Some(value) = bare.headers().get(&name)
            && !told.headers().contains_key(&name)
        {
            told.headers_mut().insert(name, value.clone());
        }
    }
    ServiceResponse::new(request, told)
}

fn problem_of(error: &Error) -> Problem {
    match error.as_error::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::of_status(error.as_response_error().status_code()),
    }
}

/// The headers that every answer has.
pub fn dress(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
}

/// The sign-in cookie with this token, for so long.
pub fn cookie(token: String, lasts: Duration, secure: bool) -> Cookie<'static> {
    let seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
    Cookie::build(COOKIE, token)
        .http_only(true)
        .same_site(SameSite::Lax)
        .path("/")
        .secure(secure)
        .max_age(actix_web::cookie::time::Duration::seconds(seconds))
        .finish()
}

/// What makes a browser forget the sign-in cookie.
pub fn cleared(secure: bool) -> Cookie<'static> {
    cookie(String::new(), Duration::ZERO, secure)
}

/// The caller's id, if it sent a sane one, or one of our own.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let plain = |text: &&str| {
        (1..=REQUEST_ID_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain) {
        Some(given) => given.into(),
        None => own_id(),
    }
}

fn trace(headers: &HeaderMap) -> Option<Arc<str>> {
    trace::read(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// A UUIDv7 without a system call for each: random once a thread, counted from there. It names, it keeps no secret.
fn own_id() -> Arc<str> {
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

/// Takes slashes off the end of the path: they are optional everywhere.
fn trim_slash(request: &mut ServiceRequest) {
    let path = request.uri().path();
    if path.len() < 2 || !path.ends_with('/') {
        return;
    }
    let trimmed = match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let text = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    let Ok(path) = text.parse::<PathAndQuery>() else { return };
    parts.path_and_query = Some(path);
    let Ok(uri) = Uri::from_parts(parts) else { return };
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
}

/// The log line of a request. Not the query: it may hold a mailed token.
fn note(answer: &ServiceResponse, trail: &RequestMeta) {
    let status = answer.status().as_u16();
    let level = if status >= 500 { log::Level::Warn } else { log::Level::Debug };
    if log::log_enabled!(target: "mercat::access", level) {
        let request = answer.request();
        let (method, path): (&Method, &str) = (request.method(), request.path());
        let micros = u64::try_from(trail.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        log::log!(
            target: "mercat::access", level,
            request_id = &*trail.request_id, method = method.as_str(), path = path, status = status, micros = micros;
            "{method} {path} {status} {micros} us [{}]", trail.request_id
        );
    }
}
