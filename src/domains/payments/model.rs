//! Rules of invoices, payments and refunds as pure functions: state transitions, totals, refundable amounts.
//!
//! Does not contain: SQL, events, the provider.

use sha2::{Digest, Sha256};

use super::{
    CreateInvoice, DisputeStatus, Invoice, InvoiceLine, InvoiceStatus, PaymentsError, ReturnLine, ShippingCharge,
    TaxRate, TaxTotal,
};
use crate::store::text_enum;
use crate::types::{Amount, FieldError, OrderDetails, PaymentId, ProductId, Quantity, Validator, share};

/// Maximum number of lines of an invoice.
const LINES_MAX: usize = 1_000;
/// Maximum length of a line's description, in characters.
const DESCRIPTION_MAX: usize = 300;
/// Maximum length of the names of taxes and delivery methods, in characters.
const NAME_MAX: usize = 100;
/// Maximum price of one unit, in minor units.
const UNIT_PRICE_MAX: Amount = 1_000_000_000_000;

text_enum!(DisputeStatus { Open => "open", Won => "won", Lost => "lost" });
text_enum!(InvoiceStatus { Open => "open", Paid => "paid", Expired => "expired", Void => "void", Refunded => "refunded" });

impl InvoiceStatus {
    /// Returns `true` if an invoice may change from this state to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Open, Self::Paid | Self::Expired | Self::Void) | (Self::Paid, Self::Refunded))
    }
}

/// State of an invoice and its money. A transition returns the next state, or the reason why there is none; no other
/// code in this domain changes these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceLedger {
    /// State of the invoice.
    pub status: InvoiceStatus,
    /// Invoice total, in minor units.
    pub total: Amount,
    /// Refunded amount, in minor units.
    pub refunded: Amount,
    /// Amount reserved for refunds in progress, in minor units.
    pub refunding: Amount,
    /// Whether a payment attempt is in progress.
    pub paying: bool,
}

impl InvoiceLedger {
    /// Creates the state of a new invoice.
    #[cfg(test)]
    pub const fn new(total: Amount) -> Self {
        Self { status: InvoiceStatus::Open, total, refunded: 0, refunding: 0, paying: false }
    }

    const fn with_status(self, status: InvoiceStatus) -> Self {
        debug_assert!(self.status.may_become(status));
        Self { status, ..self }
    }

    /// Returns the amount that can still be refunded: total minus refunded minus reserved.
    pub const fn refundable(self) -> Amount {
        self.total - self.refunded - self.refunding
    }

    /// Begins a payment attempt.
    ///
    /// # Errors
    /// If the invoice is not open, or an attempt is in progress.
    pub fn begin_payment(self) -> Result<Self, PaymentsError> {
        match self.status {
            InvoiceStatus::Paid | InvoiceStatus::Refunded => Err(PaymentsError::AlreadyPaid),
            InvoiceStatus::Expired => Err(PaymentsError::InvoiceExpired),
            InvoiceStatus::Void => Err(PaymentsError::InvoiceVoid),
            InvoiceStatus::Open if self.paying => Err(PaymentsError::PaymentInProgress),
            InvoiceStatus::Open => Ok(Self { paying: true, ..self }),
        }
    }

    /// Ends an attempt that captured no money.
    pub const fn fail_payment(self) -> Self {
        Self { paying: false, ..self }
    }

    /// Ends an attempt that captured the money. Returns `None` if no attempt is in progress.
    pub const fn capture(self) -> Option<Self> {
        match self.status {
            InvoiceStatus::Open if self.paying => Some(Self { paying: false, ..self }.with_status(InvoiceStatus::Paid)),
            _ => None,
        }
    }

    /// Applies a capture of an attempt that had failed. Returns `None` if the invoice cannot take the money any more; it
    /// is refunded then.
    pub const fn capture_late(self) -> Option<Self> {
        match self.status {
            InvoiceStatus::Open if !self.paying => Some(self.with_status(InvoiceStatus::Paid)),
            _ => None,
        }
    }

    /// Expires the invoice. Returns `None` if it is not open, or an attempt is in progress.
    pub const fn expire(self) -> Option<Self> {
        match self.status {
            InvoiceStatus::Open if !self.paying => Some(self.with_status(InvoiceStatus::Expired)),
            _ => None,
        }
    }

    /// Voids the invoice. Returns `None` if it is void already.
    ///
    /// # Errors
    /// If the invoice is paid or expired, or an attempt is in progress.
    pub fn void(self) -> Result<Option<Self>, PaymentsError> {
        match self.status {
            InvoiceStatus::Void => Ok(None),
            InvoiceStatus::Open if self.paying => Err(PaymentsError::PaymentInProgress),
            InvoiceStatus::Open => Ok(Some(self.with_status(InvoiceStatus::Void))),
            InvoiceStatus::Paid | InvoiceStatus::Expired | InvoiceStatus::Refunded => Err(PaymentsError::NotOpen),
        }
    }

    /// Reserves an amount for a refund, so that concurrent refunds never exceed the total.
    ///
    /// # Errors
    /// If the invoice is not paid, or less than `amount` is left.
    pub fn begin_refund(self, amount: Amount) -> Result<Self, PaymentsError> {
        match self.status {
            InvoiceStatus::Paid => {}
            InvoiceStatus::Refunded => return Err(PaymentsError::RefundTooLarge { left: 0 }),
            InvoiceStatus::Open | InvoiceStatus::Expired | InvoiceStatus::Void => return Err(PaymentsError::NotPaid),
        }
        if amount < 0 || amount > self.refundable() {
            return Err(PaymentsError::RefundTooLarge { left: self.refundable() });
        }
        Ok(Self { refunding: self.refunding + amount, ..self })
    }

    /// Ends a refund whose reserved amount was returned.
    pub const fn end_refund(self, amount: Amount) -> Self {
        let ended = Self { refunding: self.refunding - amount, refunded: self.refunded + amount, ..self };
        match ended.status {
            // A refund of a zero invoice may end after all was refunded.
            InvoiceStatus::Paid if ended.refunded == ended.total => ended.with_status(InvoiceStatus::Refunded),
            _ => ended,
        }
    }

    /// Ends a failed refund and releases its reserved amount.
    pub const fn fail_refund(self, amount: Amount) -> Self {
        Self { refunding: self.refunding - amount, ..self }
    }
}

/// State of a payment attempt. `Captured` is final; so is `Failed`, unless the provider captures the money after all,
/// which it has promised not to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// The provider is being called, or its response was lost.
    Processing,
    /// The money is captured.
    Captured,
    /// No money was captured, and none will be under this attempt's key.
    Failed,
}

text_enum!(PaymentState { Processing => "processing", Captured => "captured", Failed => "failed" });

impl PaymentState {
    /// Returns `true` if a row may change from this state to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Processing, Self::Captured | Self::Failed) | (Self::Failed, Self::Captured))
    }
}

/// Returns the error that a repeated request is answered with after its payment failed; `None` if it runs again. The bank's
/// decision about a card is an answer; after a failure of the provider a retry is wanted.
pub fn replayed_failure(code: &str) -> Option<PaymentsError> {
    match code {
        CARD_DECLINED => Some(PaymentsError::CardDeclined),
        AUTHENTICATION_REQUIRED => Some(PaymentsError::AuthenticationRequired),
        _ => None,
    }
}

/// Failure code of an attempt whose card the bank declined.
pub const CARD_DECLINED: &str = "card_declined";
/// Failure code of an attempt for which the bank requires the buyer's confirmation.
pub const AUTHENTICATION_REQUIRED: &str = "authentication_required";

/// State of a refund. All but `Processing` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundState {
    /// The amount is reserved; the provider is being called, or its response was lost.
    Processing,
    /// The money is refunded.
    Done,
    /// No money was refunded, and none will be under this refund's key.
    Failed,
}

text_enum!(RefundState { Processing => "processing", Done => "done", Failed => "failed" });

impl RefundState {
    /// Returns `true` if a row may change from this state to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Processing, Self::Done | Self::Failed))
    }
}

/// Returns the id under which a refund that was made at the provider is recorded: derived from the provider's id
/// (UUIDv8, RFC 9562), so that it is recorded once, however often it is reported.
pub fn foreign_refund_id(provider_refund: &str) -> PaymentId {
    let hash: [u8; 32] = Sha256::digest(provider_refund.as_bytes()).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    PaymentId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Formats an invoice number as shown to people.
pub fn format_number(n: i64) -> String {
    format!("INV-{n:06}")
}

/// Returns the form of an invoice that events carry: without the buyer's addresses and message, which no subscriber needs
/// and which would outlive their erasure there.
pub fn for_event(invoice: Invoice) -> Invoice {
    Invoice { shipping_address: None, billing_address: None, note: None, ..invoice }
}

/// Returns the tax on a price.
fn tax_on(price: Amount, tax: &TaxRate, tax_included: bool) -> Amount {
    if tax_included { tax.rate.included_in(price) } else { tax.rate.of(price) }
}

/// Returns the price of a line without tax that is added.
const fn line_price(line: &InvoiceLine) -> Amount {
    line.unit_price.saturating_mul(line.quantity)
}

/// Returns the tax of an invoice per rate, the highest rate first; rounded per line, half up.
pub fn taxes(lines: &[InvoiceLine], shipping: Option<&ShippingCharge>, tax_included: bool) -> Vec<TaxTotal> {
    let mut totals: Vec<TaxTotal> = Vec::new();
    let taxed_lines = lines.iter().filter_map(|line| Some((line_price(line), line.tax.as_ref()?)));
    let taxed_shipping = shipping.and_then(|shipping| Some((shipping.price, shipping.tax.as_ref()?)));
    for (price, tax) in taxed_lines.chain(taxed_shipping) {
        let amount = tax_on(price, tax, tax_included);
        let base = if tax_included { price - amount } else { price };
        match totals.iter_mut().find(|total| total.tax == *tax) {
            Some(total) => {
                total.base = total.base.saturating_add(base);
                total.amount = total.amount.saturating_add(amount);
            }
            None => totals.push(TaxTotal { tax: tax.clone(), base, amount }),
        }
    }
    totals.sort_by(|a, b| b.tax.rate.cmp(&a.tax.rate).then_with(|| a.tax.name.cmp(&b.tax.name)));
    totals
}

/// Tax and total of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceSums {
    /// Tax in all, in minor units.
    pub tax: Amount,
    /// Amount to pay, in minor units.
    pub total: Amount,
}

/// Sums up an invoice exactly.
///
/// # Errors
/// If the sum overflows an [`Amount`].
pub fn sums(
    lines: &[InvoiceLine],
    shipping: Option<&ShippingCharge>,
    tax_included: bool,
) -> Result<InvoiceSums, FieldError> {
    let exact = || {
        let goods = lines
            .iter()
            .try_fold(0, |sum: Amount, line| sum.checked_add(line.unit_price.checked_mul(line.quantity)?))?;
        let net = goods.checked_add(shipping.map_or(0, |shipping| shipping.price))?;
        let tax = taxes(lines, shipping, tax_included)
            .iter()
            .try_fold(0, |sum: Amount, total| sum.checked_add(total.amount))?;
        let total = if tax_included { net } else { net.checked_add(tax)? };
        Some(InvoiceSums { tax, total })
    };
    exact().ok_or_else(|| FieldError::new("lines", "out_of_range", "have a total that is too large"))
}

/// Validates a new invoice with its details in their stored form, and sums it up.
///
/// # Errors
/// All violations, of the first 1,000 lines.
pub fn validate_invoice(invoice: &CreateInvoice, details: &OrderDetails) -> Result<InvoiceSums, Vec<FieldError>> {
    let mut fields = Validator::new();
    let (lines, shipping) = (&invoice.lines, invoice.shipping.as_ref());
    validate_lines(&mut fields, lines);
    if let Some(shipping) = shipping {
        fields.line("shipping.method", &shipping.method, 1, NAME_MAX);
        fields.range("shipping.price", shipping.price, 0, UNIT_PRICE_MAX);
        if let Some(tax) = &shipping.tax {
            fields.line("shipping.tax.name", &tax.name, 1, NAME_MAX);
        }
    }
    details.validate(&mut fields);
    fields.finish()?;
    sums(lines, shipping, invoice.tax_included).map_err(|error| vec![error])
}

/// Validates the lines of an invoice.
fn validate_lines(fields: &mut Validator, lines: &[InvoiceLine]) {
    match lines.len() {
        0 => fields.add_error("lines", "required", "must have at least one line"),
        1..=LINES_MAX => {}
        _ => fields.add_error("lines", "too_long", format!("must have at most {LINES_MAX} lines")),
    }
    // Lines beyond the limit are not validated: the response must not grow with the request.
    for (n, line) in lines.iter().take(LINES_MAX).enumerate() {
        let length = line.description.trim().chars().count();
        if length == 0 {
            fields.add_error(format!("lines.{n}.description"), "required", "must not be empty");
        } else if length > DESCRIPTION_MAX {
            let message = format!("must have at most {DESCRIPTION_MAX} characters");
            fields.add_error(format!("lines.{n}.description"), "too_long", message);
        } else if line.description.chars().any(char::is_control) {
            fields.add_error(format!("lines.{n}.description"), "invalid", "must be one line of plain text");
        }
        fields.quantity(format!("lines.{n}.quantity"), line.quantity);
        fields.range(format!("lines.{n}.unit_price"), line.unit_price, 0, UNIT_PRICE_MAX);
        if let Some(tax) = &line.tax {
            fields.line(format!("lines.{n}.tax.name"), &tax.name, 1, NAME_MAX);
        }
    }
}

/// Lists the units of an invoice that were not returned, one entry per product, in the order of the lines.
pub fn unreturned_lines(lines: &[InvoiceLine], returned: &[ReturnLine]) -> Vec<ReturnLine> {
    let mut out: Vec<ReturnLine> = Vec::new();
    for line in lines {
        let Some(product_id) = line.product_id else { continue };
        match out.iter_mut().find(|sold| sold.product_id == product_id) {
            Some(sold) => sold.quantity += line.quantity,
            None => out.push(ReturnLine { product_id, quantity: line.quantity }),
        }
    }
    for line in &mut out {
        line.quantity -= returned_quantity(returned, line.product_id);
    }
    out.retain(|line| line.quantity > 0);
    out
}

/// Counts the returned units of a product.
fn returned_quantity(returned: &[ReturnLine], product: ProductId) -> Quantity {
    returned.iter().filter(|line| line.product_id == product).map(|line| line.quantity).sum()
}

/// Returns the price of units that come back, with the tax that was added to it. A product that is in several lines at
/// different prices comes back in the order of the lines; the parts of a line's tax add up to it.
///
/// # Errors
/// All violations, of the first 1,000 entries.
pub fn refund_amount(
    lines: &[InvoiceLine],
    tax_included: bool,
    returned: &[ReturnLine],
    wanted: &[ReturnLine],
) -> Result<Amount, Vec<FieldError>> {
    let mut fields = Validator::new();
    match wanted.len() {
        0 => fields.add_error("lines", "required", "must have at least one line, or be left out"),
        1..=LINES_MAX => {}
        _ => fields.add_error("lines", "too_long", format!("must have at most {LINES_MAX} lines")),
    }
    let unreturned = unreturned_lines(lines, returned);
    let mut price: Amount = 0;
    for (n, line) in wanted.iter().take(LINES_MAX).enumerate() {
        let left = unreturned.iter().find(|sold| sold.product_id == line.product_id).map_or(0, |sold| sold.quantity);
        if wanted.iter().take(n).any(|before| before.product_id == line.product_id) {
            fields.add_error(format!("lines.{n}.product_id"), "duplicate", "must be named only once");
        } else if left == 0 {
            fields.add_error(
                format!("lines.{n}.product_id"),
                "not_sold",
                "was not sold with this invoice, or all of it was returned",
            );
        } else {
            fields.range(format!("lines.{n}.quantity"), line.quantity, 1, left);
        }
        let first = returned_quantity(returned, line.product_id);
        price = price.saturating_add(price_units(lines, tax_included, line.product_id, first, line.quantity));
    }
    fields.finish()?;
    Ok(price)
}

/// Returns the price of `count` units of a product with the tax added to it, starting at unit `first` in the order of the
/// lines.
fn price_units(
    lines: &[InvoiceLine],
    tax_included: bool,
    product: ProductId,
    first: Quantity,
    count: Quantity,
) -> Amount {
    let (mut skip, mut count, mut price) = (first, count, 0);
    for line in lines.iter().filter(|line| line.product_id == Some(product)) {
        let taken = (line.quantity - skip).clamp(0, count.max(0));
        let added = line.tax.as_ref().filter(|_| !tax_included).map_or(0, |tax| tax_on(line_price(line), tax, false));
        let added_to = |units: Quantity| share(added, i128::from(units), i128::from(line.quantity));
        price += line.unit_price * taken;
        if taken > 0 {
            price += added_to(skip + taken) - added_to(skip);
        }
        skip = (skip - line.quantity).max(0);
        count -= taken;
    }
    price
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tax of a line in these tests: none, or one of two rates.
    fn rate_of(n: usize) -> Option<TaxRate> {
        let rate = [None, Some("5.5"), Some("20")][n]?;
        Some(TaxRate { name: "VAT".to_owned(), rate: rate.parse().unwrap() })
    }

    /// A transition of an invoice; they are tried in any order.
    #[derive(Debug, Clone)]
    enum LedgerStep {
        BeginPayment,
        FailPayment,
        Capture,
        CaptureLate,
        Expire,
        Void,
        BeginRefund(Amount),
        EndRefund(usize),
        FailRefund(usize),
    }

    fn ledger_step() -> impl Strategy<Value = LedgerStep> {
        prop_oneof![
            2 => Just(LedgerStep::BeginPayment),
            1 => Just(LedgerStep::FailPayment),
            2 => Just(LedgerStep::Capture),
            1 => Just(LedgerStep::CaptureLate),
            1 => Just(LedgerStep::Expire),
            1 => Just(LedgerStep::Void),
            4 => (-5..700_i64).prop_map(LedgerStep::BeginRefund),
            3 => (0..4_usize).prop_map(LedgerStep::EndRefund),
            1 => (0..4_usize).prop_map(LedgerStep::FailRefund),
        ]
    }

    proptest! {
        /// In any order of transitions only allowed states follow, money is captured once, and at most the captured amount
        /// is refunded or reserved.
        #[test]
        fn p13_ledger_keeps_its_invariants(
            total in prop_oneof![Just(0), 1..1500_i64],
            steps in proptest::collection::vec(ledger_step(), 0..60),
        ) {
            let mut now = InvoiceLedger::new(total);
            // A second ledger, kept by the test: captures, refunded amount, reserved amounts.
            let (mut captures, mut refunded, mut reserved) = (0, 0, Vec::<Amount>::new());
            for step in steps {
                let before = now;
                match step {
                    LedgerStep::BeginPayment => now = now.begin_payment().unwrap_or(now),
                    LedgerStep::FailPayment if now.paying => now = now.fail_payment(),
                    LedgerStep::FailPayment => {}
                    LedgerStep::Capture | LedgerStep::CaptureLate => {
                        let next = if matches!(step, LedgerStep::Capture) { now.capture() } else { now.capture_late() };
                        prop_assert!(next.is_none() || captures == 0);
                        if let Some(next) = next {
                            captures += 1;
                            now = next;
                        }
                    }
                    LedgerStep::Expire => now = now.expire().unwrap_or(now),
                    LedgerStep::Void => now = now.void().ok().flatten().unwrap_or(now),
                    LedgerStep::BeginRefund(amount) => if let Ok(next) = now.begin_refund(amount) {
                        prop_assert!(amount >= 0);
                        reserved.push(amount);
                        now = next;
                    }
                    LedgerStep::EndRefund(n) if n < reserved.len() => {
                        let amount = reserved.remove(n);
                        refunded += amount;
                        now = now.end_refund(amount);
                    }
                    LedgerStep::FailRefund(n) if n < reserved.len() => now = now.fail_refund(reserved.remove(n)),
                    LedgerStep::EndRefund(_) | LedgerStep::FailRefund(_) => {}
                }
                let moved = before.status != now.status;
                prop_assert!(!moved || before.status.may_become(now.status), "{before:?} {now:?}");
                prop_assert_eq!(now.total, total);
                prop_assert_eq!((now.refunded, now.refunding), (refunded, reserved.iter().sum::<Amount>()));
                let most = if captures == 1 { total } else { 0 };
                prop_assert!(refunded >= 0 && refunded + now.refunding <= most);
                let paid = matches!(now.status, InvoiceStatus::Paid | InvoiceStatus::Refunded);
                prop_assert_eq!(paid, captures == 1);
                prop_assert!(!now.paying || now.status == InvoiceStatus::Open);
                prop_assert!(now.status != InvoiceStatus::Refunded || refunded == total);
            }
        }

        #[test]
        fn finished_attempt_only_becomes_captured(steps in proptest::collection::vec(0..3_usize, 0..20)) {
            let (mut payment, mut refund) = (PaymentState::Processing, RefundState::Processing);
            for n in steps {
                let next = PaymentState::ALL[n];
                prop_assert_eq!(PaymentState::parse(next.as_str()), Some(next));
                if payment.may_become(next) {
                    prop_assert!(payment != PaymentState::Captured && next != PaymentState::Processing);
                    payment = next;
                }
                let next = [RefundState::Processing, RefundState::Done, RefundState::Failed][n];
                if refund.may_become(next) {
                    prop_assert!(refund == RefundState::Processing && next != RefundState::Processing);
                    refund = next;
                }
            }
        }

        /// Lines, delivery and the tax of each rate add up to the total, to the minor unit, and the tax of a line is the
        /// exact one rounded half up.
        #[test]
        fn parts_of_an_invoice_add_up(
            lines in proptest::collection::vec((1..=10_000_i64, 0..100_000_000_i64, 0..3_usize), 1..20),
            shipping in proptest::option::of((0..100_000_i64, 0..3_usize)),
            tax_included: bool,
        ) {
            let lines: Vec<InvoiceLine> = lines
                .into_iter()
                .map(|(quantity, unit_price, rate)| InvoiceLine {
                    description: "A teapot".to_owned(),
                    product_id: None,
                    quantity,
                    unit_price,
                    tax: rate_of(rate),
                })
                .collect();
            let shipping =
                shipping.map(|(price, rate)| ShippingCharge { method: "Parcel".into(), price, tax: rate_of(rate) });
            let totals = taxes(&lines, shipping.as_ref(), tax_included);
            let InvoiceSums { tax, total } = sums(&lines, shipping.as_ref(), tax_included).unwrap();
            prop_assert_eq!(totals.iter().map(|total| total.amount).sum::<Amount>(), tax);
            let mut prices: Vec<(Amount, Option<TaxRate>)> =
                lines.iter().map(|line| (line.quantity * line.unit_price, line.tax.clone())).collect();
            prices.extend(shipping.map(|shipping| (shipping.price, shipping.tax)));
            let added = if tax_included { 0 } else { tax };
            prop_assert_eq!(prices.iter().map(|(price, _)| price).sum::<Amount>() + added, total);
            // Recomputed in another way: twice the exact tax, floored, then rounded.
            for (n, text) in [(1, "5.5"), (2, "20")] {
                let rate = (text.parse::<f64>().unwrap() * 10.0) as i128;
                let whole = if tax_included { 1_000 + rate } else { 1_000 };
                let of_rate: Vec<i128> = prices
                    .iter()
                    .filter(|(_, tax)| *tax == rate_of(n))
                    .map(|(price, _)| (i128::from(*price) * rate * 2 / whole + 1) / 2)
                    .collect();
                let found = totals.iter().find(|total| Some(&total.tax) == rate_of(n).as_ref());
                prop_assert_eq!(found.is_some(), !of_rate.is_empty());
                prop_assert_eq!(found.map_or(0, |total| i128::from(total.amount)), of_rate.iter().sum::<i128>());
            }
        }

        /// Returned in any parts, a product never comes back more often than it was sold, and all parts together cost
        /// exactly what was paid.
        #[test]
        fn p13_returned_units_cost_what_was_paid(
            lines in proptest::collection::vec((0..4_usize, 1..20_i64, 0..1000_i64, 0..3_usize), 1..8),
            tax_included: bool,
            requests in proptest::collection::vec(proptest::collection::vec((0..5_usize, -1..12_i64), 0..4), 0..12),
        ) {
            let products: Vec<ProductId> = (0..5).map(|_| ProductId::new()).collect();
            let lines: Vec<InvoiceLine> = lines
                .into_iter()
                .map(|(product, quantity, unit_price, rate)| InvoiceLine {
                    description: "A teapot".to_owned(),
                    // Some lines have no product, such as services and postage.
                    product_id: (product > 0).then(|| products[product]),
                    quantity,
                    unit_price,
                    tax: rate_of(rate),
                })
                .collect();
            let has_product = |line: &&InvoiceLine| line.product_id.is_some();
            let goods: Vec<InvoiceLine> = lines.iter().filter(has_product).cloned().collect();
            let sold = sums(&goods, None, tax_included).unwrap().total;
            let (mut returned, mut paid_back) = (Vec::new(), 0);
            for request in requests {
                let request: Vec<ReturnLine> =
                    request.into_iter().map(|(n, quantity)| ReturnLine { product_id: products[n], quantity }).collect();
                if let Ok(price) = refund_amount(&lines, tax_included, &returned, &request) {
                    prop_assert!(price >= 0 && request.iter().all(|line| line.quantity > 0));
                    paid_back += price;
                    returned.extend(request);
                }
                for product in &products {
                    let is_of_product = |line: &&InvoiceLine| line.product_id == Some(*product);
                    let sold: Quantity = lines.iter().filter(is_of_product).map(|line| line.quantity).sum();
                    prop_assert!(returned_quantity(&returned, *product) <= sold);
                }
                prop_assert!(paid_back <= sold);
            }
            let rest = unreturned_lines(&lines, &returned);
            if !rest.is_empty() {
                paid_back += refund_amount(&lines, tax_included, &returned, &rest).unwrap();
                returned.extend(rest);
            }
            prop_assert_eq!(paid_back, sold);
            prop_assert!(unreturned_lines(&lines, &returned).is_empty());
        }
    }
}
