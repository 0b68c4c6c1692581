//! Authentication: the caller behind a presented token, for every transport.
//!
//! Contains: how a token is extracted from HTTP headers, and [`authenticate`], the only call of `users.Authenticate`
//! in the gateway. Does not contain: rights, which are decided at the message; the protection of cookies against
//! forged requests (`csrf`).

use actix_web::http::header::{self, HeaderMap};

use super::cookies::session_cookie_name;
use super::names::GATEWAY;
use crate::contract::users::{Authenticate, Authenticated, UsersError};
use crate::domains::users::UsersActor;
use crate::messaging::{Caller, Client, RequestContext};

/// Returns the account and the expiry behind a token: a session's or an API key's.
///
/// # Errors
/// [`UsersError::InvalidToken`] for a token that is unknown, expired or revoked; anything else when the users domain
/// does not answer.
pub async fn authenticate(
    users: &Client<UsersActor>,
    ctx: &RequestContext,
    token: &str,
) -> Result<Authenticated, UsersError> {
    // The panic that a test asks for may be meant for this call, so its name stays in the context.
    users.call(ctx.for_downstream_call(GATEWAY, None), Authenticate { token: token.to_owned() }).await
}

/// Makes `authenticated` the caller of `ctx`. The caller's network stays as it was found.
pub fn set_caller(ctx: &mut RequestContext, authenticated: &Authenticated) {
    let internal = match ctx.caller {
        Caller::Anyone { internal, .. } | Caller::User { internal, .. } => internal,
        Caller::Domain(_) => false,
    };
    ctx.caller = Caller::User { identity: authenticated.identity, internal };
}

/// Token in the value of an `Authorization` header (RFC 6750 §2.1).
///
/// # Errors
/// [`UsersError::InvalidToken`] for another scheme, an empty token and a value that is not ASCII.
pub fn bearer_token(value: &[u8]) -> Result<&str, UsersError> {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).and_then(bearer).ok_or(UsersError::InvalidToken)
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Tokens in the session cookies, taken literally: tokens contain no character that would have to be encoded. `secure` as
/// when the cookie was set. There are several when a cookie of the same name was set for another path or domain, in no
/// certain order (RFC 6265 §4.2.2). Other cookies may contain any bytes.
pub fn session_tokens(headers: &HeaderMap, secure: bool) -> impl Iterator<Item = &str> {
    let pairs = headers.get_all(header::COOKIE).flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    let texts = pairs.filter_map(|pair| std::str::from_utf8(pair).ok()?.trim().split_once('='));
    let cookie = session_cookie_name(secure);
    texts.filter(move |(name, token)| *name == cookie && !token.is_empty() && token.is_ascii()).map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn tokens(cookies: &[u8], secure: bool) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_bytes(cookies).unwrap());
        session_tokens(&headers, secure).map(str::to_owned).collect()
    }

    #[test]
    fn bearer_token_accepts_only_its_scheme() {
        assert_eq!(bearer_token(b"Bearer abc"), Ok("abc"));
        assert_eq!(bearer_token(b"bearer  abc "), Ok("abc"));
        for bad in [&b""[..], b"Bearer", b"Bearer ", b"Basic abc", b"abc", b"Bearer \xff"] {
            assert_eq!(bearer_token(bad), Err(UsersError::InvalidToken), "{bad:?}");
        }
    }

    #[test]
    fn session_tokens_are_those_of_their_cookie() {
        assert_eq!(tokens(b"a=b; mercat_session=t1; c=d", false), ["t1"]);
        assert_eq!(tokens(b"mercat_session=old;mercat_session=t1", false), ["old", "t1"]);
        assert_eq!(tokens("utm_campaign=Größe; mercat_session=t1".as_bytes(), false), ["t1"]);
        assert_eq!(tokens(b"a=\xff; mercat_session=t1; b=\xfe\x80", false), ["t1"]);
        for none in
            [&b"not_mercat_session=t1"[..], b"mercat_session=", b"mercat_session", b"mercat_session=\xc3\xa9", b""]
        {
            assert!(tokens(none, false).is_empty(), "{none:?}");
        }
        let planted = b"mercat_session=t1; __Host-mercat_session=t2";
        assert_eq!(tokens(planted, true), ["t2"], "another host of the domain cannot set this name");
    }
}
