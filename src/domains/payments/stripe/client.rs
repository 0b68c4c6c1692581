//! The way to Stripe's HTTP interface: one request, its time limit, its repetitions, and how sure one can be of what
//! became of it. Never enters: what an answer means for a payment.
//!
//! hyper with rustls, because both are in the tree for other reasons; a client with more comfort would bring a dozen
//! crates for it. Nothing that Stripe says in words goes to the log: its sentences repeat keys and tokens.

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

/// The version of the interface that this is written against. An account's own default may be any.
const VERSION: HeaderValue = HeaderValue::from_static("2024-06-20");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept; Stripe itself closes them after about a minute.
const IDLE: Duration = Duration::from_secs(50);
/// How many idle connections are kept.
const IDLE_MAX: usize = 16;
/// How often a request that was certainly not heard is made again, and the first pause between.
const AGAIN: u32 = 2;
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes of an answer. A page of a hundred refunds has about 100,000.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Stripe's interface, for one account.
pub struct Api {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ApiError {
    /// Stripe says no. Done is what an answer of this kind says, mostly nothing.
    Refused(StripeError),
    /// It was certainly not heard.
    NotHeard,
    /// Nobody knows.
    Unknown,
}

/// Stripe's no.
#[derive(Debug, Deserialize)]
pub struct StripeError {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// Of which kind, as `card_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What is wrong, as `card_declined`.
    #[serde(default)]
    pub code: Option<String>,
    /// Why the bank said no.
    #[serde(default)]
    pub decline_code: Option<String>,
    /// Selection parameter is wrong.
    #[serde(default)]
    pub param: Option<String>,
}

#[derive(Deserialize)]
struct SendError {
    error: StripeError,
}

/// One request.
pub struct ApiCall<'a> {
    pub method: Method,
    /// Below `/v1/`, its ids checked to be such.
    pub path: String,
    pub form: &'a [(&'a str, &'a str)],
    /// Our name for it, so that a repetition is none.
    pub key: Option<String>,
    pub patience: Duration,
}

impl Api {
    /// The interface at `base` for the account with this key; or which of the two cannot be used.
    pub fn new(base: &str, key: &str) -> Result<Self, &'static str> {
        let wrong = "cannot be sent in a header";
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| wrong)?;
        authorization.set_sensitive(true);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Said here and not taken from the process, where another library may have set another one.
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|_| "cannot be used: TLS is not available")?;
        let https = if base.starts_with("https://") { https.https_only() } else { https.https_or_http() };
        let https = https.enable_http1().wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(https);
        Ok(Self { http, base: base.to_owned(), authorization })
    }

    /// Asks, within the patience of `ask`.
    pub async fn ask<T: DeserializeOwned>(&self, ask: ApiCall<'_>) -> Result<T, ApiError> {
        tokio::time::timeout(ask.patience, self.insist(&ask)).await.unwrap_or_else(|_| {
            log::warn!("payments: Stripe did not answer {} in time", ask.path);
            Err(ApiError::Unknown)
        })
    }

    /// Asks again when it was not heard, or when another request under its key has not ended.
    async fn insist<T: DeserializeOwned>(&self, ask: &ApiCall<'_>) -> Result<T, ApiError> {
        let mut busy = false;
        for turn in 0.. {
            let trouble = match self.once(ask).await {
                Err(ApiError::Refused(refusal)) if refusal.status == StatusCode::CONFLICT.as_u16() => {
                    busy = true;
                    ApiError::Unknown
                }
                Err(ApiError::NotHeard) if busy => ApiError::Unknown,
                Err(ApiError::NotHeard) => ApiError::NotHeard,
                other => return other,
            };
            if turn >= AGAIN {
                return Err(trouble);
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(turn)).await;
        }
        Err(ApiError::Unknown)
    }

    async fn once<T: DeserializeOwned>(&self, ask: &ApiCall<'_>) -> Result<T, ApiError> {
        let request = self.request(ask).map_err(|error| {
            log::error!("payments: {} cannot be asked of Stripe: {error}", ask.path);
            ApiError::NotHeard
        })?;
        let answer = self.http.request(request).await.map_err(|error| {
            log::warn!("payments: Stripe cannot be reached for {}: {error}", ask.path);
            if error.is_connect() { ApiError::NotHeard } else { ApiError::Unknown }
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(|error| {
            log::warn!("payments: Stripe's answer to {} broke off: {error}", ask.path);
            ApiError::Unknown
        })?;
        let (status, body) = (head.status, body.to_bytes());
        let id = head.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-");
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                log::error!("payments: Stripe's answer to {} is not understood ({id}): {error}", ask.path);
                ApiError::Unknown
            });
        }
        let refusal =
            serde_json::from_slice(&body).map(|SendError { error }| StripeError { status: status.as_u16(), ..error });
        let (kind, code) = match &refusal {
            Ok(refusal) => (refusal.kind.as_str(), refusal.code.as_deref().unwrap_or("-")),
            Err(_) => ("not of Stripe's form", "-"),
        };
        log::warn!("payments: Stripe answered {} with {}, {kind}, {code} ({id})", ask.path, status.as_u16());
        match (status, refusal) {
            // Too many at once, or the object is locked by another request: turned away at the door.
            (StatusCode::TOO_MANY_REQUESTS, _) => Err(ApiError::NotHeard),
            // The key is known for another request, so that one may have done anything.
            (_, Ok(refusal)) if refusal.kind == "idempotency_error" => Err(ApiError::Unknown),
            (status, Ok(refusal)) if status.is_client_error() => Err(ApiError::Refused(refusal)),
            // Its own fault, or somebody's between us: what was done is not said.
            _ => Err(ApiError::Unknown),
        }
    }

    fn request(&self, ask: &ApiCall<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let form = encoded(ask.form);
        let mut uri = format!("{}/v1/{}", self.base, ask.path);
        let mut request = Request::builder()
            .method(&ask.method)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(STRIPE_VERSION, VERSION)
            .header(USER_AGENT, concat!("mercat/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &ask.key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if ask.method == Method::GET {
            if !form.is_empty() {
                uri = format!("{uri}?{form}");
            }
            return request.uri(uri).body(Full::default());
        }
        request.uri(uri).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(Full::from(form))
    }
}

/// A form as `application/x-www-form-urlencoded`.
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
    fn a_form_carries_anything() {
        let form = [("metadata[a]", "b&c=d e"), ("payment_method", "pm_1"), ("x", "\u{e9}")];
        assert_eq!(encoded(&form), "metadata%5Ba%5D=b%26c%3Dd%20e&payment_method=pm_1&x=%C3%A9");
    }
}
