//! The rules of money, pure: which state may follow which, what lines come to, what may still go back.

use super::{InvoiceLine, InvoiceStatus, PaymentsError, ReturnLine};
use crate::types::{Amount, FieldError, ProductId, Quantity, Validator};

/// The most lines of an invoice.
const LINES_MAX: usize = 1_000;
/// The longest description of a line, in characters.
const DESCRIPTION_MAX: usize = 300;
/// The highest price of one piece, in minor units.
const UNIT_PRICE_MAX: Amount = 1_000_000_000_000;

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

/// How an invoice stands with its money. Each step takes one and gives the next, or says why there is none; nothing
/// else in this domain changes these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceLedger {
    /// How it stands.
    pub status: InvoiceStatus,
    /// What it is over.
    pub total: Amount,
    /// What went back.
    pub refunded: Amount,
    /// What is reserved for refunds under way.
    pub refunding: Amount,
    /// Whether the provider was asked for the money and has not answered yet.
    pub paying: bool,
}

impl InvoiceLedger {
    /// A new invoice.
    #[cfg(test)]
    pub const fn new(total: Amount) -> Self {
        Self { status: InvoiceStatus::Open, total, refunded: 0, refunding: 0, paying: false }
    }

    const fn enter(self, status: InvoiceStatus) -> Self {
        debug_assert!(self.status.may_become(status));
        Self { status, ..self }
    }

    /// How much may still go back: what was taken, less what went back, less what is reserved.
    pub const fn left(self) -> Amount {
        self.total - self.refunded - self.refunding
    }

    /// The provider is about to be asked for the money.
    pub fn begin_payment(self) -> Result<Self, PaymentsError> {
        match self.status {
            InvoiceStatus::Paid | InvoiceStatus::Refunded => Err(PaymentsError::AlreadyPaid),
            InvoiceStatus::Expired => Err(PaymentsError::InvoiceExpired),
            InvoiceStatus::Void => Err(PaymentsError::InvoiceVoid),
            InvoiceStatus::Open if self.paying => Err(PaymentsError::PaymentInProgress),
            InvoiceStatus::Open => Ok(Self { paying: true, ..self }),
        }
    }

    /// The provider was asked and took nothing.
    pub const fn fail_payment(self) -> Self {
        Self { paying: false, ..self }
    }

    /// The provider was asked and the money is ours.
    pub const fn capture(self) -> Option<Self> {
        match self.status {
            InvoiceStatus::Open if self.paying => Some(Self { paying: false, ..self }.enter(InvoiceStatus::Paid)),
            _ => None,
        }
    }

    /// Money came by a try that had been given up. Nothing when the invoice cannot take it any more: then it goes back.
    pub const fn capture_late(self) -> Option<Self> {
        match self.status {
            InvoiceStatus::Open if !self.paying => Some(self.enter(InvoiceStatus::Paid)),
            _ => None,
        }
    }

    /// Its time is over. Nothing while it is being paid, and of course when it is not open.
    pub const fn expire(self) -> Option<Self> {
        match self.status {
            InvoiceStatus::Open if !self.paying => Some(self.enter(InvoiceStatus::Expired)),
            _ => None,
        }
    }

    /// It is taken back. Nothing changes when it was before.
    pub fn void(self) -> Result<Option<Self>, PaymentsError> {
        match self.status {
            InvoiceStatus::Void => Ok(None),
            InvoiceStatus::Open if self.paying => Err(PaymentsError::PaymentInProgress),
            InvoiceStatus::Open => Ok(Some(self.enter(InvoiceStatus::Void))),
            InvoiceStatus::Paid | InvoiceStatus::Expired | InvoiceStatus::Refunded => Err(PaymentsError::NotOpen),
        }
    }

    /// Reserves what is to go back, so that refunds which run at once never exceed what was taken.
    pub fn begin_refund(self, amount: Amount) -> Result<Self, PaymentsError> {
        match self.status {
            InvoiceStatus::Paid => {}
            InvoiceStatus::Refunded => return Err(PaymentsError::RefundTooLarge { left: 0 }),
            InvoiceStatus::Open | InvoiceStatus::Expired | InvoiceStatus::Void => return Err(PaymentsError::NotPaid),
        }
        if amount < 0 || amount > self.left() {
            return Err(PaymentsError::RefundTooLarge { left: self.left() });
        }
        Ok(Self { refunding: self.refunding + amount, ..self })
    }

    /// What was reserved went back.
    pub const fn end_refund(self, amount: Amount) -> Self {
        let ended = Self { refunding: self.refunding - amount, refunded: self.refunded + amount, ..self };
        match ended.status {
            // One over nothing may end when all has gone back.
            InvoiceStatus::Paid if ended.refunded == ended.total => ended.enter(InvoiceStatus::Refunded),
            _ => ended,
        }
    }

    /// What was reserved did not go back and can be asked for again.
    pub const fn fail_refund(self, amount: Amount) -> Self {
        Self { refunding: self.refunding - amount, ..self }
    }
}

/// How a try to take money stands. `Captured` is for ever; a failed one is for ever too, unless the provider breaks its
/// word and takes the money after all.
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
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Processing, Self::Captured, Self::Failed];

    /// The word for it, in columns.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Captured => "captured",
            Self::Failed => "failed",
        }
    }

    /// The state that has this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether a try that stands so may come to stand as `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Processing, Self::Captured | Self::Failed) | (Self::Failed, Self::Captured))
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

    /// Whether a try that stands so may come to stand as `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Processing, Self::Done | Self::Failed))
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
    let mut fields = Validator::new();
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

/// What of an invoice's goods has not come back, a line a product, in the order of its lines.
pub fn still_out(lines: &[InvoiceLine], returned: &[ReturnLine]) -> Vec<ReturnLine> {
    let mut out: Vec<ReturnLine> = Vec::new();
    for line in lines {
        let Some(product_id) = line.product_id else { continue };
        match out.iter_mut().find(|sold| sold.product_id == product_id) {
            Some(sold) => sold.quantity += line.quantity,
            None => out.push(ReturnLine { product_id, quantity: line.quantity }),
        }
    }
    for line in &mut out {
        line.quantity -= came_back(returned, line.product_id);
    }
    out.retain(|line| line.quantity > 0);
    out
}

fn came_back(returned: &[ReturnLine], product: ProductId) -> Quantity {
    returned.iter().filter(|line| line.product_id == product).map(|line| line.quantity).sum()
}

/// What the goods that come back cost, or everything that is wrong with them. A product that stands in several lines at
/// different prices comes back in their order.
pub fn price_of_return(
    lines: &[InvoiceLine],
    returned: &[ReturnLine],
    wanted: &[ReturnLine],
) -> Result<Amount, Vec<FieldError>> {
    let mut fields = Validator::new();
    match wanted.len() {
        0 => fields.wrong("lines", "required", "must have at least one line, or be left out"),
        1..=LINES_MAX => {}
        _ => fields.wrong("lines", "too_long", format!("must have at most {LINES_MAX} lines")),
    }
    let out = still_out(lines, returned);
    let mut price: Amount = 0;
    for (n, line) in wanted.iter().take(LINES_MAX).enumerate() {
        let left = out.iter().find(|sold| sold.product_id == line.product_id).map_or(0, |sold| sold.quantity);
        if wanted.iter().take(n).any(|before| before.product_id == line.product_id) {
            fields.wrong(format!("lines.{n}.product_id"), "duplicate", "is named twice");
        } else if left == 0 {
            fields.wrong(format!("lines.{n}.product_id"), "not_sold", "was not sold by this invoice, or all came back");
        } else {
            fields.range(format!("lines.{n}.quantity"), line.quantity, 1, left);
        }
        let first = came_back(returned, line.product_id);
        price = price.saturating_add(price_of_pieces(lines, line.product_id, first, line.quantity));
    }
    fields.done()?;
    Ok(price)
}

/// What `count` pieces of a product cost, from the piece `first` on, in the order of the lines.
fn price_of_pieces(lines: &[InvoiceLine], product: ProductId, first: Quantity, count: Quantity) -> Amount {
    let (mut skip, mut count, mut price) = (first, count, 0);
    for line in lines.iter().filter(|line| line.product_id == Some(product)) {
        let here = (line.quantity - skip).clamp(0, count.max(0));
        skip = (skip - line.quantity).max(0);
        count -= here;
        price += line.unit_price * here;
    }
    price
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What may happen to an invoice, in any order.
    #[derive(Debug, Clone)]
    enum Step {
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

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::BeginPayment),
            1 => Just(Step::FailPayment),
            2 => Just(Step::Capture),
            1 => Just(Step::CaptureLate),
            1 => Just(Step::Expire),
            1 => Just(Step::Void),
            4 => (-5..700_i64).prop_map(Step::BeginRefund),
            3 => (0..4_usize).prop_map(Step::EndRefund),
            1 => (0..4_usize).prop_map(Step::FailRefund),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: no state follows that may not, money is taken once, and it goes back at
        /// most as it came, also while refunds are under way.
        #[test]
        fn p13_an_invoice_never_stands_as_it_may_not(
            total in prop_oneof![Just(0), 1..1500_i64],
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut now = InvoiceLedger::new(total);
            // What is known from outside: how much was taken and went back, and which refunds are under way.
            let (mut taken, mut back, mut reserved) = (0, 0, Vec::<Amount>::new());
            for step in steps {
                let before = now;
                match step {
                    Step::BeginPayment => now = now.begin_payment().unwrap_or(now),
                    Step::FailPayment if now.paying => now = now.fail_payment(),
                    Step::FailPayment => {}
                    Step::Capture | Step::CaptureLate => {
                        let next = if matches!(step, Step::Capture) { now.capture() } else { now.capture_late() };
                        prop_assert!(next.is_none() || taken == 0);
                        if let Some(next) = next {
                            taken += 1;
                            now = next;
                        }
                    }
                    Step::Expire => now = now.expire().unwrap_or(now),
                    Step::Void => now = now.void().ok().flatten().unwrap_or(now),
                    Step::BeginRefund(amount) => if let Ok(next) = now.begin_refund(amount) {
                        prop_assert!(amount >= 0);
                        reserved.push(amount);
                        now = next;
                    }
                    Step::EndRefund(n) if n < reserved.len() => {
                        let amount = reserved.remove(n);
                        back += amount;
                        now = now.end_refund(amount);
                    }
                    Step::FailRefund(n) if n < reserved.len() => now = now.fail_refund(reserved.remove(n)),
                    Step::EndRefund(_) | Step::FailRefund(_) => {}
                }
                let moved = before.status != now.status;
                prop_assert!(!moved || before.status.may_become(now.status), "{before:?} {now:?}");
                prop_assert_eq!(now.total, total);
                prop_assert_eq!((now.refunded, now.refunding), (back, reserved.iter().sum::<Amount>()));
                let most = if taken == 1 { total } else { 0 };
                prop_assert!(back >= 0 && back + now.refunding <= most);
                let paid = matches!(now.status, InvoiceStatus::Paid | InvoiceStatus::Refunded);
                prop_assert_eq!(paid, taken == 1);
                prop_assert!(!now.paying || now.status == InvoiceStatus::Open);
                prop_assert!(now.status != InvoiceStatus::Refunded || back == total);
            }
        }

        #[test]
        fn a_try_that_ended_stays_as_it_is_but_for_a_capture(steps in proptest::collection::vec(0..3_usize, 0..20)) {
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

        /// Goods that come back in any parts: never more of one than were sold, and all of them cost exactly what was
        /// paid for them.
        #[test]
        fn p13_goods_come_back_at_most_once_and_cost_what_they_cost(
            lines in proptest::collection::vec((0..4_usize, 1..20_i64, 0..1000_i64), 1..8),
            wishes in proptest::collection::vec(proptest::collection::vec((0..5_usize, -1..12_i64), 0..4), 0..12),
        ) {
            let products: Vec<ProductId> = (0..5).map(|_| ProductId::new()).collect();
            let lines: Vec<InvoiceLine> = lines
                .into_iter()
                .map(|(product, quantity, unit_price)| InvoiceLine {
                    description: "A teapot".to_owned(),
                    // One kind of line is of no product: work, postage.
                    product_id: (product > 0).then(|| products[product]),
                    quantity,
                    unit_price,
                })
                .collect();
            let goods = |line: &&InvoiceLine| line.product_id.is_some();
            let sold: Amount = lines.iter().filter(goods).map(|line| line.quantity * line.unit_price).sum();
            let (mut returned, mut paid_back) = (Vec::new(), 0);
            for wish in wishes {
                let wish: Vec<ReturnLine> =
                    wish.into_iter().map(|(n, quantity)| ReturnLine { product_id: products[n], quantity }).collect();
                if let Ok(price) = price_of_return(&lines, &returned, &wish) {
                    prop_assert!(price >= 0 && wish.iter().all(|line| line.quantity > 0));
                    paid_back += price;
                    returned.extend(wish);
                }
                for product in &products {
                    let of = |line: &&InvoiceLine| line.product_id == Some(*product);
                    let had: Quantity = lines.iter().filter(of).map(|line| line.quantity).sum();
                    prop_assert!(came_back(&returned, *product) <= had);
                }
                prop_assert!(paid_back <= sold);
            }
            let rest = still_out(&lines, &returned);
            if !rest.is_empty() {
                paid_back += price_of_return(&lines, &returned, &rest).unwrap();
                returned.extend(rest);
            }
            prop_assert_eq!(paid_back, sold);
            prop_assert!(still_out(&lines, &returned).is_empty());
        }
    }
}
