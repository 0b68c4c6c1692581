//! Network address of a caller, and whether it is one of the shop's internal networks.
//!
//! Invariant: an address that a caller wrote itself is never believed, and a request through a proxy that is not listed in
//! `http.trusted_proxies` is never internal.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use actix_web::HttpRequest;

use crate::messaging::Caller;
use crate::settings::Settings;
use crate::types::ClientNetwork;

/// Headers in which proxies list the addresses that a request came through, oldest first: the standard one (RFC 7239),
/// and the one that most proxies set.
pub const FORWARDED: &str = "forwarded";
/// See [`FORWARDED`].
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Origin of a request.
pub struct ClientAddress {
    /// Address in text form, or `unknown`. Limits are counted by it.
    pub text: Arc<str>,
    /// The same as a number; none if it is unknown.
    ip: Option<IpAddr>,
    /// Whether a proxy that is not listed names other addresses: it may stand for many clients.
    pub is_hidden: bool,
    /// Whether it belongs to `stats.internal_networks`.
    pub is_internal: bool,
}

impl ClientAddress {
    /// Derives the address from the connection's peer and the values of the two headers.
    pub fn new<'a>(
        peer: Option<IpAddr>,
        forwarded: impl IntoIterator<Item = &'a [u8]>,
        x_forwarded_for: impl IntoIterator<Item = &'a [u8]>,
        settings: &Settings,
    ) -> Self {
        let chains = [hops(forwarded, parse_forwarded), hops(x_forwarded_for, parse_address)];
        let peer = peer.map(|address| address.to_canonical());
        let mut chains = chains.into_iter().filter(|chain| !chain.is_empty());
        let is_trusted =
            |address: IpAddr| settings.http.trusted_proxies.iter().any(|proxies| proxies.contains(&address));
        let (address, is_hidden) = match (chains.next(), peer) {
            (None, _) => (peer, false),
            (Some(chain), Some(proxy)) if is_trusted(proxy) => {
                let client = client_of(&chain, is_trusted);
                // The proxy sets one of the headers, so the caller may have written the other.
                let is_ambiguous = chains.next().is_some_and(|other| client_of(&other, is_trusted) != client);
                (client.filter(|_| !is_ambiguous), false)
            }
            // A proxy that is not listed hides the caller's origin, however near the proxy itself is.
            (Some(_), _) => (peer, true),
        };
        match address {
            Some(address) => Self {
                text: address.to_string().into(),
                ip: Some(address),
                is_hidden,
                is_internal: !is_hidden && settings.stats.is_internal(address),
            },
            None => Self { text: "unknown".into(), ip: None, is_hidden, is_internal: false },
        }
    }

    /// Address of an HTTP request.
    pub fn of(request: &HttpRequest, settings: &Settings) -> Self {
        let peer = request.peer_addr().map(|address| address.ip());
        let values = |name| request.headers().get_all(name).map(|value| value.as_bytes());
        Self::new(peer, values(FORWARDED), values(X_FORWARDED_FOR), settings)
    }

    /// Network of the address; all of unknown origin are one.
    pub fn network(&self) -> ClientNetwork {
        self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).into()
    }

    /// The caller as long as no token is presented.
    pub fn into_anonymous_caller(self) -> Caller {
        Caller::Anyone { address: self.text, internal: self.is_internal }
    }
}

/// Addresses in the values of a header, oldest first; `None` for an entry that is no address.
fn hops<'a>(values: impl IntoIterator<Item = &'a [u8]>, parse: fn(&str) -> Option<IpAddr>) -> Vec<Option<IpAddr>> {
    let entries = values.into_iter().flat_map(|value| value.split(|byte| *byte == b','));
    entries.map(|entry| std::str::from_utf8(entry).ok().and_then(|entry| parse(entry.trim()))).collect()
}

/// The newest hop that is not a trusted proxy: all before it are claims of that hop. The oldest if all are trusted.
fn client_of(chain: &[Option<IpAddr>], is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let client = chain.iter().rev().find(|hop| !hop.is_some_and(&is_trusted));
    client.or(chain.first()).copied().flatten()
}

/// An address with or without a port, an IPv6 address with a port in brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

/// The parameter `for` of one element of `Forwarded` (RFC 7239 §4).
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    parse_address(node.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: &str, forwarded: &[&str], x_forwarded_for: &[&str], proxies: &[&str]) -> (String, bool) {
        let mut settings = Settings::for_test(std::path::Path::new("."));
        settings.http.trusted_proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
        settings.stats.internal_networks = vec!["10.0.0.0/8".parse().unwrap()];
        let peer = Some(peer.parse().unwrap());
        let forwarded = forwarded.iter().map(|value| value.as_bytes());
        let x_forwarded_for = x_forwarded_for.iter().map(|value| value.as_bytes());
        let address = ClientAddress::new(peer, forwarded, x_forwarded_for, &settings);
        (address.text.to_string(), address.is_internal)
    }

    #[test]
    fn s08_newest_untrusted_hop_is_the_client() {
        let proxies = &["10.0.0.1/32", "10.0.0.2/32"];
        for (list, client, is_internal) in [
            (&["203.0.113.9"][..], "203.0.113.9", false),
            (&["10.9.9.9, 203.0.113.9"], "203.0.113.9", false),
            (&["8.8.8.8, 10.0.0.7"], "10.0.0.7", true),
            (&["8.8.8.8, 10.0.0.2"], "8.8.8.8", false),
            (&["10.9.9.9", "8.8.8.8, 10.0.0.2"], "8.8.8.8", false),
            (&["10.0.0.2"], "10.0.0.2", true),
            (&["10.9.9.9, nonsense"], "unknown", false),
            (&["203.0.113.9:4711"], "203.0.113.9", false),
            (&["::ffff:203.0.113.9"], "203.0.113.9", false),
            (&["[2001:db8::1]:4711"], "2001:db8::1", false),
        ] {
            assert_eq!(resolve("10.0.0.1", &[], list, proxies), (client.to_owned(), is_internal), "{list:?}");
        }
        let forwarded = r#"for=10.9.9.9, for="[2001:db8::1]:80";proto=https, By=x;For=10.0.0.2"#;
        assert_eq!(resolve("10.0.0.1", &[forwarded], &[], proxies), ("2001:db8::1".to_owned(), false));
    }

    #[test]
    fn s08_headers_are_believed_only_from_listed_proxies() {
        assert_eq!(resolve("10.0.0.9", &[], &[], &[]), ("10.0.0.9".to_owned(), true));
        assert_eq!(resolve("10.0.0.9", &[], &["10.0.0.7"], &[]), ("10.0.0.9".to_owned(), false));
        assert_eq!(resolve("10.0.0.9", &["for=10.0.0.7"], &[], &["10.0.0.1/32"]), ("10.0.0.9".to_owned(), false));
        // The proxy sets one header; the caller wrote the other.
        let both = resolve("10.0.0.1", &["for=10.0.0.7"], &["203.0.113.9"], &["10.0.0.1/32"]);
        assert_eq!(both, ("unknown".to_owned(), false));
        let agreeing = resolve("10.0.0.1", &["for=203.0.113.9"], &["203.0.113.9"], &["10.0.0.1/32"]);
        assert_eq!(agreeing, ("203.0.113.9".to_owned(), false));
    }
}
