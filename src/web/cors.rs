//! Cross-origin resource sharing (Fetch Standard): pages of listed sites may call the API for their visitors.
//!
//! Does not contain: the protection against pages that are not listed (`csrf`).

use std::sync::Arc;

use actix_cors::Cors;
use actix_web::http::header::{self, HeaderName};

use super::headers::{IDEMPOTENT_REPLAYED, REQUEST_ID};
use super::rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// Seconds for which a browser remembers a permission.
const MAX_AGE: usize = 600;
/// Headers that a page may send.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    REQUEST_ID,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("x-requested-with"),
];
/// Headers of a response that a page may read.
const RESPONSE_HEADERS: [HeaderName; 8] = [
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    REQUEST_ID,
    IDEMPOTENT_REPLAYED,
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
];

/// Permissions for the pages of these origins: to send and read with the visitor's cookie.
pub fn permissions(origins: &Arc<[String]>) -> Cors {
    let origins = Arc::clone(origins);
    Cors::default()
        .allowed_origin_fn(move |origin, _| {
            origin.to_str().is_ok_and(|origin| origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin)))
        })
        .allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        .allowed_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .supports_credentials()
        .max_age(MAX_AGE)
}
