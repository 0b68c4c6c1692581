//! Origin of the page that a request comes from: only the shop's own pages may open a live session or change anything.

use actix_web::HttpRequest;
use actix_web::http::header;

use crate::settings::Settings;

/// Origins whose pages may open a live session or change something.
///
/// A browser lets every page open a socket or submit a form to any host, sends the visitor's cookie along and names the page
/// in `Origin`, so the server has to reject foreign pages. A client that is no browser sends no `Origin` and is judged by
/// its token alone.
#[derive(Debug, Clone, Default)]
pub struct AllowedOrigins {
    /// Host and port of `public_url`.
    public: Option<String>,
    /// `http.cors_origins`.
    listed: Vec<String>,
}

impl AllowedOrigins {
    /// The origins that the settings name.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let public = settings.public_url.as_deref().and_then(authority).map(str::to_owned);
        Self { public, listed: settings.http.cors_origins.clone() }
    }

    /// Whether the requesting page is listed, or one of the shop's own: its host and port are those of the request, or those
    /// of `public_url`.
    #[must_use]
    pub fn allow(&self, request: &HttpRequest) -> bool {
        let mut origins = request.headers().get_all(header::ORIGIN);
        let Some(origin) = origins.next() else { return true };
        let (Ok(origin), None) = (origin.to_str(), origins.next()) else { return false };
        let Some(page) = authority(origin) else { return false };
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let is_own = [host, self.public.as_deref()].into_iter().flatten().any(|own| own.eq_ignore_ascii_case(page));
        is_own || self.is_listed(origin)
    }

    /// Whether another site's page makes the request, and the site is listed.
    #[must_use]
    pub fn lists(&self, request: &HttpRequest) -> bool {
        let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        origin.is_some_and(|origin| self.is_listed(origin))
    }

    fn is_listed(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    }
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

    fn origins() -> AllowedOrigins {
        AllowedOrigins { public: Some("public.example".to_owned()), listed: vec!["https://app.example".to_owned()] }
    }

    #[test]
    fn foreign_origins_are_not_allowed() {
        let cases = [
            (None, true),
            (Some("http://shop.example:8080"), true),
            (Some("https://SHOP.example:8080"), true),
            (Some("https://public.example"), true),
            (Some("https://app.example"), true),
            (Some("http://app.example"), false),
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
            let is_allowed = origins().allow(&request.to_http_request());
            assert_eq!(is_allowed, allowed, "{origin:?}");
        }
    }
}
