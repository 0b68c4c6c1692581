//! The frames that listener and shop exchange, each one JSON object.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::notifications::Notification;
use crate::types::{NotificationId, Timestamp, UserId};

/// Where a listener reads its notifications when they cannot all be told again.
pub const SNAPSHOT: &str = "/api/v1/notifications/";

/// What a listener says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Shows who it is.
    Auth {
        /// A bearer token or API key.
        token: String,
    },
    /// Wants to listen to topics.
    Subscribe {
        /// Which.
        topics: Vec<String>,
        /// Under which history `after` counts; the present one when absent.
        #[serde(default)]
        epoch: Option<String>,
        /// The last place of its own stream that it has seen.
        #[serde(default)]
        after: Option<i64>,
    },
    /// No longer wants to listen to topics.
    Unsubscribe {
        /// Which.
        topics: Vec<String>,
    },
    /// Has seen its own stream up to a place. Nothing needs to be done: the stream is kept either way.
    Ack {
        /// Which place.
        seq: i64,
    },
    /// Wants to hear a pong.
    Ping,
}

/// What the shop says.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// It knows who listens.
    Ready { user_id: Option<UserId>, epoch: &'a str, seq: i64 },
    /// It tells these topics from now on.
    Subscribed {
        topics: &'a [String],
        recovered: bool,
        #[serde(flatten)]
        stream: Option<StreamPosition<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        snapshot: Option<&'static str>,
    },
    /// An entry of the listener's own stream.
    Notification {
        seq: i64,
        topic: &'static str,
        id: NotificationId,
        kind: &'a str,
        title: &'a str,
        body: &'a str,
        data: &'a Value,
        created_at: Timestamp,
    },
    /// Something happened on a topic.
    Event { topic: &'a str, kind: &'a str, data: &'a Value },
    /// It is there.
    Pong,
    /// Something is not as the listener wishes.
    Error {
        code: &'a str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
    },
}

/// Where the listener's own stream stands.
#[derive(Debug, Serialize)]
pub struct StreamPosition<'a> {
    pub epoch: &'a str,
    pub seq: i64,
}

impl<'a> From<&'a Notification> for ServerFrame<'a> {
    fn from(n: &'a Notification) -> Self {
        Self::Notification {
            seq: n.seq,
            topic: "user",
            id: n.id,
            kind: &n.kind,
            title: &n.title,
            body: &n.body,
            data: &n.data,
            created_at: n.created_at,
        }
    }
}

impl ServerFrame<'_> {
    /// The frame as text: made once, however many hear it.
    pub fn encode(&self) -> ByteString {
        serde_json::to_string(self).map(ByteString::from).unwrap_or_else(|error| {
            log::error!("a live frame has no JSON form: {error}");
            ByteString::from_static(r#"{"type":"error","code":"internal","detail":"this could not be shown"}"#)
        })
    }
}
