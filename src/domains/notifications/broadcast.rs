//! What goes out live, in this process: from the notifications domain, after it is durable, to whoever listens. Where
//! the domain is in another process, its feed is carried to the one here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::Notification;
use crate::types::{SessionId, UserId};

/// How many pushes a listener may lag behind before it is told that it missed some.
const BROADCAST_BUFFER: usize = 4_096;

/// Something to be shown at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Push {
    /// A new entry of a user's stream.
    Notification {
        /// Whose stream.
        user_id: UserId,
        /// The entry.
        notification: Notification,
    },
    /// An event on a topic: live only, never told again.
    Event {
        /// `product:ID`, `catalog`, `comments:PRODUCT_ID`, `stats`, `orders`, `emails`.
        topic: String,
        /// What happened.
        kind: String,
        /// For programs.
        data: serde_json::Value,
    },
    /// What a user may see has changed, or a sign-in has ended.
    AccessChanged {
        /// Whose.
        user_id: UserId,
        /// Selection sign-in; all of the user's when absent.
        session_id: Option<SessionId>,
    },
    /// Some of the above may have been lost on the way from another process: whoever listens reads back what is theirs.
    Resync,
}

/// Carries pushes from the one domain that makes them to all who show them.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<Arc<Push>>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BROADCAST_BUFFER))
    }
}

impl Feed {
    /// Sends to all who listen now.
    pub fn send(&self, push: Push) {
        // An error only says that nobody listens.
        let _ = self.0.send(Arc::new(push));
    }

    /// Listens from now on. A listener that lags too far behind is told how many it missed and reads them back.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Push>> {
        self.0.subscribe()
    }
}
