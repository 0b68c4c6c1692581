//! What the notifications can be asked and answer.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{Cursor, FieldError, NotificationId, PageRequest, Timestamp, UserId};

/// One entry of a user's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Which.
    pub id: NotificationId,
    /// Its place in the user's stream: 1, 2, 3, ... without a gap.
    pub seq: i64,
    /// What happened: `invoice_paid`, ...
    pub kind: String,
    /// In a few words.
    pub title: String,
    /// In a sentence.
    pub body: String,
    /// For programs.
    pub data: serde_json::Value,
    /// Whether the user has seen it.
    pub read: bool,
    /// When.
    pub created_at: Timestamp,
}

/// Lists the caller's notifications, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListNotifications {
    /// Only those after this place in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// A page of notifications, and from where to subscribe so that nothing falls between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotificationPage {
    /// The notifications.
    pub items: Vec<Notification>,
    /// Where the next page starts.
    pub next: Option<Cursor>,
    /// Under which history the places count.
    pub epoch: String,
    /// The last place in the stream at this moment.
    pub seq: i64,
    /// How many are unread.
    pub unread: i64,
}

/// Notes that the caller has seen one of theirs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkRead {
    /// Which.
    pub notification_id: NotificationId,
}

/// Reads where a user's stream stands. For the live sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetStream {
    /// Whose; an anonymous listener learns the epoch alone.
    pub user_id: Option<UserId>,
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Changes only if history was lost.
    pub epoch: String,
    /// The last place; 0 before the first.
    pub seq: i64,
}

/// Reads what a listener missed. For the live sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadMissed {
    /// Whose stream.
    pub user_id: UserId,
    /// Under which history the listener counts.
    pub epoch: String,
    /// The last place it has seen.
    pub after: i64,
}

/// What a listener missed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MissedNotifications {
    /// Whether all of it can be told. If not, nothing is: the listener must read its list anew.
    pub recovered: bool,
    /// What was missed, in order, at most 200; ask again after the last for more.
    pub notifications: Vec<Notification>,
    /// The stream as it stands.
    pub stream: Stream,
}

crate::requests! { NotificationsError;
    "notifications.ListNotifications": ListNotifications => NotificationPage, retry, |_| Access::SignedIn;
    "notifications.MarkRead": MarkRead => (), retry, |_| Access::SignedIn;
    "notifications.GetStream": GetStream => Stream, retry, |_| Access::Internal;
    "notifications.ReadMissed": ReadMissed => MissedNotifications, retry, |_| Access::Internal;
}

/// Says how often users were told that these invoices are paid, at most 500. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditPaidNotifications {
    /// Whose stream, and which invoice.
    pub paid: Vec<(UserId, crate::types::InvoiceId)>,
}

/// What a stream says of one invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationFacts {
    /// How often it says that the invoice is paid.
    pub times: i64,
    /// The oldest that is kept, when older ones were dropped.
    pub kept_since: Option<Timestamp>,
    /// Whether the stream's user was erased.
    pub erased: bool,
}

crate::requests! { crate::messaging::CommonError;
    "notifications.AuditPaidNotifications": AuditPaidNotifications => Vec<NotificationFacts>, retry, |_| Access::Internal;
}

/// An error of the notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NotificationsError {
    /// No such notification of the caller's.
    #[error("there is no such notification of yours")]
    NotificationNotFound,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(NotificationsError);

impl DomainError for NotificationsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotificationNotFound => ErrorKind::NotFound,
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}
