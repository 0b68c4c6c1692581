//! The rules of a cart, pure: how much fits in, what is different today, how a checkout may go.

use serde::{Deserialize, Serialize};

use super::{CartError, CartItem, Change};
use crate::contract::catalog::{HoldLine, Offer};
use crate::contract::payments::InvoiceLine;
use crate::store::text_enum;
use crate::types::{Amount, CartItemId, Currency, FieldError, ProductId, Quantity};

/// The most pieces of one product.
pub const QUANTITY_MAX: Quantity = 10_000;
/// The most different products.
pub const LINES_MAX: u32 = 100;
/// The longest description of an invoice's line, in characters; payments takes no more.
const DESCRIPTION_MAX: usize = 300;

/// How a checkout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckoutState {
    /// The cart is frozen; nobody else was asked yet, or nobody knows what they did.
    Started,
    /// The stock is set aside.
    StockHold,
    /// There is an invoice, and the buyer knows it.
    Invoiced,
    /// The invoice was paid: the goods have left the cart.
    Paid,
    /// The invoice ran out or was taken back: the cart is as before.
    Cancelled,
    /// There will be no invoice: the cart is as before.
    Failed,
}

text_enum!(CheckoutState { Started => "started", StockHold => "held", Invoiced => "invoiced", Paid => "paid", Cancelled => "cancelled", Failed => "failed" });

impl CheckoutState {
    /// Whether a checkout that stands so may come to stand as `next`. News of the invoice may come before the answer
    /// that made it, so a held one may be paid or cancelled.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Started, Self::StockHold | Self::Failed)
                | (Self::StockHold, Self::Invoiced | Self::Paid | Self::Cancelled | Self::Failed)
                | (Self::Invoiced, Self::Paid | Self::Cancelled)
        )
    }

    /// Whether the cart cannot be changed meanwhile.
    pub const fn freezes(self) -> bool {
        matches!(self, Self::Started | Self::StockHold | Self::Invoiced)
    }
}

/// A line as a checkout froze it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenLine {
    /// What.
    pub product_id: ProductId,
    /// How many.
    pub quantity: Quantity,
}

impl From<FrozenLine> for HoldLine {
    fn from(line: FrozenLine) -> Self {
        Self { product_id: line.product_id, quantity: line.quantity }
    }
}

/// A line of a cart as it is kept: the prices are of when it last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub id: CartItemId,
    pub product_id: ProductId,
    pub quantity: Quantity,
    pub unit_price: Amount,
    pub currency: Currency,
    pub name: String,
    pub slug: String,
}

/// The offer, if the product can be bought at all.
pub fn for_sale(offer: Option<Offer>) -> Result<Offer, CartError> {
    offer.filter(|offer| !offer.deleted).ok_or(CartError::ProductNotFound)
}

/// Whether so many of a product may stand in a cart.
pub fn fits(quantity: Quantity, offer: &Offer) -> Result<(), CartError> {
    if quantity > QUANTITY_MAX {
        let message = format!("a cart can have at most {QUANTITY_MAX} of one product");
        return Err(FieldError::new("quantity", "out_of_range", message).into());
    }
    if quantity > offer.stock {
        return Err(CartError::OutOfStock { product_id: offer.product_id, left: offer.stock.max(0) });
    }
    Ok(())
}

/// What so many pieces cost. A line is within bounds (10,000 pieces, a price the catalog takes) whose product is far
/// below what an [`Amount`] holds, and so is the sum of a cart's lines.
pub const fn cost(quantity: Quantity, unit_price: Amount) -> Amount {
    quantity.saturating_mul(unit_price)
}

/// A line at today's price, in a cart of that currency.
pub fn today(line: Line, offer: Option<&Offer>, currency: Currency) -> CartItem {
    // A product that is now sold in another currency cannot be bought together with the rest.
    let offer = offer.filter(|offer| !offer.deleted && offer.currency == currency);
    let changed = match offer {
        None => Some(Change::Unavailable),
        Some(offer) if offer.stock < line.quantity => Some(Change::Stock),
        Some(offer) if offer.price != line.unit_price => Some(Change::Price),
        Some(_) => None,
    };
    let unit_price = offer.map_or(line.unit_price, |offer| offer.price);
    CartItem {
        id: line.id,
        product_id: line.product_id,
        name: offer.map_or(line.name, |offer| offer.name.clone()),
        slug: offer.map_or(line.slug, |offer| offer.slug.clone()),
        quantity: line.quantity,
        unit_price,
        total: cost(line.quantity, unit_price),
        currency: offer.map_or(line.currency, |offer| offer.currency),
        image: offer.and_then(|offer| offer.image.clone()),
        changed,
        added_unit_price: line.unit_price,
    }
}

/// What all that can be bought costs.
pub fn total(items: &[CartItem]) -> Amount {
    let bought = items.iter().filter(|item| item.changed != Some(Change::Unavailable));
    bought.fold(0, |sum: Amount, item| sum.saturating_add(item.total))
}

/// The lines of the invoice: what was frozen, at the prices of the hold.
pub fn invoice_lines(frozen: &[FrozenLine], offers: &[Offer]) -> Result<(Currency, Vec<InvoiceLine>), CartError> {
    let mut currency = None;
    let mut lines = Vec::with_capacity(frozen.len());
    for line in frozen {
        let offer = offers.iter().find(|offer| offer.product_id == line.product_id);
        let offer = offer.ok_or(CartError::ProductNotFound)?;
        let currency = *currency.get_or_insert(offer.currency);
        if offer.currency != currency {
            return Err(CartError::CurrencyMismatch { currency });
        }
        lines.push(InvoiceLine {
            description: offer.name.chars().take(DESCRIPTION_MAX).collect(),
            product_id: Some(line.product_id),
            quantity: line.quantity,
            unit_price: offer.price,
        });
    }
    Ok((currency.ok_or(CartError::CartEmpty)?, lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(product_id: ProductId, price: Amount, currency: Currency) -> Offer {
        Offer {
            product_id,
            name: "Teapot".to_owned(),
            sku: "TEA".to_owned(),
            slug: "teapot".to_owned(),
            price,
            currency,
            stock: 10_000,
            deleted: false,
            image: None,
        }
    }

    proptest! {
        /// Whatever is told to a checkout in whatever order: it ends once, it freezes its cart exactly until then, and
        /// one that was paid or has an invoice never counts as failed.
        #[test]
        fn p09_a_checkout_goes_only_where_it_may(news in proptest::collection::vec(0..6_usize, 0..30)) {
            let (mut state, mut ends, mut invoiced) = (CheckoutState::Started, 0, false);
            for next in news.into_iter().map(|n| CheckoutState::ALL[n]) {
                prop_assert_eq!(CheckoutState::parse(next.as_str()), Some(next));
                if !state.may_become(next) {
                    continue;
                }
                prop_assert!(state.freezes(), "{state:?} has ended and became {next:?}");
                prop_assert!(next != CheckoutState::Started);
                invoiced |= next == CheckoutState::Invoiced;
                ends += u32::from(!next.freezes());
                prop_assert!(!(invoiced && next == CheckoutState::Failed));
                state = next;
            }
            prop_assert_eq!(ends, u32::from(!state.freezes()));
        }

        /// What is charged is what was shown: the invoice's lines come to the sum of the cart's, to the minor unit.
        #[test]
        fn p09_an_invoice_comes_to_what_its_cart_showed(
            lines in proptest::collection::vec((1..=QUANTITY_MAX, 0..1_000_000_000_000_i64), 1..100),
        ) {
            let offers: Vec<Offer> =
                lines.iter().map(|(_, price)| offer(ProductId::new(), *price, Currency::EUR)).collect();
            let frozen: Vec<FrozenLine> = lines
                .iter()
                .zip(&offers)
                .map(|((quantity, _), offer)| FrozenLine { product_id: offer.product_id, quantity: *quantity })
                .collect();
            let items: Vec<CartItem> = frozen
                .iter()
                .zip(&offers)
                .map(|(line, offer)| {
                    let line = Line {
                        id: CartItemId::new(),
                        product_id: line.product_id,
                        quantity: line.quantity,
                        unit_price: offer.price,
                        currency: offer.currency,
                        name: String::new(),
                        slug: String::new(),
                    };
                    today(line, Some(offer), Currency::EUR)
                })
                .collect();
            let exact: i128 = lines.iter().map(|(quantity, price)| i128::from(*quantity) * i128::from(*price)).sum();
            let (currency, billed) = invoice_lines(&frozen, &offers).unwrap();
            let billed: i128 =
                billed.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price)).sum();
            prop_assert_eq!((currency, billed), (Currency::EUR, exact));
            prop_assert_eq!(i128::from(total(&items)), exact);
        }
    }
}
