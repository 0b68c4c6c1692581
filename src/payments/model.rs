//! The rules of money, pure: which state may follow which, what lines come to, what may still go back.

use super::{InvoiceLine, InvoiceStatus};
use crate::types::{Amount, FieldError, Fields};

/// The most lines of an invoice.
const LINES_MAX: usize = 1_000;
/// The longest description of a line, in characters.
const DESCRIPTION_MAX: usize = 300;
/// The highest price of one piece, in minor units.
const UNIT_PRICE_MAX: Amount = 1_000_000_000_000;

/// A refund that somebody asked for.
pub const REQUESTED: &str = "requested";
/// A refund of a sale that could not be kept.
pub const OUT_OF_STOCK: &str = "out_of_stock";

impl InvoiceStatus {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Open, Self::Paid, Self::Expired, Self::Void, Self::Refunded];

    /// The word for it, in columns and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Expired => "expired",
            Self::Void => "void",
            Self::Refunded => "refunded",
        }
    }

    /// The status that has this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether an invoice that stands so may come to stand as `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Open, Self::Paid | Self::Expired | Self::Void) | (Self::Paid, Self::Refunded))
    }
}

/// How a try to take money stands. Only `Processing` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// The provider was or is about to be asked.
    Processing,
    /// The money is ours.
    Captured,
    /// It was not taken, and under this try's key it never will be.
    Failed,
}

impl PaymentState {
    /// The word for it, in columns.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Captured => "captured",
            Self::Failed => "failed",
        }
    }
}

/// How a try to give money back stands. Only `Processing` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundState {
    /// The amount is reserved; the provider was or is about to be asked.
    Processing,
    /// The money went back.
    Done,
    /// It did not, and under this try's key it never will.
    Failed,
}

impl RefundState {
    /// The word for it, in columns.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// The number people know an invoice by.
pub fn number(n: i64) -> String {
    format!("INV-{n:06}")
}

/// What all lines come to, exactly, or that it is more than can be said.
pub fn total(lines: &[InvoiceLine]) -> Result<Amount, FieldError> {
    lines
        .iter()
        .try_fold(0, |sum: Amount, line| sum.checked_add(line.unit_price.checked_mul(line.quantity)?))
        .ok_or_else(|| FieldError::new("lines", "out_of_range", "come to more than an invoice can say"))
}

/// The total of lines that are all as they must be, or everything that is wrong with them.
pub fn check(lines: &[InvoiceLine]) -> Result<Amount, Vec<FieldError>> {
    let mut fields = Fields::new();
    match lines.len() {
        0 => fields.wrong("lines", "required", "must have at least one line"),
        1..=LINES_MAX => {}
        _ => fields.wrong("lines", "too_long", format!("must have at most {LINES_MAX} lines")),
    }
    // Beyond the limit nothing is looked at: an answer must not grow with what somebody sends.
    for (n, line) in lines.iter().take(LINES_MAX).enumerate() {
        let length = line.description.trim().chars().count();
        if length == 0 {
            fields.wrong(format!("lines.{n}.description"), "required", "must not be empty");
        } else if length > DESCRIPTION_MAX {
            let message = format!("must have at most {DESCRIPTION_MAX} characters");
            fields.wrong(format!("lines.{n}.description"), "too_long", message);
        } else if line.description.chars().any(char::is_control) {
            fields.wrong(format!("lines.{n}.description"), "invalid", "must be one line of plain text");
        }
        fields.quantity(format!("lines.{n}.quantity"), line.quantity);
        fields.range(format!("lines.{n}.unit_price"), line.unit_price, 0, UNIT_PRICE_MAX);
    }
    let total = fields.keep(total(lines));
    fields.done()?;
    Ok(total.unwrap_or_default())
}

/// How much of a paid invoice may still go back, in minor units: what was taken, less what went back, less what is
/// reserved for refunds under way.
pub const fn left(total: Amount, refunded: Amount, refunding: Amount) -> Amount {
    total - refunded - refunding
}
