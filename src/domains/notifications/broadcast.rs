//! Broadcast of pushes from the notifications domain to the live sessions of this process.
//!
//! If the domain runs in another process, its pushes are forwarded to the feed of this one. Contains no sessions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::Notification;
use crate::types::{SessionId, UserId};

/// Pushes that a receiver may lag behind before it misses some.
const BROADCAST_BUFFER: usize = 4_096;

/// A message for live sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Push {
    /// A new entry of a user's stream.
    Notification {
        /// Owner of the stream.
        user_id: UserId,
        /// New entry of the stream.
        notification: Notification,
    },
    /// An event on a topic. It is not stored, so a session that misses it does not receive it later.
    Event {
        /// `product:ID`, `catalog`, `comments:PRODUCT_ID`, `stats`, `orders`, `emails`.
        topic: String,
        /// Machine-readable kind of the event.
        kind: String,
        /// Values of the event; the fields depend on `kind`.
        data: serde_json::Value,
    },
    /// An event for the sessions of one user, outside the stream: it is not stored either.
    UserEvent {
        /// User whose sessions receive it.
        user_id: UserId,
        /// Machine-readable kind of the event.
        kind: String,
        /// Values of the event; the fields depend on `kind`.
        data: serde_json::Value,
    },
    /// A user's access has changed, or a session has ended.
    AccessChanged {
        /// User whose access changed.
        user_id: UserId,
        /// Session that ended; all sessions of the user when absent.
        session_id: Option<SessionId>,
    },
    /// Pushes from another process may have been lost: sessions read their missed notifications.
    Resync,
}

/// Channel for pushes from the notifications domain to any number of receivers. Clones share it.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<Arc<Push>>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BROADCAST_BUFFER))
    }
}

impl Feed {
    /// Sends a push to all current receivers. Never waits.
    pub fn send(&self, push: Push) {
        // An error means that there is no receiver.
        let _ = self.0.send(Arc::new(push));
    }

    /// Subscribes to later pushes. A receiver that lags behind gets the number of pushes that it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Push>> {
        self.0.subscribe()
    }
}
