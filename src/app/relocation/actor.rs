//! Handlers of the placement messages: an administrator's order to move a domain, and the steps that the placement of
//! another process requests.

use std::path::PathBuf;
use std::sync::Arc;

use actix::{Actor, Context, Supervised};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::state::{RelocationState, notify_all_owners, wait_drained};
use super::transfer::{CHUNK_BASE64_MAX, blocking, read_at, verify_upload, write_at};
use super::{permit, placement_file};
use crate::contract::placement::{
    DatabaseManifest, DownloadChunk, FinishUpload, MoveDomain, MoveResult, PlacementError, PrepareMove, StartDomain,
    StopDomain, UploadChunk,
};
use crate::messaging::RequestContext;
use crate::settings::{DomainLocation, DomainSettings, Settings};
use crate::store::AdvisoryMarker;
use crate::store::files::{hash_file, remove};
use crate::tasks::spawn_detached;
use crate::types::{Address, Clock, FieldError};

/// Error of a destination that the settings do not name.
const NOT_ALLOWED: &str = "is not an address that the settings name; add it to peers.addresses, or use `mercat move` on the machine of the shop";

/// Result of a placement handler.
pub type PlacementResult<T> = Result<T, PlacementError>;

/// Actor that moves domains between processes.
pub struct Placement {
    pub(super) state: Arc<RelocationState>,
}

impl Actor for Placement {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        actix::spawn(notify_all_owners(Arc::clone(&self.state)));
    }
}

impl Supervised for Placement {}

crate::handlers! { Placement;
    MoveDomain => move_domain,
    PrepareMove => prepare_move,
    UploadChunk => upload_chunk,
    FinishUpload => finish_upload,
    StartDomain => start_domain,
    StopDomain => stop_domain,
    DownloadChunk => download_chunk,
}

async fn move_domain(
    state: Arc<RelocationState>,
    ctx: RequestContext,
    request: MoveDomain,
) -> PlacementResult<MoveResult> {
    ctx.require_recent_sign_in(Clock::system().now())?;
    let MoveDomain { domain, to, permit } = request;
    let slot = state.slot(&domain)?;
    let place: DomainLocation = to.parse().map_err(|error| FieldError::new("to", "invalid", error))?;
    match place {
        DomainLocation::Local if slot.is_local() => return Ok(unmoved(&domain, "local".to_owned())),
        DomainLocation::Remote(address) if slot.remote_peer().is_some_and(|peer| *peer.address() == address) => {
            return Ok(unmoved(&domain, address.to_string()));
        }
        DomainLocation::Remote(_) if !slot.is_local() => {
            return Err(PlacementError::rejected(format!(
                "{domain} does not run in this process; move it to local first, then on"
            )));
        }
        DomainLocation::Remote(ref address) if !may_move_to(state.settings(), address, permit.as_deref()) => {
            return Err(FieldError::new("to", "not_allowed", NOT_ALLOWED).into());
        }
        DomainLocation::Local | DomainLocation::Remote(_) => {}
        DomainLocation::RemoteUnspecified | DomainLocation::Standby | DomainLocation::Off => {
            let expected = "must be local, or the gRPC address of the other process: http://HOST:PORT".to_owned();
            return Err(FieldError::new("to", "invalid", expected).into());
        }
    }
    let user = ctx.identity().map(|identity| identity.user_id.to_string()).unwrap_or_default();
    log::info!("relocation: user {user} orders {domain} to {to} [{}]", ctx.request_id);
    // The caller may disconnect; a move that was started is completed.
    spawn_detached(async move {
        let Ok(_guard) = state.busy.try_lock() else { return Err(PlacementError::MoveInProgress) };
        let slot = state.slot(&domain)?;
        match place {
            DomainLocation::Remote(address) => state.move_out(slot, &address).await,
            _ => state.move_in(slot).await,
        }
    })
    .await
}

/// Whether a domain may be moved to an address: the settings name it, or the order carries a permit. A request alone cannot
/// have the shop connect to an arbitrary address, and hand it the data of its customers.
fn may_move_to(settings: &Settings, address: &Address, permit: Option<&str>) -> bool {
    let is_place = |domain: &DomainSettings| matches!(&domain.place, DomainLocation::Remote(place) if place == address);
    settings.peers.addresses.contains(address)
        || settings.domains.iter().any(is_place)
        || permit.is_some_and(|permit| permit::is_valid(&settings.data, permit))
}

fn unmoved(domain: &str, place: String) -> MoveResult {
    MoveResult { domain: domain.to_owned(), place, bytes: 0, paused_ms: 0 }
}

async fn prepare_move(state: Arc<RelocationState>, _: RequestContext, request: PrepareMove) -> PlacementResult<()> {
    let PrepareMove { domain, hands_over, version, locality_probe, schema, secret } = request;
    let reject = |reason: String| Err(PlacementError::rejected(reason));
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        return reject(format!(
            "the other process runs version {own} and this one version {version}; install the same version on both"
        ));
    }
    let settings = state.settings();
    let database = &settings.domain(&domain).database;
    let slot = match state.slot(&domain) {
        Ok(slot) if hands_over && slot.is_local() => slot,
        Ok(slot) if !hands_over && !slot.is_local() && slot.remote_peer().is_none() => slot,
        Err(PlacementError::DomainNotFound) => return Err(PlacementError::DomainNotFound),
        Ok(slot) if !hands_over && slot.is_local() => {
            return reject(format!("{domain} is open in the other process already, with a database of its own"));
        }
        _ if hands_over => return reject(format!("{domain} does not run in the other process")),
        _ => {
            return reject(format!(
                "the other process is not in standby for {domain}; start it with --domains {domain} --standby"
            ));
        }
    };
    if state.secret_fingerprint(slot.domain())? != secret {
        return reject(
            "the other process uses another signing secret; set MERCAT_SECRET to the same value in both".into(),
        );
    }
    match (database.server().cloned(), schema) {
        (None, None) if settings.data.join(&locality_probe).exists() => {
            reject("the other process uses the same data folder; start it with a different one (--data)".to_owned())
        }
        (None, None) => Ok(()),
        (Some(server), Some(schema)) if server.schema(slot.domain()) == schema => {
            let is_shared = blocking(move || AdvisoryMarker::is_visible(&server, &locality_probe)).await?;
            if is_shared { Ok(()) } else { reject("the other process uses another PostgreSQL database".to_owned()) }
        }
        (Some(_), Some(schema)) => reject(format!("the other process does not use the schema {schema}")),
        _ => reject(format!(
            "{domain} is in a file in one process and in PostgreSQL in the other; use `mercat move-data` to move it between them"
        )),
    }
}

/// Returns the database file of a domain that is in standby.
fn standby_file(state: &RelocationState, domain: &str) -> PlacementResult<PathBuf> {
    let slot = state.slot(domain)?;
    if slot.is_local() || slot.remote_peer().is_some() {
        return Err(PlacementError::rejected(format!("{domain} is not in standby in this process")));
    }
    placement_file::file(state.settings(), domain)
        .ok_or_else(|| PlacementError::rejected(format!("{domain} has no database file in this process")))
}

async fn upload_chunk(state: Arc<RelocationState>, _: RequestContext, request: UploadChunk) -> PlacementResult<()> {
    let file = standby_file(&state, &request.domain)?;
    let chunk =
        Some(request.chunk).filter(|chunk| chunk.len() <= CHUNK_BASE64_MAX).and_then(|chunk| BASE64.decode(chunk).ok());
    let Some(chunk) = chunk else {
        return Err(PlacementError::rejected("invalid chunk: too large, or not base64"));
    };
    if request.at == 0 {
        // The upload of an earlier move that was never decided.
        let old = placement_file::uploaded_path(&file);
        blocking(move || remove(&old).map_err(|error| format!("{}: {error}", old.display()))).await?;
    }
    write_at(placement_file::partial_path(&file), request.at, chunk).await
}

async fn finish_upload(state: Arc<RelocationState>, _: RequestContext, request: FinishUpload) -> PlacementResult<()> {
    let file = standby_file(&state, &request.domain)?;
    let uploaded = placement_file::uploaded_path(&file);
    if !placement_file::partial_path(&file).exists() && uploaded.exists() {
        // A retry: the first reply was lost.
        let (bytes, sha256) = blocking(move || hash_file(&uploaded, None).map_err(|error| error.to_string())).await?;
        if (DatabaseManifest { bytes, sha256 }) == request.file {
            return Ok(());
        }
    }
    verify_upload(file, request.file).await
}

async fn start_domain(state: Arc<RelocationState>, _: RequestContext, request: StartDomain) -> PlacementResult<()> {
    let slot = state.slot(&request.domain)?;
    if slot.is_local() {
        return Ok(());
    }
    let domain = slot.domain();
    if let Some(file) = placement_file::file(state.settings(), domain) {
        if !file.exists() && !placement_file::uploaded_path(&file).exists() {
            return Err(PlacementError::rejected(format!("the other process has no database of {domain}")));
        }
        state.install_upload(domain)?;
    }
    state.start(slot)?;
    state.record(domain, &DomainLocation::Local)?;
    log::info!("relocation: {domain} moved to this process");
    Ok(())
}

async fn stop_domain(
    state: Arc<RelocationState>,
    _: RequestContext,
    request: StopDomain,
) -> PlacementResult<DatabaseManifest> {
    let Ok(_guard) = state.busy.try_lock() else { return Err(PlacementError::MoveInProgress) };
    let slot = state.slot(&request.domain)?;
    let domain = slot.domain();
    if !slot.is_local() {
        return state.manifest(domain).await;
    }
    let mut paused = slot.pause();
    wait_drained(domain, &mut paused).await?;
    let stopped = match state.record(domain, &DomainLocation::Standby) {
        Ok(()) => state.stop(domain, true).await,
        Err(error) => Err(error),
    };
    match stopped {
        Ok(manifest) => {
            slot.disable();
            log::info!("relocation: {domain} stopped, to be moved to another process");
            Ok(manifest)
        }
        Err(error) => {
            state.start(slot)?;
            state.record(domain, &DomainLocation::Local)?;
            Err(error)
        }
    }
}

async fn download_chunk(
    state: Arc<RelocationState>,
    _: RequestContext,
    request: DownloadChunk,
) -> PlacementResult<String> {
    let file = standby_file(&state, &request.domain)?;
    Ok(BASE64.encode(read_at(file, request.at).await?))
}
