//! Moves a domain to another process, and back, while it serves.
//!
//! Contains: which process starts a domain, the transfer of its database, the record of it. Its entry points are
//! messages ([`crate::contract::placement`]): an administrator calls the process with the gateway, and that one calls
//! the other process. Does not contain: the content of a database, a rule of any domain.
//!
//! **Steps.** The other process confirms that it is ready. The client holds new calls back; those in flight end. The
//! domain is stopped, which is as safe as killing it. Its file is uploaded, verified and kept unopened; with a
//! PostgreSQL server that both processes use nothing is transferred. Then one line in the data folder decides
//! ([`placement_file`]): after a crash before it the domain starts in the old process, after it in the new one. The
//! clients route to the new process, and the calls held back go on. The way back is the same: the process that the
//! administrator calls records the decision, and the other one starts nothing that it is not told to start.
//!
//! **Requirements.** Both programs have the same version. Each process has a data folder of its own. The address stands
//! for one process, not for several. Calls of other processes to the old one are forwarded; processes that call the new
//! one directly need its address in their settings.

mod actor;
mod permit;
mod placement_file;
mod state;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LiveBridge;
use super::domain_slot::RelocatableDomain;
use super::event_wiring::EventRouter;
use crate::contract::placement::PlacementError;
use crate::messaging::Client;
use crate::messaging::grpc::{PeerConfig, PeerRegistry};
use crate::runtime::DomainRuntime;
use crate::settings::{DomainLocation, PLACES_FILE, Settings};
use crate::store::OpenError;

pub use actor::Placement;
pub use permit::MovePermit;

crate::impl_from_storage_error!(PlacementError);

/// Name of placement where domains are named: messages, logs.
pub const NAME: &str = "placement";
/// Most requests to placement that may be in flight.
const IN_FLIGHT_MAX: usize = 64;

/// Reads where earlier runs moved domains to, and completes a move that a crash interrupted.
///
/// # Errors
/// If the record cannot be read or a database cannot be put in place.
pub fn moved(settings: &Settings) -> Result<BTreeMap<String, DomainLocation>, OpenError> {
    let error = |reason| OpenError { domain: NAME, file: settings.data.join(PLACES_FILE), reason };
    let places = placement_file::read(settings).map_err(error)?;
    for (domain, place) in &places {
        if let DomainLocation::Remote(address) = place {
            log::info!("relocation: {domain} was moved to {address} by an earlier run (see {PLACES_FILE})");
        }
    }
    placement_file::finish(settings, &places).map_err(error)?;
    Ok(places)
}

/// Names of the domains that were moved to another process while the shop ran; changes nothing.
///
/// # Errors
/// If the record cannot be read.
pub fn moved_away(settings: &Settings) -> Result<Vec<String>, String> {
    let places = placement_file::read(settings)?;
    Ok(places.into_iter().filter(|(_, place)| *place != DomainLocation::Local).map(|(domain, _)| domain).collect())
}

/// Starts the placement of this process.
pub fn open(
    runtime: &Arc<DomainRuntime>,
    event_router: Arc<EventRouter>,
    slots: Vec<Box<dyn RelocatableDomain>>,
    (peers, peer_config): (PeerRegistry, PeerConfig),
    live: LiveBridge,
) -> Client<Placement> {
    let state = state::RelocationState::new(Arc::clone(runtime), event_router, slots, peers, peer_config, live);
    let state = Arc::new(state);
    runtime.start_with(NAME, IN_FLIGHT_MAX, move || Placement { state })
}
