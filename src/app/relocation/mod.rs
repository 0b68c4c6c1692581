//! Moves a domain to another process, and back, while it serves.
//!
//! Lives here: who opens a domain and who does not, the handing over of its database, the record of it. It is asked like
//! a domain, by messages: an administrator asks the process that has the gateway, and that one asks the other process.
//! Never enters: what is in a database, what any domain does.
//!
//! **How it goes.** The other process says that it is ready. New calls wait at the client; those under way end. The
//! domain is closed here: what it did by itself is as if it had been killed, which it survives at any instant. Its file
//! is sent, measured and kept there, unopened; on a PostgreSQL server that both use nothing is sent. Then one line in the
//! data folder decides ([`record`]): before it the domain is opened here again, after it there, whatever crashes when.
//! The clients ask there from now on, and those that waited go on. Back it is the same: the decision is always
//! recorded by the process that was asked to move, and the other one opens nothing it is not told to open.
//!
//! **What it asks.** Both programs are of one version. Each has a data folder of its own. The domain is at one address,
//! not at several behind one name. What other processes ask of this one is asked there on their behalf; those
//! that ask the other one directly have to be told of it.

mod actor;
mod error;
pub mod messages;
mod placement_file;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LiveBridge;
use super::domain_slot::RelocatableDomain;
use super::event_wiring::EventRouter;
use crate::messaging::Client;
use crate::messaging::grpc::{PeerConfig, PeerRegistry};
use crate::runtime::DomainRuntime;
use crate::settings::{DomainLocation, PLACES_FILE, Settings};
use crate::store::OpenError;

pub use actor::Placement;
pub use error::PlacementError;
pub use messages::{MoveDomain, Moved};

/// What it is called where domains are named.
pub const NAME: &str = "placement";
/// How many requests it may have in hand.
const IN_FLIGHT_MAX: usize = 64;

/// Where domains were moved before this start; what a crash cut short is finished.
pub fn moved(settings: &Settings) -> Result<BTreeMap<String, DomainLocation>, OpenError> {
    let fail = |reason| OpenError { domain: NAME, file: settings.data.join(PLACES_FILE), reason };
    let places = placement_file::read(settings).map_err(fail)?;
    for (domain, place) in &places {
        if let DomainLocation::Remote(address) = place {
            log::info!("{domain} was moved to {address} while the shop ran; {PLACES_FILE} in the data folder says so");
        }
    }
    placement_file::finish(settings, &places).map_err(fail)?;
    Ok(places)
}

/// Opens the placement of this process.
pub fn open(
    ground: &Arc<DomainRuntime>,
    joints: Arc<EventRouter>,
    seats: Vec<Box<dyn RelocatableDomain>>,
    (peers, wire): (PeerRegistry, PeerConfig),
    live: LiveBridge,
) -> Client<Placement> {
    let state = Arc::new(actor::RelocationState::new(Arc::clone(ground), joints, seats, peers, wire, live));
    ground.start_with(NAME, IN_FLIGHT_MAX, move || Placement { state })
}
