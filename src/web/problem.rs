//! The one place where something that went wrong becomes an HTTP answer: `application/problem+json` (RFC 9457).
//!
//! Never enters: what can go wrong (the domains say that), a cause that is only for our log.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::FieldError;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a client may try again when nothing better is known.
const RETRY_AFTER: u64 = 1;

/// Something that went wrong, ready to be told. Boxed, because every answer has room for one.
#[derive(Debug, Clone)]
pub struct Problem(Box<ProblemDetails>);

#[derive(Debug, Clone)]
struct ProblemDetails {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    /// Members of the domain's error beside its code, such as `left`.
    more: Map<String, Value>,
    /// Set on answers to a wrong method.
    allow: Option<Arc<str>>,
    /// Known to the edge only, which adds it.
    request_id: Option<Arc<str>>,
}

impl Problem {
    /// A problem of the gateway's own.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(ProblemDetails {
            status,
            code: Cow::Borrowed(code),
            detail: detail.into(),
            errors: Vec::new(),
            more: Map::new(),
            allow: None,
            request_id: None,
        }))
    }

    /// There is nothing at this path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    /// There is something, but not for this method.
    pub fn method_not_allowed(allow: Arc<str>) -> Self {
        let detail = format!("this path takes {allow}");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
        problem.0.allow = Some(allow);
        problem
    }

    /// The body is not what its type says.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_body", detail)
    }

    /// The body is larger than is taken here.
    pub fn too_large(max: usize) -> Self {
        let detail = format!("the body is larger than the {max} bytes that are taken here");
        let mut problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail);
        problem.0.more.insert("max_bytes".to_owned(), json!(max));
        problem
    }

    /// The body is of a type that is not taken here.
    pub fn unsupported_type(wanted: &str) -> Self {
        let detail = format!("send the body as {wanted}, and say so in Content-Type");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// The body came too slowly.
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not arrive in time; send it again")
    }

    /// A handler of the gateway panicked.
    pub fn panicked() -> Self {
        CommonError::Internal.into()
    }

    /// What a bare status of the framework says.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::no_such_path(),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "body_too_large", "the body is larger than what is taken here")
            }
            StatusCode::UNAUTHORIZED => CommonError::Unauthenticated.into(),
            status if status.is_server_error() => CommonError::Internal.into(),
            status => Self::new(status, "bad_request", "the request cannot be read"),
        }
    }

    /// The first of the wrong fields it names.
    #[cfg(test)]
    pub fn first_error(&self) -> Option<&FieldError> {
        self.0.errors.first()
    }

    /// The answer, under the id of the request.
    pub fn answer(&self, request_id: &str) -> HttpResponse {
        let mut body = json!({
            "type": format!("urn:mercat:problem:{}", self.0.code),
            "title": title(&self.0.code),
            "status": self.0.status.as_u16(),
            "detail": self.0.detail,
            "code": self.0.code,
            "request_id": request_id,
        });
        if let Value::Object(members) = &mut body {
            if !self.0.errors.is_empty() {
                members.insert("errors".to_owned(), json!(self.0.errors));
            }
            for (name, value) in &self.0.more {
                // The members of RFC 9457 and our own are not for a domain to overwrite.
                members.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let mut answer = HttpResponse::build(self.0.status);
        answer.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        match self.0.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                let seconds = self.0.more.get("retry_after").and_then(Value::as_u64).unwrap_or(RETRY_AFTER);
                answer.insert_header((header::RETRY_AFTER, seconds));
            }
            StatusCode::UNAUTHORIZED => {
                answer.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            _ => {}
        }
        if self.0.code == "request_in_progress" {
            answer.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if let Some(allow) = &self.0.allow {
            answer.insert_header((header::ALLOW, &**allow));
        }
        answer.body(body.to_string())
    }

    /// The same problem, carrying the id of its request itself: for where the edge has no request left to answer.
    pub fn of_request(mut self, request_id: Arc<str>) -> Self {
        self.0.request_id = Some(request_id);
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.0.code, self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        // Inside the edge the request's id is not known yet; the edge renders the problem anew with it.
        match &self.0.request_id {
            None => HttpResponse::new(self.0.status),
            Some(id) => {
                let mut answer = self.answer(id);
                super::middleware::dress(answer.headers_mut(), id);
                answer
            }
        }
    }
}

/// How every domain's error becomes HTTP.
impl<E: DomainError> From<E> for Problem {
    fn from(error: E) -> Self {
        let mut members = match serde_json::to_value(&error) {
            Ok(Value::Object(members)) => members,
            other => {
                log::error!("an error has no JSON object: {other:?}");
                Map::new()
            }
        };
        let code = match members.remove("code") {
            Some(Value::String(code)) => Cow::Owned(code),
            _ => Cow::Borrowed("internal"),
        };
        members.remove("errors");
        Self(Box::new(ProblemDetails {
            status: status_of(error.kind()),
            code,
            detail: Cow::Owned(error.to_string()),
            errors: error.fields().to_vec(),
            more: members,
            allow: None,
            request_id: None,
        }))
    }
}

/// What went wrong while a body was read.
impl From<PayloadError> for Problem {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Overflow => Self::of_status(StatusCode::PAYLOAD_TOO_LARGE),
            _ => Self::malformed("the body broke off or is not coded as its headers say"),
        }
    }
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Malformed => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The code in words: `out_of_stock` is "Out of stock". The same for every occurrence, as RFC 9457 wants it.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::catalog::CatalogError;
    use crate::contract::mailer::MailerError;
    use crate::types::ProductId;

    async fn shown(problem: Problem) -> (HttpResponse<()>, Value) {
        let (head, body) = problem.answer("r1").into_parts();
        let bytes = actix_web::body::to_bytes(body).await.unwrap();
        (head, serde_json::from_slice(&bytes).unwrap())
    }

    #[actix_web::test]
    async fn a_domains_error_keeps_its_code_and_members() {
        let product_id = ProductId::new();
        let (head, body) = shown(CatalogError::OutOfStock { product_id, left: 2 }.into()).await;
        assert_eq!(head.status(), 409);
        assert_eq!(head.headers().get(header::CONTENT_TYPE).unwrap(), PROBLEM_JSON);
        assert_eq!(
            body,
            json!({
                "type": "urn:mercat:problem:out_of_stock", "title": "Out of stock", "status": 409,
                "detail": "only 2 of this product can be bought now", "code": "out_of_stock", "request_id": "r1",
                "left": 2, "product_id": product_id,
            })
        );
    }

    #[actix_web::test]
    async fn who_may_try_again_is_told_when_and_who_must_sign_in_how() {
        let (head, _) = shown(MailerError::RecipientLimit { max: 1, retry_after: 90 }.into()).await;
        assert_eq!(
            (head.status().as_u16(), head.headers().get(header::RETRY_AFTER).unwrap().to_str().ok()),
            (429, Some("90"))
        );
        let (head, _) = shown(CommonError::Overloaded.into()).await;
        assert_eq!(
            (head.status().as_u16(), head.headers().get(header::RETRY_AFTER).unwrap().to_str().ok()),
            (503, Some("1"))
        );
        let (head, _) = shown(CommonError::Unauthenticated.into()).await;
        assert_eq!(head.headers().get(header::WWW_AUTHENTICATE).unwrap(), "Bearer");
    }

    #[actix_web::test]
    async fn wrong_fields_are_listed() {
        let error = FieldError::new("price", "out_of_range", "must be between 0 and 1");
        let (head, body) = shown(CatalogError::from(vec![error]).into()).await;
        assert_eq!(head.status(), 422);
        assert_eq!(body["code"], "validation_failed");
        assert_eq!(
            body["errors"],
            json!([{"field": "price", "code": "out_of_range", "message": "must be between 0 and 1"}])
        );
    }
}
