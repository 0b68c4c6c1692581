//! Reads files from addresses that a file or a user names.
//!
//! Contains: the rule for such addresses. A name is resolved once, and a connection goes only to a public address, so that
//! a file cannot make the shop read what only this machine or its network may. Each redirect is such an address again. Does not contain:
//! calls to addresses of the settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{LOCATION, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tower_service::Service;

/// Time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of reading a file, redirects included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of redirects.
const REDIRECTS_MAX: usize = 3;

/// Reason for which a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Neither `http` nor `https`.
    #[error("is not an address that begins with http:// or https://")]
    NotHttp,
    /// An address of this machine or of a private network.
    #[error("leads to an address that is not public")]
    NotPublic,
    /// Another status than 200.
    #[error("answers with status {0}")]
    Status(u16),
    /// More redirects than are followed.
    #[error("is redirected more than {REDIRECTS_MAX} times")]
    Redirects,
    /// Larger than allowed.
    #[error("is larger than {0} bytes")]
    TooLarge(usize),
    /// No answer in time.
    #[error("does not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// No connection, or it was cut.
    #[error("cannot be read")]
    Failed,
}

/// Reader of files from the network.
pub struct OutgoingHttp {
    http: Client<HttpsConnector<HttpConnector<PublicResolver>>, Empty<Bytes>>,
    private_allowed: bool,
}

impl OutgoingHttp {
    /// Makes a reader; `private_allowed` lifts the restriction to public addresses.
    ///
    /// # Errors
    /// TLS is not available.
    pub fn new(private_allowed: bool) -> Result<Self, &'static str> {
        let mut tcp = HttpConnector::new_with_resolver(PublicResolver { private_allowed });
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Chosen explicitly, because another library may have installed another default for the process.
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|_| "TLS is not available")?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(https);
        Ok(Self { http, private_allowed })
    }

    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// See [`FetchError`]; none tells what an address that is not public answered.
    pub async fn get(&self, address: &str, max: usize) -> Result<Vec<u8>, FetchError> {
        tokio::time::timeout(TIMEOUT, self.follow(address, max)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn follow(&self, address: &str, max: usize) -> Result<Vec<u8>, FetchError> {
        let mut uri: Uri = address.trim().parse().map_err(|_| FetchError::NotHttp)?;
        for _ in 0..=REDIRECTS_MAX {
            self.check(&uri)?;
            let request = Request::get(&uri)
                .header(USER_AGENT, concat!("mercat/", env!("CARGO_PKG_VERSION")))
                .body(Empty::new())
                .map_err(|_| FetchError::NotHttp)?;
            let response = self.http.request(request).await.map_err(|error| failure(&error))?;
            let status = response.status();
            if status.is_redirection() {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                uri = location.and_then(|to| redirected(&uri, to)).ok_or(FetchError::Status(status.as_u16()))?;
                continue;
            }
            if status != hyper::StatusCode::OK {
                return Err(FetchError::Status(status.as_u16()));
            }
            let body = Limited::new(response.into_body(), max).collect().await;
            return body.map(|body| body.to_bytes().to_vec()).map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    FetchError::TooLarge(max)
                } else {
                    FetchError::Failed
                }
            });
        }
        Err(FetchError::Redirects)
    }

    /// Checks the scheme, and an address that is written as a number, which no resolver sees.
    fn check(&self, uri: &Uri) -> Result<(), FetchError> {
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(FetchError::NotHttp);
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if !self.private_allowed && !is_public(address) => Err(FetchError::NotPublic),
            _ => Ok(()),
        }
    }
}

/// The reason of a failed request: the refusal of the resolver is somewhere among its causes.
fn failure(error: &(dyn std::error::Error + 'static)) -> FetchError {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    let refused = causes.into_iter().any(|cause| cause.to_string().contains(NOT_PUBLIC));
    if refused { FetchError::NotPublic } else { FetchError::Failed }
}

/// The address that a redirect leads to; none if it cannot be read.
fn redirected(from: &Uri, to: &str) -> Option<Uri> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return to.parse().ok();
    }
    let path = to.starts_with('/') && !to.starts_with("//");
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    path.then(|| format!("{scheme}://{authority}{to}").parse().ok()).flatten()
}

/// Text of the resolver's refusal.
const NOT_PUBLIC: &str = "no public address";

/// Resolver that leaves out addresses which are not public.
#[derive(Clone)]
struct PublicResolver {
    private_allowed: bool,
}

impl Service<Name> for PublicResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let private_allowed = self.private_allowed;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|at| private_allowed || is_public(at.ip())).collect();
            if allowed.is_empty() {
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, NOT_PUBLIC));
            }
            Ok(allowed.into_iter())
        })
    }
}

/// Whether an address is one of the public internet (IANA special-purpose address registries, RFC 6890). An IPv6 address
/// that stands for an IPv4 address is as public as that.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!((a, b, c), (0 | 240..=255, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _));
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            embedded(high, low)
        }
        // Documentation, Teredo and other protocols.
        [0x2001, 0xdb8 | 0..=0x1ff, ..] => false,
        // Global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_addresses_are_public() {
        let public = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        let special = [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::7f00:1",
        ];
        for address in special {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[actix::test]
    async fn s05_addresses_that_are_not_public_are_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let outgoing = OutgoingHttp::new(false).unwrap();
        for address in [
            format!("http://127.0.0.1:{port}/"),
            format!("http://localhost:{port}/"),
            format!("http://[::1]:{port}/"),
            format!("http://[::ffff:127.0.0.1]:{port}/"),
        ] {
            assert_eq!(outgoing.get(&address, 100).await, Err(FetchError::NotPublic), "{address}");
        }
        for address in ["ftp://x/", "file:///etc/passwd", "/relative", "nonsense"] {
            assert_eq!(outgoing.get(address, 100).await, Err(FetchError::NotHttp), "{address}");
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nothing was connected");
    }
}
