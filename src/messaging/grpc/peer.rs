//! Another process, or several alike behind one name: its addresses, and which of them is asked next.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{AddressStatus, BreakerPermit, CallError, Connection, PeerConfig, PeerConnection};
use super::proto::{CallReply, CallRequest, EventsReply, EventsRequest, LiveRequest};
use crate::messaging::{CommonError, RequestContext};
use crate::types::Address;

/// How often a name is resolved anew.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a call waits for a connection that is being made, before it is refused.
const CONNECTING_MAX: Duration = Duration::from_secs(3);
/// The most addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;
/// Bytes that may travel with a message: caller, keys, names.
const ENVELOPE_MAX: usize = 8 * 1024;
/// How often one call may be sent in all.
const ATTEMPTS_MAX: u32 = 4;
/// The pause before a call is sent again, longer each time.
const RETRY_BACKOFF: Duration = Duration::from_millis(20);
/// Repetitions that may be had at once, in tenths; each answer gives one tenth back. So an outage is not made worse by
/// everybody asking four times.
const RETRY_BUDGET: i32 = 1_000;
/// How long the other side may hold a question for news open.
pub const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(20);

/// A process of the shop, or several alike behind one name. Cheap to share.
pub struct Peer {
    address: Address,
    wire: PeerConfig,
    links: Mutex<AddressPool>,
    next: AtomicUsize,
    budget: AtomicI32,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct AddressPool {
    all: BTreeMap<SocketAddr, Arc<PeerConnection>>,
    /// Why the name stands for no address, once that is known.
    unresolved: Option<Arc<str>>,
}

/// Finds out what a name stands for.
pub type Resolver = Arc<dyn Fn(Address) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>> + Send + Sync>;

/// Takes what a live stream brings: nothing at its begin, then one item after the other.
pub type LiveSink = Arc<dyn Fn(Option<&[u8]>) + Send + Sync>;

impl Peer {
    /// Begins to look for the process at `address` and to keep up connections. Must be called in a runtime; what it
    /// starts ends with the last handle.
    #[must_use]
    pub fn start(address: Address, wire: PeerConfig) -> Arc<Self> {
        Self::start_with(address, wire, Arc::new(|address| Box::pin(look_up(address))), RESOLVE_INTERVAL)
    }

    /// The same with a way of one's own to resolve names, asked every so often.
    pub(super) fn start_with(address: Address, wire: PeerConfig, resolver: Resolver, every: Duration) -> Arc<Self> {
        let changed = watch::Sender::new(());
        let peer = Arc::new(Self {
            address,
            wire,
            links: Mutex::default(),
            next: AtomicUsize::new(0),
            budget: AtomicI32::new(RETRY_BUDGET),
            changed,
        });
        tokio::spawn(resolve(Arc::downgrade(&peer), resolver, every));
        peer
    }

    /// Where it is, as the setting says.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Bytes of the largest message, less what travels with it.
    pub fn body_max(&self) -> usize {
        self.wire.message_max.saturating_sub(ENVELOPE_MAX)
    }

    /// Its addresses and how each is; nothing while its name is being resolved.
    pub fn seen(&self) -> Vec<(SocketAddr, AddressStatus, Option<Arc<Connection>>)> {
        let links = self.links();
        links.all.values().map(|link| (link.address, link.seen(), link.connection())).collect()
    }

    /// Why its name stands for no address, if that is the matter.
    pub fn unresolved(&self) -> Option<Arc<str>> {
        self.links().unresolved.clone()
    }

    /// Sends a message and waits for the answer: at most until the deadline of `ctx`, again if it certainly was not
    /// received, and if `repeatable` also when that is unknown.
    pub async fn call(
        &self,
        ctx: &RequestContext,
        message: CallRequest,
        repeatable: bool,
        answers: impl Fn(&Connection) -> bool,
    ) -> Result<CallReply, CallError> {
        let mut sends = 0;
        loop {
            let admitted = self.admit(ctx.deadline, &answers).await?;
            sends += 1;
            let mut request = self.wire.request(message.clone());
            request.set_timeout(ctx.remaining());
            if let Some(trace) = ctx.trace.as_deref().and_then(|trace| trace.parse().ok()) {
                request.metadata_mut().insert("traceparent", trace);
            }
            #[cfg(feature = "test-hooks")]
            if let Some(name) = ctx.panic_at.as_deref().and_then(|name| name.parse().ok()) {
                request.metadata_mut().insert("x-test-panic", name);
            }
            let mut client = admitted.connection.client.clone();
            let answer = admitted.answer(async { client.call(request).await }).await;
            let again = match &answer {
                Ok(_) => {
                    self.earn();
                    false
                }
                Err(CallError::NotSent(_)) => true,
                Err(CallError::Unknown(_)) => repeatable,
                Err(CallError::Refused(..)) => false,
            };
            if !again || sends >= ATTEMPTS_MAX || !self.spend() {
                return answer;
            }
            tokio::time::sleep(RETRY_BACKOFF * sends).await;
        }
    }

    /// Asks for the next events of a domain there; the answer may take [`LONG_POLL_TIMEOUT`].
    pub async fn events(&self, message: EventsRequest) -> Result<EventsReply, CallError> {
        let deadline = Instant::now() + LONG_POLL_TIMEOUT + CONNECTING_MAX;
        let admitted = self.admit(deadline, &|_| true).await?;
        let mut request = self.wire.request(message);
        request.set_timeout(LONG_POLL_TIMEOUT + CONNECTING_MAX);
        let mut client = admitted.connection.client.clone();
        admitted.answer(async { client.events(request).await }).await
    }

    /// Follows what is shown live at each of its addresses. Each time a stream begins, also again after it was lost, the
    /// sink is told so before anything else of it. Ends with the last handle of the peer.
    pub fn follow(self: &Arc<Self>, sink: LiveSink) {
        tokio::spawn(follow(Arc::downgrade(self), sink));
    }

    /// The next address to ask: one after the other of those that work.
    async fn admit(
        &self,
        deadline: Instant,
        answers: &impl Fn(&Connection) -> bool,
    ) -> Result<BreakerPermit, CallError> {
        let patience = deadline.min(Instant::now() + CONNECTING_MAX);
        loop {
            let mut changed = self.changed.subscribe();
            let (links, unresolved) = {
                let links = self.links();
                (links.all.values().cloned().collect::<Vec<_>>(), links.unresolved.clone())
            };
            let first = self.next.fetch_add(1, Relaxed);
            let (mut connecting, mut why) = (links.is_empty() && unresolved.is_none(), unresolved);
            for at in 0..links.len() {
                let Some(link) = links.get(first.wrapping_add(at) % links.len()) else { continue };
                match link.seen() {
                    AddressStatus::Connecting => connecting = true,
                    AddressStatus::Down(reason) => why = Some(reason),
                    AddressStatus::Up => match link.admit() {
                        Some(admitted) if answers(&admitted.connection) => return Ok(admitted),
                        Some(_) => why = Some("it does not answer this; is it an older version?".into()),
                        None => why = Some("it was left alone after many losses and is being tried".into()),
                    },
                }
            }
            let why = || why.as_deref().unwrap_or("it is still being connected").to_owned();
            if !connecting || tokio::time::timeout_at(patience, changed.changed()).await.is_err() {
                return Err(CallError::Refused(CommonError::Unavailable, why()));
            }
        }
    }

    fn earn(&self) {
        if self.budget.load(Relaxed) < RETRY_BUDGET {
            self.budget.fetch_add(1, Relaxed);
        }
    }

    fn spend(&self) -> bool {
        self.budget.fetch_update(Relaxed, Relaxed, |left| (left >= 10).then_some(left - 10)).is_ok()
    }

    fn links(&self) -> MutexGuard<'_, AddressPool> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the name stands for now.
    fn resolved(&self, found: Result<Vec<SocketAddr>, String>) {
        let mut links = self.links();
        match found {
            Ok(addresses) => {
                let gone: Vec<SocketAddr> =
                    links.all.keys().filter(|address| !addresses.contains(address)).copied().collect();
                for address in gone {
                    log::info!("{}: {address} is no longer one of its addresses", self.address);
                    links.all.remove(&address);
                }
                for address in addresses {
                    let wire = &self.wire;
                    links
                        .all
                        .entry(address)
                        .or_insert_with(|| PeerConnection::start(address, wire.clone(), self.changed.clone()));
                }
                links.unresolved = None;
            }
            Err(why) => {
                // What it stood for before may well still be right.
                if links.unresolved.as_deref() != Some(&why) {
                    log::warn!("{}: {why}", self.address);
                }
                links.unresolved = Some(why.into());
            }
        }
        drop(links);
        self.changed.send_replace(());
    }
}

/// What a name stands for.
async fn look_up(address: Address) -> Result<Vec<SocketAddr>, String> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let found = tokio::net::lookup_host((host, address.port)).await.map_err(|error| {
        log::debug!("{host}: {error}");
        format!("the name {host} cannot be resolved")
    })?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(format!("the name {host} stands for no address")) } else { Ok(found) }
}

/// Keeps the addresses of a peer as its name says.
async fn resolve(peer: Weak<Peer>, resolver: Resolver, every: Duration) {
    loop {
        let Some(address) = peer.upgrade().map(|peer| peer.address.clone()) else { return };
        let found = resolver(address).await.map(|mut found| {
            found.sort_unstable();
            found.dedup();
            found.truncate(ADDRESSES_MAX);
            found
        });
        let Some(here) = peer.upgrade() else { return };
        here.resolved(found);
        drop(here);
        tokio::time::sleep(every).await;
    }
}

async fn follow(peer: Weak<Peer>, sink: LiveSink) {
    let mut followed: Vec<Weak<Connection>> = Vec::new();
    loop {
        let Some(here) = peer.upgrade() else { return };
        let mut changed = here.changed.subscribe();
        followed.retain(|connection| connection.strong_count() > 0);
        for connection in here.seen().into_iter().filter_map(|(_, _, connection)| connection) {
            if !followed.iter().any(|known| known.ptr_eq(&Arc::downgrade(&connection))) {
                followed.push(Arc::downgrade(&connection));
                tokio::spawn(listen(connection, here.wire.clone(), Arc::clone(&sink)));
            }
        }
        drop(here);
        // The sender may be gone, which is found out above.
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Takes what one connection shows live, for as long as it lasts.
async fn listen(connection: Arc<Connection>, wire: PeerConfig, sink: LiveSink) {
    while !connection.is_lost() {
        let stream = async {
            let mut stream = connection.client.clone().live(wire.request(LiveRequest {})).await?.into_inner();
            let mut begun = false;
            while let Some(item) = stream.message().await? {
                sink(if begun { Some(&item.push) } else { None });
                begun = true;
            }
            Ok::<_, tonic::Status>(())
        };
        tokio::select! {
            ended = stream => {
                if let Err(status) = ended {
                    log::debug!("a live stream ended: {status}");
                }
                tokio::time::sleep(RETRY_BACKOFF * 10).await;
            }
            () = connection.lost() => return,
        }
    }
}
