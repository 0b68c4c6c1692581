//! Names that the whole gateway shares.

/// Base path of the API.
pub const API_BASE: &str = "/api/v1";

/// Name under which the gateway calls the domains.
pub const GATEWAY: &str = "gateway";
