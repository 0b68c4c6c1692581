//! Rules of a cart as pure functions: limits, current prices, checkout states.
//!
//! Does not contain: SQL, calls of other domains.

use serde::{Deserialize, Serialize};

use super::{CartError, CartItem, Change};
use crate::contract::catalog::{HoldLine, Offer};
use crate::contract::payments::InvoiceLine;
use crate::store::text_enum;
use crate::types::{Amount, CartItemId, Currency, FieldError, ProductId, Quantity};

/// Maximum number of units of one product.
pub const QUANTITY_MAX: Quantity = 10_000;
/// Maximum number of lines.
pub const LINES_MAX: u32 = 100;
/// Maximum length of an invoice line's description in characters, as payments accepts it.
const DESCRIPTION_MAX: usize = 300;

/// State of a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckoutState {
    /// The cart is locked; the stock hold is not confirmed yet.
    Started,
    /// The stock is held.
    Held,
    /// The invoice exists and was returned to the buyer.
    Invoiced,
    /// The invoice was paid, and its lines were removed from the cart.
    Paid,
    /// The invoice expired or was voided; the cart is unlocked.
    Cancelled,
    /// There will be no invoice; the cart is unlocked.
    Failed,
}

text_enum!(CheckoutState { Started => "started", Held => "held", Invoiced => "invoiced", Paid => "paid", Cancelled => "cancelled", Failed => "failed" });

impl CheckoutState {
    /// Returns `true` if a checkout may change from this state to `next`. Events of the invoice may arrive before the
    /// response to its creation, so a held checkout may be paid or cancelled.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Started, Self::Held | Self::Failed)
                | (Self::Held, Self::Invoiced | Self::Paid | Self::Cancelled | Self::Failed)
                | (Self::Invoiced, Self::Paid | Self::Cancelled)
        )
    }

    /// Returns `true` if the cart is read-only in this state.
    pub const fn locks_cart(self) -> bool {
        matches!(self, Self::Started | Self::Held | Self::Invoiced)
    }
}

/// A line as locked by a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenLine {
    /// Product of the line.
    pub product_id: ProductId,
    /// Number of units.
    pub quantity: Quantity,
}

impl From<FrozenLine> for HoldLine {
    fn from(line: FrozenLine) -> Self {
        Self { product_id: line.product_id, quantity: line.quantity }
    }
}

/// A stored cart line, with the price of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartLine {
    pub id: CartItemId,
    pub product_id: ProductId,
    pub quantity: Quantity,
    pub unit_price: Amount,
    pub currency: Currency,
    pub name: String,
    pub slug: String,
}

/// Returns the offer if the product is sold.
///
/// # Errors
/// If the product does not exist or is no longer sold.
pub fn for_sale(offer: Option<Offer>) -> Result<Offer, CartError> {
    offer.filter(|offer| !offer.deleted).ok_or(CartError::ProductNotFound)
}

/// Validates the quantity of a line.
///
/// # Errors
/// If it exceeds the limit or the stock.
pub fn validate_quantity(quantity: Quantity, offer: &Offer) -> Result<(), CartError> {
    if quantity > QUANTITY_MAX {
        let message = format!("a cart can have at most {QUANTITY_MAX} of one product");
        return Err(FieldError::new("quantity", "out_of_range", message).into());
    }
    if quantity > offer.stock {
        return Err(CartError::OutOfStock { product_id: offer.product_id, left: offer.stock.max(0) });
    }
    Ok(())
}

/// Returns the price of a line, in minor units. Quantity and price are limited so that neither a line nor the sum of a
/// cart's lines overflows an [`Amount`].
pub const fn line_total(quantity: Quantity, unit_price: Amount) -> Amount {
    quantity.saturating_mul(unit_price)
}

/// Converts a stored line to one at the current price, in a cart of `currency`.
pub fn at_current_price(line: CartLine, offer: Option<&Offer>, currency: Currency) -> CartItem {
    // A product that is now sold in another currency cannot be bought with the rest of the cart.
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
        total: line_total(line.quantity, unit_price),
        currency: offer.map_or(line.currency, |offer| offer.currency),
        image: offer.and_then(|offer| offer.image.clone()),
        changed,
        added_unit_price: line.unit_price,
    }
}

/// Sums up the lines that can be bought, in minor units.
pub fn total(items: &[CartItem]) -> Amount {
    let bought = items.iter().filter(|item| item.changed != Some(Change::Unavailable));
    bought.fold(0, |sum: Amount, item| sum.saturating_add(item.total))
}

/// Builds the invoice lines of a checkout: the locked lines at the prices of the stock hold.
///
/// # Errors
/// If a product is missing, the currencies differ, or there are no lines.
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
            tax: None,
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
        /// In any order of events a checkout ends once, locks its cart exactly until then, and never fails after it was
        /// invoiced.
        #[test]
        fn p09_checkout_ends_once_in_any_order_of_events(states in proptest::collection::vec(0..6_usize, 0..30)) {
            let (mut state, mut ends, mut invoiced) = (CheckoutState::Started, 0, false);
            for next in states.into_iter().map(|n| CheckoutState::ALL[n]) {
                prop_assert_eq!(CheckoutState::parse(next.as_str()), Some(next));
                if !state.may_become(next) {
                    continue;
                }
                prop_assert!(state.locks_cart(), "{state:?} has ended and became {next:?}");
                prop_assert!(next != CheckoutState::Started);
                invoiced |= next == CheckoutState::Invoiced;
                ends += u32::from(!next.locks_cart());
                prop_assert!(!(invoiced && next == CheckoutState::Failed));
                state = next;
            }
            prop_assert_eq!(ends, u32::from(!state.locks_cart()));
        }

        /// The invoice total equals the cart total, to the minor unit.
        #[test]
        fn p09_invoice_total_equals_cart_total(
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
                    let line = CartLine {
                        id: CartItemId::new(),
                        product_id: line.product_id,
                        quantity: line.quantity,
                        unit_price: offer.price,
                        currency: offer.currency,
                        name: String::new(),
                        slug: String::new(),
                    };
                    at_current_price(line, Some(offer), Currency::EUR)
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
