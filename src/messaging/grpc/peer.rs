//! Client of another process, or of several equal ones behind one name: name resolution, round robin, retries.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{AddressStatus, BreakerPermit, CallError, Connection, PeerConfig, PeerConnection};
use super::proto::{CallReply, CallRequest, EventsReply, EventsRequest, LiveRequest};
use crate::messaging::{Backoff, CommonError, RequestContext};
use crate::types::Address;

/// Time between two resolutions of a name.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait of a call for a connection in the making, before it is rejected.
const CONNECTING_MAX: Duration = Duration::from_secs(3);
/// Largest number of addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;
/// Bytes reserved for what accompanies a message: caller, keys, names.
const ENVELOPE_MAX: usize = 8 * 1024;
/// Largest number of times that one call is sent.
const ATTEMPTS_MAX: u32 = 4;
/// Delays before a call is sent again.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(80));
/// Delays before a live stream is opened again.
const LIVE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// Retry budget in tenths of a retry: a retry costs ten, a reply returns one. So an outage is not made worse by every
/// call being sent four times.
const RETRY_BUDGET: i32 = 1_000;
/// Longest time that a peer holds a request for events open.
pub const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(20);

/// Another process of the shop, or several equal ones behind one name.
pub struct Peer {
    address: Address,
    config: PeerConfig,
    pool: Mutex<AddressPool>,
    next: AtomicUsize,
    budget: AtomicI32,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct AddressPool {
    connections: BTreeMap<SocketAddr, Arc<PeerConnection>>,
    /// Error of the last resolution, if it failed.
    resolve_error: Option<Arc<str>>,
}

/// Resolves a host name and port to addresses.
pub type Resolver = Arc<dyn Fn(Address) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>> + Send + Sync>;

/// Consumer of a live stream: called with `None` when a stream begins, then with each item.
pub type LiveSink = Arc<dyn Fn(Option<&[u8]>) + Send + Sync>;

impl Peer {
    /// Starts to resolve `address` and to keep connections. Must be called in a runtime; the tasks end with the last
    /// handle.
    #[must_use]
    pub fn start(address: Address, config: PeerConfig) -> Arc<Self> {
        Self::start_with(address, config, Arc::new(|address| Box::pin(resolve_host(address))), RESOLVE_INTERVAL)
    }

    /// Like [`Peer::start`], with another resolver that is called at this interval.
    pub(super) fn start_with(
        address: Address,
        config: PeerConfig,
        resolver: Resolver,
        interval: Duration,
    ) -> Arc<Self> {
        let changed = watch::Sender::new(());
        let peer = Arc::new(Self {
            address,
            config,
            pool: Mutex::default(),
            next: AtomicUsize::new(0),
            budget: AtomicI32::new(RETRY_BUDGET),
            changed,
        });
        tokio::spawn(resolve_loop(Arc::downgrade(&peer), resolver, interval));
        peer
    }

    /// Returns the address as configured.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the largest body of a message in bytes.
    pub fn body_max(&self) -> usize {
        self.config.message_max.saturating_sub(ENVELOPE_MAX)
    }

    /// Returns its addresses with their status and connection; empty while its name is being resolved.
    pub fn statuses(&self) -> Vec<(SocketAddr, AddressStatus, Option<Arc<Connection>>)> {
        let pool = self.pool.lock();
        pool.connections.values().map(|peer| (peer.address, peer.status(), peer.connection())).collect()
    }

    /// Returns the error of the last name resolution, if it failed.
    pub fn resolve_error(&self) -> Option<Arc<str>> {
        self.pool.lock().resolve_error.clone()
    }

    /// Sends a message to an address that `handles` it and waits for the reply, at most until the deadline of `ctx`. Sends
    /// it again if it was not sent, and if `is_retryable` also when its outcome is unknown.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn call(
        &self,
        ctx: &RequestContext,
        message: CallRequest,
        is_retryable: bool,
        handles: impl Fn(&Connection) -> bool,
    ) -> Result<CallReply, CallError> {
        let (mut attempts, mut backoff) = (0, RETRY_BACKOFF);
        loop {
            let permit = self.admit(ctx.deadline, &handles).await?;
            attempts += 1;
            let mut request = self.config.request(message.clone());
            request.set_timeout(ctx.remaining());
            if let Some(trace) = ctx.trace.as_deref().and_then(|trace| trace.parse().ok()) {
                request.metadata_mut().insert("traceparent", trace);
            }
            #[cfg(feature = "test-hooks")]
            if let Some(name) = ctx.panic_at.as_deref().and_then(|name| name.parse().ok()) {
                request.metadata_mut().insert("x-test-panic", name);
            }
            let mut client = permit.connection.client.clone();
            let reply = permit.reply(async { client.call(request).await }).await;
            let may_retry = match &reply {
                Ok(_) => {
                    self.refill_budget();
                    false
                }
                Err(CallError::NotSent(_)) => true,
                Err(CallError::OutcomeUnknown(_)) => is_retryable,
                Err(CallError::Rejected(..)) => false,
            };
            if !may_retry || attempts >= ATTEMPTS_MAX || !self.take_budget() {
                return reply;
            }
            backoff.wait().await;
        }
    }

    /// Reads the next events of one of its domains; the reply may take [`LONG_POLL_TIMEOUT`].
    ///
    /// # Errors
    /// When there is no connection, or the call fails.
    pub async fn events(&self, message: EventsRequest) -> Result<EventsReply, CallError> {
        let deadline = Instant::now() + LONG_POLL_TIMEOUT + CONNECTING_MAX;
        let permit = self.admit(deadline, &|_| true).await?;
        let mut request = self.config.request(message);
        request.set_timeout(LONG_POLL_TIMEOUT + CONNECTING_MAX);
        let mut client = permit.connection.client.clone();
        permit.reply(async { client.events(request).await }).await
    }

    /// Subscribes to the live streams of all its addresses. The sink gets `None` each time that a stream begins, also after
    /// a reconnection. Ends with the last handle of the peer.
    pub fn subscribe_live(self: &Arc<Self>, sink: LiveSink) {
        tokio::spawn(subscribe_loop(Arc::downgrade(self), sink));
    }

    /// Admits a call at the next connected address, in turn; waits while addresses are being connected.
    async fn admit(
        &self,
        deadline: Instant,
        handles: &impl Fn(&Connection) -> bool,
    ) -> Result<BreakerPermit, CallError> {
        let give_up_at = deadline.min(Instant::now() + CONNECTING_MAX);
        loop {
            let mut changed = self.changed.subscribe();
            let (connections, resolve_error) = {
                let pool = self.pool.lock();
                (pool.connections.values().cloned().collect::<Vec<_>>(), pool.resolve_error.clone())
            };
            let first = self.next.fetch_add(1, Relaxed);
            let (mut is_connecting, mut reason) = (connections.is_empty() && resolve_error.is_none(), resolve_error);
            for offset in 0..connections.len() {
                let Some(peer) = connections.get(first.wrapping_add(offset) % connections.len()) else { continue };
                match peer.status() {
                    AddressStatus::Connecting => is_connecting = true,
                    AddressStatus::Down(error) => reason = Some(error),
                    AddressStatus::Up => match peer.admit() {
                        Some(permit) if handles(&permit.connection) => return Ok(permit),
                        Some(_) => reason = Some("message not supported; is it an older version?".into()),
                        None => reason = Some("circuit breaker half open, a trial call is in progress".into()),
                    },
                }
            }
            let reason = || reason.as_deref().unwrap_or("still connecting").to_owned();
            if !is_connecting || tokio::time::timeout_at(give_up_at, changed.changed()).await.is_err() {
                return Err(CallError::Rejected(CommonError::Unavailable, reason()));
            }
        }
    }

    fn refill_budget(&self) {
        if self.budget.load(Relaxed) < RETRY_BUDGET {
            self.budget.fetch_add(1, Relaxed);
        }
    }

    fn take_budget(&self) -> bool {
        self.budget.fetch_update(Relaxed, Relaxed, |left| (left >= 10).then_some(left - 10)).is_ok()
    }

    /// Replaces the addresses by the result of a resolution; a failed one keeps them.
    fn set_addresses(&self, found: Result<Vec<SocketAddr>, String>) {
        let mut pool = self.pool.lock();
        match found {
            Ok(addresses) => {
                let gone: Vec<SocketAddr> =
                    pool.connections.keys().filter(|address| !addresses.contains(address)).copied().collect();
                for address in gone {
                    log::info!("peer {}: address {address} removed", self.address);
                    pool.connections.remove(&address);
                }
                for address in addresses {
                    pool.connections.entry(address).or_insert_with(|| {
                        let (peer, config) = (self.address.clone(), self.config.clone());
                        PeerConnection::start(peer, address, config, self.changed.clone())
                    });
                }
                pool.resolve_error = None;
            }
            Err(error) => {
                // The former addresses may still be right.
                if pool.resolve_error.as_deref() != Some(&error) {
                    log::warn!("peer {}: {error}", self.address);
                }
                pool.resolve_error = Some(error.into());
            }
        }
        drop(pool);
        self.changed.send_replace(());
    }
}

/// Resolves an address by the system's resolver.
async fn resolve_host(address: Address) -> Result<Vec<SocketAddr>, String> {
    let host = address.bare_host();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let found = tokio::net::lookup_host((host, address.port)).await.map_err(|error| {
        log::debug!("peer {host}: resolution failed: {error}");
        format!("host name {host} cannot be resolved")
    })?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(format!("host name {host} has no address")) } else { Ok(found) }
}

/// Resolves the name of a peer at an interval.
async fn resolve_loop(peer: Weak<Peer>, resolver: Resolver, interval: Duration) {
    loop {
        let Some(address) = peer.upgrade().map(|peer| peer.address.clone()) else { return };
        let found = resolver(address).await.map(|mut found| {
            found.sort_unstable();
            found.dedup();
            found.truncate(ADDRESSES_MAX);
            found
        });
        let Some(this) = peer.upgrade() else { return };
        this.set_addresses(found);
        drop(this);
        tokio::time::sleep(interval).await;
    }
}

/// Reads the live stream of every connection of a peer.
async fn subscribe_loop(peer: Weak<Peer>, sink: LiveSink) {
    let mut subscribed: Vec<Weak<Connection>> = Vec::new();
    loop {
        let Some(this) = peer.upgrade() else { return };
        let mut changed = this.changed.subscribe();
        subscribed.retain(|connection| connection.strong_count() > 0);
        for connection in this.statuses().into_iter().filter_map(|(_, _, connection)| connection) {
            if !subscribed.iter().any(|known| known.ptr_eq(&Arc::downgrade(&connection))) {
                subscribed.push(Arc::downgrade(&connection));
                tokio::spawn(read_live(connection, this.config.clone(), Arc::clone(&sink)));
            }
        }
        drop(this);
        // An error means that the peer was dropped.
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Reads the live stream of one connection until that is lost.
async fn read_live(connection: Arc<Connection>, config: PeerConfig, sink: LiveSink) {
    let mut backoff = LIVE_BACKOFF;
    while !connection.is_lost() {
        let stream = async {
            let mut stream = connection.client.clone().live(config.request(LiveRequest {})).await?.into_inner();
            let mut has_begun = false;
            while let Some(item) = stream.message().await? {
                backoff.reset();
                sink(if has_begun { Some(&item.push) } else { None });
                has_begun = true;
            }
            Ok::<_, tonic::Status>(())
        };
        tokio::select! {
            ended = stream => {
                if let Err(status) = ended {
                    log::debug!("peer: live stream ended: {status}");
                }
                backoff.wait().await;
            }
            () = connection.lost() => return,
        }
    }
}
