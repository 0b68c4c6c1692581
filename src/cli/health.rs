//! `mercat health`: checks whether a running process is ready, for container health checks. Part of the program itself,
//! because its container image contains no other.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::open::reason_of;
use super::{CliError, print};
use crate::settings::Settings;

/// Timeout of the request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest response body that is read, in bytes.
const RESPONSE_MAX: usize = 64 * 1024;
const PATH: &str = "/readyz";

/// Sends the request to `url`, or to the configured listen address.
///
/// # Errors
/// With code 1 if the process is not ready.
pub fn health(settings: &Settings, url: Option<&str>) -> Result<(), CliError> {
    let url = match url {
        Some(url) => parse_url(url),
        None => own_url(settings),
    };
    let url = url.map_err(CliError::operation)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::operation(format!("the request cannot be sent: {}", reason_of(&error))))?;
    let response = runtime.block_on(async { tokio::time::timeout(PROBE_TIMEOUT, request(&url)).await });
    let error = match response {
        Ok(Ok((StatusCode::OK, _))) => {
            print(&format!("ready: {url}"));
            return Ok(());
        }
        Ok(Ok((status, detail))) => format!("responds {}{detail}", status.as_u16()),
        Ok(Err(error)) => error,
        Err(_) => format!("does not respond within {} s", PROBE_TIMEOUT.as_secs()),
    };
    Err(CliError::operation(format!("not ready: {url} {error}")))
}

/// Parses the flag --url.
fn parse_url(url: &str) -> Result<Uri, String> {
    let invalid = || format!("--url {url} must be http://HOST:PORT of the process itself, not of a proxy before it");
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || url.contains('@') {
        return Err(invalid());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Ok(uri);
    }
    format!("{}{PATH}", url.trim_end_matches('/')).parse().map_err(|_| invalid())
}

/// Returns the URL of a process with these settings on its own machine.
fn own_url(settings: &Settings) -> Result<Uri, String> {
    if !settings.gateway && !settings.listen_is_explicit {
        return Err(
            "a process with these settings serves no HTTP; set `listen` (MERCAT_LISTEN=ADDRESS:PORT), or use --url"
                .to_owned(),
        );
    }
    if settings.listen.port() == 0 {
        return Err("`listen` has port 0, so the port is unknown; use --url http://HOST:PORT".to_owned());
    }
    let url = format!("http://{}{PATH}", settings.own_address());
    url.parse().map_err(|_| format!("{url} is not a valid URL; use --url"))
}

/// Sends the request; returns the status and the detail of a problem document.
async fn request(url: &Uri) -> Result<(StatusCode, String), String> {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let stream = stream.map_err(|error| format!("is not reachable: {}", reason_of(&error)))?;
    let broken = |_: hyper::Error| "does not respond like a shop".to_owned();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _connection = tokio::spawn(connection);
    let path = url.path_and_query().map_or(PATH, |path| path.as_str());
    let request = Request::get(path).header(HOST, url.authority().map_or(host, |authority| authority.as_str()));
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| "is not a valid URL".to_owned())?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), RESPONSE_MAX).collect().await.map(http_body_util::Collected::to_bytes);
    let problem: serde_json::Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let detail = problem["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
    Ok((status, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_url_uses_loopback_for_unspecified_address() {
        let mut settings = Settings::for_test(std::path::Path::new("data"));
        for (listen, url) in [
            ("0.0.0.0:8080", Ok("http://127.0.0.1:8080/readyz")),
            ("[::]:8080", Ok("http://[::1]:8080/readyz")),
            ("10.1.2.3:80", Ok("http://10.1.2.3:80/readyz")),
            ("127.0.0.1:0", Err(())),
        ] {
            settings.listen = listen.parse().unwrap();
            assert_eq!(own_url(&settings).map(|url| url.to_string()).map_err(drop), url.map(str::to_owned), "{listen}");
        }
        (settings.gateway, settings.listen) = (false, "127.0.0.1:8080".parse().unwrap());
        assert!(own_url(&settings).is_err(), "it serves no HTTP");
        settings.listen_is_explicit = true;
        assert!(own_url(&settings).is_ok());
    }

    #[test]
    fn url_keeps_its_path_and_must_be_http() {
        for (url, requested) in [
            ("http://127.0.0.1:1", Ok("http://127.0.0.1:1/readyz")),
            ("http://shop:8080/", Ok("http://shop:8080/readyz")),
            ("http://shop:8080/healthz", Ok("http://shop:8080/healthz")),
            ("https://shop", Err(())),
            ("shop:8080", Err(())),
            ("http://a:b@shop", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(parse_url(url).map(|url| url.to_string()).map_err(drop), requested.map(str::to_owned), "{url}");
        }
    }
}
