//! The section `limits`: how often callers may send requests, and where that is counted.

use std::time::Duration;

use super::parse::{boolean, number};
use super::{SettingError, Values};

/// Longest window of a quota, in seconds.
const WINDOW_MAX: u64 = 86_400;

/// Rate of requests: as many as this at once, and as many again spread evenly over each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window, at least 1.
    pub requests: u32,
    /// Window in which a used quota is whole again.
    pub window: Duration,
}

impl Quota {
    /// Parses `REQUESTS/SECONDS`.
    fn parse(text: &str) -> Result<Self, String> {
        let invalid = || "must be REQUESTS/SECONDS, such as 30/60".to_owned();
        let (requests, seconds) = text.split_once('/').ok_or_else(invalid)?;
        let requests = number(requests.trim(), 1, 1_000_000).map_err(|_| invalid())?;
        let seconds = number(seconds.trim(), 1, WINDOW_MAX).map_err(|_| invalid())?;
        Ok(Self { requests, window: Duration::from_secs(seconds) })
    }
}

/// Place where rates are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitStore {
    /// In this process.
    Memory,
    /// In a Redis server, together with other gateways.
    Redis(String),
}

/// The section `limits`.
#[derive(Debug, Clone)]
pub struct LimitsSettings {
    /// Whether callers with too many requests are rejected.
    pub enabled: bool,
    /// Place where rates are counted.
    pub store: LimitStore,
    /// All requests of one network.
    pub network: Quota,
    /// All requests with sessions of one user.
    pub user: Quota,
    /// All requests with one API key.
    pub api_key: Quota,
    /// Sign-ins from one network.
    pub sign_in: Quota,
    /// Registrations from one network.
    pub registration: Quota,
    /// Guests made from one network.
    pub guest: Quota,
    /// Password resets from one network, requested and carried out.
    pub password: Quota,
    /// Uses of mailed links, and mails sent on demand, from one network.
    pub email: Quota,
    /// Entries of the action log from one network.
    pub log: Quota,
    /// Health probes from one network.
    pub probe: Quota,
    /// Most HTTP connections; 0 for as many as the limit of open files allows.
    pub connections: usize,
    /// Most HTTP connections of one network; 0 for a quarter of all.
    pub connections_per_network: usize,
    /// Most live sessions of one network; 0 for a quarter of all.
    pub sockets_per_network: usize,
    /// Most unpaid orders of one user, those of the last 24 hours included.
    pub unpaid_per_user: u32,
    /// Most unpaid orders from one network, those of the last hour included.
    pub unpaid_per_network: u32,
}

impl LimitsSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        let quota = |key| values.get(key, Quota::parse);
        Ok(Self {
            enabled: values.get("limits.enabled", boolean)?,
            store: values.get("limits.store", |text| match text {
                "memory" => Ok(LimitStore::Memory),
                url if url.strip_prefix("redis://").is_some_and(|rest| !rest.is_empty()) => {
                    Ok(LimitStore::Redis(url.to_owned()))
                }
                url if url.starts_with("rediss://") => {
                    Err("must begin with redis://: TLS to Redis is not supported; use a private network".to_owned())
                }
                _ => Err("must be memory or redis://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()),
            })?,
            network: quota("limits.network")?,
            user: quota("limits.user")?,
            api_key: quota("limits.api_key")?,
            sign_in: quota("limits.sign_in")?,
            registration: quota("limits.registration")?,
            guest: quota("limits.guest")?,
            password: quota("limits.reset")?,
            email: quota("limits.email")?,
            log: quota("limits.log")?,
            probe: quota("limits.probe")?,
            connections: values.get("limits.connections", |text| number(text, 0, 1_000_000))?,
            connections_per_network: values.get("limits.connections_per_network", |text| number(text, 0, 1_000_000))?,
            sockets_per_network: values.get("limits.sockets_per_network", |text| number(text, 0, 1_000_000))?,
            unpaid_per_user: values.get("limits.unpaid_per_user", |text| number(text, 1, 1_000_000))?,
            unpaid_per_network: values.get("limits.unpaid_per_network", |text| number(text, 1, 1_000_000))?,
        })
    }
}
