//! Network addresses of other processes.

use std::fmt;
use std::str::FromStr;

/// Address of the gRPC server of another process, written `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Host name or IP address (IPv6 in brackets); a name may resolve to several addresses.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || "must be local, standby, off, or the gRPC address of the domain's process: http://HOST:PORT".to_owned();
        if text.starts_with("https://") {
            return Err(
                "must begin with http://: there is no TLS between processes yet; use a private network".to_owned()
            );
        }
        let rest = text.strip_prefix("http://").ok_or_else(invalid)?;
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_valid = match ipv6 {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if is_valid { Ok(Self { host: host.to_owned(), port }) } else { Err(invalid()) }
    }
}
