//! A client for Stripe's HTTP API: one request, its time limit, its retries, and how certain its outcome is.
//! Does not contain: the meaning of a response for a payment.
//!
//! It uses hyper with rustls, because both are dependencies anyway; a more convenient client would add a dozen crates.
//! Stripe's messages are not logged: they repeat keys and tokens.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::messaging::Backoff;

/// Version of the API that this client is written for. The default of an account may be any other.
const VERSION: HeaderValue = HeaderValue::from_static("2024-06-20");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which an idle connection is closed; Stripe closes them after about a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Maximum number of idle connections.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// Maximum number of retries of a request that certainly did not reach Stripe.
const RETRIES_MAX: u32 = 2;
/// Delays before the retries.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_millis(500));
/// Maximum size of a response in bytes. A page of 100 refunds has about 100,000.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// A client for one Stripe account.
pub struct Api {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
}

/// Reason for the absence of a successful response.
#[derive(Debug)]
pub enum ApiError {
    /// Stripe rejected the request. Depending on the error, mostly nothing was done.
    Rejected(StripeError),
    /// The request certainly did not reach Stripe.
    NotSent,
    /// The outcome is unknown.
    Unknown,
}

/// Error object of Stripe.
#[derive(Debug, Deserialize)]
pub struct StripeError {
    /// HTTP status of the response.
    #[serde(skip)]
    pub status: u16,
    /// Kind of the error, such as `card_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Error code, such as `card_declined`.
    #[serde(default)]
    pub code: Option<String>,
    /// Reason of the bank, such as `generic_decline`.
    #[serde(default)]
    pub decline_code: Option<String>,
    /// Name of the rejected parameter.
    #[serde(default)]
    pub param: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: StripeError,
}

/// A request to the API.
pub struct ApiCall<'a> {
    pub method: Method,
    /// Path below `/v1/`; ids in it must be checked by the caller.
    pub path: String,
    pub form: &'a [(&'a str, &'a str)],
    /// Idempotency key.
    pub key: Option<String>,
    /// Time limit that includes all retries.
    pub timeout: Duration,
}

impl Api {
    /// Creates a client for the API at `base` with the secret key of an account.
    ///
    /// # Errors
    /// If the key cannot be sent in a header, or TLS is not available.
    pub fn new(base: &str, key: &str) -> Result<Self, &'static str> {
        let wrong = "cannot be sent in a header";
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| wrong)?;
        authorization.set_sensitive(true);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Chosen explicitly, because another library may have installed another default for the process.
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|_| "cannot be used: TLS is not available")?;
        let https = if base.starts_with("https://") { https.https_only() } else { https.https_or_http() };
        let https = https.enable_http1().wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(https);
        Ok(Self { http, base: base.to_owned(), authorization })
    }

    /// Sends a request, with retries, within its time limit.
    pub async fn call<T: DeserializeOwned>(&self, call: ApiCall<'_>) -> Result<T, ApiError> {
        tokio::time::timeout(call.timeout, self.send_with_retries(&call)).await.unwrap_or_else(|_| {
            log::warn!("stripe: {} timed out", call.path);
            Err(ApiError::Unknown)
        })
    }

    /// Retries a request that did not reach Stripe, or whose key is in use by a request in progress.
    async fn send_with_retries<T: DeserializeOwned>(&self, call: &ApiCall<'_>) -> Result<T, ApiError> {
        let (mut busy, mut backoff) = (false, RETRY_BACKOFF);
        for attempt in 0.. {
            let error = match self.send(call).await {
                Err(ApiError::Rejected(error)) if error.status == StatusCode::CONFLICT.as_u16() => {
                    busy = true;
                    ApiError::Unknown
                }
                Err(ApiError::NotSent) if busy => ApiError::Unknown,
                Err(ApiError::NotSent) => ApiError::NotSent,
                other => return other,
            };
            if attempt >= RETRIES_MAX {
                return Err(error);
            }
            backoff.wait().await;
        }
        Err(ApiError::Unknown)
    }

    async fn send<T: DeserializeOwned>(&self, call: &ApiCall<'_>) -> Result<T, ApiError> {
        let request = self.request(call).map_err(|error| {
            log::error!("stripe: request {} is invalid: {error}", call.path);
            ApiError::NotSent
        })?;
        let response = self.http.request(request).await.map_err(|error| {
            log::warn!("stripe: {} failed: {error}", call.path);
            if error.is_connect() { ApiError::NotSent } else { ApiError::Unknown }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(|error| {
            log::warn!("stripe: response to {} was cut off: {error}", call.path);
            ApiError::Unknown
        })?;
        let (status, body) = (head.status, body.to_bytes());
        let id = head.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-");
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                log::error!("stripe: response to {} is malformed (request {id}): {error}", call.path);
                ApiError::Unknown
            });
        }
        let rejection =
            serde_json::from_slice(&body).map(|ErrorBody { error }| StripeError { status: status.as_u16(), ..error });
        let (kind, code) = match &rejection {
            Ok(error) => (error.kind.as_str(), error.code.as_deref().unwrap_or("-")),
            Err(_) => ("unknown error format", "-"),
        };
        log::warn!("stripe: {} rejected with status {}: {kind}, {code} (request {id})", call.path, status.as_u16());
        match (status, rejection) {
            // Rate limit, or the object is locked by another request: nothing was done.
            (StatusCode::TOO_MANY_REQUESTS, _) => Err(ApiError::NotSent),
            // The key belongs to another request, which may have done anything.
            (_, Ok(error)) if error.kind == "idempotency_error" => Err(ApiError::Unknown),
            (status, Ok(error)) if status.is_client_error() => Err(ApiError::Rejected(error)),
            // An error of Stripe or of a proxy on the way: the outcome is unknown.
            _ => Err(ApiError::Unknown),
        }
    }

    fn request(&self, call: &ApiCall<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let form = encoded(call.form);
        let mut uri = format!("{}/v1/{}", self.base, call.path);
        let mut request = Request::builder()
            .method(&call.method)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(STRIPE_VERSION, VERSION)
            .header(USER_AGENT, concat!("mercat/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &call.key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if call.method == Method::GET {
            if !form.is_empty() {
                uri = format!("{uri}?{form}");
            }
            return request.uri(uri).body(Full::default());
        }
        request.uri(uri).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(Full::from(form))
    }
}

/// Encodes a form as `application/x-www-form-urlencoded`.
fn encoded(form: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in form {
        if !text.is_empty() {
            text.push('&');
        }
        encode(&mut text, name);
        text.push('=');
        encode(&mut text, value);
    }
    text
}

fn encode(text: &mut String, part: &str) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_encodes_reserved_characters() {
        let form = [("metadata[a]", "b&c=d e"), ("payment_method", "pm_1"), ("x", "\u{e9}")];
        assert_eq!(encoded(&form), "metadata%5Ba%5D=b%26c%3Dd%20e&payment_method=pm_1&x=%C3%A9");
    }
}
