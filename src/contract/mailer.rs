//! What the mailer can be asked, answers and announces.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{EmailAddress, EmailId, FieldError, Page, PageRequest, Timestamp};

/// A mail, from the moment it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// Which.
    pub id: EmailId,
    /// Where to.
    pub to: EmailAddress,
    /// Its subject.
    pub subject: String,
    /// What kind of mail: `welcome`, `verify`, `reset`, `receipt`, `refund`, or `message` when a person wrote it.
    pub template: String,
    /// Its plain text; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its HTML; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// How it stands.
    pub status: EmailStatus,
    /// How often it was tried.
    pub attempts: i32,
    /// What the last try met.
    pub last_error: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the mail server took it.
    pub sent_at: Option<Timestamp>,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
}

/// How a mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmailStatus {
    /// Waits to be sent, or to be tried again.
    Queued,
    /// The mail server took it.
    Sent,
    /// There is no mail server; it is kept here to be read.
    Kept,
    /// Given up.
    Failed,
}

/// Sends a mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendEmail {
    /// One address.
    pub to: String,
    /// 1 to 200 characters on one line.
    pub subject: String,
    /// 1 to 100,000 characters.
    pub text: String,
    /// At most 500,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
}

/// A mail is accepted: it survives a crash from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEmail {
    /// Which.
    pub id: EmailId,
    /// How it stands.
    pub status: EmailStatus,
}

/// Lists mails, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListEmails {
    /// Only those that stand so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<EmailStatus>,
    /// Only to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Reads a mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetEmail {
    /// Which.
    pub email_id: EmailId,
}

crate::requests! { MailerError;
    "mailer.SendEmail": SendEmail => AcceptedEmail, once, |_| Access::Admin;
    "mailer.ListEmails": ListEmails => Page<Email>, retry, |_| Access::Admin;
    "mailer.GetEmail": GetEmail => Email, retry, |_| Access::Admin;
}

/// A mail was accepted, sent, or given up; for those who watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmailChanged {
    /// Which.
    pub email_id: EmailId,
    /// Where to.
    pub to: EmailAddress,
    /// Its subject.
    pub subject: String,
    /// What kind of mail.
    pub template: String,
    /// How it stands.
    pub status: EmailStatus,
    /// How often it was tried.
    pub attempts: i32,
}

/// A mail was given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmailFailed {
    /// Which.
    pub email_id: EmailId,
    /// Where to.
    pub to: EmailAddress,
    /// Its subject.
    pub subject: String,
    /// Why.
    pub reason: String,
}

crate::events! {
    "mailer.email_changed": EmailChanged;
    "mailer.email_failed": EmailFailed;
}

/// Says which letters there are for invoices, at most 500. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListEmailFacts {
    /// Which.
    pub invoices: Vec<crate::types::InvoiceId>,
}

/// The letters for one invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailFacts {
    /// Receipts, however they stand.
    pub receipts: i64,
    /// Letters about refunds, those that wait for an address included.
    pub refunds: i64,
    /// Receipts that wait for an address.
    pub waiting: i64,
}

crate::requests! { crate::messaging::CommonError;
    "mailer.ListEmailFacts": ListEmailFacts => Vec<EmailFacts>, retry, |_| Access::Internal;
}

/// An error of the mailer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum MailerError {
    /// No such mail.
    #[error("there is no such e-mail")]
    EmailNotFound,
    /// One person would get too many.
    #[error("this recipient has had {max} e-mails within the hour; try again in {retry_after} seconds")]
    RecipientLimit {
        /// How many an hour.
        max: u32,
        /// Seconds until one more is taken.
        retry_after: u64,
    },
    /// Only people who have an account may get mail.
    #[error("no user has this e-mail address, and this shop writes to its users only")]
    UnknownRecipient,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(MailerError);

impl DomainError for MailerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::EmailNotFound => ErrorKind::NotFound,
            Self::RecipientLimit { .. } => ErrorKind::TooManyRequests,
            Self::UnknownRecipient => ErrorKind::Forbidden,
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
