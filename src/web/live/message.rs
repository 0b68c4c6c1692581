//! Messages from the hub to a session.

use actix::Message;
use bytestring::ByteString;

use super::close_cause::CloseCause;
use super::topic::Topic;
use crate::types::SessionId;

/// Message that the hub puts into a session's mailbox.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum SessionMessage {
    /// An event on a topic.
    Event { topic: Topic, frame: ByteString },
    /// An entry of the user's own stream.
    Notification { seq: i64, frame: ByteString },
    /// The user's rights may have changed, or the named session of theirs has ended.
    AccessChanged { session: Option<SessionId> },
    /// Pushes were lost on the way to the hub, so the session reads back the user's stream.
    Resync,
    /// A ping is due.
    Ping,
    /// The session ends.
    End(CloseCause),
    /// Nothing but a reason to check for lost messages.
    Wake,
}

impl SessionMessage {
    /// Bytes of the frame that the message keeps in memory.
    pub fn frame_bytes(&self) -> usize {
        match self {
            Self::Event { frame, .. } | Self::Notification { frame, .. } => frame.len(),
            _ => 0,
        }
    }
}
