//! Network address of a caller, and whether it is one of the shop's internal networks.
//!
//! Invariant: an address that a caller wrote itself is never believed, and a request through an undeclared proxy is
//! never internal.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;

use crate::messaging::Caller;
use crate::settings::Settings;

/// Header in which proxies list the addresses that a request came through.
pub const FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static(FORWARDED_FOR);

/// Origin of a request.
pub struct ClientAddress {
    /// Address in text form, or `unknown`. Limits are counted by it.
    pub text: Arc<str>,
    /// Whether it belongs to `stats.internal_networks`.
    pub is_internal: bool,
}

impl ClientAddress {
    /// Derives the address from the connection's peer and the last `X-Forwarded-For` header, if there was one: its
    /// last entry is that of the declared proxy, and those before it are the caller's claims.
    pub fn new(peer: Option<IpAddr>, forwarded: Option<&[u8]>, settings: &Settings) -> Self {
        let trust_proxy = settings.http.trust_proxy;
        let address = match (forwarded, trust_proxy) {
            (Some(list), true) => std::str::from_utf8(list).ok().and_then(last_address),
            (_, _) => peer.map(|address| address.to_canonical()),
        };
        // An undeclared proxy hides the caller's origin, however near the proxy itself is.
        let hidden = forwarded.is_some() && !trust_proxy;
        match address {
            Some(address) => {
                Self { text: address.to_string().into(), is_internal: !hidden && settings.stats.is_internal(address) }
            }
            None => Self { text: "unknown".into(), is_internal: false },
        }
    }

    /// Address of an HTTP request.
    pub fn of(request: &HttpRequest, settings: &Settings) -> Self {
        let peer = request.peer_addr().map(|address| address.ip());
        let forwarded = request.headers().get_all(X_FORWARDED_FOR).next_back();
        Self::new(peer, forwarded.map(|value| value.as_bytes()), settings)
    }

    /// The caller as long as no token is presented.
    pub fn into_anonymous_caller(self) -> Caller {
        Caller::Anyone { address: self.text, internal: self.is_internal }
    }
}

fn last_address(list: &str) -> Option<IpAddr> {
    let last = list.rsplit(',').next()?.trim();
    let address = last.parse::<IpAddr>().ok().or_else(|| last.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_for_uses_the_proxys_own_entry() {
        for (list, address) in [
            ("10.0.0.1, 203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9:4711", Some("203.0.113.9")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(last_address(list).map(|a| a.to_string()).as_deref(), address, "{list}");
        }
    }
}
