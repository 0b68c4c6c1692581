//! `mercat move`: sends the order to the running shop.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::admin::{password, prompt_once};
use super::config::Configuration;
use super::{CliError, print};
use crate::app::MovePermit;
use crate::settings::Settings;

/// Timeout of a move, during which a large database may be copied.
const MOVE_TIMEOUT: Duration = Duration::from_secs(630);
/// Largest response body that is read, in bytes.
const RESPONSE_MAX: usize = 1 << 20;

/// Arguments of the command.
pub struct MoveArgs {
    /// Name of the domain.
    pub domain: String,
    /// Destination: `local`, or the gRPC address of the other process.
    pub to: String,
    /// E-mail address of the administrator.
    pub email: String,
    /// HTTP address of the running shop; by default that of the settings.
    pub shop: Option<String>,
}

/// Sends the order and prints the result.
pub fn move_domain(configuration: &Configuration, settings: &Settings, args: MoveArgs) -> Result<(), CliError> {
    let password = password(configuration, prompt_once)?;
    let shop = args.shop.unwrap_or_else(|| format!("http://{}", settings.own_address()));
    let shop = shop.trim_end_matches('/');
    // Without access to the shop's folder, the shop accepts the addresses that its settings name.
    let permit = MovePermit::issue(&settings.data).ok();
    let order = json!({ "to": args.to, "permit": permit.as_ref().map(MovePermit::text) });
    actix::System::new().block_on(async {
        let sign_in = json!({ "email": args.email, "password": password });
        let signed_in = post(&format!("{shop}/api/v1/signin"), None, &sign_in).await?;
        let token = signed_in["token"].as_str().unwrap_or_default().to_owned();
        let path = format!("{shop}/api/v1/domains/{}/move", args.domain);
        let moved = post(&path, Some(&token), &order).await;
        // The session was opened for this order only.
        let _ = post(&format!("{shop}/api/v1/signout"), Some(&token), &Value::Null).await;
        let moved = moved?;
        let number = |name: &str| moved[name].as_u64().unwrap_or_default();
        print(&format!(
            "{} moved to {}: {} bytes transferred, calls waited up to {} ms",
            args.domain,
            moved["place"].as_str().unwrap_or(&args.to),
            number("bytes"),
            number("paused_ms")
        ));
        Ok(())
    })
}

async fn post(url: &str, token: Option<&str>, body: &Value) -> Result<Value, CliError> {
    let failed = |error: String| CliError::operation(format!("request to {url} failed: {error}"));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| failed(error.to_string()))?
        .https_or_http()
        .enable_http1()
        .build();
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let mut request = Request::post(url).header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| failed(error.to_string()))?;
    let response = async {
        let response = Client::builder(TokioExecutor::new()).build(https).request(request).await;
        let response = response.map_err(|error| failed(innermost(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), RESPONSE_MAX).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let detail = body["detail"].as_str().map_or_else(|| format!("{url} responded {status}"), str::to_owned);
        Err(CliError::operation(detail))
    };
    tokio::time::timeout(MOVE_TIMEOUT, response).await.unwrap_or_else(|_| Err(failed("no response in time".to_owned())))
}

/// Returns the innermost cause of an error, without the error number.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}
