//! The SQL of carts.

pub mod invariants;

use diesel::dsl::{count_star, max, min};
use diesel::upsert::excluded;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::{CheckoutState, FrozenLine, Line};
use super::schema::{cart_item, checkout};
use crate::contract::payments::InvoiceLine;
use crate::messaging::IdempotencyKey;
use crate::store::query::*;
use crate::store::{Conn, Fingerprint, IdempotentRequest, Prepare};
use crate::types::{
    Amount, CartItemId, CheckoutId, Currency, EmailAddress, HoldId, InvoiceId, ProductId, Quantity, Timestamp, UserId,
};

/// A line as it is kept.
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

impl From<ItemRow> for Line {
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

/// A checkout as it is kept.
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
}

impl CheckoutRow {
    /// What was frozen.
    pub fn frozen(&self) -> QueryResult<Vec<FrozenLine>> {
        from_text(&self.lines)
    }

    /// What the invoice is to say, once the stock is held.
    pub fn priced(&self) -> QueryResult<(Currency, Vec<InvoiceLine>)> {
        match (self.currency, &self.invoice_lines) {
            (Some(currency), Some(lines)) => Ok((currency, from_text(lines)?)),
            _ => Err(unreadable("a held checkout without prices")),
        }
    }

    /// What its caller wanted, under which key.
    pub fn wish(&self) -> IdempotentRequest {
        IdempotentRequest {
            scope: self.scope.clone(),
            key: IdempotencyKey::own(&self.key),
            fingerprint: Fingerprint::from_bytes(self.fingerprint.clone()),
        }
    }
}

fn unreadable(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(what.into())
}

fn from_text<T: DeserializeOwned>(text: &str) -> QueryResult<T> {
    serde_json::from_str(text).map_err(unreadable)
}

/// Lines as they are kept.
pub fn to_text<T: Serialize>(lines: &[T]) -> QueryResult<String> {
    serde_json::to_string(lines).map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))
}

/// Puts a line in, or adds it to the one of the same product; gives back which it is now and how many. Price and
/// name become those of the new one. The caller checks the outcome: an error undoes it.
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

/// How many lines a cart has, and the first and last currency of them in the order of the alphabet.
pub fn measure(conn: &mut Conn, user: UserId) -> QueryResult<(i64, Option<Currency>, Option<Currency>)> {
    cart_item::table
        .filter(cart_item::user_id.eq(user))
        .select((count_star(), min(cart_item::currency), max(cart_item::currency)))
        .first(conn)
}

/// A currency of the cart other than this one, if there is any.
pub fn other_currency(conn: &mut Conn, user: UserId, currency: Currency) -> QueryResult<Option<Currency>> {
    cart_item::table
        .filter(cart_item::user_id.eq(user))
        .filter(cart_item::currency.ne(currency))
        .select(cart_item::currency)
        .first(conn)
        .optional()
}

/// One line.
pub fn item(conn: &mut Conn, user: UserId, id: CartItemId) -> QueryResult<Option<ItemRow>> {
    cart_item::table.find(id).filter(cart_item::user_id.eq(user)).select(ItemRow::as_select()).first(conn).optional()
}

/// All lines, the first put in first.
pub fn items(conn: &mut Conn, user: UserId) -> QueryResult<Vec<ItemRow>> {
    cart_item::table
        .filter(cart_item::user_id.eq(user))
        .order((cart_item::created_at, cart_item::id))
        .select(ItemRow::as_select())
        .load(conn)
}

/// Says how many of a line at which price; whether there is the line.
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

/// Takes a line out; whether there was one.
pub fn remove(conn: &mut Conn, user: UserId, id: CartItemId) -> QueryResult<bool> {
    Ok(diesel::delete(cart_item::table.find(id).filter(cart_item::user_id.eq(user))).execute(conn)? == 1)
}

/// Takes out what was bought: so many of each, and the lines of which nothing is left.
pub fn take_out(conn: &mut Conn, user: UserId, bought: &[FrozenLine]) -> QueryResult<()> {
    for line in bought {
        let kept =
            cart_item::table.filter(cart_item::user_id.eq(user)).filter(cart_item::product_id.eq(line.product_id));
        diesel::delete(kept.filter(cart_item::quantity.le(line.quantity))).execute(conn)?;
        diesel::update(kept)
            .set(cart_item::quantity.eq(cart_item::quantity - line.quantity))
            .prepared()
            .execute(conn)?;
    }
    Ok(())
}

/// The checkout that freezes this cart, if one does.
pub fn alive(conn: &mut Conn, user: UserId) -> QueryResult<Option<CheckoutRow>> {
    checkout::table.filter(checkout::freezes.eq(user)).select(CheckoutRow::as_select()).first(conn).optional()
}

/// The invoice of the checkout that freezes this cart; the outer is whether one does.
pub fn frozen_by(conn: &mut Conn, user: UserId) -> QueryResult<Option<Option<InvoiceId>>> {
    checkout::table.filter(checkout::freezes.eq(user)).select(checkout::invoice_id).first(conn).optional()
}

/// The last checkout begun under this wish's key since `since` that has an invoice or may have, and whose answer was not
/// kept. The caller has looked for the answer before.
pub fn unanswered(conn: &mut Conn, wish: &IdempotentRequest, since: Timestamp) -> QueryResult<Option<CheckoutRow>> {
    checkout::table
        .filter(checkout::scope.eq(&wish.scope))
        .filter(checkout::key.eq(wish.key.as_str()))
        .filter(checkout::state.ne(CheckoutState::Failed))
        .filter(checkout::created_at.gt(since))
        .order(checkout::created_at.desc())
        .select(CheckoutRow::as_select())
        .first(conn)
        .optional()
}

/// Writes a new checkout.
pub fn insert_checkout(conn: &mut Conn, row: &CheckoutRow) -> QueryResult<()> {
    diesel::insert_into(checkout::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads a checkout.
pub fn checkout(conn: &mut Conn, id: CheckoutId) -> QueryResult<Option<CheckoutRow>> {
    checkout::table.find(id).select(CheckoutRow::as_select()).first(conn).optional()
}

/// Writes what of a checkout can change.
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

/// Notes that the stock of a checkout was let go.
pub fn released(conn: &mut Conn, id: CheckoutId) -> QueryResult<()> {
    diesel::update(checkout::table.find(id)).set(checkout::release_due.eq(false)).prepared().execute(conn)?;
    Ok(())
}

/// Checkouts with something left to do, the oldest first. The condition is said in the words of the partial index.
pub fn unfinished(conn: &mut Conn, limit: i64) -> QueryResult<Vec<CheckoutRow>> {
    checkout::table
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("(state IN ('started', 'held') OR release_due)"))
        .order(checkout::created_at)
        .limit(limit)
        .select(CheckoutRow::as_select())
        .load(conn)
}

/// Forgets a person: their lines, their ended checkouts, their address in those that still run.
pub fn erase(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::delete(cart_item::table.filter(cart_item::user_id.eq(user))).execute(conn)?;
    diesel::delete(checkout::table.filter(checkout::user_id.eq(user)))
        .filter(checkout::ended_at.is_not_null())
        .filter(checkout::release_due.eq(false))
        .execute(conn)?;
    diesel::update(checkout::table.filter(checkout::user_id.eq(user)))
        .set(checkout::email.eq(None::<EmailAddress>))
        .execute(conn)?;
    Ok(())
}
