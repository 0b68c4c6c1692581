//! Calls to a domain in another process, for [`crate::messaging::Client`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use prost::bytes::Bytes;
use serde::Serialize;

use super::connection::{AddressStatus, CallError, Connection, PeerDomainInfo};
use super::peer::Peer;
use super::proto::{CallReply, CallRequest, call_reply::Outcome};
use crate::messaging::{CommonError, Health, HealthStatus, Request, RequestContext, trace};

/// Domain in another process.
pub struct Remote {
    domain: &'static str,
    /// Names of the messages that this version may send it.
    required: Vec<&'static str>,
    peer: Arc<Peer>,
    /// Whether missing messages have been logged.
    is_missing_logged: AtomicBool,
}

/// One address of a remote domain, for `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteAddress {
    /// The address.
    pub address: SocketAddr,
    /// Status of the domain at this address.
    pub status: HealthStatus,
    /// Version of the program there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Description of the problem, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Remote {
    /// Returns the domain at `peer`, which must handle the messages `required`.
    pub fn new(domain: &'static str, required: Vec<&'static str>, peer: Arc<Peer>) -> Self {
        Self { domain, required, peer, is_missing_logged: AtomicBool::new(false) }
    }

    /// Returns the process that it runs in.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Sends a request and waits for its reply, as a local call would.
    ///
    /// # Errors
    /// The domain's own; `Unavailable` and `DeadlineExceeded` when there is no reply; `Internal` for a message that cannot
    /// be encoded or decoded.
    pub async fn call<R: Request>(&self, ctx: RequestContext, request: R) -> Result<R::Reply, R::Error> {
        let encoded = serde_json::to_vec(&request);
        drop(request);
        let call = self.call_raw(&ctx, R::NAME, R::RETRYABLE, encoded);
        let reply = trace::instrument(ctx.trace.clone(), call).await?;
        if reply.replayed {
            ctx.mark_replayed();
        }
        let read = match reply.outcome {
            Some(Outcome::Body(body)) => serde_json::from_slice(&body).map(Ok),
            Some(Outcome::Error(error)) => serde_json::from_slice(&error).map(Err),
            None => Ok(Err(CommonError::Internal.into())),
        };
        read.unwrap_or_else(|error| Err(log_decode_error(&ctx, R::NAME, &error).into()))
    }

    /// Sends an encoded request. Not generic, so that it is compiled once.
    async fn call_raw(
        &self,
        ctx: &RequestContext,
        name: &'static str,
        retryable: bool,
        encoded: serde_json::Result<Vec<u8>>,
    ) -> Result<CallReply, CommonError> {
        let encoded = encoded.and_then(|body| Ok((body, serde_json::to_vec(&ctx.caller)?)));
        let (body, caller) = encoded.map_err(|error| {
            log::error!("{name}: encoding failed: {error} [{}]", ctx.request_id);
            CommonError::Internal
        })?;
        if body.len() > self.peer.body_max() {
            log::error!("{name}: message too large, {} bytes [{}]", body.len(), ctx.request_id);
            return Err(CommonError::Internal);
        }
        let message = CallRequest {
            domain: self.domain.to_owned(),
            name: name.to_owned(),
            body: Bytes::from(body),
            caller: Bytes::from(caller),
            request_id: ctx.request_id.to_string(),
            idempotency_key: ctx.key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default(),
            versions: ctx.versions.as_ref().map(ToString::to_string),
            network: ctx.network.map(|network| network.to_string()).unwrap_or_default(),
        };
        let is_retryable = retryable || ctx.key.is_some();
        let handles = |connection: &Connection| {
            connection.peer_info().domains.get(self.domain).is_some_and(|domain| domain.names.contains(name))
        };
        let called = self.peer.call(ctx, message, is_retryable, handles);
        match tokio::time::timeout_at(ctx.deadline, called).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(call_error)) => {
                let (error, reason) = match call_error {
                    CallError::NotSent(reason) | CallError::OutcomeUnknown(reason) => {
                        (CommonError::Unavailable, reason)
                    }
                    CallError::Rejected(error, reason) => (error, reason),
                };
                // An unreachable peer has been logged by its connection.
                let level = if error == CommonError::Unavailable { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "{}: {name} failed: {reason} [{}]", self.domain, ctx.request_id);
                Err(error)
            }
            Err(_) => {
                log::warn!("{}: {name} timed out [{}]", self.domain, ctx.request_id);
                Err(CommonError::DeadlineExceeded)
            }
        }
    }

    /// Completes the client's `health` by the reports of the domain at each of its addresses.
    pub fn health(&self, mut health: Health, is_full: bool) -> Health {
        health.place = self.peer.address().to_string().into();
        health.problem = self.peer.resolve_error().map(|error| error.to_string());
        for (address, address_status, connection) in self.peer.statuses() {
            let info = connection.map(|connection| connection.peer_info());
            let version = info.as_ref().map(|info| info.version.clone());
            let (status, problem) = match (address_status, info.as_ref().map(|info| info.domains.get(self.domain))) {
                (_, Some(Some(domain))) => {
                    health.restarts += domain.health.restarts;
                    health.read_only |= domain.health.read_only;
                    health.unreadable |= domain.health.unreadable;
                    match self.warn_missing_once(domain) {
                        Some(missing) => (HealthStatus::Degraded, Some(missing)),
                        None => (domain.health.status, None),
                    }
                }
                (_, Some(None)) => (HealthStatus::Down, Some(format!("{} does not run in that process", self.domain))),
                (AddressStatus::Down(reason), None) => (HealthStatus::Down, Some(reason.to_string())),
                (_, None) => (HealthStatus::Down, Some("connecting".to_owned())),
            };
            health.addresses.push(RemoteAddress { address, status, version, problem });
        }
        let all = || health.addresses.iter().map(|address| address.status);
        health.status = if all().all(|status| matches!(status, HealthStatus::Down | HealthStatus::Off)) {
            HealthStatus::Down
        } else if all().all(|status| status == HealthStatus::Up) && !is_full {
            HealthStatus::Up
        } else {
            HealthStatus::Degraded
        };
        health
    }

    /// Describes the required messages that it does not handle, and logs them once.
    fn warn_missing_once(&self, domain: &PeerDomainInfo) -> Option<String> {
        let missing: Vec<&str> = self.required.iter().copied().filter(|name| !domain.names.contains(*name)).collect();
        if missing.is_empty() {
            self.is_missing_logged.store(false, Relaxed);
            return None;
        }
        let text = format!("it does not support {}; update its process to this version", missing.join(", "));
        if !self.is_missing_logged.swap(true, Relaxed) {
            log::warn!("{} at {}: {text}", self.domain, self.peer.address());
        }
        Some(text)
    }
}

/// Logs that a reply is not the JSON of its message.
fn log_decode_error(ctx: &RequestContext, name: &str, error: &serde_json::Error) -> CommonError {
    let log = || log::error!("{name}: reply cannot be decoded: {error} [{}]", ctx.request_id);
    trace::in_scope(ctx.trace.clone(), log);
    CommonError::Internal
}

/// Other processes that this one calls: one [`Peer`] per address, however many domains it runs.
#[derive(Default)]
pub struct PeerRegistry(BTreeMap<crate::types::Address, Arc<Peer>>);

impl PeerRegistry {
    /// Returns the peer at `address`, started on first use.
    pub fn at(&mut self, address: &crate::types::Address, config: &super::PeerConfig) -> Arc<Peer> {
        let peer = self.0.entry(address.clone()).or_insert_with(|| Peer::start(address.clone(), config.clone()));
        Arc::clone(peer)
    }
}
