//! Problem documents: the only place where an error becomes an HTTP response, `application/problem+json` (RFC 9457).
//!
//! Does not contain: the errors themselves, which each domain declares in its contract; causes, which are for the log
//! only.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};

use super::headers::set_common_headers;
use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::FieldError;

/// Media type of every error response.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds until a retry when the error names no number of its own.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error as it is returned to the client. Boxed, because every handler's result has space for one.
#[derive(Debug, Clone)]
pub struct Problem(Box<ProblemDetails>);

#[derive(Debug, Clone)]
struct ProblemDetails {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    /// Extension members: the fields of the domain's error, such as `left`.
    extensions: Map<String, Value>,
    /// Methods of the path, on a response to another method.
    allow: Option<Arc<str>>,
    /// Set only where the middleware cannot render the problem again.
    request_id: Option<Arc<str>>,
}

impl Problem {
    /// A problem that the gateway itself reports.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(ProblemDetails {
            status,
            code: Cow::Borrowed(code),
            detail: detail.into(),
            errors: Vec::new(),
            extensions: Map::new(),
            allow: None,
            request_id: None,
        }))
    }

    /// 404: no route has this path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    /// 405: the path has other methods, listed in `allow`.
    pub fn method_not_allowed(allow: Arc<str>) -> Self {
        let detail = format!("this path takes {allow}");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
        problem.0.allow = Some(allow);
        problem
    }

    /// 400: the body cannot be parsed as its media type.
    pub fn malformed_body(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_body", detail)
    }

    /// 413: the body has more than `max` bytes.
    pub fn too_large(max: usize) -> Self {
        let detail = format!("the body is larger than the {max} bytes that are taken here");
        let mut problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail);
        problem.0.extensions.insert("max_bytes".to_owned(), json!(max));
        problem
    }

    /// 415: the body has another media type than `expected`.
    pub fn unsupported_media_type(expected: &str) -> Self {
        let detail = format!("send the body as {expected}, and say so in Content-Type");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 408: the body did not arrive in time.
    pub fn request_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not arrive in time; send it again")
    }

    /// 500 after a panic in a handler of the gateway.
    pub fn panicked() -> Self {
        CommonError::Internal.into()
    }

    /// Problem for a status that the web framework set without a body.
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "body_too_large", "the body is larger than what is taken here")
            }
            StatusCode::UNAUTHORIZED => CommonError::Unauthenticated.into(),
            status if status.is_server_error() => CommonError::Internal.into(),
            status => Self::new(status, "bad_request", "the request cannot be read"),
        }
    }

    /// First of the invalid fields.
    #[cfg(test)]
    pub fn first_error(&self) -> Option<&FieldError> {
        self.0.errors.first()
    }

    /// Renders the problem for the request with this id.
    pub fn to_response(&self, request_id: &str) -> HttpResponse {
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
            for (name, value) in &self.0.extensions {
                // An extension must not overwrite the standard members.
                members.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let mut response = HttpResponse::build(self.0.status);
        response.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        match self.0.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                let seconds =
                    self.0.extensions.get("retry_after").and_then(Value::as_u64).unwrap_or(RETRY_AFTER_SECONDS);
                response.insert_header((header::RETRY_AFTER, seconds));
            }
            StatusCode::UNAUTHORIZED => {
                response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            _ => {}
        }
        if self.0.code == "request_in_progress" {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
        }
        if let Some(allow) = &self.0.allow {
            response.insert_header((header::ALLOW, &**allow));
        }
        response.body(body.to_string())
    }

    /// Attaches the request's id, for a problem that the middleware returns as an error without the request.
    pub fn with_request_id(mut self, request_id: Arc<str>) -> Self {
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
        // Without an id the middleware renders the problem again, with the id.
        match &self.0.request_id {
            None => HttpResponse::new(self.0.status),
            Some(id) => {
                let mut response = self.to_response(id);
                set_common_headers(response.headers_mut(), id);
                response
            }
        }
    }
}

/// Maps every domain's error to HTTP: the status by its kind, the code and the members by its JSON form.
impl<E: DomainError> From<E> for Problem {
    fn from(error: E) -> Self {
        let mut members = match serde_json::to_value(&error) {
            Ok(Value::Object(members)) => members,
            other => {
                log::error!("web: domain error has no JSON object: {other:?}");
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
            extensions: members,
            allow: None,
            request_id: None,
        }))
    }
}

/// Errors while reading a body.
impl From<PayloadError> for Problem {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Overflow => Self::from_status(StatusCode::PAYLOAD_TOO_LARGE),
            _ => Self::malformed_body("the body broke off or is not coded as its headers say"),
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

/// The code as a phrase: `out_of_stock` becomes "Out of stock". Equal for every occurrence, as RFC 9457 §3.1.3 requires.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    let mut chars = words.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::catalog::CatalogError;
    use crate::contract::mailer::MailerError;
    use crate::types::ProductId;

    async fn render(problem: Problem) -> (HttpResponse<()>, Value) {
        let (head, body) = problem.to_response("r1").into_parts();
        let bytes = actix_web::body::to_bytes(body).await.unwrap();
        (head, serde_json::from_slice(&bytes).unwrap())
    }

    #[actix_web::test]
    async fn domain_error_keeps_code_and_members() {
        let product_id = ProductId::new();
        let (head, body) = render(CatalogError::OutOfStock { product_id, left: 2 }.into()).await;
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
    async fn retry_after_and_www_authenticate_are_set() {
        let (head, _) = render(MailerError::RecipientLimit { max: 1, retry_after: 90 }.into()).await;
        assert_eq!(
            (head.status().as_u16(), head.headers().get(header::RETRY_AFTER).unwrap().to_str().ok()),
            (429, Some("90"))
        );
        let (head, _) = render(CommonError::Overloaded.into()).await;
        assert_eq!(
            (head.status().as_u16(), head.headers().get(header::RETRY_AFTER).unwrap().to_str().ok()),
            (503, Some("1"))
        );
        let (head, _) = render(CommonError::Unauthenticated.into()).await;
        assert_eq!(head.headers().get(header::WWW_AUTHENTICATE).unwrap(), "Bearer");
    }

    #[actix_web::test]
    async fn invalid_fields_are_listed() {
        let error = FieldError::new("price", "out_of_range", "must be between 0 and 1");
        let (head, body) = render(CatalogError::from(vec![error]).into()).await;
        assert_eq!(head.status(), 422);
        assert_eq!(body["code"], "validation_failed");
        assert_eq!(
            body["errors"],
            json!([{"field": "price", "code": "out_of_range", "message": "must be between 0 and 1"}])
        );
    }
}
