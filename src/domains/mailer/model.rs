//! Rules of emails as pure functions: delivery states, retry delays, validation, contents of automatic emails.
//!
//! Does not contain: SQL, SMTP, templates.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{EmailStatus, SendEmail};
use crate::contract::payments::{Invoice, LATE_PAYMENT, OUT_OF_STOCK};
use crate::contract::users::CredentialChange;
use crate::store::text_enum;
use crate::types::{EmailAddress, EmailId, FieldError, Timestamp, Validator, collapse_whitespace};

/// Delays after the first failed attempts: a restarting server is back in seconds, a greylisting one accepts after
/// minutes, a broken one is repaired within hours.
const FIRST_RETRY_DELAYS: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
];
/// Delay after each later attempt.
const LATER_RETRY_DELAY: Duration = Duration::from_secs(4 * 60 * 60);
/// Maximum number of delivery attempts: the last one comes four days after the first (RFC 5321, section 4.5.4.1).
const ATTEMPTS_MAX: i32 = 30;
/// Number of failed attempts of one email, half an hour after the first, at which staff are alerted.
const ALERT_ATTEMPTS: i32 = 4;
/// Interval at which the alert is repeated while mail is held up.
pub const ALERT_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of a stored error message of the mail server, in characters.
const SERVER_MESSAGE_MAX: usize = 500;
/// Template of an email written by staff.
pub const MESSAGE: &str = "message";
/// Error of an email that was queued when its recipient's account was erased.
pub const RECIPIENT_GONE: &str = "the recipient's account was erased before the e-mail was sent";
/// Subject of an email whose content is erased.
pub const ERASED_SUBJECT: &str = "(erased)";
/// Maximum age of an account at its announcement for a welcome email; an older one is imported.
const WELCOME_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the address that replaces that of an erased user: valid, and guaranteed not to exist (RFC 2606).
#[must_use]
pub fn erased_address() -> EmailAddress {
    "erased@example.invalid".parse().expect("constant, checked by a test")
}

text_enum!(EmailStatus { Queued => "queued", Sent => "sent", Kept => "kept", Failed => "failed" });

impl EmailStatus {
    /// Returns `true` if the state can still change: only a queued email can be attempted, sent or abandoned.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued)
    }
}

/// Outcome of a delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The mail server accepted the email.
    Sent,
    /// The mail server will never accept the email; its reply.
    Rejected(String),
    /// The mail server refuses the shop and not this email: its sender, its credentials, its volume. The reply.
    Refused(String),
    /// A later attempt may succeed; the error.
    Transient(String),
}

/// Command of the SMTP dialogue that a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpStage {
    /// Greeting, `EHLO`, `STARTTLS` and `AUTH`.
    Connection,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA` and the message.
    Content,
}

/// Negative reply of a mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpReply {
    stage: SmtpStage,
    code: u16,
    /// Subject and detail of the enhanced status code `5.SUBJECT.DETAIL` (RFC 3463).
    permanent_status: Option<(u16, u16)>,
    text: String,
}

impl SmtpReply {
    /// Creates a reply with its three-digit code and its text.
    #[must_use]
    pub fn new(stage: SmtpStage, code: u16, text: String) -> Self {
        let permanent_status = text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(parse_permanent_status);
        Self { stage, code, permanent_status, text }
    }

    /// Returns the outcome of the attempt. A permanent reply ends an email only if it is about the recipient's address
    /// or the email's content. All others are about the shop: its sender address, its credentials, its daily limit.
    /// They end when the shop's settings or its account at the mail server change, and no email is lost meanwhile.
    #[must_use]
    pub fn outcome(self) -> SendOutcome {
        match self.code {
            500..=599 if self.is_about_email() => SendOutcome::Rejected(self.text),
            500..=599 => SendOutcome::Refused(self.text),
            _ => SendOutcome::Transient(self.text),
        }
    }

    fn is_about_email(&self) -> bool {
        match (self.stage, self.permanent_status) {
            (SmtpStage::Connection, _) => false,
            // The sender's mailbox and domain.
            (_, Some((1, 7..=9))) => false,
            (SmtpStage::Sender, Some((1, _))) => false,
            // The recipient's address; a mailbox that is closed; a message that is too long for it. A full mailbox
            // (2.2) is emptied some day.
            (_, Some((1, _) | (2, 0 | 1 | 3 | 4) | (3, 4) | (6, _))) => true,
            (_, Some(_)) => false,
            // No such mailbox, moved, invalid, no mail for the domain (RFC 7504).
            (SmtpStage::Recipient, None) => matches!(self.code, 550 | 551 | 553 | 556),
            (SmtpStage::Sender | SmtpStage::Content, None) => false,
        }
    }
}

/// Parses `5.SUBJECT.DETAIL`.
fn parse_permanent_status(word: &str) -> Option<(u16, u16)> {
    let mut numbers = word.trim_end_matches('.').split('.');
    let (class, subject, detail) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let is_number = |text: &str| (1..=3).contains(&text.len());
    if class != "5" || !is_number(subject) || !is_number(detail) || numbers.next().is_some() {
        return None;
    }
    Some((subject.parse().ok()?, detail.parse().ok()?))
}

/// Delivery state of an email after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryState {
    /// Delivery state.
    pub status: EmailStatus,
    /// Number of attempts so far.
    pub attempts: i32,
    /// Error of the attempt.
    pub last_error: Option<String>,
    /// Time at which the mail server accepted the email.
    pub sent_at: Option<Timestamp>,
    /// Earliest time of the next attempt.
    pub next_attempt_at: Option<Timestamp>,
}

impl DeliveryState {
    /// Returns the state of an email after one more attempt, with `before` attempts before it.
    #[must_use]
    pub fn next_state(id: EmailId, before: i32, outcome: SendOutcome, now: Timestamp) -> Self {
        let attempts = before.saturating_add(1);
        let state = |status, last_error: Option<String>, sent_at, next_attempt_at| {
            let last_error =
                last_error.map(|message| collapse_whitespace(&message).chars().take(SERVER_MESSAGE_MAX).collect());
            Self { status, attempts, last_error, sent_at, next_attempt_at }
        };
        match outcome {
            SendOutcome::Sent => state(EmailStatus::Sent, None, Some(now), None),
            SendOutcome::Rejected(message) => state(EmailStatus::Failed, Some(message), None, None),
            SendOutcome::Transient(message) | SendOutcome::Refused(message) => match retry_delay(id, attempts) {
                Some(delay) => state(EmailStatus::Queued, Some(message), None, Some(now.saturating_add(delay))),
                None => state(EmailStatus::Failed, Some(message), None, None),
            },
        }
    }
}

/// Returns the delay after the failed attempt with this number; `None` after the last. Jitter of up to 10 %, taken from
/// the random part of the email's id, spreads emails that failed at the same time.
fn retry_delay(id: EmailId, attempts: i32) -> Option<Duration> {
    if attempts >= ATTEMPTS_MAX {
        return None;
    }
    let before = usize::try_from(attempts).ok()?.checked_sub(1)?;
    let delay = FIRST_RETRY_DELAYS.get(before).copied().unwrap_or(LATER_RETRY_DELAY);
    let [.., jitter] = *id.uuid().as_bytes();
    Some(delay + delay * u32::from(jitter) / 2_560)
}

/// Returns `true` if the outcome of an attempt, the `attempts`th of its email, shows that mail is held up.
#[must_use]
pub fn is_held_up(outcome: &SendOutcome, attempts: i32) -> bool {
    match outcome {
        SendOutcome::Refused(_) => true,
        SendOutcome::Transient(_) => attempts >= ALERT_ATTEMPTS,
        SendOutcome::Sent | SendOutcome::Rejected(_) => false,
    }
}

/// Returns `true` if an email of this template can be sent again. The links of the other ones have a short life, and their
/// recipients request new ones; a notice is about a moment that is over.
#[must_use]
pub fn is_resendable(template: &str) -> bool {
    !matches!(template, "verify" | "reset" | "security")
}

/// Returns `true` if a new account gets a welcome email.
#[must_use]
pub fn is_welcome(created_at: Timestamp, announced_at: Timestamp) -> bool {
    announced_at.duration_since(created_at) < WELCOME_WINDOW
}

/// A validated email of staff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedEmail {
    /// Recipient.
    pub to: EmailAddress,
    /// Subject line, trimmed.
    pub subject: String,
    /// Plain-text body.
    pub text: String,
    /// HTML body, if not blank.
    pub html: Option<String>,
}

/// Validates an email of staff. A valid one can always be encoded as a message.
///
/// # Errors
/// All violations.
pub fn validate(request: &SendEmail) -> Result<ValidatedEmail, Vec<FieldError>> {
    let mut fields = Validator::new();
    let to = fields.email("to", &request.to);
    if to.as_ref().is_some_and(|to| to.as_str().parse::<lettre::Address>().is_err()) {
        fields.add_error("to", "invalid_email", "is not an address that e-mail can be sent to");
    }
    fields.line("subject", &request.subject, 1, 200);
    fields.text("text", &request.text, 1, 100_000);
    limit_untrimmed(&mut fields, "text", &request.text, 100_000);
    if let Some(html) = &request.html {
        fields.text("html", html, 0, 500_000);
        limit_untrimmed(&mut fields, "html", html, 500_000);
    }
    fields.finish()?;
    let html = request.html.clone().filter(|html| !html.trim().is_empty());
    let subject = request.subject.trim().to_owned();
    match to {
        Some(to) => Ok(ValidatedEmail { to, subject, text: request.text.clone(), html }),
        None => Err(vec![FieldError::new("to", "invalid_email", "is not an e-mail address")]),
    }
}

/// Applies the length limit to the untrimmed text, which is stored and sent; the validator counts the trimmed one.
fn limit_untrimmed(fields: &mut Validator, field: &'static str, text: &str, max: usize) {
    if text.trim().chars().count() <= max && text.chars().count() > max {
        fields.add_error(field, "too_long", format!("must have at most {max} characters"));
    }
}

/// Content of an automatic email. Emails that wait for an address are stored in this form, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "template", rename_all = "snake_case")]
pub enum EmailContent {
    /// Welcome to a new user.
    Welcome,
    /// Confirmation of an email address.
    Verify {
        /// Link to the confirmation page, with the placeholder of its token.
        link: String,
        /// Id of the link.
        link_id: Uuid,
    },
    /// Reset of a password.
    Reset {
        /// Link to the page with the new password, with the placeholder of its token.
        link: String,
        /// Id of the link.
        link_id: Uuid,
    },
    /// Notice of changed credentials or rights.
    Security {
        /// Kind of the change.
        change: CredentialChange,
        /// Whether staff changed it.
        by_staff: bool,
    },
    /// Receipt of a paid invoice.
    Receipt {
        /// Number of the invoice.
        number: String,
        /// Day of the payment in UTC, as `YYYY-MM-DD`.
        date: String,
        /// Billed items.
        lines: Vec<ReceiptLine>,
        /// Delivery: its name and formatted price.
        #[serde(default)]
        shipping: Option<(String, String)>,
        /// Taxes: name with rate, and formatted amount.
        #[serde(default)]
        taxes: Vec<(String, String)>,
        /// Whether the prices include the taxes.
        #[serde(default)]
        tax_included: bool,
        /// Formatted total.
        total: String,
    },
    /// Notice of a refund.
    Refund {
        /// Number of the invoice.
        number: String,
        /// Formatted amount of this refund.
        amount: String,
        /// Whether the invoice is refunded in full now.
        all: bool,
        /// Whether the sale could not be fulfilled.
        out_of_stock: bool,
        /// Whether the payment arrived when the invoice could no longer take it.
        #[serde(default)]
        late: bool,
    },
}

/// A line of a receipt, with formatted amounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLine {
    /// Text of the invoice line.
    pub description: String,
    /// Number of units.
    pub quantity: i64,
    /// Formatted price of one unit.
    pub unit_price: String,
    /// Formatted price of all units.
    pub total: String,
}

impl EmailContent {
    /// Builds the receipt of a paid invoice.
    #[must_use]
    pub fn receipt(invoice: &Invoice, paid_at: Timestamp) -> Self {
        let line = |line: &crate::contract::payments::InvoiceLine| ReceiptLine {
            description: line.description.clone(),
            quantity: line.quantity,
            unit_price: invoice.currency.format(line.unit_price),
            total: invoice.currency.format(line.quantity.saturating_mul(line.unit_price)),
        };
        let tax = |total: &crate::contract::payments::TaxTotal| {
            (format!("{} {} %", total.tax.name, total.tax.rate), invoice.currency.format(total.amount))
        };
        Self::Receipt {
            number: invoice.number.clone(),
            date: paid_at.to_utc().date().to_string(),
            lines: invoice.lines.iter().map(line).collect(),
            shipping: invoice.shipping.as_ref().map(|one| (one.method.clone(), invoice.currency.format(one.price))),
            taxes: invoice.taxes.iter().map(tax).collect(),
            tax_included: invoice.tax_included,
            total: invoice.currency.format(invoice.total),
        }
    }

    /// Builds the notice of a refund; `amount` is in minor units.
    #[must_use]
    pub fn refund(invoice: &Invoice, amount: i64, reason: &str) -> Self {
        Self::Refund {
            number: invoice.number.clone(),
            amount: invoice.currency.format(amount),
            all: invoice.refunded >= invoice.total || reason == LATE_PAYMENT,
            out_of_stock: reason == OUT_OF_STOCK,
            late: reason == LATE_PAYMENT,
        }
    }

    /// Returns the id of the link in it.
    #[must_use]
    pub const fn link_id(&self) -> Option<Uuid> {
        match self {
            Self::Verify { link_id, .. } | Self::Reset { link_id, .. } => Some(*link_id),
            Self::Welcome | Self::Security { .. } | Self::Receipt { .. } | Self::Refund { .. } => None,
        }
    }

    /// Returns the name of the template.
    #[must_use]
    pub const fn template(&self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::Verify { .. } => "verify",
            Self::Reset { .. } => "reset",
            Self::Security { .. } => "security",
            Self::Receipt { .. } => "receipt",
            Self::Refund { .. } => "refund",
        }
    }

    /// Returns the subject line for a shop of this name.
    #[must_use]
    pub fn subject(&self, shop: &str) -> String {
        let subject = match self {
            Self::Welcome => format!("Welcome to {shop}"),
            Self::Verify { .. } => format!("Confirm your e-mail address for {shop}"),
            Self::Reset { .. } => format!("Reset your password for {shop}"),
            Self::Security { change, .. } => format!("{} at {shop}", security_subject(*change)),
            Self::Receipt { number, .. } => format!("Receipt for order {number} from {shop}"),
            Self::Refund { number, .. } => format!("Refund for order {number} from {shop}"),
        };
        collapse_whitespace(&subject)
    }
}

/// Returns what a notice says in its subject.
const fn security_subject(change: CredentialChange) -> &'static str {
    match change {
        CredentialChange::EmailRequested => "A new e-mail address was given",
        CredentialChange::Email => "Your e-mail address was changed",
        CredentialChange::Password => "Your password was changed",
        CredentialChange::ApiKey => "An API key was created",
        CredentialChange::Role => "Your role was changed",
        CredentialChange::SecondFactorOn => "Sign-in with a code was switched on",
        CredentialChange::SecondFactorOff => "Sign-in with a code was switched off",
        CredentialChange::OfStaff => "You changed the account of another member of staff",
    }
}

/// Text that stands for the token of a link in the stored body of an email.
#[must_use]
pub fn token_placeholder(link: Uuid) -> String {
    format!("link-{link}")
}

/// Returns the name for the salutation; empty if it could be a link, since everyone can have a name of their choice mailed.
#[must_use]
pub fn salutation(name: &str) -> &str {
    let is_host = |word: &str| {
        let word = word.trim_end_matches(['.', ',', '!', '?', ':', ';', ')']);
        word.rsplit_once('.').is_some_and(|(host, end)| {
            let end = end.split(['/', '?', '#', ':']).next().unwrap_or_default();
            !host.is_empty() && end.chars().count() >= 2 && end.chars().all(char::is_alphanumeric)
        })
    };
    let has_link =
        name.contains("://") || name.contains('/') || name.contains('@') || name.split_whitespace().any(is_host);
    if has_link { "" } else { name }
}

/// Builds a link to a page of the shop, with a percent-encoded token.
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
    fn email_is_attempted_for_four_days() {
        let (id, now) = (EmailId::new(), Timestamp::from_micros(0));
        let (mut before, mut total) = (0, Duration::ZERO);
        let first = [10, 60, 300, 1_800, 7_200].map(Duration::from_secs);
        loop {
            let after = DeliveryState::next_state(id, before, SendOutcome::Transient("busy".to_owned()), now);
            assert_eq!(after.attempts, before + 1);
            let Some(next) = after.next_attempt_at else {
                assert_eq!(after.status, EmailStatus::Failed);
                break;
            };
            assert_eq!(after.status, EmailStatus::Queued);
            let least = usize::try_from(before).ok().and_then(|n| first.get(n).copied());
            let (least, delay) = (least.unwrap_or(LATER_RETRY_DELAY), next.duration_since(now));
            assert!(least <= delay && delay <= least + least / 10, "{delay:?} after {before}");
            (before, total) = (after.attempts, total + delay);
        }
        assert!((4.0..5.0).contains(&(total.as_secs_f64() / 86_400.0)), "{total:?}");
    }

    #[test]
    fn only_replies_about_the_email_are_final() {
        use SmtpStage::{Connection, Content, Recipient, Sender};
        for (stage, code, text) in [
            (Recipient, 550, "550 5.1.1 The email account that you tried to reach does not exist"),
            (Recipient, 550, "no such user"),
            (Recipient, 551, "user not local"),
            (Recipient, 553, "mailbox name invalid"),
            (Recipient, 556, "the domain accepts no mail"),
            (Recipient, 550, "5.1.10 null MX"),
            (Recipient, 554, "5.2.1 this mailbox is disabled"),
            (Content, 552, "5.3.4 message too big for system"),
            (Content, 554, "5.6.0 invalid content"),
            (Content, 550, "5.1.1 recipient unknown"),
        ] {
            let outcome = SmtpReply::new(stage, code, text.to_owned()).outcome();
            assert_eq!(outcome, SendOutcome::Rejected(text.to_owned()));
        }
        for (stage, code, text) in [
            (Content, 550, "5.4.5 Daily user sending limit exceeded"),
            (Recipient, 550, "5.7.1 Sender address is not verified"),
            (Recipient, 554, "5.7.1 <ada@example.com>: Relay access denied"),
            (Recipient, 550, "5.1.8 sender address rejected: domain not found"),
            (Recipient, 552, "5.2.2 mailbox full"),
            (Recipient, 552, "mailbox full"),
            (Recipient, 530, "authentication required"),
            (Recipient, 554, "5.7.0 too many messages from 10.5.1.1"),
            (Sender, 550, "5.1.0 sender rejected"),
            (Sender, 550, "who are you"),
            (Sender, 530, "5.7.0 must issue a STARTTLS command first"),
            (Connection, 535, "5.7.8 username and password not accepted"),
            (Connection, 550, "5.1.1 go away"),
            (Content, 554, "message refused"),
            (Content, 550, "this looks like spam; see 127.5.1.1.example"),
            (Recipient, 501, "5.5.4 bad parameter"),
        ] {
            let outcome = SmtpReply::new(stage, code, text.to_owned()).outcome();
            assert_eq!(outcome, SendOutcome::Refused(text.to_owned()));
        }
        for code in [421, 450, 451, 452] {
            let text = "4.7.1 try again later, not 5.1.1".to_owned();
            assert_eq!(SmtpReply::new(Recipient, code, text.clone()).outcome(), SendOutcome::Transient(text));
        }
    }

    #[test]
    fn rejection_is_final_and_its_message_truncated() {
        let rejected = SendOutcome::Rejected("no\r\n".repeat(1_000));
        let after = DeliveryState::next_state(EmailId::new(), 0, rejected, Timestamp::from_micros(0));
        assert_eq!((after.status, after.attempts, after.next_attempt_at), (EmailStatus::Failed, 1, None));
        assert_eq!(after.last_error.unwrap().len(), SERVER_MESSAGE_MAX);
    }

    #[test]
    fn link_encodes_its_token() {
        assert_eq!(link("http://shop", "verify", "aB3-_"), "http://shop/verify?token=aB3-_");
        assert_eq!(link("http://shop", "reset", "a&b c\n"), "http://shop/reset?token=a%26b%20c%0A");
    }

    #[test]
    fn erased_address_and_status_codes_are_valid() {
        assert_eq!(erased_address().as_str(), "erased@example.invalid");
        for status in [EmailStatus::Queued, EmailStatus::Sent, EmailStatus::Kept, EmailStatus::Failed] {
            assert_eq!(EmailStatus::parse(status.as_str()), Some(status));
        }
    }
}
