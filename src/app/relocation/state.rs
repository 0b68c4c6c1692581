//! Moves of a domain as seen by the process that decides them: to another process, and back.
//!
//! Invariant: at every instant exactly one process would start the domain, whatever crashes when. The record in the
//! data folder ([`placement_file`]) decides which.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;

use super::actor::{Placement, PlacementResult};
use super::transfer::{blocking, read_at, verify_upload, write_at};
use super::{IN_FLIGHT_MAX, NAME, placement_file};
use crate::app::LiveBridge;
use crate::app::domain_slot::{PausedDomain, RelocatableDomain};
use crate::app::event_wiring::EventRouter;
use crate::contract::placement::{
    DatabaseManifest, DownloadChunk, FinishUpload, MoveResult, PlacementError, PrepareMove, StartDomain, StopDomain,
    UploadChunk,
};
use crate::domains::users;
use crate::messaging::grpc::{AddressStatus, Peer, PeerConfig, PeerRegistry, Remote};
use crate::messaging::{Backoff, Client, RemoteCallable as _, RequestContext};
use crate::runtime::DomainRuntime;
use crate::settings::{DOMAIN_NAMES, DomainLocation, Settings};
use crate::store::files::{hash_file, remove};
use crate::store::{self, AdvisoryMarker};
use crate::types::{self, Address};

/// Time for calls in flight to end. New calls wait as long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for one step of the other process.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to resolve and connect to the other process.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time during which the other process is asked to start a domain that it owns already, before calls are routed there
/// anyway.
const START_RETRY_FOR: Duration = Duration::from_secs(20);
/// Delays before a step is retried.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(400));
/// Interval at which the request to start a domain is repeated to its new owner until it confirms.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);

/// State that the handlers share.
pub struct RelocationState {
    runtime: Arc<DomainRuntime>,
    event_router: Arc<EventRouter>,
    slots: Vec<Box<dyn RelocatableDomain>>,
    peers: Mutex<PeerRegistry>,
    peer_config: PeerConfig,
    live: LiveBridge,
    /// Held for the length of a move: there is at most one at a time.
    pub busy: tokio::sync::Mutex<()>,
}

/// File or advisory lock that exists only in this process's data folder or database. Removed when dropped.
enum LocalityProbe {
    File(PathBuf),
    Server(#[allow(dead_code, reason = "held for its drop")] AdvisoryMarker),
}

impl Drop for LocalityProbe {
    fn drop(&mut self) {
        if let Self::File(file) = self {
            let _ = remove(file);
        }
    }
}

impl RelocationState {
    pub fn new(
        runtime: Arc<DomainRuntime>,
        event_router: Arc<EventRouter>,
        slots: Vec<Box<dyn RelocatableDomain>>,
        peers: PeerRegistry,
        peer_config: PeerConfig,
        live: LiveBridge,
    ) -> Self {
        let (peers, busy) = (Mutex::new(peers), tokio::sync::Mutex::default());
        Self { runtime, event_router, slots, peers, peer_config, live, busy }
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.runtime.settings
    }

    pub fn slot(&self, domain: &str) -> PlacementResult<&dyn RelocatableDomain> {
        if !DOMAIN_NAMES.contains(&domain) {
            return Err(PlacementError::DomainNotFound);
        }
        let slot = self.slots.iter().find(|slot| slot.domain() == domain);
        slot.map(AsRef::as_ref).ok_or_else(|| {
            PlacementError::rejected(format!("{domain} has no configured location in this process; set {domain}.place"))
        })
    }

    /// Returns the process at an address once it is connected.
    async fn peer(&self, address: &Address) -> PlacementResult<Arc<Peer>> {
        let peer = self.peers.lock().at(address, &self.peer_config);
        let (started, mut backoff) = (Instant::now(), RETRY_BACKOFF);
        loop {
            let (statuses, unresolved) = (peer.statuses(), peer.resolve_error());
            let error = match (statuses.as_slice(), unresolved) {
                ([(_, AddressStatus::Up, _)], _) => return Ok(peer),
                ([], Some(error)) => error.to_string(),
                ([(_, AddressStatus::Down(error), _)], _) => error.to_string(),
                ([] | [_], _) => "still connecting".to_owned(),
                (many, _) => {
                    return Err(PlacementError::rejected(format!(
                        "{address} stands for {} processes; a domain moves to or from one process: give the address of that one",
                        many.len()
                    )));
                }
            };
            if started.elapsed() > CONNECT_TIMEOUT {
                return Err(PlacementError::rejected(format!("{address} cannot be reached: {error}")));
            }
            backoff.wait().await;
        }
    }

    /// Returns a client for the placement of another process.
    fn remote_placement(peer: &Arc<Peer>) -> Client<Placement> {
        Client::remote(NAME, Remote::new(NAME, Placement::names(), Arc::clone(peer)), IN_FLIGHT_MAX)
    }

    /// Places a probe by which another process detects that it shares this process's database or data folder.
    fn place_probe(&self, domain: &str, locality_probe: &str) -> PlacementResult<LocalityProbe> {
        let rejected = |error: String| PlacementError::rejected(format!("{domain} cannot be moved: {error}"));
        if let Some(server) = self.settings().domain(domain).database.server() {
            return AdvisoryMarker::place(server, locality_probe).map(LocalityProbe::Server).map_err(rejected);
        }
        let file = self.settings().data.join(locality_probe);
        std::fs::write(&file, "").map_err(|error| rejected(format!("{}: {error}", file.display())))?;
        Ok(LocalityProbe::File(file))
    }

    /// Checks that the other process can take the domain, or with `hands_over` hand it over.
    async fn prepare(&self, remote: &Client<Placement>, domain: &str, hands_over: bool) -> PlacementResult<()> {
        let locality_probe = format!(".moving-{}", types::new_uuid());
        let _probe = self.place_probe(domain, &locality_probe)?;
        let request = PrepareMove {
            domain: domain.to_owned(),
            hands_over,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            locality_probe,
            schema: self.settings().domain(domain).database.server().map(|server| server.schema(domain)),
            secret: self.secret_fingerprint(domain)?,
        };
        remote.call(step_context(), request).await
    }

    /// Returns a fingerprint of the secret that the domain signs with; empty if it signs nothing.
    pub fn secret_fingerprint(&self, domain: &str) -> PlacementResult<String> {
        if domain != "users" {
            return Ok(String::new());
        }
        users::secret_fingerprint(self.settings()).map_err(PlacementError::rejected)
    }

    /// Stops a drained domain and closes its database.
    pub async fn stop(&self, domain: &'static str, for_good: bool) -> PlacementResult<DatabaseManifest> {
        let store = self.event_router.remove_local(domain, for_good);
        let runtime = Arc::clone(&self.runtime);
        blocking(move || {
            runtime.stop_one(domain);
            Ok(())
        })
        .await?;
        if let Some(store) = store {
            store.close().await;
        }
        self.manifest(domain).await
    }

    /// Returns size and checksum of a stopped domain's database.
    pub async fn manifest(&self, domain: &str) -> PlacementResult<DatabaseManifest> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(DatabaseManifest::default()) };
        blocking(move || {
            store::ensure_exclusive(&file)?;
            let (bytes, sha256) = hash_file(&file, None).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok(DatabaseManifest { bytes, sha256 })
        })
        .await
    }

    /// Starts a domain in this process.
    pub fn start(&self, slot: &dyn RelocatableDomain) -> PlacementResult<()> {
        if let Some(file) = placement_file::file(self.settings(), slot.domain()) {
            store::mark_moved_away(&file, false).map_err(PlacementError::rejected)?;
        }
        let store = slot.start(&self.runtime).map_err(|error| PlacementError::rejected(error.to_string()))?;
        self.event_router.add_local(store);
        Ok(())
    }

    /// Routes calls, events and live pushes of a domain to another process.
    fn route_to(&self, slot: &dyn RelocatableDomain, peer: &Arc<Peer>) {
        self.event_router.set_remote(slot.domain(), peer);
        if slot.domain() == "notifications" {
            self.live.forward_from(peer);
        }
        slot.route_to(peer, self.settings());
    }

    /// Uploads a domain's database file.
    async fn upload(
        &self,
        remote: &Client<Placement>,
        domain: &str,
        manifest: &DatabaseManifest,
    ) -> PlacementResult<()> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(()) };
        let mut at = 0;
        while at < manifest.bytes {
            let chunk = read_at(file.clone(), at).await?;
            let request = UploadChunk { domain: domain.to_owned(), at, chunk: BASE64.encode(&chunk) };
            remote.call(step_context(), request).await?;
            at += chunk.len() as u64;
        }
        remote.call(step_context(), FinishUpload { domain: domain.to_owned(), file: manifest.clone() }).await
    }

    /// Downloads a domain's database file and keeps it next to the present one.
    async fn download(
        &self,
        remote: &Client<Placement>,
        domain: &str,
        manifest: &DatabaseManifest,
    ) -> PlacementResult<()> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(()) };
        let mut at = 0;
        while at < manifest.bytes {
            let chunk = remote.call(step_context(), DownloadChunk { domain: domain.to_owned(), at }).await?;
            let chunk =
                BASE64.decode(chunk).map_err(|error| PlacementError::rejected(format!("invalid chunk: {error}")))?;
            if chunk.is_empty() {
                return Err(PlacementError::rejected("database transfer ended early"));
            }
            let length = chunk.len() as u64;
            write_at(placement_file::partial_path(&file), at, chunk).await?;
            at += length;
        }
        verify_upload(file, manifest.clone()).await
    }

    /// Asks the new owner to start the domain until it confirms, refuses, or the time for retries is over.
    async fn start_with_retries(&self, remote: &Client<Placement>, domain: &str) -> PlacementResult<()> {
        let (started, mut backoff) = (Instant::now(), RETRY_BACKOFF);
        loop {
            match remote.call(step_context(), StartDomain { domain: domain.to_owned() }).await {
                Err(PlacementError::Common(error)) if started.elapsed() < START_RETRY_FOR => {
                    log::warn!("relocation of {domain}: the new owner does not respond yet: {error}");
                    backoff.wait().await;
                }
                done => return done,
            }
        }
    }

    pub fn record(&self, domain: &str, place: &DomainLocation) -> PlacementResult<()> {
        placement_file::write(self.settings(), domain, place).map_err(PlacementError::rejected)
    }

    /// Moves a local domain to another process.
    pub async fn move_out(
        self: &Arc<Self>,
        slot: &dyn RelocatableDomain,
        address: &Address,
    ) -> PlacementResult<MoveResult> {
        let domain = slot.domain();
        let peer = self.peer(address).await?;
        let remote = Self::remote_placement(&peer);
        self.prepare(&remote, domain, false).await?;
        let (started, mut paused) = (Instant::now(), slot.pause());
        wait_drained(domain, &mut paused).await?;
        let transfer = async {
            let manifest = self.stop(domain, false).await?;
            self.upload(&remote, domain, &manifest).await?;
            self.record(domain, &DomainLocation::Remote(address.clone()))?;
            Ok(manifest)
        };
        let manifest = match transfer.await {
            Ok(manifest) => manifest,
            Err(error) => return self.restart_here(slot, error),
        };
        match self.start_with_retries(&remote, domain).await {
            Ok(()) => {
                self.route_to(slot, &peer);
                self.mark_left_behind(domain).await;
            }
            Err(error @ PlacementError::Common(_)) => {
                self.route_to(slot, &peer);
                actix::spawn(notify_owner(Arc::clone(self), domain, address.clone()));
                return Err(PlacementError::rejected(format!(
                    "{domain} was moved, but {address} does not respond ({error}); the shop keeps trying to start it there"
                )));
            }
            Err(error) => {
                self.record(domain, &DomainLocation::Local)?;
                return self.restart_here(slot, error);
            }
        }
        Ok(moved(domain, address.to_string(), manifest.bytes, started))
    }

    /// Marks the database that a moved domain has left in this process. The move is done, whatever comes of it.
    async fn mark_left_behind(&self, domain: &str) {
        if let Some(file) = placement_file::file(self.settings(), domain) {
            // It logs its own failures, and so does a panic.
            let _ = tokio::task::spawn_blocking(move || placement_file::mark_left_behind(&file)).await;
        }
    }

    /// Starts a domain that could not be moved in this process again, and returns the error of the move.
    fn restart_here(&self, slot: &dyn RelocatableDomain, error: PlacementError) -> PlacementResult<MoveResult> {
        self.start(slot)?;
        Err(error)
    }

    /// Moves a domain from another process to this one.
    pub async fn move_in(&self, slot: &dyn RelocatableDomain) -> PlacementResult<MoveResult> {
        let domain = slot.domain();
        let address = match slot.remote_peer() {
            Some(peer) => peer.address().clone(),
            None => {
                return Err(PlacementError::rejected(format!("{domain} has no configured location in this process")));
            }
        };
        let peer = self.peer(&address).await?;
        let remote = Self::remote_placement(&peer);
        self.prepare(&remote, domain, true).await?;
        let (started, mut paused) = (Instant::now(), slot.pause());
        wait_drained(domain, &mut paused).await?;
        let transfer = async {
            let manifest = remote.call(step_context(), StopDomain { domain: domain.to_owned() }).await?;
            self.download(&remote, domain, &manifest).await?;
            self.record(domain, &DomainLocation::Local)?;
            if let Err(error) = self.install_upload(domain).and_then(|()| self.start(slot)) {
                // Nothing was written in this process, so the database of the other one is still complete.
                self.record(domain, &DomainLocation::Remote(address))?;
                return Err(error);
            }
            Ok(manifest)
        };
        match transfer.await {
            Ok(manifest) => Ok(moved(domain, "local".to_owned(), manifest.bytes, started)),
            Err(error) => {
                if let Err(rollback) = self.start_with_retries(&remote, domain).await {
                    log::error!("relocation of {domain} failed and rollback failed: {rollback}");
                }
                self.route_to(slot, &peer);
                Err(error)
            }
        }
    }

    pub fn install_upload(&self, domain: &str) -> PlacementResult<()> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(()) };
        placement_file::install_upload(&file)
            .map_err(|error| PlacementError::rejected(format!("{}: {error}", file.display())))
    }
}

fn step_context() -> RequestContext {
    RequestContext::internal(NAME).with_timeout(STEP_TIMEOUT)
}

fn moved(domain: &str, place: String, bytes: u64, started: Instant) -> MoveResult {
    let paused_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    log::info!("relocation: {domain} moved to {place} ({bytes} bytes, calls waited {paused_ms} ms)");
    MoveResult { domain: domain.to_owned(), place, bytes, paused_ms }
}

/// Waits for the calls in flight of a paused domain.
pub async fn wait_drained(domain: &str, paused: &mut Box<dyn PausedDomain>) -> PlacementResult<()> {
    if paused.wait_drained(DRAIN_TIMEOUT).await {
        return Ok(());
    }
    let seconds = DRAIN_TIMEOUT.as_secs();
    Err(PlacementError::rejected(format!(
        "{domain} has calls in flight that did not end within {seconds} s; try again"
    )))
}

/// Tells every new owner to start its domain: a crash may have come between the record and that message.
pub async fn notify_all_owners(state: Arc<RelocationState>) {
    let Ok(places) = placement_file::read(state.settings()) else { return };
    for (domain, place) in places {
        if let (DomainLocation::Remote(address), Ok(slot)) = (place, state.slot(&domain)) {
            actix::spawn(notify_owner(Arc::clone(&state), slot.domain(), address));
        }
    }
}

async fn notify_owner(state: Arc<RelocationState>, domain: &'static str, address: Address) {
    loop {
        let result = match state.peer(&address).await {
            Ok(peer) => {
                let remote = RelocationState::remote_placement(&peer);
                remote.call(step_context(), StartDomain { domain: domain.to_owned() }).await
            }
            Err(error) => Err(error),
        };
        // The domain may have been moved again meanwhile.
        let is_still_owner = state
            .slot(domain)
            .ok()
            .and_then(RelocatableDomain::remote_peer)
            .is_some_and(|peer| *peer.address() == address);
        match result {
            Ok(()) => return state.mark_left_behind(domain).await,
            Err(_) if !is_still_owner => return,
            Err(error) => log::warn!("relocation: {domain} was moved to {address}, which has not started it: {error}"),
        }
        tokio::time::sleep(NOTIFY_INTERVAL).await;
    }
}
