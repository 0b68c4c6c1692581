//! Rules of the stats domain: buckets of time, counters, and the validation of actions. No clock, no SQL.

use time::{Date, Month};

use super::{Bucket, LogAction, Totals};
use crate::contract::payments::Invoice;
use crate::messaging::{CommonError, RequestContext, Role};
use crate::store::text_enum;
use crate::types::{Amount, Currency, FieldError, ProductId, Quantity, Timestamp, UserId, Validator};

/// Most buckets of a summary: three years of days, or six weeks of hours.
pub const BUCKETS_MAX: usize = 1_100;
/// Most bytes of an action's data, encoded as JSON.
const DATA_MAX: usize = 4_096;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
/// Offset of the first Monday from the Unix epoch, which was a Thursday.
const MONDAY_OFFSET: i64 = -3 * DAY;

/// Rounds down to the full hour.
#[must_use]
pub fn floor_hour(at: Timestamp) -> Timestamp {
    floor(at, HOUR, 0)
}

/// Rounds down to midnight UTC.
#[must_use]
pub fn floor_day(at: Timestamp) -> Timestamp {
    floor(at, DAY, 0)
}

fn floor(at: Timestamp, width: i64, origin: i64) -> Timestamp {
    let elapsed = at.micros().saturating_sub(origin).rem_euclid(width);
    Timestamp::from_micros(at.micros().saturating_sub(elapsed))
}

impl Bucket {
    /// Returns the start of the bucket that contains `at`; `None` beyond the calendar.
    #[must_use]
    pub fn bucket_start(self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Hour => Some(floor_hour(at)),
            Self::Day => Some(floor_day(at)),
            Self::Week => Some(floor(at, WEEK, MONDAY_OFFSET)),
            Self::Month => at.to_utc().date().replace_day(1).ok().map(midnight),
        }
    }

    /// Returns the start of the bucket after the one that starts at `start`; `None` beyond the calendar.
    #[must_use]
    pub fn next_bucket(self, start: Timestamp) -> Option<Timestamp> {
        let width = match self {
            Self::Hour => HOUR,
            Self::Day => DAY,
            Self::Week => WEEK,
            Self::Month => {
                let first = start.to_utc().date();
                let year = if first.month() == Month::December { first.year() + 1 } else { first.year() };
                return Date::from_calendar_date(year, first.month().next(), 1).ok().map(midnight);
            }
        };
        start.micros().checked_add(width).map(Timestamp::from_micros)
    }
}

fn midnight(date: Date) -> Timestamp {
    Timestamp::from_micros(date.midnight().assume_utc().unix_timestamp().saturating_mul(1_000_000))
}

/// Consecutive buckets of a summary.
#[derive(Debug, PartialEq, Eq)]
pub struct BucketRange {
    /// Starts of the buckets in time order; at least one.
    pub starts: Vec<Timestamp>,
    /// End of the last bucket, exclusive.
    pub end: Timestamp,
}

impl BucketRange {
    /// Returns the buckets that cover the period from `from` to before `to`.
    ///
    /// # Errors
    /// If the period is empty or needs more than [`BUCKETS_MAX`] buckets.
    pub fn of(bucket: Bucket, from: Timestamp, to: Timestamp) -> Result<Self, FieldError> {
        if from >= to {
            return Err(FieldError::new("from", "out_of_range", "must be before `to`"));
        }
        let too_many = || {
            let message = format!("is too narrow: from `from` to `to` it makes more than {BUCKETS_MAX} buckets");
            FieldError::new("bucket", "out_of_range", message)
        };
        let mut starts = Vec::new();
        let mut start = bucket.bucket_start(from).ok_or_else(too_many)?;
        while start < to {
            if starts.len() == BUCKETS_MAX {
                return Err(too_many());
            }
            starts.push(start);
            start = bucket.next_bucket(start).ok_or_else(too_many)?;
        }
        Ok(Self { starts, end: start })
    }

    /// Returns the narrowest buckets, of days, weeks or months, that cover the period from `from` to before `to`.
    ///
    /// # Errors
    /// If the period is empty, or longer than [`BUCKETS_MAX`] months.
    pub fn fitting(from: Timestamp, to: Timestamp) -> Result<(Bucket, Self), FieldError> {
        for bucket in [Bucket::Day, Bucket::Week] {
            if let Ok(range) = Self::of(bucket, from, to) {
                return Ok((bucket, range));
            }
        }
        Self::of(Bucket::Month, from, to).map(|range| (Bucket::Month, range))
    }

    /// Returns the start of the first bucket.
    #[must_use]
    pub fn begin(&self) -> Timestamp {
        self.starts.first().copied().unwrap_or(self.end)
    }

    /// Adds up the counters per bucket.
    #[must_use]
    pub fn fill(&self, counters: &[(Timestamp, Counters)]) -> Vec<Counters> {
        let mut filled = vec![Counters::default(); self.starts.len()];
        for (at, counters) in counters {
            let index = self.starts.partition_point(|start| start <= at);
            if let Some(bucket) = index.checked_sub(1).and_then(|index| filled.get_mut(index)) {
                bucket.add(counters);
            }
        }
        filled
    }
}

/// Counters of an hour, a day or a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payments less refunds, in minor units of the shop's currency.
    pub revenue: Amount,
    /// Number of paid invoices.
    pub orders: i64,
    /// Number of new customer accounts.
    pub sign_ups: i64,
    /// Number of carts that received their first item.
    pub carts: i64,
}

impl Counters {
    /// Adds the counters of another period. Revenue saturates.
    pub fn add(&mut self, other: &Self) {
        let Self { revenue, orders, sign_ups, carts } = *other;
        self.revenue = self.revenue.saturating_add(revenue);
        self.orders += orders;
        self.sign_ups += sign_ups;
        self.carts += carts;
    }

    /// Converts to the totals of a reply.
    ///
    /// The conversion is capped at 1: a period can have more orders than carts, because a cart may be paid in a later
    /// period than it was started in.
    #[must_use]
    pub fn totals(self) -> Totals {
        let conversion = (self.carts > 0).then(|| (self.orders as f64 / self.carts as f64).min(1.0));
        let Self { revenue, orders, sign_ups, carts } = self;
        Totals { revenue, orders, sign_ups, carts, conversion }
    }
}

/// Units of one product on an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductSale {
    /// Product that was sold.
    pub product_id: ProductId,
    /// Name of the product on the invoice.
    pub name: String,
    /// Units sold.
    pub quantity: Quantity,
    /// Revenue in minor units.
    pub revenue: Amount,
}

/// Returns the product sales of an invoice. A line whose amount overflows is left out: the payments domain creates none.
#[must_use]
pub fn sales(invoice: &Invoice) -> Vec<ProductSale> {
    let sale = |line: &crate::contract::payments::InvoiceLine| {
        let revenue = line.quantity.checked_mul(line.unit_price)?;
        let name = line.description.clone();
        Some(ProductSale { product_id: line.product_id?, name, quantity: line.quantity, revenue })
    };
    invoice.lines.iter().filter_map(sale).collect()
}

/// Returns the revenue that an amount counts as: 0 in another currency than the shop's.
#[must_use]
pub fn revenue(amount: Amount, currency: Currency, shop_currency: Currency) -> Amount {
    if currency == shop_currency { amount } else { 0 }
}

/// Returns the user to whom an action is attributed: the caller, or the one named by an administrator or another domain.
///
/// # Errors
/// [`CommonError::Forbidden`] if another caller names another user.
pub fn attributed_user(ctx: &RequestContext, named: Option<UserId>) -> Result<Option<UserId>, CommonError> {
    let own = ctx.identity().map(|identity| identity.user_id);
    if named.is_some() && named != own && !ctx.has_role(Role::Manager) {
        return Err(CommonError::Forbidden);
    }
    Ok(named.or(own))
}

/// Action that the shop itself records. Callers from outside cannot log an action of this name, so that the log says
/// nothing that the shop did not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShopAction {
    /// A customer registered.
    SignedUp,
    /// The first item was added to an empty cart.
    CartStarted,
    /// An invoice was paid.
    OrderPaid,
    /// Money of an invoice was refunded.
    OrderRefunded,
}

text_enum!(ShopAction {
    SignedUp => "signed_up",
    CartStarted => "cart_started",
    OrderPaid => "order_paid",
    OrderRefunded => "order_refunded",
});

/// Validates an action and returns its data as JSON text.
///
/// # Errors
/// [`CommonError::ValidationFailed`] with the invalid fields.
pub fn validate_action(ctx: &RequestContext, request: &LogAction) -> Result<Option<String>, CommonError> {
    let mut fields = Validator::new();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    if request.action.is_empty() {
        fields.add_error("action", "required", "must not be empty");
    } else if request.action.len() > 64 || !request.action.chars().all(is_allowed) {
        fields.add_error("action", "invalid", "must be 1 to 64 letters, digits, `_`, `.`, `-` or `:`");
    }
    if !ctx.is_domain() && ShopAction::parse(&request.action.to_ascii_lowercase()).is_some() {
        fields.add_error("action", "reserved", "is recorded by the shop itself; choose another name");
    }
    if let Some(subject) = &request.subject {
        fields.line("subject", subject, 0, 200);
        if subject.len() > 4 * 200 {
            fields.add_error("subject", "too_long", "must have at most 200 characters");
        }
    }
    let data = request.data.as_ref().map(serde_json::Value::to_string);
    if data.as_ref().is_some_and(|data| data.len() > DATA_MAX) {
        fields.add_error("data", "too_long", format!("must have at most {DATA_MAX} bytes as JSON"));
    }
    fields.finish()?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn bucket_boundaries_are_calendar_boundaries() {
        let cases = [
            (Bucket::Hour, "2026-03-01T00:59:59.999999Z", "2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"),
            (Bucket::Day, "2026-02-28T23:59:59Z", "2026-02-28", "2026-03-01"),
            // A Sunday belongs to the week of the Monday before; a Monday starts its own.
            (Bucket::Week, "2026-03-01T12:00:00Z", "2026-02-23", "2026-03-02"),
            (Bucket::Week, "2026-03-02", "2026-03-02", "2026-03-09"),
            (Bucket::Week, "1969-12-31", "1969-12-29", "1970-01-05"),
            (Bucket::Month, "2024-02-29T23:59:59Z", "2024-02-01", "2024-03-01"),
            (Bucket::Month, "2025-12-31T23:59:59Z", "2025-12-01", "2026-01-01"),
        ];
        for (bucket, instant, start, next) in cases {
            assert_eq!(bucket.bucket_start(at(instant)), Some(at(start)), "{bucket:?} {instant}");
            assert_eq!(bucket.next_bucket(at(start)), Some(at(next)), "{bucket:?} {instant}");
        }
    }

    #[test]
    fn fitting_buckets_are_the_narrowest_that_fit() {
        for (from, to, bucket) in [
            ("2026-01-01", "2026-01-02", Bucket::Day),
            ("2023-01-01", "2026-01-01", Bucket::Day),
            ("2022-01-01", "2026-01-01", Bucket::Week),
            ("1990-01-01", "2026-01-01", Bucket::Month),
        ] {
            assert_eq!(BucketRange::fitting(at(from), at(to)).map(|(bucket, _)| bucket), Ok(bucket), "{from} to {to}");
        }
        assert!(BucketRange::fitting(at("2026-01-02"), at("2026-01-01")).is_err());
        assert!(BucketRange::fitting(at("1000-01-01"), at("2026-01-01")).is_err());
    }

    #[test]
    fn end_of_the_calendar_is_an_error() {
        for bucket in [Bucket::Hour, Bucket::Day, Bucket::Week, Bucket::Month] {
            assert!(BucketRange::of(bucket, at("0000-01-01"), at("9999-12-31")).is_err());
        }
        assert!(BucketRange::of(Bucket::Month, at("9999-12-01"), at("9999-12-31T23:59:59Z")).is_err());
    }

    #[test]
    fn foreign_currency_counts_as_no_revenue() {
        assert_eq!(revenue(5, Currency::EUR, Currency::EUR), 5);
        assert_eq!(revenue(5, "USD".parse().unwrap(), Currency::EUR), 0);
    }
}
