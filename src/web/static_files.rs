//! The storefront and the back office: files that are part of the binary.
//!
//! Never enters: anything that is made per request. A page finds out by the interface who looks at it.

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

use super::problem::Problem;
use crate::types::hex;

/// The folder `static/`. A build without it serves the interface alone.
#[derive(RustEmbed)]
#[folder = "static/"]
#[allow_missing = true]
struct Assets;

/// What a page may load and where it may be shown. Scripts and styles come from the shop alone, so text that got
/// into a page as markup still runs nothing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; \
     connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Files smaller than this are sent as they are: gzip would not make them fewer packets.
const GZIP_MIN: usize = 1_024;

/// What a browser sees at a path that is none.
const NOT_FOUND_HTML: &str = "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Not found</title>\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
    <link rel=\"stylesheet\" href=\"/static/css/base.css\"></head>\n<body><main class=\"page\">\
    <h1>There is nothing here</h1><p><a href=\"/\">Go to the shop</a></p></main></body>\n</html>\n";

/// A file, ready to be sent.
struct Asset {
    content_type: &'static str,
    plain: Bytes,
    tag: String,
    /// Packed once, with its own tag, because it is another sequence of bytes.
    gzip: Option<(Bytes, String)>,
}

static FILES: LazyLock<HashMap<String, Asset>> = LazyLock::new(|| {
    let read = |path: std::borrow::Cow<'static, str>| {
        let file = <Assets as Embed>::get(&path)?;
        let plain = match file.data {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let hash = hex(&file.metadata.sha256_hash()[..12]);
        let (content_type, packable) = media_type(&path);
        let gzip = (packable && plain.len() >= GZIP_MIN).then(|| pack(&plain)).flatten();
        let gzip = gzip.map(|bytes| (bytes, format!("\"{hash}-gz\"")));
        Some((path.into_owned(), Asset { content_type, plain, tag: format!("\"{hash}\""), gzip }))
    };
    <Assets as Embed>::iter().filter_map(read).collect()
});

fn pack(plain: &[u8]) -> Option<Bytes> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(plain).ok()?;
    Some(packed.finish().ok()?.into())
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

/// Whether the caller has already what has this tag (`If-None-Match`, compared weakly as RFC 9110 wants it).
pub fn matches_tag(asks: &HeaderMap, tag: &str) -> bool {
    let lists = asks.get_all(header::IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(|one| one.trim().trim_start_matches("W/"));
    tags.any(|one| one == tag || one == "*")
}

/// The storefront: every path of it is the same page, which looks at the path itself.
pub async fn shop(request: HttpRequest) -> Result<HttpResponse, Problem> {
    page(&request, "index.html")
}

/// The back office.
pub async fn admin(request: HttpRequest) -> Result<HttpResponse, Problem> {
    page(&request, "admin.html")
}

/// GET `/static/...`.
pub async fn file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let path = request.match_info().query("path");
    // The pages have addresses of their own, with the headers that go with them.
    let file = FILES.get(path).filter(|_| !path.ends_with(".html")).ok_or_else(Problem::no_such_path)?;
    Ok(send(&request, file))
}

/// Whatever has no path of its own.
pub async fn missing(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/html") {
        return Err(Problem::no_such_path());
    }
    let mut answer = HttpResponse::build(StatusCode::NOT_FOUND);
    answer.insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"));
    let mut answer = answer.body(NOT_FOUND_HTML);
    guard(answer.headers_mut());
    Ok(answer)
}

fn page(request: &HttpRequest, name: &str) -> Result<HttpResponse, Problem> {
    let mut answer = send(request, FILES.get(name).ok_or_else(Problem::no_such_path)?);
    guard(answer.headers_mut());
    Ok(answer)
}

fn send(request: &HttpRequest, file: &Asset) -> HttpResponse {
    let packed = file.gzip.as_ref().filter(|_| takes_gzip(request.headers()));
    let (bytes, tag) = packed.map_or((&file.plain, &file.tag), |(bytes, tag)| (bytes, tag));
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::ETAG, tag.as_str()));
    // A new binary has new files under the same names: a browser asks each time, and mostly hears 304.
    answer.insert_header((header::CACHE_CONTROL, "no-cache"));
    if file.gzip.is_some() {
        answer.insert_header((header::VARY, "Accept-Encoding"));
    }
    if matches_tag(request.headers(), tag) {
        return answer.status(StatusCode::NOT_MODIFIED).finish();
    }
    if packed.is_some() {
        answer.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    answer.insert_header((header::CONTENT_TYPE, file.content_type));
    answer.body(bytes.clone())
}

fn takes_gzip(asks: &HeaderMap) -> bool {
    let lists = asks.get_all(header::ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// The headers that keep a page to itself.
fn guard(headers: &mut HeaderMap) {
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
    fn tags_and_codings_are_read_as_browsers_write_them() {
        let asks = |name: &'static str, value: &'static str| {
            TestRequest::default().append_header((name, value)).to_http_request().headers().clone()
        };
        for (value, same) in
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"ab\"", false)]
        {
            assert_eq!(matches_tag(&asks("if-none-match", value), "\"a\""), same, "{value}");
        }
        for (value, gzip) in [("gzip, br", true), ("br;q=1, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false)] {
            assert_eq!(takes_gzip(&asks("accept-encoding", value)), gzip, "{value}");
        }
    }
}
