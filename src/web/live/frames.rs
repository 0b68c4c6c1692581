//! Frames of the live protocol, each one JSON object.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::topic::Topic;
use crate::contract::notifications::Notification;
use crate::types::{NotificationId, Timestamp, UserId};

/// Path of the list of notifications, for a client whose missed ones cannot all be replayed.
pub const SNAPSHOT: &str = "/api/v1/notifications/";

/// Frame of a client.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Authenticates the connection.
    Auth {
        /// A bearer token or API key.
        token: String,
    },
    /// Subscribes to topics.
    Subscribe {
        /// Names of the topics.
        topics: Vec<String>,
        /// Epoch of the stream that `after` counts in; the present one when absent.
        #[serde(default)]
        epoch: Option<String>,
        /// Sequence number of the last notification that the client has.
        #[serde(default)]
        after: Option<i64>,
    },
    /// Unsubscribes from topics.
    Unsubscribe {
        /// Names of the topics.
        topics: Vec<String>,
    },
    /// Acknowledges notifications. Checked and otherwise ignored: the stream is stored either way.
    Ack {
        /// Sequence number of the last notification that the client has.
        seq: i64,
    },
    /// Requests a pong.
    Ping,
}

/// Frame of the shop.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// The session is ready; without `user_id` it is anonymous.
    Ready { user_id: Option<UserId>, epoch: &'a str, seq: i64 },
    /// The session receives these topics from now on.
    Subscribed {
        topics: &'a [String],
        recovered: bool,
        #[serde(flatten)]
        stream: Option<StreamPosition<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        snapshot: Option<&'static str>,
    },
    /// An entry of the user's own stream.
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
    /// An event on a topic.
    Event { topic: &'a str, kind: &'a str, data: &'a Value },
    /// Answer to a ping.
    Pong,
    /// A frame of the client was rejected, or the session ends.
    Error {
        code: &'a str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
    },
}

/// Position in a user's own stream.
#[derive(Debug, Serialize)]
pub struct StreamPosition<'a> {
    pub epoch: &'a str,
    pub seq: i64,
}

impl<'a> From<&'a Notification> for ServerFrame<'a> {
    fn from(notification: &'a Notification) -> Self {
        Self::Notification {
            seq: notification.seq,
            topic: Topic::USER,
            id: notification.id,
            kind: &notification.kind,
            title: &notification.title,
            body: &notification.body,
            data: &notification.data,
            created_at: notification.created_at,
        }
    }
}

impl ServerFrame<'_> {
    /// Encodes the frame as text, once for all sessions that receive it.
    pub fn encode(&self) -> ByteString {
        serde_json::to_string(self).map(ByteString::from).unwrap_or_else(|error| {
            log::error!("live: frame has no JSON form: {error}");
            ByteString::from_static(r#"{"type":"error","code":"internal","detail":"this could not be shown"}"#)
        })
    }
}
