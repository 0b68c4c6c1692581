//! A domain in another process, as its client sees it.

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

/// A domain in another process.
pub struct Remote {
    domain: &'static str,
    /// What this version asks it.
    needed: Vec<&'static str>,
    peer: Arc<Peer>,
    /// Whether its missing names were complained of.
    complained: AtomicBool,
}

/// One address of a remote domain, for people and machines that watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteAddress {
    /// Which.
    pub address: SocketAddr,
    /// How the domain is there.
    pub status: HealthStatus,
    /// Which version answers there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is wrong, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Remote {
    /// The domain at `peer`, of which the messages `needed` are asked.
    pub fn new(domain: &'static str, needed: Vec<&'static str>, peer: Arc<Peer>) -> Self {
        Self { domain, needed, peer, complained: AtomicBool::new(false) }
    }

    /// The process it is in.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Asks, as a client in the domain's own process would.
    pub async fn call<R: Request>(&self, ctx: RequestContext, request: R) -> Result<R::Reply, R::Error> {
        let written = serde_json::to_vec(&request);
        drop(request);
        let exchange = self.exchange(&ctx, R::NAME, R::RETRYABLE, written);
        let reply = trace::within(ctx.trace.clone(), exchange).await?;
        if reply.replayed {
            ctx.mark_replayed();
        }
        let read = match reply.outcome {
            Some(Outcome::Body(body)) => serde_json::from_slice(&body).map(Ok),
            Some(Outcome::Error(error)) => serde_json::from_slice(&error).map(Err),
            None => Ok(Err(CommonError::Internal.into())),
        };
        read.unwrap_or_else(|error| Err(unreadable(&ctx, R::NAME, &error).into()))
    }

    /// What is the same for every message: compiled once, and not once for each.
    async fn exchange(
        &self,
        ctx: &RequestContext,
        name: &'static str,
        retryable: bool,
        written: serde_json::Result<Vec<u8>>,
    ) -> Result<CallReply, CommonError> {
        let written = written.and_then(|body| Ok((body, serde_json::to_vec(&ctx.caller)?)));
        let (body, caller) = written.map_err(|error| {
            log::error!("{name} has no JSON form: {error} [{}]", ctx.request_id);
            CommonError::Internal
        })?;
        if body.len() > self.peer.body_max() {
            log::error!("{name} is larger than what may travel, {} bytes [{}]", body.len(), ctx.request_id);
            return Err(CommonError::Internal);
        }
        let message = CallRequest {
            domain: self.domain.to_owned(),
            name: name.to_owned(),
            body: Bytes::from(body),
            caller: Bytes::from(caller),
            request_id: ctx.request_id.to_string(),
            idempotency_key: ctx.key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default(),
        };
        let repeatable = retryable || ctx.key.is_some();
        let answers = |connection: &Connection| {
            connection.said().domains.get(self.domain).is_some_and(|domain| domain.names.contains(name))
        };
        let called = self.peer.call(ctx, message, repeatable, answers);
        match tokio::time::timeout_at(ctx.deadline, called).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(trouble)) => {
                let (failure, why) = match trouble {
                    CallError::NotSent(why) | CallError::Unknown(why) => (CommonError::Unavailable, why),
                    CallError::Refused(failure, why) => (failure, why),
                };
                // While nobody is there every call ends so, and that nobody is there has been logged.
                let level = if failure == CommonError::Unavailable { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "{}: {name} has no answer: {why} [{}]", self.domain, ctx.request_id);
                Err(failure)
            }
            Err(_) => {
                log::warn!("{}: {name} was not answered in time [{}]", self.domain, ctx.request_id);
                Err(CommonError::DeadlineExceeded)
            }
        }
    }

    /// How it is, by its own word at each of its addresses: what the client knows of it completed.
    pub fn health(&self, mut health: Health, is_full: bool) -> Health {
        health.place = self.peer.address().to_string().into();
        health.problem = self.peer.unresolved().map(|why| why.to_string());
        for (address, seen, connection) in self.peer.seen() {
            let said = connection.map(|connection| connection.said());
            let version = said.as_ref().map(|said| said.version.clone());
            let (status, problem) = match (seen, said.as_ref().map(|said| said.domains.get(self.domain))) {
                (_, Some(Some(domain))) => {
                    health.restarts += domain.health.restarts;
                    health.read_only |= domain.health.read_only;
                    health.unreadable |= domain.health.unreadable;
                    match self.missing(domain) {
                        Some(missing) => (HealthStatus::Degraded, Some(missing)),
                        None => (domain.health.status, None),
                    }
                }
                (_, Some(None)) => (HealthStatus::Down, Some(format!("{} does not run there", self.domain))),
                (AddressStatus::Down(why), None) => (HealthStatus::Down, Some(why.to_string())),
                (_, None) => (HealthStatus::Down, Some("being connected".to_owned())),
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

    /// What it does not answer, complained of once.
    fn missing(&self, domain: &PeerDomainInfo) -> Option<String> {
        let missing: Vec<&str> = self.needed.iter().copied().filter(|name| !domain.names.contains(*name)).collect();
        if missing.is_empty() {
            self.complained.store(false, Relaxed);
            return None;
        }
        let text = format!("it does not answer {}; bring its process to this version", missing.join(", "));
        if !self.complained.swap(true, Relaxed) {
            log::warn!("{} at {}: {text}", self.domain, self.peer.address());
        }
        Some(text)
    }
}

/// Says that an answer is not the JSON of its message.
fn unreadable(ctx: &RequestContext, name: &str, error: &serde_json::Error) -> CommonError {
    let say = || log::error!("the answer to {name} cannot be read: {error} [{}]", ctx.request_id);
    trace::during(ctx.trace.clone(), say);
    CommonError::Internal
}

/// The other processes that this one knows of: one for each place, however many domains are there.
#[derive(Default)]
pub struct PeerRegistry(BTreeMap<crate::types::Address, Arc<Peer>>);

impl PeerRegistry {
    /// The process at `address`.
    pub fn at(&mut self, address: &crate::types::Address, wire: &super::PeerConfig) -> Arc<Peer> {
        let peer = self.0.entry(address.clone()).or_insert_with(|| Peer::start(address.clone(), wire.clone()));
        Arc::clone(peer)
    }
}
