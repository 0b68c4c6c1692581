//! Certificates of a process, for TLS to the other processes of its shop.

use std::fmt;

/// Certificates of one process, as PEM. Public authorities are not trusted between processes.
#[derive(Clone)]
pub struct PeerTls {
    /// Certificates of the shop's own authority.
    pub authority: String,
    /// Certificate of this process, with those between it and the authority. It names the hosts in its addresses.
    pub certificate: String,
    /// Private key of the certificate.
    pub key: String,
}

impl fmt::Debug for PeerTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}
