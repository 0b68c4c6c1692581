//! TLS between the processes of a shop: each shows the other a certificate that the shop's own authority has signed.

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::types::{Address, PeerTls};

/// For connections to `address`, whose certificate must name its host.
pub fn client_config(tls: &PeerTls, address: &Address) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.authority))
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
        .domain_name(address.bare_host())
}

/// For a server whose callers must have a certificate.
pub fn server_config(tls: &PeerTls) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
        .client_ca_root(Certificate::from_pem(&tls.authority))
}
