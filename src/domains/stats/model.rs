//! The rules of counting: where an instant falls, what an event is worth, what an action may look like.

use time::{Date, Month};

use super::{Bucket, LogAction, Totals};
use crate::contract::payments::Invoice;
use crate::messaging::{CommonError, RequestContext};
use crate::types::{Amount, Currency, FieldError, ProductId, Quantity, Timestamp, UserId, Validator};

/// The most buckets one summary has: three years of days, six weeks of hours.
pub const BUCKETS_MAX: usize = 1_100;
/// Bytes of an action's data, as JSON.
const DATA_MAX: usize = 4_096;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
/// 1970-01-01 was a Thursday: the weeks' Mondays are three days off the multiples of a week.
const MONDAY: i64 = -3 * DAY;

/// The start of the hour of `at`.
#[must_use]
pub fn hour_of(at: Timestamp) -> Timestamp {
    floor(at, HOUR, 0)
}

/// The start of the day of `at`.
#[must_use]
pub fn day_of(at: Timestamp) -> Timestamp {
    floor(at, DAY, 0)
}

fn floor(at: Timestamp, width: i64, origin: i64) -> Timestamp {
    let into = at.micros().saturating_sub(origin).rem_euclid(width);
    Timestamp::from_micros(at.micros().saturating_sub(into))
}

impl Bucket {
    /// The start of the bucket of `at`; none beyond the calendar.
    #[must_use]
    pub fn start_of(self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Hour => Some(hour_of(at)),
            Self::Day => Some(day_of(at)),
            Self::Week => Some(floor(at, WEEK, MONDAY)),
            Self::Month => at.to_utc().date().replace_day(1).ok().map(midnight),
        }
    }

    /// The start of the bucket after the one that starts at `start`; none beyond the calendar.
    #[must_use]
    pub fn after(self, start: Timestamp) -> Option<Timestamp> {
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

/// The buckets of a summary.
#[derive(Debug, PartialEq, Eq)]
pub struct BucketRange {
    /// Where each starts, in time order; at least one.
    pub starts: Vec<Timestamp>,
    /// Where the last one ends.
    pub end: Timestamp,
}

impl BucketRange {
    /// The buckets that hold every instant from `from` to before `to`.
    pub fn of(bucket: Bucket, from: Timestamp, to: Timestamp) -> Result<Self, FieldError> {
        if from >= to {
            return Err(FieldError::new("from", "out_of_range", "must be before `to`"));
        }
        let too_many = || {
            let message = format!("is too narrow: from `from` to `to` it makes more than {BUCKETS_MAX} buckets");
            FieldError::new("bucket", "out_of_range", message)
        };
        let mut starts = Vec::new();
        let mut start = bucket.start_of(from).ok_or_else(too_many)?;
        while start < to {
            if starts.len() == BUCKETS_MAX {
                return Err(too_many());
            }
            starts.push(start);
            start = bucket.after(start).ok_or_else(too_many)?;
        }
        Ok(Self { starts, end: start })
    }

    /// Where the first bucket starts.
    #[must_use]
    pub fn begin(&self) -> Timestamp {
        self.starts.first().copied().unwrap_or(self.end)
    }

    /// Adds each tally to the bucket it falls in.
    #[must_use]
    pub fn fill(&self, tallies: &[(Timestamp, Counters)]) -> Vec<Counters> {
        let mut filled = vec![Counters::default(); self.starts.len()];
        for (at, tally) in tallies {
            let before = self.starts.partition_point(|start| start <= at);
            if let Some(bucket) = before.checked_sub(1).and_then(|index| filled.get_mut(index)) {
                bucket.add(tally);
            }
        }
        filled
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// What was paid less what went back, in minor units of the shop's currency.
    pub revenue: Amount,
    /// Paid invoices.
    pub orders: i64,
    /// New customers' accounts.
    pub sign_ups: i64,
    /// Carts that got their first line.
    pub carts: i64,
}

impl Counters {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.revenue = self.revenue.saturating_add(other.revenue);
        self.orders += other.orders;
        self.sign_ups += other.sign_ups;
        self.carts += other.carts;
    }

    /// The same as it is answered. There can be more orders than carts in a stretch of time, because a cart begun
    /// before it may be paid in it; more than every cart is not said.
    #[must_use]
    pub fn figures(&self) -> Totals {
        let conversion = (self.carts > 0).then(|| (self.orders as f64 / self.carts as f64).min(1.0));
        let Self { revenue, orders, sign_ups, carts } = *self;
        Totals { revenue, orders, sign_ups, carts, conversion }
    }
}

/// What was sold of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductSale {
    /// Of what.
    pub product_id: ProductId,
    /// What it was called on the invoice.
    pub name: String,
    /// How many.
    pub quantity: Quantity,
    /// What they brought, in minor units.
    pub revenue: Amount,
}

/// What an invoice sold of each product. A line whose amount does not fit in an integer is no sale payments would
/// have made, so it is left out rather than counted wrong.
#[must_use]
pub fn sales(invoice: &Invoice) -> Vec<ProductSale> {
    let sale = |line: &crate::contract::payments::InvoiceLine| {
        let revenue = line.quantity.checked_mul(line.unit_price)?;
        let name = line.description.clone();
        Some(ProductSale { product_id: line.product_id?, name, quantity: line.quantity, revenue })
    };
    invoice.lines.iter().filter_map(sale).collect()
}

/// An amount as the figures count it: one in another currency is not added to the shop's own.
#[must_use]
pub fn revenue(amount: Amount, currency: Currency, shop: Currency) -> Amount {
    if currency == shop { amount } else { 0 }
}

/// Whose action it is: the caller's own, unless staff or another domain says whose.
pub fn doer(ctx: &RequestContext, named: Option<UserId>) -> Result<Option<UserId>, CommonError> {
    let own = ctx.identity().map(|identity| identity.user_id);
    if named.is_some() && named != own && !ctx.is_staff() {
        return Err(CommonError::Forbidden);
    }
    Ok(named.or(own))
}

/// Checks an action from outside; gives its data as JSON text.
pub fn check(request: &LogAction) -> Result<Option<String>, CommonError> {
    let mut fields = Validator::new();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    if request.action.is_empty() {
        fields.wrong("action", "required", "must not be empty");
    } else if request.action.len() > 64 || !request.action.chars().all(word) {
        fields.wrong("action", "invalid", "must be 1 to 64 letters, digits, `_`, `.`, `-` or `:`");
    }
    if let Some(subject) = &request.subject {
        fields.line("subject", subject, 0, 200);
        if subject.len() > 4 * 200 {
            fields.wrong("subject", "too_long", "must have at most 200 characters");
        }
    }
    let data = request.data.as_ref().map(serde_json::Value::to_string);
    if data.as_ref().is_some_and(|data| data.len() > DATA_MAX) {
        fields.wrong("data", "too_long", format!("must have at most {DATA_MAX} bytes as JSON"));
    }
    fields.done()?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn every_instant_falls_into_the_bucket_people_expect() {
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
            assert_eq!(bucket.start_of(at(instant)), Some(at(start)), "{bucket:?} {instant}");
            assert_eq!(bucket.after(at(start)), Some(at(next)), "{bucket:?} {instant}");
        }
    }

    #[test]
    fn the_end_of_the_calendar_is_an_error_and_no_endless_loop() {
        for bucket in [Bucket::Hour, Bucket::Day, Bucket::Week, Bucket::Month] {
            assert!(BucketRange::of(bucket, at("0000-01-01"), at("9999-12-31")).is_err());
        }
        assert!(BucketRange::of(Bucket::Month, at("9999-12-01"), at("9999-12-31T23:59:59Z")).is_err());
    }

    #[test]
    fn money_in_another_currency_is_not_added_to_the_shops_own() {
        assert_eq!(revenue(5, Currency::EUR, Currency::EUR), 5);
        assert_eq!(revenue(5, "USD".parse().unwrap(), Currency::EUR), 0);
    }
}
