//! Origin of the page that a request comes from: only the shop's own pages may open a live session or change anything.

use actix_web::HttpRequest;
use actix_web::http::header;

/// Whether the requesting page is one of the shop's own. A browser lets every page open a socket or submit a form to any host, sends the
/// visitor's cookie along and names the page in `Origin`, so the server has to reject foreign pages. A client that is no
/// browser sends no `Origin` and is judged by its token alone.
///
/// A page is the shop's own if its host and port are those of the request, or those of `public_url`.
#[must_use]
pub fn origin_allowed(request: &HttpRequest, public_url: Option<&str>) -> bool {
    let mut origins = request.headers().get_all(header::ORIGIN);
    let Some(origin) = origins.next() else { return true };
    let (Ok(origin), None) = (origin.to_str(), origins.next()) else { return false };
    let Some(page) = authority(origin) else { return false };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    [host, public_url.and_then(authority)].into_iter().flatten().any(|own| own.eq_ignore_ascii_case(page))
}

/// Host and port of an http origin; `null` and other schemes have none.
fn authority(origin: &str) -> Option<&str> {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))?;
    let authority = rest.split('/').next().filter(|host| !host.is_empty())?;
    Some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn foreign_origins_are_not_allowed() {
        let cases = [
            (None, true),
            (Some("http://shop.example:8080"), true),
            (Some("https://SHOP.example:8080"), true),
            (Some("https://public.example"), true),
            (Some("https://evil.example"), false),
            (Some("http://shop.example"), false),
            (Some("http://shop.example:8080.evil.example"), false),
            (Some("null"), false),
            (Some("file://"), false),
            (Some("https://"), false),
        ];
        for (origin, allowed) in cases {
            let mut request = TestRequest::default().insert_header((header::HOST, "shop.example:8080"));
            if let Some(origin) = origin {
                request = request.insert_header((header::ORIGIN, origin));
            }
            let is_allowed = origin_allowed(&request.to_http_request(), Some("https://public.example"));
            assert_eq!(is_allowed, allowed, "{origin:?}");
        }
    }
}
