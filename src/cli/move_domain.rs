//! `mercat move`: asks the running shop to move one of its domains.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::admin::{ask, password};
use super::config::Configuration;
use super::{CliError, say};
use crate::settings::Settings;

/// How long the shop may take: a large database is copied while everybody waits.
const MOVE_TIMEOUT: Duration = Duration::from_secs(630);
/// Bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;

/// What was asked.
pub struct MoveArgs {
    /// Selection domain.
    pub domain: String,
    /// Where to.
    pub to: String,
    /// Who asks.
    pub email: String,
    /// Whom.
    pub shop: Option<String>,
}

/// Asks the running shop, and says what came of it.
pub fn move_domain(configuration: &Configuration, settings: &Settings, asked: MoveArgs) -> Result<(), CliError> {
    let password = password(configuration, ask)?;
    let shop = asked.shop.unwrap_or_else(|| format!("http://{}", settings.own_address()));
    let shop = shop.trim_end_matches('/');
    actix::System::new().block_on(async {
        let sign_in = json!({ "email": asked.email, "password": password });
        let signed_in = post(&format!("{shop}/api/v1/signin"), None, &sign_in).await?;
        let token = signed_in["token"].as_str().unwrap_or_default().to_owned();
        let path = format!("{shop}/api/v1/domains/{}/move", asked.domain);
        let moved = post(&path, Some(&token), &json!({ "to": asked.to })).await;
        // What was made for this one question is not left behind.
        let _ = post(&format!("{shop}/api/v1/signout"), Some(&token), &Value::Null).await;
        let moved = moved?;
        let number = |name: &str| moved[name].as_u64().unwrap_or_default();
        say(&format!(
            "{} is at {} now; {} bytes were carried over, and who asked waited {} ms",
            asked.domain,
            moved["place"].as_str().unwrap_or(&asked.to),
            number("bytes"),
            number("paused_ms")
        ));
        Ok(())
    })
}

async fn post(url: &str, token: Option<&str>, body: &Value) -> Result<Value, CliError> {
    let cannot = |why: String| CliError::operation(format!("{url} cannot be asked: {why}"));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| cannot(error.to_string()))?
        .https_or_http()
        .enable_http1()
        .build();
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let mut request = Request::post(url).header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| cannot(error.to_string()))?;
    let asked = async {
        let answer = Client::builder(TokioExecutor::new()).build(https).request(request).await;
        let answer = answer.map_err(|error| cannot(innermost(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| cannot(error.to_string()))?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let detail = answer["detail"].as_str().map_or_else(|| format!("it answered {status}"), str::to_owned);
        Err(CliError::operation(detail))
    };
    tokio::time::timeout(MOVE_TIMEOUT, asked).await.unwrap_or_else(|_| Err(cannot("no answer in time".to_owned())))
}

/// What went wrong, without who noticed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}
