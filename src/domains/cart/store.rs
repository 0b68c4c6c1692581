//! SQL of carts and checkouts.

pub mod invariants;

use super::model::{CartLine, CheckoutState, FrozenLine};
use super::schema::{cart_item, checkout};
use super::unpaid_orders::RECONSIDERED_WITHIN;
use crate::contract::payments::InvoiceLine;
use crate::messaging::IdempotencyKey;
use crate::store::query::*;
use crate::store::{Conn, Fingerprint, IdempotentRequest, Prepare};
use crate::types::{
    Amount, CartItemId, CheckoutId, Currency, EmailAddress, HoldId, InvoiceId, OrderDetails, ProductId, Quantity,
    Timestamp, UserId,
};
use diesel::dsl::{count_star, max, min};
use diesel::upsert::excluded;

pub use crate::store::query::to_text;

/// A row of `cart_item`.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = cart_item)]
pub struct ItemRow {
    pub id: CartItemId,
    pub user_id: UserId,
    pub product_id: ProductId,
    pub quantity: Quantity,
    pub unit_price: Amount,
    pub currency: Currency,
    pub name: String,
    pub slug: String,
    pub created_at: Timestamp,
}

impl From<ItemRow> for CartLine {
    fn from(row: ItemRow) -> Self {
        Self {
            id: row.id,
            product_id: row.product_id,
            quantity: row.quantity,
            unit_price: row.unit_price,
            currency: row.currency,
            name: row.name,
            slug: row.slug,
        }
    }
}

/// A row of `checkout`.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = checkout)]
pub struct CheckoutRow {
    pub id: CheckoutId,
    pub user_id: UserId,
    pub freezes: Option<UserId>,
    pub state: CheckoutState,
    pub hold: HoldId,
    pub lines: String,
    pub invoice_lines: Option<String>,
    pub currency: Option<Currency>,
    pub email: Option<EmailAddress>,
    pub invoice_id: Option<InvoiceId>,
    pub scope: String,
    pub key: String,
    pub fingerprint: Vec<u8>,
    pub release_due: bool,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Network that the order counts against.
    pub network: Option<String>,
    /// Process that works on it, where several have the database open.
    pub process: Option<i64>,
    /// Addresses and message as JSON.
    pub details: Option<String>,
}

impl CheckoutRow {
    /// Returns the locked lines.
    pub fn frozen_lines(&self) -> QueryResult<Vec<FrozenLine>> {
        from_text(&self.lines)
    }

    /// Returns currency and lines of the invoice; present once the stock is held.
    pub fn priced_lines(&self) -> QueryResult<(Currency, Vec<InvoiceLine>)> {
        match (self.currency, &self.invoice_lines) {
            (Some(currency), Some(lines)) => Ok((currency, from_text(lines)?)),
            _ => Err(malformed_row("a held checkout without prices")),
        }
    }

    /// Returns the addresses and the message for the invoice.
    pub fn details(&self) -> QueryResult<OrderDetails> {
        self.details.as_deref().map_or_else(|| Ok(OrderDetails::default()), from_text)
    }

    /// Returns the request that began the checkout.
    pub fn idempotent_request(&self) -> IdempotentRequest {
        IdempotentRequest {
            scope: self.scope.clone(),
            key: IdempotencyKey::internal(&self.key),
            fingerprint: Fingerprint::from_bytes(self.fingerprint.clone()),
        }
    }
}

/// Inserts a line, or adds its quantity to the line of the same product, which takes the new price and name. Returns id
/// and quantity of the resulting line. The caller validates them; its error rolls the change back.
pub fn add(conn: &mut Conn, row: &ItemRow) -> QueryResult<(CartItemId, Quantity)> {
    diesel::insert_into(cart_item::table)
        .values(row)
        .on_conflict((cart_item::user_id, cart_item::product_id))
        .do_update()
        .set((
            cart_item::quantity.eq(cart_item::quantity + excluded(cart_item::quantity)),
            cart_item::unit_price.eq(excluded(cart_item::unit_price)),
            cart_item::currency.eq(excluded(cart_item::currency)),
            cart_item::name.eq(excluded(cart_item::name)),
            cart_item::slug.eq(excluded(cart_item::slug)),
        ))
        .returning((cart_item::id, cart_item::quantity))
        .prepared()
        .get_result(conn)
}

/// Returns the number of lines of a cart, and the alphabetically first and last currency among them.
pub fn line_stats(conn: &mut Conn, user: UserId) -> QueryResult<(i64, Option<Currency>, Option<Currency>)> {
    cart_item::table
        .filter(cart_item::user_id.eq(user))
        .select((count_star(), min(cart_item::currency), max(cart_item::currency)))
        .first(conn)
}

/// Returns a currency of the cart other than `currency`, if there is one.
pub fn other_currency(conn: &mut Conn, user: UserId, currency: Currency) -> QueryResult<Option<Currency>> {
    cart_item::table
        .filter(cart_item::user_id.eq(user))
        .filter(cart_item::currency.ne(currency))
        .select(cart_item::currency)
        .first(conn)
        .optional()
}

/// Reads a line.
pub fn item(conn: &mut Conn, user: UserId, id: CartItemId) -> QueryResult<Option<ItemRow>> {
    cart_item::table.find(id).filter(cart_item::user_id.eq(user)).select(ItemRow::as_select()).first(conn).optional()
}

/// Lists the lines of a cart in the order in which they were added.
pub fn items(conn: &mut Conn, user: UserId) -> QueryResult<Vec<ItemRow>> {
    cart_item::table
        .filter(cart_item::user_id.eq(user))
        .order((cart_item::created_at, cart_item::id))
        .select(ItemRow::as_select())
        .load(conn)
}

/// Updates quantity, price and name of a line. Returns `false` if there is no such line.
pub fn set(conn: &mut Conn, row: &ItemRow) -> QueryResult<bool> {
    let set = diesel::update(cart_item::table.find(row.id))
        .filter(cart_item::user_id.eq(row.user_id))
        .set((
            cart_item::quantity.eq(row.quantity),
            cart_item::unit_price.eq(row.unit_price),
            cart_item::currency.eq(row.currency),
            cart_item::name.eq(&row.name),
            cart_item::slug.eq(&row.slug),
        ))
        .prepared()
        .execute(conn)?;
    Ok(set == 1)
}

/// Deletes a line. Returns `false` if there is no such line.
pub fn remove(conn: &mut Conn, user: UserId, id: CartItemId) -> QueryResult<bool> {
    Ok(diesel::delete(cart_item::table.find(id).filter(cart_item::user_id.eq(user))).execute(conn)? == 1)
}

/// Subtracts bought units from a cart, and deletes lines of which none are left.
pub fn remove_bought(conn: &mut Conn, user: UserId, lines: &[FrozenLine]) -> QueryResult<()> {
    for line in lines {
        let items =
            cart_item::table.filter(cart_item::user_id.eq(user)).filter(cart_item::product_id.eq(line.product_id));
        diesel::delete(items.filter(cart_item::quantity.le(line.quantity))).execute(conn)?;
        diesel::update(items)
            .set(cart_item::quantity.eq(cart_item::quantity - line.quantity))
            .prepared()
            .execute(conn)?;
    }
    Ok(())
}

/// Reads the checkout that locks this cart, if there is one.
pub fn active_checkout(conn: &mut Conn, user: UserId) -> QueryResult<Option<CheckoutRow>> {
    checkout::table.filter(checkout::freezes.eq(user)).select(CheckoutRow::as_select()).first(conn).optional()
}

/// Returns the invoice of the checkout that locks this cart; the outer `None` if there is no such checkout.
pub fn freezing_invoice(conn: &mut Conn, user: UserId) -> QueryResult<Option<Option<InvoiceId>>> {
    checkout::table.filter(checkout::freezes.eq(user)).select(checkout::invoice_id).first(conn).optional()
}

/// Reads the last checkout begun under the request's key after `since` that may have an invoice. The caller has looked
/// for a saved response before, so this finds a checkout whose response was not saved.
pub fn find_unanswered(
    conn: &mut Conn,
    request: &IdempotentRequest,
    since: Timestamp,
) -> QueryResult<Option<CheckoutRow>> {
    checkout::table
        .filter(checkout::scope.eq(&request.scope))
        .filter(checkout::key.eq(request.key.as_str()))
        .filter(checkout::state.ne(CheckoutState::Failed))
        .filter(checkout::created_at.gt(since))
        .order(checkout::created_at.desc())
        .select(CheckoutRow::as_select())
        .first(conn)
        .optional()
}

/// Filters for orders that count as unpaid: open ones, and those that kept stock for minutes and ended unpaid after
/// `$since`. A macro, because the type of the condition cannot be named for both engines.
macro_rules! unpaid_since {
    ($since:expr) => {
        checkout::freezes.is_not_null().or(checkout::state
            .eq(CheckoutState::Cancelled)
            .and(checkout::ended_at.gt($since))
            .and(checkout::ended_at.gt((checkout::created_at + RECONSIDERED_WITHIN).nullable())))
    };
}

/// Counts the unpaid orders of a user that are open or ended after `since`.
pub fn count_unpaid_of_user(conn: &mut Conn, user: UserId, since: Timestamp) -> QueryResult<i64> {
    checkout::table.filter(checkout::user_id.eq(user)).filter(unpaid_since!(since)).select(count_star()).first(conn)
}

/// Counts the unpaid orders from a network that are open or ended after `since`.
pub fn count_unpaid_of_network(conn: &mut Conn, network: &str, since: Timestamp) -> QueryResult<i64> {
    checkout::table.filter(checkout::network.eq(network)).filter(unpaid_since!(since)).select(count_star()).first(conn)
}

/// Removes the network from orders that ended before `until`: they count no longer.
pub fn forget_networks(conn: &mut Conn, until: Timestamp) -> QueryResult<usize> {
    diesel::update(checkout::table.filter(checkout::network.is_not_null()).filter(checkout::ended_at.lt(until)))
        .set(checkout::network.eq(None::<String>))
        .execute(conn)
}

/// Inserts a checkout.
pub fn insert_checkout(conn: &mut Conn, row: &CheckoutRow) -> QueryResult<()> {
    diesel::insert_into(checkout::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads a checkout.
pub fn checkout(conn: &mut Conn, id: CheckoutId) -> QueryResult<Option<CheckoutRow>> {
    checkout::table.find(id).select(CheckoutRow::as_select()).first(conn).optional()
}

/// Updates the columns of a checkout that can change.
pub fn save(conn: &mut Conn, row: &CheckoutRow) -> QueryResult<()> {
    diesel::update(checkout::table.find(row.id))
        .set((
            checkout::state.eq(row.state),
            checkout::freezes.eq(row.freezes),
            checkout::invoice_lines.eq(&row.invoice_lines),
            checkout::currency.eq(row.currency),
            checkout::invoice_id.eq(row.invoice_id),
            checkout::release_due.eq(row.release_due),
            checkout::ended_at.eq(row.ended_at),
        ))
        .prepared()
        .execute(conn)?;
    Ok(())
}

/// Records that the stock hold of a checkout was released.
pub fn mark_released(conn: &mut Conn, id: CheckoutId) -> QueryResult<()> {
    diesel::update(checkout::table.find(id)).set(checkout::release_due.eq(false)).prepared().execute(conn)?;
    Ok(())
}

/// Lists checkouts with work left, oldest first. The condition repeats that of the partial index word for word.
pub fn find_unfinished(conn: &mut Conn, limit: i64) -> QueryResult<Vec<CheckoutRow>> {
    checkout::table
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("(state IN ('started', 'held') OR release_due)"))
        .order(checkout::created_at)
        .limit(limit)
        .select(CheckoutRow::as_select())
        .load(conn)
}

/// Erases a user: the lines, the ended checkouts, and the addresses in those in progress.
pub fn erase(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::delete(cart_item::table.filter(cart_item::user_id.eq(user))).execute(conn)?;
    diesel::delete(checkout::table.filter(checkout::user_id.eq(user)))
        .filter(checkout::ended_at.is_not_null())
        .filter(checkout::release_due.eq(false))
        .execute(conn)?;
    diesel::update(checkout::table.filter(checkout::user_id.eq(user)))
        .set((
            checkout::email.eq(None::<EmailAddress>),
            checkout::network.eq(None::<String>),
            checkout::details.eq(None::<String>),
        ))
        .execute(conn)?;
    Ok(())
}
