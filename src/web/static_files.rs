//! Storefront and back office: static files that are embedded in the binary.
//!
//! Does not contain: anything made per request; the pages themselves, which say something of the shop (`pages`).

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::LazyLock;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::{Embed, RustEmbed};
use sha2::{Digest, Sha256};

use super::etag;
use super::problem::Problem;
use super::rate_limit::WithinLimits;
use super::state::GatewayState;
use crate::types::hex;

/// Files of the folder `static/`. A build without it serves only the API.
#[derive(RustEmbed)]
#[folder = "static/"]
#[allow_missing = true]
struct Assets;

/// `Content-Security-Policy` of pages: scripts and styles only from the shop itself, so that markup injected into a page
/// runs nothing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Smallest file that is compressed, in bytes: a smaller one fits into one packet as it is.
const GZIP_BYTES_MIN: usize = 1_024;

/// A file, prepared for sending.
pub struct Asset {
    content_type: &'static str,
    plain: Bytes,
    tag: String,
    /// Compressed bytes with their own entity tag.
    gzip: Option<(Bytes, String)>,
}

impl Asset {
    /// Prepares a file.
    pub fn new(content_type: &'static str, is_compressible: bool, plain: Bytes) -> Self {
        let hash = hex(&Sha256::digest(&plain)[..12]);
        let gzip = (is_compressible && plain.len() >= GZIP_BYTES_MIN).then(|| compress(&plain)).flatten();
        let gzip = gzip.map(|bytes| (bytes, format!("\"{hash}-gz\"")));
        Self { content_type, plain, tag: format!("\"{hash}\""), gzip }
    }
}

/// The text of an embedded file.
pub fn embedded_text(path: &str) -> Option<String> {
    String::from_utf8(<Assets as Embed>::get(path)?.data.into_owned()).ok()
}

static FILES: LazyLock<HashMap<String, Asset>> = LazyLock::new(|| {
    let read = |path: std::borrow::Cow<'static, str>| {
        let file = <Assets as Embed>::get(&path)?;
        let plain = match file.data {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let (content_type, is_compressible) = media_type(&path);
        Some((path.into_owned(), Asset::new(content_type, is_compressible, plain)))
    };
    // Pages are rendered, and served only under their own paths, with their security headers.
    <Assets as Embed>::iter().filter(|path| !path.ends_with(".html")).filter_map(read).collect()
});

fn compress(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).ok()?;
    Some(encoder.finish().ok()?.into())
}

fn media_type(path: &str) -> (&'static str, bool) {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => ("text/html; charset=utf-8", true),
        "css" => ("text/css; charset=utf-8", true),
        "js" | "mjs" => ("text/javascript; charset=utf-8", true),
        "json" | "map" => ("application/json", true),
        "svg" => ("image/svg+xml", true),
        "txt" => ("text/plain; charset=utf-8", true),
        "webmanifest" => ("application/manifest+json", true),
        "ico" => ("image/x-icon", false),
        "png" => ("image/png", false),
        "jpg" | "jpeg" => ("image/jpeg", false),
        "webp" => ("image/webp", false),
        "woff2" => ("font/woff2", false),
        _ => ("application/octet-stream", false),
    }
}

/// GET a path of the storefront: all of them are one page, whose script reads the path.
pub async fn storefront(_: WithinLimits, request: HttpRequest) -> Result<HttpResponse, Problem> {
    page(&request, GatewayState::of(&request)?.pages.storefront.as_ref())
}

/// GET `/admin/...`: the back office.
pub async fn admin(_: WithinLimits, request: HttpRequest) -> Result<HttpResponse, Problem> {
    page(&request, GatewayState::of(&request)?.pages.admin.as_ref())
}

/// GET `/static/...`.
pub async fn file(_: WithinLimits, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let path = request.match_info().query("path");
    let file = FILES.get(path).ok_or_else(Problem::not_found)?;
    Ok(send(&request, file))
}

/// Responds to a path without a route: a page for browsers, a problem for other clients.
pub async fn not_found(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/html") {
        return Err(Problem::not_found());
    }
    let mut response = page(&request, GatewayState::of(&request)?.pages.storefront.as_ref())?;
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

fn page(request: &HttpRequest, page: Option<&Asset>) -> Result<HttpResponse, Problem> {
    let mut response = send(request, page.ok_or_else(Problem::not_found)?);
    set_security_headers(response.headers_mut());
    Ok(response)
}

fn send(request: &HttpRequest, file: &Asset) -> HttpResponse {
    let compressed = file.gzip.as_ref().filter(|_| accepts_gzip(request.headers()));
    let (bytes, tag) = compressed.map_or((&file.plain, &file.tag), |(bytes, tag)| (bytes, tag));
    let mut response = HttpResponse::Ok();
    response.insert_header((header::ETAG, tag.as_str()));
    // A new binary has new files under the same names, so browsers revalidate on each use.
    response.insert_header((header::CACHE_CONTROL, "no-cache"));
    if file.gzip.is_some() {
        response.insert_header((header::VARY, "Accept-Encoding"));
    }
    if etag::is_known(request.headers(), tag) {
        return response.status(StatusCode::NOT_MODIFIED).finish();
    }
    if compressed.is_some() {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    response.insert_header((header::CONTENT_TYPE, file.content_type));
    response.body(bytes.clone())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|encoding| {
        let (name, weight) = encoding.split_once(';').unwrap_or((encoding, ""));
        let is_refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// Sets the headers that isolate a page from other sites.
fn set_security_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn encoding_header_is_parsed() {
        let headers = |name: &'static str, value: &'static str| {
            TestRequest::default().append_header((name, value)).to_http_request().headers().clone()
        };
        for (value, gzip) in [("gzip, br", true), ("br;q=1, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false)] {
            assert_eq!(accepts_gzip(&headers("accept-encoding", value)), gzip, "{value}");
        }
    }
}
