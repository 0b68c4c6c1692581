//! The rules of mail: how a mail may stand, when it is tried again, what may be sent, what the shop writes by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EmailStatus, SendEmail};
use crate::contract::payments::{Invoice, LATE_PAYMENT};
use crate::store::text_enum;
use crate::types::{EmailAddress, EmailId, FieldError, Timestamp, Validator, collapse_whitespace};

/// How often a mail is tried at most.
const ATTEMPTS_MAX: i32 = 6;
/// How long to wait after the first failed try, the second, and so on: a server that restarts is back in seconds, one
/// that greylists in minutes, one that is repaired in hours.
const RETRY_DELAYS: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
];
/// Characters of a mail server's words that are kept.
const SERVER_MESSAGE_MAX: usize = 500;
/// The template of a mail that a person wrote.
pub const MESSAGE: &str = "message";
/// What is said of a mail that was still to be sent when its recipient's account was erased.
pub const RECIPIENT_GONE: &str = "the recipient's account was erased before the mail was sent";
/// The subject of a mail whose content is erased.
pub const ERASED_SUBJECT: &str = "(erased)";
/// An account whose making is told this much later is one of the past, written into the books: no welcome is due.
const WELCOME_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Where mails of an erased person seem to have gone: an address that is valid and can never exist (RFC 2606).
#[must_use]
pub fn nobody() -> EmailAddress {
    "erased@example.invalid".parse().expect("a constant that a test reads")
}

text_enum!(EmailStatus { Queued => "queued", Sent => "sent", Kept => "kept", Failed => "failed" });

impl EmailStatus {
    /// Whether anything can still happen to the mail: only one that waits can be tried, sent or given up.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued)
    }
}

/// What came of a try to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The mail server took it.
    Sent,
    /// It will never take it.
    Refused(String),
    /// Not this time.
    NotNow(String),
}

/// How a mail stands after a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryState {
    /// How it stands.
    pub status: EmailStatus,
    /// How often it was tried.
    pub attempts: i32,
    /// What the try met.
    pub last_error: Option<String>,
    /// When the mail server took it.
    pub sent_at: Option<Timestamp>,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
}

impl DeliveryState {
    /// How a mail that was tried `before` times stands after one more try.
    #[must_use]
    pub fn after(id: EmailId, before: i32, outcome: SendOutcome, now: Timestamp) -> Self {
        let attempts = before.saturating_add(1);
        let stand = |status, last_error: Option<String>, sent_at, next_attempt_at| {
            let last_error =
                last_error.map(|words| collapse_whitespace(&words).chars().take(SERVER_MESSAGE_MAX).collect());
            Self { status, attempts, last_error, sent_at, next_attempt_at }
        };
        match outcome {
            SendOutcome::Sent => stand(EmailStatus::Sent, None, Some(now), None),
            SendOutcome::Refused(words) => stand(EmailStatus::Failed, Some(words), None, None),
            SendOutcome::NotNow(words) => match pause(id, attempts) {
                Some(pause) => stand(EmailStatus::Queued, Some(words), None, Some(now.saturating_add(pause))),
                None => stand(EmailStatus::Failed, Some(words), None, None),
            },
        }
    }
}

/// How long to wait after the failed try with this number; none after the last. Up to a tenth more, so that mails which
/// failed together do not all come back together; drawn from the mail's id, which is random at its end.
fn pause(id: EmailId, attempts: i32) -> Option<Duration> {
    if attempts >= ATTEMPTS_MAX {
        return None;
    }
    let pause = RETRY_DELAYS.get(usize::try_from(attempts).ok()?.checked_sub(1)?)?;
    let [.., luck] = *id.uuid().as_bytes();
    Some(*pause + *pause * u32::from(luck) / 2_560)
}

/// Whether a new account is to be welcomed.
#[must_use]
pub fn is_welcome(created_at: Timestamp, told_at: Timestamp) -> bool {
    told_at.duration_since(created_at) < WELCOME_WITHIN
}

/// A mail from outside, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedEmail {
    /// Where to.
    pub to: EmailAddress,
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
    /// Its HTML.
    pub html: Option<String>,
}

/// Checks a mail from outside. What passes can be put into a message, so that nothing accepted fails for its form.
pub fn check(request: &SendEmail) -> Result<ValidatedEmail, Vec<FieldError>> {
    let mut fields = Validator::new();
    let to = fields.email("to", &request.to);
    if to.as_ref().is_some_and(|to| to.as_str().parse::<lettre::Address>().is_err()) {
        fields.add_error("to", "invalid_email", "is not an address that mail can be sent to");
    }
    fields.line("subject", &request.subject, 1, 200);
    fields.text("text", &request.text, 1, 100_000);
    within(&mut fields, "text", &request.text, 100_000);
    if let Some(html) = &request.html {
        fields.text("html", html, 0, 500_000);
        within(&mut fields, "html", html, 500_000);
    }
    fields.finish()?;
    let html = request.html.clone().filter(|html| !html.trim().is_empty());
    let subject = request.subject.trim().to_owned();
    match to {
        Some(to) => Ok(ValidatedEmail { to, subject, text: request.text.clone(), html }),
        None => Err(vec![FieldError::new("to", "invalid_email", "is not an e-mail address")]),
    }
}

/// White space around a text is not counted by its check, but it is kept and sent, so it has the same limit.
fn within(fields: &mut Validator, field: &'static str, text: &str, max: usize) {
    if text.trim().chars().count() <= max && text.chars().count() > max {
        fields.add_error(field, "too_long", format!("must have at most {max} characters"));
    }
}

/// A letter that the shop writes by itself, with all it says: what waits for an address is kept in this form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "template", rename_all = "snake_case")]
pub enum EmailContent {
    /// To a new account.
    Welcome,
    /// To show that an address is one's own.
    Verify {
        /// Where that is done.
        link: String,
    },
    /// To choose a new password.
    Reset {
        /// Where that is done.
        link: String,
    },
    /// What was paid for.
    Receipt {
        /// The invoice's number.
        number: String,
        /// The day it was paid, in UTC.
        date: String,
        /// What for.
        lines: Vec<ReceiptLine>,
        /// What all lines come to.
        total: String,
    },
    /// Money went back.
    Refund {
        /// The invoice's number.
        number: String,
        /// How much, this time.
        amount: String,
        /// Whether that is the rest of it.
        all: bool,
        /// Whether it went back because the goods were gone.
        out_of_stock: bool,
        /// Whether it came when the invoice could not be paid any more.
        #[serde(default)]
        late: bool,
    },
}

/// A line of a receipt, its amounts as people read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLine {
    /// What for.
    pub description: String,
    /// How many.
    pub quantity: i64,
    /// What one costs.
    pub unit_price: String,
    /// What all cost.
    pub total: String,
}

impl EmailContent {
    /// The receipt of a paid invoice.
    #[must_use]
    pub fn receipt(invoice: &Invoice, paid_at: Timestamp) -> Self {
        let line = |line: &crate::contract::payments::InvoiceLine| ReceiptLine {
            description: line.description.clone(),
            quantity: line.quantity,
            unit_price: invoice.currency.format(line.unit_price),
            total: invoice.currency.format(line.quantity.saturating_mul(line.unit_price)),
        };
        Self::Receipt {
            number: invoice.number.clone(),
            date: paid_at.to_utc().date().to_string(),
            lines: invoice.lines.iter().map(line).collect(),
            total: invoice.currency.format(invoice.total),
        }
    }

    /// What is told of money that went back.
    #[must_use]
    pub fn refund(invoice: &Invoice, amount: i64, reason: &str) -> Self {
        Self::Refund {
            number: invoice.number.clone(),
            amount: invoice.currency.format(amount),
            all: invoice.refunded >= invoice.total || reason == LATE_PAYMENT,
            out_of_stock: reason == "out_of_stock",
            late: reason == LATE_PAYMENT,
        }
    }

    /// The kind of mail it makes.
    #[must_use]
    pub const fn template(&self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::Verify { .. } => "verify",
            Self::Reset { .. } => "reset",
            Self::Receipt { .. } => "receipt",
            Self::Refund { .. } => "refund",
        }
    }

    /// Its subject.
    #[must_use]
    pub fn subject(&self, shop: &str) -> String {
        let subject = match self {
            Self::Welcome => format!("Welcome to {shop}"),
            Self::Verify { .. } => format!("Is this your address? {shop} asks"),
            Self::Reset { .. } => format!("A new password for {shop}"),
            Self::Receipt { number, .. } => format!("Your receipt {number} from {shop}"),
            Self::Refund { number, .. } => format!("Money back for {number} from {shop}"),
        };
        collapse_whitespace(&subject)
    }
}

/// A link of the shop's that carries a token.
#[must_use]
pub fn link(url: &str, page: &str, token: &str) -> String {
    let mut link = format!("{url}/{page}?token=");
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            link.push(char::from(byte));
        } else {
            link.push_str(&format!("%{byte:02X}"));
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_tried_six_times_ever_more_rarely() {
        let (id, now) = (EmailId::new(), Timestamp::from_micros(0));
        let waits = [10, 60, 300, 1_800, 7_200].map(Some).into_iter().chain([None]);
        for (before, wait) in waits.enumerate() {
            let before = i32::try_from(before).unwrap();
            let after = DeliveryState::after(id, before, SendOutcome::NotNow("busy".to_owned()), now);
            assert_eq!(after.attempts, before + 1);
            match wait {
                Some(seconds) => {
                    assert_eq!(after.status, EmailStatus::Queued);
                    let waits = after.next_attempt_at.unwrap().duration_since(now);
                    let least = Duration::from_secs(seconds);
                    assert!(least <= waits && waits <= least + least / 10, "{waits:?} after {before}");
                }
                None => assert_eq!((after.status, after.next_attempt_at), (EmailStatus::Failed, None)),
            }
        }
    }

    #[test]
    fn a_refusal_ends_it_and_long_words_are_cut() {
        let refused = SendOutcome::Refused("no\r\n".repeat(1_000));
        let after = DeliveryState::after(EmailId::new(), 0, refused, Timestamp::from_micros(0));
        assert_eq!((after.status, after.attempts, after.next_attempt_at), (EmailStatus::Failed, 1, None));
        assert_eq!(after.last_error.unwrap().len(), SERVER_MESSAGE_MAX);
    }

    #[test]
    fn a_token_cannot_leave_its_place_in_a_link() {
        assert_eq!(link("http://shop", "verify", "aB3-_"), "http://shop/verify?token=aB3-_");
        assert_eq!(link("http://shop", "reset", "a&b c\n"), "http://shop/reset?token=a%26b%20c%0A");
    }

    #[test]
    fn nobody_has_an_address_and_statuses_keep_their_words() {
        assert_eq!(nobody().as_str(), "erased@example.invalid");
        for status in [EmailStatus::Queued, EmailStatus::Sent, EmailStatus::Kept, EmailStatus::Failed] {
            assert_eq!(EmailStatus::parse(status.as_str()), Some(status));
        }
    }
}
