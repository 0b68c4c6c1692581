//! Stock and the holds on it. Everything here runs in one write job, so what is checked holds when it is written.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql};
use diesel::pg::Pg;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Bool, Text};
use diesel::sqlite::Sqlite;

use super::{Row, StockReason, WriteScope, json, offers_of, save};
use crate::contract::catalog::{CatalogError, HoldLine, SaleRefused, StockHold};
use crate::contract::payments::ReturnLine;
use crate::domains::catalog::model::{self, HoldState, StockMoveReason};
use crate::domains::catalog::schema::{hold, hold_line};
use crate::store::query::*;
use crate::store::{Conn, Prepare, Tx};
use crate::types::{FieldError, HoldId, InvoiceId, ProductId, Timestamp};

/// How many holds that ran out one job lets go.
const EXPIRED_PART: i64 = 50;

impl ToSql<Text, Sqlite> for HoldState {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.as_str());
        Ok(IsNull::No)
    }
}

impl ToSql<Text, Pg> for HoldState {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <str as ToSql<Text, Pg>>::to_sql(self.as_str(), out)
    }
}

impl<B: Backend> FromSql<Text, B> for HoldState
where
    String: FromSql<Text, B>,
{
    fn from_sql(bytes: B::RawValue<'_>) -> deserialize::Result<Self> {
        let word = String::from_sql(bytes)?;
        Self::parse(&word).ok_or_else(|| format!("{word} is no state of a hold").into())
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = hold)]
struct Hold {
    state: HoldState,
    expires_at: Timestamp,
    answer: String,
}

fn find(conn: &mut Conn, id: HoldId) -> QueryResult<Option<Hold>> {
    hold::table.filter(hold::id.eq(id)).select(Hold::as_select()).first(conn).optional()
}

fn lines(conn: &mut Conn, id: HoldId) -> QueryResult<Vec<HoldLine>> {
    let rows: Vec<(ProductId, i64)> = hold_line::table
        .filter(hold_line::hold_id.eq(id))
        .order(hold_line::product_id)
        .select((hold_line::product_id, hold_line::quantity))
        .load(conn)?;
    Ok(rows.into_iter().map(|(product_id, quantity)| HoldLine { product_id, quantity }).collect())
}

/// Whether these would take the last of a product: then lists change, and counts, and who stands for a group.
pub fn would_empty(conn: &mut Conn, wanted: &[HoldLine]) -> QueryResult<bool> {
    for line in wanted {
        if super::find(conn, line.product_id)?.is_some_and(|row| row.stock == line.quantity) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sets stock aside: all lines or none. `wanted` has one line a product, sorted.
pub fn take_hold(
    tx: &mut Tx<'_>,
    hand: &WriteScope,
    id: HoldId,
    wanted: &[HoldLine],
    expires_at: Timestamp,
) -> Result<StockHold, CatalogError> {
    if let Some(before) = find(tx.conn, id)? {
        return again(tx, id, &before, wanted);
    }
    if expires_at <= tx.now {
        return Err(CatalogError::HoldGone);
    }
    let name = id.to_string();
    let taken = take(tx, hand, wanted, (StockMoveReason::StockHold, Some(&name)))?;
    let held = StockHold { hold: id, offers: offers_of(tx.conn, taken)? };
    insert(tx, id, HoldState::StockHold, expires_at, json(&held)?)?;
    for line in wanted {
        diesel::insert_into(hold_line::table)
            .values((
                hold_line::hold_id.eq(id),
                hold_line::product_id.eq(line.product_id),
                hold_line::quantity.eq(line.quantity),
            ))
            .execute(tx.conn)?;
    }
    Ok(held)
}

/// What is answered to one who asks again: the first answer, as long as it holds.
fn again(tx: &mut Tx<'_>, id: HoldId, before: &Hold, wanted: &[HoldLine]) -> Result<StockHold, CatalogError> {
    match before.state {
        HoldState::Released | HoldState::Returned => return Err(CatalogError::HoldGone),
        // Its time is over; that the timer has not come by yet makes it no more worth.
        HoldState::StockHold if before.expires_at <= tx.now => return Err(CatalogError::HoldGone),
        HoldState::StockHold | HoldState::Sold => {}
    }
    if lines(tx.conn, id)? != wanted {
        return Err(FieldError::new("hold", "reused", "was made with other lines; use a new id").into());
    }
    serde_json::from_str(&before.answer).map_err(|error| {
        log::error!("catalog: the answer of hold {id} cannot be read: {error}");
        crate::messaging::CommonError::Internal.into()
    })
}

fn insert(
    tx: &mut Tx<'_>,
    id: HoldId,
    state: HoldState,
    expires_at: Timestamp,
    answer: String,
) -> Result<(), CatalogError> {
    diesel::insert_into(hold::table)
        .values((
            hold::id.eq(id),
            hold::state.eq(state),
            hold::expires_at.eq(expires_at),
            hold::answer.eq(answer),
            hold::created_at.eq(tx.now),
            hold::updated_at.eq(tx.now),
        ))
        .execute(tx.conn)?;
    Ok(())
}

/// Takes from the shelf: looks at every line first, so that a refusal has taken nothing. Gives back what the rows
/// have become.
fn take(
    tx: &mut Tx<'_>,
    hand: &WriteScope,
    wanted: &[HoldLine],
    cause: StockReason<'_>,
) -> Result<Vec<Row>, CatalogError> {
    let mut rows = Vec::with_capacity(wanted.len());
    for line in wanted {
        let row = super::for_sale(tx.conn, line.product_id)?;
        if row.stock < line.quantity {
            return Err(CatalogError::OutOfStock { product_id: row.id, left: row.stock });
        }
        rows.push((row, line.quantity));
    }
    let mut taken = Vec::with_capacity(rows.len());
    for (row, quantity) in rows {
        // Of siblings, taking the one before may have made this one the first of their group.
        let row = if row.group_name.is_some() { super::for_sale(tx.conn, row.id)? } else { row };
        let after = Row { stock: row.stock - quantity, ..row.clone() };
        save(tx, hand, Some(&row), after.clone(), cause)?;
        taken.push(after);
    }
    Ok(taken)
}

/// Puts a hold's lines back on the shelf.
fn give_back(tx: &mut Tx<'_>, hand: &WriteScope, id: HoldId, reason: StockMoveReason) -> Result<(), CatalogError> {
    let all = lines(tx.conn, id)?;
    put_back(tx, hand, id, all, reason)
}

fn put_back(
    tx: &mut Tx<'_>,
    hand: &WriteScope,
    id: HoldId,
    back: Vec<HoldLine>,
    reason: StockMoveReason,
) -> Result<(), CatalogError> {
    let name = id.to_string();
    for line in back {
        let Some(row) = super::find(tx.conn, line.product_id)? else { continue };
        let after = Row { stock: row.stock + line.quantity, ..row.clone() };
        save(tx, hand, Some(&row), after, (reason, Some(&name)))?;
    }
    Ok(())
}

fn enter(tx: &mut Tx<'_>, id: HoldId, state: HoldState) -> QueryResult<()> {
    diesel::update(hold::table.filter(hold::id.eq(id)))
        .set((hold::state.eq(state), hold::updated_at.eq(tx.now)))
        .prepared()
        .execute(tx.conn)?;
    Ok(())
}

/// Lets a hold go, once. One that was never made is remembered as let go, so that it is refused when it comes late.
pub fn release(tx: &mut Tx<'_>, hand: &WriteScope, id: HoldId) -> Result<(), CatalogError> {
    match find(tx.conn, id)? {
        None => insert(tx, id, HoldState::Released, tx.now, String::new()),
        Some(before) if before.state == HoldState::StockHold => let_go(tx, hand, id, StockMoveReason::Released),
        Some(_) => Ok(()),
    }
}

fn let_go(tx: &mut Tx<'_>, hand: &WriteScope, id: HoldId, reason: StockMoveReason) -> Result<(), CatalogError> {
    enter(tx, id, HoldState::Released)?;
    give_back(tx, hand, id, reason)
}

/// Whether any hold has run out: asked of a reader, so that an idle shop writes nothing.
pub fn any_expired(conn: &mut Conn, now: Timestamp) -> QueryResult<bool> {
    Ok(!expired(conn, now, 1)?.is_empty())
}

fn expired(conn: &mut Conn, now: Timestamp, limit: i64) -> QueryResult<Vec<HoldId>> {
    hold::table
        // Said with the very word of the index, which a bound value would not be known to match.
        .filter(diesel::dsl::sql::<Bool>("state = 'held'"))
        .filter(hold::expires_at.le(now))
        .order(hold::expires_at)
        .limit(limit)
        .select(hold::id)
        .load(conn)
}

/// Lets some of the holds go that have run out; says whether there may be more.
pub fn expire(tx: &mut Tx<'_>, hand: &WriteScope) -> Result<bool, CatalogError> {
    let gone = expired(tx.conn, tx.now, EXPIRED_PART)?;
    for id in &gone {
        let_go(tx, hand, *id, StockMoveReason::Expired)?;
    }
    Ok(i64::try_from(gone.len()).unwrap_or(0) == EXPIRED_PART)
}

/// The invoice of a hold is paid. When the hold is gone its goods are taken from the shelf if they are still there,
/// else the sale is refused and the money must go back.
pub fn sell(tx: &mut Tx<'_>, hand: &WriteScope, id: HoldId, invoice_id: InvoiceId) -> Result<(), CatalogError> {
    match find(tx.conn, id)?.map(|before| before.state) {
        Some(HoldState::Sold | HoldState::Returned) => Ok(()),
        Some(HoldState::StockHold) => Ok(enter(tx, id, HoldState::Sold)?),
        Some(HoldState::Released) => {
            let wanted = lines(tx.conn, id)?;
            if wanted.is_empty() {
                return refuse(tx, id, invoice_id);
            }
            let name = id.to_string();
            match take(tx, hand, &wanted, (StockMoveReason::Sold, Some(&name))) {
                Ok(_) => Ok(enter(tx, id, HoldState::Sold)?),
                Err(CatalogError::OutOfStock { .. } | CatalogError::ProductNotFound) => refuse(tx, id, invoice_id),
                Err(failure) => Err(failure),
            }
        }
        None => refuse(tx, id, invoice_id),
    }
}

fn refuse(tx: &mut Tx<'_>, hold: HoldId, invoice_id: InvoiceId) -> Result<(), CatalogError> {
    log::warn!("catalog: invoice {invoice_id} was paid, but the stock of hold {hold} is gone");
    Ok(tx.emit(&SaleRefused { invoice_id, hold })?)
}

/// Goods of a paid hold come back: so many of these, or all that have not yet when none are named. Never more than
/// were sold.
pub fn take_back(tx: &mut Tx<'_>, hand: &WriteScope, id: HoldId, these: &[ReturnLine]) -> Result<(), CatalogError> {
    let sold = find(tx.conn, id)?.is_some_and(|before| before.state.may_become(HoldState::Returned));
    if !sold {
        return Ok(());
    }
    let rows: Vec<(ProductId, i64, i64)> = hold_line::table
        .filter(hold_line::hold_id.eq(id))
        .order(hold_line::product_id)
        .select((hold_line::product_id, hold_line::quantity, hold_line::returned))
        .load(tx.conn)?;
    let (back, all) = model::coming_back(&rows, these);
    if all {
        enter(tx, id, HoldState::Returned)?;
    }
    for line in &back {
        diesel::update(hold_line::table.find((id, line.product_id)))
            .set(hold_line::returned.eq(hold_line::returned + line.quantity))
            .execute(tx.conn)?;
    }
    put_back(tx, hand, id, back, StockMoveReason::Returned)
}

/// What is wrong with the books: products whose stock is not the sum of its moves. For tests.
#[cfg(test)]
pub fn misbooked(conn: &mut Conn) -> QueryResult<Vec<ProductId>> {
    use crate::domains::catalog::schema::{product, stock_move};
    let rows: Vec<(ProductId, i64)> = product::table.select((product::id, product::stock)).load(conn)?;
    let mut wrong = Vec::new();
    for (id, stock) in rows {
        let moves: Vec<i64> =
            stock_move::table.filter(stock_move::product_id.eq(id)).select(stock_move::delta).load(conn)?;
        if moves.iter().sum::<i64>() != stock {
            wrong.push(id);
        }
    }
    Ok(wrong)
}
