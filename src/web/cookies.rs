//! The session cookie.

use std::time::Duration;

use actix_web::cookie::{Cookie, SameSite};

/// Name of the cookie that carries a browser's session token. With the prefix a browser accepts it over HTTPS only, and from
/// no other host of the domain (RFC 6265bis, section 4.1.3.2).
pub const fn session_cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-mercat_session" } else { "mercat_session" }
}

/// Session cookie with this token. `secure` restricts it to HTTPS.
pub fn session_cookie(token: String, max_age: Duration, secure: bool) -> Cookie<'static> {
    let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
    Cookie::build(session_cookie_name(secure), token)
        .http_only(true)
        .same_site(SameSite::Lax)
        .path("/")
        .secure(secure)
        .max_age(actix_web::cookie::time::Duration::seconds(seconds))
        .finish()
}

/// Cookie that makes a browser drop the session cookie.
pub fn removal_cookie(secure: bool) -> Cookie<'static> {
    session_cookie(String::new(), Duration::ZERO, secure)
}
