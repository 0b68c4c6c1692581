//! `mercat health`: asks a running process whether it may get traffic, for the health checks of whatever runs it. It is
//! the program itself, because an image that holds nothing else has no other to ask with.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::open::why;
use super::{CliError, say};
use crate::settings::Settings;

/// How long the process may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;
const PATH: &str = "/readyz";

/// Asks at `url`, or where the settings say that the process listens. Fails with code 1 when it is not ready.
pub fn health(settings: &Settings, url: Option<&str>) -> Result<(), CliError> {
    let url = match url {
        Some(url) => read(url),
        None => of(settings),
    };
    let url = url.map_err(CliError::operation)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::operation(format!("cannot ask: {}", why(&error))))?;
    let asked = runtime.block_on(async { tokio::time::timeout(PROBE_TIMEOUT, ask(&url)).await });
    let wrong = match asked {
        Ok(Ok((StatusCode::OK, _))) => {
            say(&format!("ready: {url}"));
            return Ok(());
        }
        Ok(Ok((status, said))) => format!("answers {}{said}", status.as_u16()),
        Ok(Err(wrong)) => wrong,
        Err(_) => format!("does not answer within {} s", PROBE_TIMEOUT.as_secs()),
    };
    Err(CliError::operation(format!("not ready: {url} {wrong}")))
}

/// The address to ask at, from a flag.
fn read(url: &str) -> Result<Uri, String> {
    let wrong = || format!("--url {url} must be http://HOST:PORT of the process itself, not of what stands before it");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || url.contains('@') {
        return Err(wrong());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Ok(uri);
    }
    format!("{}{PATH}", url.trim_end_matches('/')).parse().map_err(|_| wrong())
}

/// Where a process with these settings can be asked on its own machine.
fn of(settings: &Settings) -> Result<Uri, String> {
    if !settings.gateway && !settings.listen_told {
        return Err(
            "with these settings a process answers no HTTP; set `listen` (MERCAT_LISTEN=ADDRESS:PORT), or say --url"
                .to_owned(),
        );
    }
    if settings.listen.port() == 0 {
        return Err("`listen` has port 0, so nobody knows the port; say --url http://HOST:PORT".to_owned());
    }
    let url = format!("http://{}{PATH}", settings.own_address());
    url.parse().map_err(|_| format!("{url} cannot be asked; say --url"))
}

/// What is answered, and what it says of itself when that is not well.
async fn ask(url: &Uri) -> Result<(StatusCode, String), String> {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let stream = stream.map_err(|error| format!("cannot be reached: {}", why(&error)))?;
    let broken = |_: hyper::Error| "does not answer as a shop does".to_owned();
    let (mut to, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _driven = tokio::spawn(connection);
    let path = url.path_and_query().map_or(PATH, |path| path.as_str());
    let request = Request::get(path).header(HOST, url.authority().map_or(host, |authority| authority.as_str()));
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| "cannot be asked".to_owned())?;
    let answer = to.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map(http_body_util::Collected::to_bytes);
    let problem: serde_json::Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let said = problem["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
    Ok((status, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_on_this_machine_whatever_address_the_shop_listens_at() {
        let mut settings = Settings::for_test(std::path::Path::new("data"));
        for (listen, url) in [
            ("0.0.0.0:8080", Ok("http://127.0.0.1:8080/readyz")),
            ("[::]:8080", Ok("http://[::1]:8080/readyz")),
            ("10.1.2.3:80", Ok("http://10.1.2.3:80/readyz")),
            ("127.0.0.1:0", Err(())),
        ] {
            settings.listen = listen.parse().unwrap();
            assert_eq!(of(&settings).map(|url| url.to_string()).map_err(drop), url.map(str::to_owned), "{listen}");
        }
        (settings.gateway, settings.listen) = (false, "127.0.0.1:8080".parse().unwrap());
        assert!(of(&settings).is_err(), "it answers no HTTP");
        settings.listen_told = true;
        assert!(of(&settings).is_ok());
    }

    #[test]
    fn an_address_may_name_another_path_and_must_be_one() {
        for (url, asked) in [
            ("http://127.0.0.1:1", Ok("http://127.0.0.1:1/readyz")),
            ("http://shop:8080/", Ok("http://shop:8080/readyz")),
            ("http://shop:8080/healthz", Ok("http://shop:8080/healthz")),
            ("https://shop", Err(())),
            ("shop:8080", Err(())),
            ("http://a:b@shop", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(read(url).map(|url| url.to_string()).map_err(drop), asked.map(str::to_owned), "{url}");
        }
    }
}
