//! Network addresses of other processes.

use std::fmt;
use std::str::FromStr;

/// Address of the gRPC server of another process, written `http://HOST:PORT`, or `https://HOST:PORT` with TLS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Whether connections use TLS.
    pub is_tls: bool,
    /// Host name or IP address (IPv6 in brackets); a name may resolve to several addresses.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}

impl Address {
    /// The scheme of its URL.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The host, an IPv6 address without its brackets.
    #[must_use]
    pub fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            "must be local, standby, off, or the gRPC address of the domain's process: http://HOST:PORT, or https:// with TLS".to_owned()
        };
        let (is_tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(invalid()),
        };
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_valid = match ipv6 {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if is_valid { Ok(Self { is_tls, host: host.to_owned(), port }) } else { Err(invalid()) }
    }
}
