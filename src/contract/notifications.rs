//! Messages and errors of the notifications domain.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{Cursor, FieldError, NotificationId, PageRequest, Timestamp, UserId};

/// An entry of a user's notification stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Identifier, for [`MarkRead`].
    pub id: NotificationId,
    /// Sequence number in the user's stream: 1, 2, 3, ... without gaps.
    pub seq: i64,
    /// Machine-readable kind: `invoice_paid`, ...
    pub kind: String,
    /// Headline in English.
    pub title: String,
    /// One or two sentences in English.
    pub body: String,
    /// Values of the event for programs; the fields depend on `kind`.
    pub data: serde_json::Value,
    /// Whether the user has marked it as read.
    pub read: bool,
    /// Time at which the notification was stored.
    pub created_at: Timestamp,
}

/// Lists the caller's notifications, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListNotifications {
    /// Sequence number to start after; all are listed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Cursor and page size.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// A page of notifications with the stream's position of the same moment: a subscription from there misses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotificationPage {
    /// Notifications, newest first.
    pub items: Vec<Notification>,
    /// Cursor of the next page; `null` on the last one.
    pub next: Option<Cursor>,
    /// Epoch of the sequence numbers, as in [`Stream`].
    pub epoch: String,
    /// Last sequence number of the stream.
    pub seq: i64,
    /// Number of unread notifications in the whole stream.
    pub unread: i64,
}

/// Marks one of the caller's notifications as read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkRead {
    /// Notification to mark.
    pub notification_id: NotificationId,
}

/// Reads the position of a user's stream. For live sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetStream {
    /// Owner of the stream. For an anonymous session, which has none, only the epoch is meaningful.
    pub user_id: Option<UserId>,
}

/// Position of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Identifier of the notification history. Another one means that sequence numbers seen before are invalid.
    pub epoch: String,
    /// Last sequence number; 0 in an empty stream.
    pub seq: i64,
}

/// Reads the notifications after a position. For live sessions that resume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadMissed {
    /// Owner of the stream.
    pub user_id: UserId,
    /// Epoch that the session has seen.
    pub epoch: String,
    /// Last sequence number that the session has seen.
    pub after: i64,
}

/// Notifications that a session missed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MissedNotifications {
    /// Whether all missed notifications are available. If not, `notifications` is empty, and the client must read the
    /// list again.
    pub recovered: bool,
    /// Missed notifications in order, at most 200. Call again after the last one for more.
    pub notifications: Vec<Notification>,
    /// Position of the stream.
    pub stream: Stream,
}

crate::events! { pub const EVENTS; }

crate::requests! { NotificationsError;
    "notifications.ListNotifications": ListNotifications => NotificationPage, read, |_| Access::SignedIn;
    "notifications.MarkRead": MarkRead => (), retry, |_| Access::SignedIn;
    "notifications.GetStream": GetStream => Stream, read, |_| Access::Internal;
    "notifications.ReadMissed": ReadMissed => MissedNotifications, read, |_| Access::Internal;
}

/// Counts the `invoice_paid` notifications of invoices. At most 500 invoices per call. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditPaidNotifications {
    /// Owners of streams with their invoices.
    pub paid: Vec<(UserId, crate::types::InvoiceId)>,
}

/// Notifications of one invoice in its owner's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationFacts {
    /// Number of `invoice_paid` notifications.
    pub times: i64,
    /// Time of the oldest notification kept, if older ones were dropped.
    pub kept_since: Option<Timestamp>,
    /// Whether the owner was erased.
    pub erased: bool,
}

crate::requests! { crate::messaging::CommonError;
    "notifications.AuditPaidNotifications": AuditPaidNotifications => Vec<NotificationFacts>, read, |_| Access::Internal;
}

/// Error of the notifications domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NotificationsError {
    /// The caller has no such notification.
    #[error("there is no such notification of yours")]
    NotificationNotFound,
    /// An error that any request can have.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(NotificationsError);

impl DomainError for NotificationsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotificationNotFound => ErrorKind::NotFound,
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
