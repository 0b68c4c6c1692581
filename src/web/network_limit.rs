//! Limit on how many things are open at once, in all and per network: connections, and the live sessions among them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::ClientNetwork;

/// Number of open things and its limits.
pub struct NetworkLimit {
    max: usize,
    /// Most of one network; none without such a limit.
    per_network: Option<usize>,
    open: Mutex<OpenCounts>,
}

#[derive(Default)]
struct OpenCounts {
    total: usize,
    by_network: HashMap<ClientNetwork, usize>,
}

impl NetworkLimit {
    /// Creates a limit with nothing open.
    pub fn new(max: usize, per_network: Option<usize>) -> Arc<Self> {
        Arc::new(Self { max, per_network, open: Mutex::default() })
    }

    /// Most open things, in all.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Number of open things.
    pub fn open(&self) -> usize {
        self.open.lock().total
    }

    /// Counts one more, of a network if it is known, until the permit is dropped; `None` above a limit.
    pub fn admit(self: &Arc<Self>, network: Option<ClientNetwork>) -> Option<NetworkPermit> {
        let mut open = self.open.lock();
        let of_network = network.and_then(|network| open.by_network.get(&network)).copied().unwrap_or(0);
        if open.total >= self.max || self.per_network.is_some_and(|most| of_network >= most) {
            return None;
        }
        open.total += 1;
        if let Some(network) = network {
            open.by_network.insert(network, of_network + 1);
        }
        Some(NetworkPermit { limit: Arc::clone(self), network })
    }

    /// Number of networks that are remembered.
    #[cfg(test)]
    pub fn networks(&self) -> usize {
        self.open.lock().by_network.len()
    }
}

/// An open thing, counted until this is dropped.
pub struct NetworkPermit {
    limit: Arc<NetworkLimit>,
    network: Option<ClientNetwork>,
}

impl Drop for NetworkPermit {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock();
        open.total -= 1;
        if let Some(network) = self.network
            && let Some(count) = open.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
    }
}
