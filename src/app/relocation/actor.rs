//! Answers what placement is asked.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Supervised};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::messages::{
    DatabaseManifest, DownloadChunk, FinishUpload, PrepareMove, StartDomain, StopDomain, UploadChunk,
};
use super::{IN_FLIGHT_MAX, MoveDomain, Moved, NAME, PlacementError, placement_file};
use crate::app::LiveBridge;
use crate::app::domain_slot::{PausedDomain, RelocatableDomain};
use crate::app::event_wiring::EventRouter;
use crate::domains::users;
use crate::messaging::grpc::{AddressStatus, Peer, PeerConfig, PeerRegistry, Remote};
use crate::messaging::{Client, CommonError, RemoteCallable as _, RequestContext};
use crate::runtime::DomainRuntime;
use crate::settings::{DOMAINS, DomainLocation, Settings};
use crate::store::files::{fsync_dir, hash_file, remove, rename};
use crate::store::{self, AdvisoryMarker};
use crate::tasks::spawn_detached;
use crate::types;
use crate::types::Address;

/// How long calls under way may take to end. Who asks meanwhile waits as long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other process may take for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long another process may take to be found and connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long the other process is asked to open what is its own by now, before the callers are sent there anyway.
const START_RETRY_FOR: Duration = Duration::from_secs(20);
/// The pause before something is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often a process is told of its domain until it has heard.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a database that travel at once.
const CHUNK_BYTES: usize = 4 << 20;
/// Characters of the longest part that is taken.
const CHUNK_BASE64_MAX: usize = CHUNK_BYTES / 3 * 4 + 8;

type Done<T> = Result<T, PlacementError>;

/// What the answers share.
pub struct RelocationState {
    ground: Arc<DomainRuntime>,
    joints: Arc<EventRouter>,
    seats: Vec<Box<dyn RelocatableDomain>>,
    peers: Mutex<PeerRegistry>,
    wire: PeerConfig,
    live: LiveBridge,
    /// One move at a time.
    busy: tokio::sync::Mutex<()>,
}

/// The actor of placement.
pub struct Placement {
    pub(super) state: Arc<RelocationState>,
}

impl Actor for Placement {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        actix::spawn(remind_all(Arc::clone(&self.state)));
    }
}

impl Supervised for Placement {}

crate::handlers! { Placement;
    MoveDomain => move_domain,
    PrepareMove => get_ready,
    UploadChunk => take_part,
    FinishUpload => seal,
    StartDomain => open_domain,
    StopDomain => close_domain,
    DownloadChunk => read_part,
}

/// Something that is only where our database or data folder is; gone when it is dropped.
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
        ground: Arc<DomainRuntime>,
        joints: Arc<EventRouter>,
        seats: Vec<Box<dyn RelocatableDomain>>,
        peers: PeerRegistry,
        wire: PeerConfig,
        live: LiveBridge,
    ) -> Self {
        Self { ground, joints, seats, peers: Mutex::new(peers), wire, live, busy: tokio::sync::Mutex::default() }
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.ground.settings
    }

    fn seat(&self, domain: &str) -> Done<&dyn RelocatableDomain> {
        if !DOMAINS.contains(&domain) {
            return Err(PlacementError::DomainNotFound);
        }
        let seat = self.seats.iter().find(|seat| seat.domain() == domain);
        seat.map(AsRef::as_ref).ok_or_else(|| {
            PlacementError::because(format!("{domain} is neither here nor does this process know the way to it"))
        })
    }

    /// The process at an address, connected.
    async fn peer(&self, address: &Address) -> Done<Arc<Peer>> {
        let peer = self.peers.lock().unwrap_or_else(PoisonError::into_inner).at(address, &self.wire);
        let begun = Instant::now();
        loop {
            let (seen, unresolved) = (peer.statuses(), peer.resolve_error());
            let why = match (seen.as_slice(), unresolved) {
                ([(_, AddressStatus::Up, _)], _) => return Ok(peer),
                ([], Some(why)) => why.to_string(),
                ([(_, AddressStatus::Down(why), _)], _) => why.to_string(),
                ([] | [_], _) => "it is still being connected".to_owned(),
                (many, _) => {
                    return Err(PlacementError::because(format!(
                        "{address} stands for {} processes, and a domain is moved to or from one: name that one",
                        many.len()
                    )));
                }
            };
            if begun.elapsed() > CONNECT_TIMEOUT {
                return Err(PlacementError::because(format!("{address} cannot be asked: {why}")));
            }
            tokio::time::sleep(RETRY_DELAY / 4).await;
        }
    }

    /// The placement of another process.
    fn there(peer: &Arc<Peer>) -> Client<Placement> {
        Client::remote(NAME, Remote::new(NAME, Placement::names(), Arc::clone(peer)), IN_FLIGHT_MAX)
    }

    /// Sets a sign by which another process finds out whether it shares our database or folder.
    fn sign(&self, domain: &str, mark: &str) -> Done<LocalityProbe> {
        let cannot = |why: String| PlacementError::because(format!("{domain} cannot be moved: {why}"));
        if let Some(server) = self.settings().domain(domain).database.server() {
            return AdvisoryMarker::set(server, mark).map(LocalityProbe::Server).map_err(cannot);
        }
        let file = self.settings().data.join(mark);
        std::fs::write(&file, "").map_err(|why| cannot(format!("{}: {why}", file.display())))?;
        Ok(LocalityProbe::File(file))
    }

    /// Asks whether the other process is ready.
    async fn is_ready(&self, there: &Client<Placement>, domain: &str, give: bool) -> Done<()> {
        let mark = format!(".moving-{}", types::new_uuid());
        let _sign = self.sign(domain, &mark)?;
        let request = PrepareMove {
            domain: domain.to_owned(),
            give,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mark,
            schema: self.settings().domain(domain).database.server().map(|server| server.schema(domain)),
            secret: self.secret(domain)?,
        };
        there.call(step(), request).await
    }

    /// By what two processes know that they sign with the same secret; nothing where nobody signs.
    fn secret(&self, domain: &str) -> Done<String> {
        if domain != "users" {
            return Ok(String::new());
        }
        users::secret_fingerprint(self.settings()).map_err(PlacementError::because)
    }

    /// Closes a domain that nobody reaches any more.
    async fn close(&self, domain: &'static str, for_good: bool) -> Done<DatabaseManifest> {
        let store = self.joints.depart(domain, for_good);
        let ground = Arc::clone(&self.ground);
        blocking(move || {
            ground.stop_one(domain);
            Ok(())
        })
        .await?;
        if let Some(store) = store {
            store.close().await;
        }
        self.hand(domain).await
    }

    /// What there is to hand over of a closed domain.
    async fn hand(&self, domain: &str) -> Done<DatabaseManifest> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(DatabaseManifest::default()) };
        blocking(move || {
            store::lone(&file)?;
            let (bytes, sha256) = hash_file(&file, None).map_err(|why| format!("{}: {why}", file.display()))?;
            Ok(DatabaseManifest { bytes, sha256 })
        })
        .await
    }

    /// Opens a domain here.
    fn open(&self, seat: &dyn RelocatableDomain) -> Done<()> {
        let store = seat.open(&self.ground).map_err(|error| PlacementError::because(error.to_string()))?;
        self.joints.arrive(store);
        Ok(())
    }

    /// From now on a domain is asked at another process.
    fn is_there(&self, seat: &dyn RelocatableDomain, peer: &Arc<Peer>) {
        self.joints.is_there(seat.domain(), peer);
        if seat.domain() == "notifications" {
            self.live.show(peer);
        }
        seat.is_at(peer, self.settings());
    }

    /// Sends a domain's file.
    async fn send(&self, there: &Client<Placement>, domain: &str, handed: &DatabaseManifest) -> Done<()> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(()) };
        let mut at = 0;
        while at < handed.bytes {
            let part = read_at(file.clone(), at).await?;
            let request = UploadChunk { domain: domain.to_owned(), at, part: BASE64.encode(&part) };
            there.call(step(), request).await?;
            at += part.len() as u64;
        }
        there.call(step(), FinishUpload { domain: domain.to_owned(), file: handed.clone() }).await
    }

    /// Fetches a domain's file, and keeps it beside its place.
    async fn fetch(&self, there: &Client<Placement>, domain: &str, handed: &DatabaseManifest) -> Done<()> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(()) };
        let mut at = 0;
        while at < handed.bytes {
            let part = there.call(step(), DownloadChunk { domain: domain.to_owned(), at }).await?;
            let part =
                BASE64.decode(part).map_err(|why| PlacementError::because(format!("what came is no part: {why}")))?;
            if part.is_empty() {
                return Err(PlacementError::because("the database ended before its end"));
            }
            let length = part.len() as u64;
            write_at(placement_file::arriving(&file), at, part).await?;
            at += length;
        }
        keep(file, handed.clone()).await
    }

    /// Tells the other process that a domain is its own, until it has heard or said no.
    async fn insist(&self, there: &Client<Placement>, domain: &str) -> Done<()> {
        let begun = Instant::now();
        loop {
            match there.call(step(), StartDomain { domain: domain.to_owned() }).await {
                Err(PlacementError::Common(failure)) if begun.elapsed() < START_RETRY_FOR => {
                    log::warn!("{domain}: the process it was moved to does not answer yet: {failure}");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                done => return done,
            }
        }
    }

    fn record(&self, domain: &str, place: &DomainLocation) -> Done<()> {
        placement_file::write(self.settings(), domain, place).map_err(PlacementError::because)
    }

    /// From here to another process.
    async fn move_out(self: &Arc<Self>, seat: &dyn RelocatableDomain, address: &Address) -> Done<Moved> {
        let domain = seat.domain();
        let peer = self.peer(address).await?;
        let there = Self::there(&peer);
        self.is_ready(&there, domain, false).await?;
        let (begun, mut paused) = (Instant::now(), seat.pause());
        drained(domain, &mut paused).await?;
        let decided = async {
            let handed = self.close(domain, false).await?;
            self.send(&there, domain, &handed).await?;
            self.record(domain, &DomainLocation::Remote(address.clone()))?;
            Ok(handed)
        };
        let handed = match decided.await {
            Ok(handed) => handed,
            Err(refusal) => return self.stays(seat, refusal),
        };
        match self.insist(&there, domain).await {
            Ok(()) => self.is_there(seat, &peer),
            Err(refusal @ PlacementError::Common(_)) => {
                self.is_there(seat, &peer);
                actix::spawn(remind(Arc::clone(self), domain, address.clone()));
                let reason =
                    format!("{domain} was moved, and {address} does not answer ({refusal}); it is asked until it does");
                return Err(PlacementError::because(reason));
            }
            Err(refusal) => {
                self.record(domain, &DomainLocation::Local)?;
                return self.stays(seat, refusal);
            }
        }
        Ok(moved(domain, address.to_string(), handed.bytes, begun))
    }

    /// A domain that could not be moved goes on here.
    fn stays(&self, seat: &dyn RelocatableDomain, refusal: PlacementError) -> Done<Moved> {
        self.open(seat)?;
        Err(refusal)
    }

    /// From another process to here.
    async fn move_in(&self, seat: &dyn RelocatableDomain) -> Done<Moved> {
        let domain = seat.domain();
        let address = match seat.elsewhere() {
            Some(peer) => peer.address().clone(),
            None => return Err(PlacementError::because(format!("{domain} is in no process that this one knows of"))),
        };
        let peer = self.peer(&address).await?;
        let there = Self::there(&peer);
        self.is_ready(&there, domain, true).await?;
        let (begun, mut paused) = (Instant::now(), seat.pause());
        drained(domain, &mut paused).await?;
        let opened = async {
            let handed = there.call(step(), StopDomain { domain: domain.to_owned() }).await?;
            self.fetch(&there, domain, &handed).await?;
            self.record(domain, &DomainLocation::Local)?;
            if let Err(refusal) = self.adopt(domain).and_then(|()| self.open(seat)) {
                // Nothing was written here, so what is there is still the whole.
                self.record(domain, &DomainLocation::Remote(address))?;
                return Err(refusal);
            }
            Ok(handed)
        };
        match opened.await {
            Ok(handed) => Ok(moved(domain, "local".to_owned(), handed.bytes, begun)),
            Err(refusal) => {
                if let Err(failure) = self.insist(&there, domain).await {
                    log::error!("{domain} could not be brought here, and its process does not open it: {failure}");
                }
                self.is_there(seat, &peer);
                Err(refusal)
            }
        }
    }

    fn adopt(&self, domain: &str) -> Done<()> {
        let Some(file) = placement_file::file(self.settings(), domain) else { return Ok(()) };
        placement_file::adopt(&file).map_err(|why| PlacementError::because(format!("{}: {why}", file.display())))
    }
}

fn step() -> RequestContext {
    RequestContext::internal(NAME).with_timeout(STEP_TIMEOUT)
}

fn moved(domain: &str, place: String, bytes: u64, begun: Instant) -> Moved {
    let paused_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    log::info!("{domain} was moved to {place}: {bytes} bytes, who asked waited {paused_ms} ms");
    Moved { domain: domain.to_owned(), place, bytes, paused_ms }
}

async fn drained(domain: &str, paused: &mut Box<dyn PausedDomain>) -> Done<()> {
    if paused.drained(DRAIN_TIMEOUT).await {
        return Ok(());
    }
    let seconds = DRAIN_TIMEOUT.as_secs();
    Err(PlacementError::because(format!("{domain} has calls under way that did not end within {seconds} s; try again")))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Done<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(PlacementError::because),
        Err(lost) => {
            log::error!("a step of a move was lost: {lost}");
            Err(CommonError::Internal.into())
        }
    }
}

async fn read_at(file: PathBuf, at: u64) -> Done<Vec<u8>> {
    blocking(move || {
        let read = || {
            let mut input = std::fs::File::open(&file)?;
            input.seek(SeekFrom::Start(at))?;
            let mut part = Vec::new();
            input.take(CHUNK_BYTES as u64).read_to_end(&mut part)?;
            Ok::<_, std::io::Error>(part)
        };
        read().map_err(|why| format!("{}: {why}", file.display()))
    })
    .await
}

/// Writes a part where it belongs; the first one begins the file anew.
async fn write_at(file: PathBuf, at: u64, part: Vec<u8>) -> Done<()> {
    blocking(move || {
        let write = || {
            if at == 0 {
                remove(&file)?;
                drop(store::files::create(&file)?);
            }
            let mut out = std::fs::File::options().write(true).open(&file)?;
            if out.metadata()?.len() < at {
                return Err(std::io::Error::other("a part before this one is missing"));
            }
            out.seek(SeekFrom::Start(at))?;
            out.write_all(&part)
        };
        write().map_err(|why| format!("{}: {why}", file.display()))
    })
    .await
}

/// Makes sure that what has come is what was sent, and keeps it durably beside its place.
async fn keep(file: PathBuf, handed: DatabaseManifest) -> Done<()> {
    blocking(move || {
        let (draft, whole) = (placement_file::arriving(&file), placement_file::arrived(&file));
        let (bytes, sha256) = hash_file(&draft, None).map_err(|why| format!("{}: {why}", draft.display()))?;
        if (bytes, &sha256) != (handed.bytes, &handed.sha256) {
            return Err(format!("{} is not what was sent", draft.display()));
        }
        let kept = || {
            std::fs::File::open(&draft)?.sync_all()?;
            rename(&draft, &whole)?;
            fsync_dir(whole.parent().unwrap_or(std::path::Path::new(".")))
        };
        kept().map_err(|why| format!("{}: {why}", whole.display()))
    })
    .await
}

async fn move_domain(state: Arc<RelocationState>, _: RequestContext, request: MoveDomain) -> Done<Moved> {
    let MoveDomain { domain, to } = request;
    let seat = state.seat(&domain)?;
    let place: DomainLocation = to.parse().map_err(|wrong| types::FieldError::new("to", "invalid", wrong))?;
    match place {
        DomainLocation::Local if seat.is_here() => return Ok(there_already(&domain, "local".to_owned())),
        DomainLocation::Remote(address) if seat.elsewhere().is_some_and(|peer| *peer.address() == address) => {
            return Ok(there_already(&domain, address.to_string()));
        }
        DomainLocation::Remote(_) if !seat.is_here() => {
            return Err(PlacementError::because(format!("{domain} is not here; bring it here first, then move it on")));
        }
        DomainLocation::Local | DomainLocation::Remote(_) => {}
        DomainLocation::RemoteUnspecified | DomainLocation::Standby | DomainLocation::Off => {
            let wrong = "must be local, or where the other process answers gRPC: http://HOST:PORT".to_owned();
            return Err(types::FieldError::new("to", "invalid", wrong).into());
        }
    }
    // Whoever asked may go away; a move that has begun is brought to its end.
    spawn_detached(async move {
        let Ok(_alone) = state.busy.try_lock() else { return Err(PlacementError::MoveInProgress) };
        let seat = state.seat(&domain)?;
        match place {
            DomainLocation::Remote(address) => state.move_out(seat, &address).await,
            _ => state.move_in(seat).await,
        }
    })
    .await
}

fn there_already(domain: &str, place: String) -> Moved {
    Moved { domain: domain.to_owned(), place, bytes: 0, paused_ms: 0 }
}

async fn get_ready(state: Arc<RelocationState>, _: RequestContext, request: PrepareMove) -> Done<()> {
    let PrepareMove { domain, give, version, mark, schema, secret } = request;
    let no = |reason: String| Err(PlacementError::because(reason));
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        return no(format!(
            "the other process is of version {own} and this one of {version}; bring both to one version"
        ));
    }
    let settings = state.settings();
    let database = &settings.domain(&domain).database;
    let seat = match state.seat(&domain) {
        Ok(seat) if give && seat.is_here() => seat,
        Ok(seat) if !give && !seat.is_here() && seat.elsewhere().is_none() => seat,
        Err(PlacementError::DomainNotFound) => return Err(PlacementError::DomainNotFound),
        Ok(seat) if !give && seat.is_here() => {
            return no(format!("{domain} is open in the other process already, with a database of its own there"));
        }
        _ if give => return no(format!("{domain} is not open in the other process")),
        _ => {
            return no(format!(
                "{domain} does not wait in the other process: start that one with --domains {domain} --standby"
            ));
        }
    };
    if state.secret(seat.domain())? != secret {
        return no("the other process signs with another secret: set MERCAT_SECRET to the same in both".to_owned());
    }
    match (database.server().cloned(), schema) {
        (None, None) if settings.data.join(&mark).exists() => {
            no("the other process has the same data folder; start it with one of its own (--data)".to_owned())
        }
        (None, None) => Ok(()),
        (Some(server), Some(schema)) if server.schema(seat.domain()) == schema => {
            let seen = blocking(move || AdvisoryMarker::is_seen(&server, &mark)).await?;
            if seen { Ok(()) } else { no("the other process uses another PostgreSQL database".to_owned()) }
        }
        (Some(_), Some(schema)) => no(format!("the other process does not use the schema {schema}")),
        _ => no(format!(
            "{domain} is in a file in one process and in PostgreSQL in the other; `mercat move-data` moves it between them"
        )),
    }
}

/// The file of a domain that waits here.
fn waiting(state: &RelocationState, domain: &str) -> Done<PathBuf> {
    let seat = state.seat(domain)?;
    if seat.is_here() || seat.elsewhere().is_some() {
        return Err(PlacementError::because(format!("{domain} does not wait to be moved here")));
    }
    placement_file::file(state.settings(), domain)
        .ok_or_else(|| PlacementError::because(format!("{domain} is not in a file here")))
}

async fn take_part(state: Arc<RelocationState>, _: RequestContext, request: UploadChunk) -> Done<()> {
    let file = waiting(&state, &request.domain)?;
    let part =
        Some(request.part).filter(|part| part.len() <= CHUNK_BASE64_MAX).and_then(|part| BASE64.decode(part).ok());
    let Some(part) = part else { return Err(PlacementError::because("this is no part of a database")) };
    if request.at == 0 {
        // What an earlier move left unopened was not decided, and never will be.
        let old = placement_file::arrived(&file);
        blocking(move || remove(&old).map_err(|why| format!("{}: {why}", old.display()))).await?;
    }
    write_at(placement_file::arriving(&file), request.at, part).await
}

async fn seal(state: Arc<RelocationState>, _: RequestContext, request: FinishUpload) -> Done<()> {
    let file = waiting(&state, &request.domain)?;
    let whole = placement_file::arrived(&file);
    if !placement_file::arriving(&file).exists() && whole.exists() {
        // Asked again, because the first answer was lost.
        let (bytes, sha256) = blocking(move || hash_file(&whole, None).map_err(|why| why.to_string())).await?;
        if (DatabaseManifest { bytes, sha256 }) == request.file {
            return Ok(());
        }
    }
    keep(file, request.file).await
}

async fn open_domain(state: Arc<RelocationState>, _: RequestContext, request: StartDomain) -> Done<()> {
    let seat = state.seat(&request.domain)?;
    if seat.is_here() {
        return Ok(());
    }
    if let Some(file) = placement_file::file(state.settings(), seat.domain()) {
        if !file.exists() && !placement_file::arrived(&file).exists() {
            return Err(PlacementError::because(format!("there is no database of {} in that process", seat.domain())));
        }
        state.adopt(seat.domain())?;
    }
    state.open(seat)?;
    state.record(seat.domain(), &DomainLocation::Local)?;
    log::info!("{} was moved here", seat.domain());
    Ok(())
}

async fn close_domain(state: Arc<RelocationState>, _: RequestContext, request: StopDomain) -> Done<DatabaseManifest> {
    let Ok(_alone) = state.busy.try_lock() else { return Err(PlacementError::MoveInProgress) };
    let seat = state.seat(&request.domain)?;
    let domain = seat.domain();
    if !seat.is_here() {
        return state.hand(domain).await;
    }
    let mut paused = seat.pause();
    drained(domain, &mut paused).await?;
    let recorded = state.record(domain, &DomainLocation::Standby);
    let closed = match recorded {
        Ok(()) => state.close(domain, true).await,
        Err(refusal) => Err(refusal),
    };
    match closed {
        Ok(handed) => {
            seat.is_nowhere();
            log::info!("{domain} is being moved away");
            Ok(handed)
        }
        Err(refusal) => {
            state.open(seat)?;
            state.record(domain, &DomainLocation::Local)?;
            Err(refusal)
        }
    }
}

async fn read_part(state: Arc<RelocationState>, _: RequestContext, request: DownloadChunk) -> Done<String> {
    let file = waiting(&state, &request.domain)?;
    Ok(BASE64.encode(read_at(file, request.at).await?))
}

/// Tells every process of what was moved to it: a crash may have come between the decision and that word.
async fn remind_all(state: Arc<RelocationState>) {
    let Ok(places) = placement_file::read(state.settings()) else { return };
    for (domain, place) in places {
        if let (DomainLocation::Remote(address), Ok(seat)) = (place, state.seat(&domain)) {
            actix::spawn(remind(Arc::clone(&state), seat.domain(), address));
        }
    }
}

async fn remind(state: Arc<RelocationState>, domain: &'static str, address: Address) {
    loop {
        let said = match state.peer(&address).await {
            Ok(peer) => RelocationState::there(&peer).call(step(), StartDomain { domain: domain.to_owned() }).await,
            Err(refusal) => Err(refusal),
        };
        // It may have been moved on meanwhile.
        let still = state
            .seat(domain)
            .ok()
            .and_then(RelocatableDomain::elsewhere)
            .is_some_and(|peer| *peer.address() == address);
        match said {
            Ok(()) => return,
            Err(_) if !still => return,
            Err(failure) => log::warn!("{domain} was moved to {address}, which does not have it open: {failure}"),
        }
        tokio::time::sleep(NOTIFY_INTERVAL).await;
    }
}
