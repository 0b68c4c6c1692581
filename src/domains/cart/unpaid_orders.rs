//! Limits on unpaid orders, so that no one can keep the stock from buyers by ordering it again and again without paying.
//!
//! An order counts while it is open, and for a while after it ended if it kept stock for some minutes and was not paid.
//! One person has one open order at most, because it locks the cart; guests cost nothing, so networks are counted too.

use std::time::Duration;

use super::CartError;
use super::store;
use crate::messaging::RequestContext;
use crate::settings::LimitsSettings;
use crate::store::{LockSet, Tx};
use crate::types::{ClientNetwork, UserId};

/// Time for which an unpaid order counts against its buyer after its end.
const PERSON_WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Time for which an unpaid order counts against its network after its end. Shorter, because many people share some.
pub const NETWORK_WINDOW: Duration = Duration::from_secs(3_600);
/// Time for which an order may keep stock and not count after its end, in microseconds: buyers change their mind.
pub const RECONSIDERED_WITHIN: i64 = 300 * 1_000_000;

/// The limits of a checkout.
#[derive(Debug, Clone, Copy)]
pub struct UnpaidOrderLimits {
    per_person: u32,
    per_network: u32,
    network: Option<ClientNetwork>,
}

impl UnpaidOrderLimits {
    /// The limits that apply to a caller; none while limits are switched off.
    pub fn of(settings: &LimitsSettings, ctx: &RequestContext) -> Option<Self> {
        let LimitsSettings { enabled, unpaid_per_user, unpaid_per_network, .. } = settings;
        let limits = Self { per_person: *unpaid_per_user, per_network: *unpaid_per_network, network: ctx.network };
        enabled.then_some(limits)
    }

    /// Name of the network in the checkout's row.
    pub fn network_name(&self) -> Option<String> {
        self.network.map(|network| network.to_string())
    }

    /// Adds the locks under which the network's orders are counted: two of its checkouts at once must see each other.
    pub fn lock(&self, locks: LockSet) -> LockSet {
        match self.network {
            Some(network) => locks.with("network", network),
            None => locks,
        }
    }

    /// Checks that one more order may be opened.
    ///
    /// # Errors
    /// [`CartError::TooManyUnpaidOrders`].
    pub fn check(&self, tx: &mut Tx<'_>, user: UserId) -> Result<(), CartError> {
        let since = tx.now.saturating_sub(PERSON_WINDOW);
        if store::count_unpaid_of_user(tx.conn, user, since)? >= i64::from(self.per_person) {
            return Err(CartError::TooManyUnpaidOrders { max: self.per_person });
        }
        if let Some(network) = self.network_name() {
            let since = tx.now.saturating_sub(NETWORK_WINDOW);
            if store::count_unpaid_of_network(tx.conn, &network, since)? >= i64::from(self.per_network) {
                return Err(CartError::TooManyUnpaidOrders { max: self.per_network });
            }
        }
        Ok(())
    }
}
