//! Protection against cross-site request forgery: a mutating request by cookie must come from the shop's own pages.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};

use super::origin::AllowedOrigins;
use super::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Whether a method changes something.
pub fn is_mutating(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a page of the shop itself made the request. Another site's page can make a browser send the shop's cookie
/// along, but none of these headers.
pub fn is_same_origin(request: &HttpRequest, origins: &AllowedOrigins) -> bool {
    let headers = request.headers();
    let site = headers.get(SEC_FETCH_SITE).map(|value| value.as_bytes());
    // Another origin needs a permission (CORS) to set `X-Requested-With`, and only listed ones get it.
    matches!(site, Some(b"same-origin" | b"none"))
        || headers.contains_key(X_REQUESTED_WITH)
        || (headers.contains_key(header::ORIGIN) && origins.allow(request))
}

/// Whether a page of another origin made the request: no such page may change anything, with the shop's cookie or without
/// one. A form on a foreign page could otherwise replace a visitor's session by that of a new guest. Programs send none
/// of these headers.
pub fn is_foreign_origin(request: &HttpRequest, origins: &AllowedOrigins) -> bool {
    // Browsers set it themselves, and no page can change it (https://www.w3.org/TR/fetch-metadata/).
    match request.headers().get(SEC_FETCH_SITE).map(|value| value.as_bytes()) {
        Some(b"same-origin" | b"none") => false,
        Some(_) => !origins.lists(request),
        None => !origins.allow(request),
    }
}

/// Problem of a mutating request that a page of another origin made.
pub fn foreign_origin() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "csrf_refused",
        "a page of another origin cannot change anything here; send the request from the shop's own pages or from a program",
    )
}

/// Problem of a mutating request by cookie without a sign of its origin.
pub fn csrf_refused() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "csrf_refused",
        "a change made by cookie must come from the shop's own pages: send `X-Requested-With: mercat`, or an `Origin` \
         that is this host, or use a bearer token",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn origins() -> AllowedOrigins {
        let mut settings = crate::settings::Settings::for_test(std::path::Path::new("/nowhere"));
        settings.public_url = Some("https://public.example".to_owned());
        settings.http.cors_origins = vec!["https://app.example".to_owned()];
        AllowedOrigins::of(&settings)
    }

    #[test]
    fn fetch_metadata_outweighs_origin() {
        let foreign = ("origin", "https://evil.example");
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[], false),
            (&[("sec-fetch-site", "same-origin"), foreign], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], false),
            (&[foreign], true),
            (&[("origin", "https://public.example")], false),
        ];
        for (pairs, is_foreign) in cases {
            let request = pairs.iter().fold(TestRequest::default(), |request, pair| request.append_header(*pair));
            let request = request.to_http_request();
            assert_eq!(is_foreign_origin(&request, &origins()), *is_foreign, "{pairs:?}");
        }
    }

    #[test]
    fn cookie_write_needs_a_same_origin_header() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("x-requested-with", "mercat")], true),
            (&[("origin", "https://shop.example"), ("host", "shop.example")], true),
            (&[("origin", "https://shop.example:444"), ("host", "shop.example")], false),
            (&[("origin", "https://public.example"), ("host", "shop.example")], true),
            (&[("origin", "https://evil.example"), ("host", "shop.example")], false),
            (&[("origin", "null"), ("host", "shop.example")], false),
        ];
        for (pairs, same) in cases {
            let request = pairs.iter().fold(TestRequest::default(), |request, pair| request.append_header(*pair));
            let request = request.to_http_request();
            assert_eq!(is_same_origin(&request, &origins()), *same, "{pairs:?}");
        }
    }
}
