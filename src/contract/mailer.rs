//! Requests, replies, events and errors of the mailer domain. Contains no behaviour beyond their error kinds.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{EmailAddress, EmailId, FieldError, Page, PageRequest, Timestamp};

/// An accepted email, with its delivery state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// Id of the email; its `Message-ID` is made of it.
    pub id: EmailId,
    /// Recipient.
    pub to: EmailAddress,
    /// Subject line, without its header encoding.
    pub subject: String,
    /// One of `welcome`, `verify`, `reset`, `receipt`, `refund`, or `message` for one written by staff.
    pub template: String,
    /// Plain-text body; absent in lists, and once the recipient was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// HTML body; absent in lists, and once the recipient was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Delivery state.
    pub status: EmailStatus,
    /// Number of delivery attempts so far.
    pub attempts: i32,
    /// Error of the last failed attempt: the mail server's reply or a connection error, at most 500 characters.
    pub last_error: Option<String>,
    /// Time of acceptance.
    pub created_at: Timestamp,
    /// Time at which the mail server accepted it.
    pub sent_at: Option<Timestamp>,
    /// Earliest time of the next attempt; `null` when there will be none.
    pub next_attempt_at: Option<Timestamp>,
}

/// Delivery state of an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmailStatus {
    /// Waiting for its first or next delivery attempt.
    Queued,
    /// Accepted by the mail server.
    Sent,
    /// Stored for the back office, because no mail server is configured.
    Kept,
    /// Abandoned: rejected for good, out of attempts, or its recipient was erased.
    Failed,
}

/// Sends an email written by staff.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendEmail {
    /// Recipient: exactly one address.
    pub to: String,
    /// Subject line, 1 to 200 characters.
    pub subject: String,
    /// Plain-text body, 1 to 100,000 characters.
    pub text: String,
    /// HTML body, at most 500,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
}

/// Receipt for an accepted email: it is stored durably and will be sent even after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEmail {
    /// Id of the email.
    pub id: EmailId,
    /// Delivery state: `queued`, or `kept` without a mail server.
    pub status: EmailStatus,
}

/// Lists emails, newest first, without their bodies.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListEmails {
    /// Only emails in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<EmailStatus>,
    /// Only emails to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Page to return.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Reads an email with its bodies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetEmail {
    /// Email to read.
    pub email_id: EmailId,
}

/// Sends an email again. One that is queued, kept or failed is queued for now; of a sent one a copy is queued, because
/// mail clients hide a second email with the same `Message-ID`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResendEmail {
    /// Email to send.
    pub email_id: EmailId,
}

crate::requests! { MailerError;
    "mailer.SendEmail": SendEmail => AcceptedEmail, once, |_| Access::Staff(Role::Support);
    "mailer.ListEmails": ListEmails => Page<Email>, read, |_| Access::Staff(Role::Support);
    "mailer.GetEmail": GetEmail => Email, read, |_| Access::Staff(Role::Support);
    "mailer.ResendEmail": ResendEmail => AcceptedEmail, once, |_| Access::Staff(Role::Support);
}

/// An email was accepted, sent or abandoned, or an attempt failed. For live views.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmailChanged {
    /// Id of the email.
    pub email_id: EmailId,
    /// Recipient.
    pub to: EmailAddress,
    /// Subject line.
    pub subject: String,
    /// Template, as in [`Email::template`].
    pub template: String,
    /// Delivery state after the change.
    pub status: EmailStatus,
    /// Number of delivery attempts so far.
    pub attempts: i32,
}

/// An email was abandoned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmailFailed {
    /// Id of the email.
    pub email_id: EmailId,
    /// Recipient.
    pub to: EmailAddress,
    /// Subject line.
    pub subject: String,
    /// Error of the last attempt.
    pub reason: String,
}

/// Mail is not being delivered: the mail server refuses the shop, or has been unreachable for half an hour. Repeated once a
/// day until an email is delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliveryStalled {
    /// Time since which no email was delivered and attempts failed.
    pub since: Timestamp,
    /// Number of emails that wait.
    pub queued: i64,
    /// Error of the last attempt.
    pub reason: String,
}

crate::events! { pub const EVENTS;
    "mailer.email_changed": EmailChanged;
    "mailer.email_failed": EmailFailed;
    "mailer.delivery_stalled": DeliveryStalled;
}

/// Counts the emails per invoice, for `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListEmailFacts {
    /// Invoices to report on, at most 500; the reply has their order.
    pub invoices: Vec<crate::types::InvoiceId>,
}

/// Numbers of emails for one invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailFacts {
    /// Accepted receipts, in any delivery state.
    pub receipts: i64,
    /// Refund emails, including those that wait for the user's address.
    pub refunds: i64,
    /// Receipts that wait for the user's address.
    pub waiting: i64,
}

crate::requests! { crate::messaging::CommonError;
    "mailer.ListEmailFacts": ListEmailFacts => Vec<EmailFacts>, read, |_| Access::Internal;
}

/// Errors of the mailer domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum MailerError {
    /// The email does not exist.
    #[error("there is no such e-mail")]
    EmailNotFound,
    /// The email cannot be sent again: its link has a short life, or its recipient was erased.
    #[error("this e-mail cannot be sent again: its recipient is gone, or requests a new link")]
    EmailNotResendable,
    /// No mail server is configured.
    #[error("no mail server is configured: set MERCAT_MAILER__SMTP")]
    NoMailServer,
    /// The recipient has reached the hourly limit for emails written by staff.
    #[error("this recipient has reached the limit of {max} e-mails per hour; try again in {retry_after} seconds")]
    RecipientLimit {
        /// Emails per recipient and hour.
        max: u32,
        /// Seconds until the next one is accepted.
        retry_after: u64,
    },
    /// No user has the address, and `mailer.known_recipients_only` is set.
    #[error("no user has this e-mail address, and this shop sends e-mail to its users only")]
    UnknownRecipient,
    /// An error common to all domains.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(MailerError);

impl DomainError for MailerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::EmailNotFound => ErrorKind::NotFound,
            Self::EmailNotResendable | Self::NoMailServer => ErrorKind::Conflict,
            Self::RecipientLimit { .. } => ErrorKind::TooManyRequests,
            Self::UnknownRecipient => ErrorKind::Forbidden,
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
