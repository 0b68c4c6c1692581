//! SQL of stock and holds. Each function runs in one write job, so a check stays true until the write.

use super::{ProductRow, StockReason, WriteScope, offers_of, save_product, to_json};
use crate::contract::catalog::{CatalogError, ChangeStock, HoldLine, SaleRefused, StockChange, StockHold, StockLevel};
use crate::contract::payments::ReturnLine;
use crate::domains::catalog::model::{self, HoldState, StockMoveReason};
use crate::domains::catalog::schema::{hold, hold_line, stock_move};
use crate::store::query::*;
use crate::store::{Conn, Prepare, Tx};
use crate::types::{FieldError, HoldId, InvoiceId, ProductId, Quantity, Timestamp};

/// Expired holds released per job.
const EXPIRED_BATCH: i64 = 50;

#[derive(Queryable, Selectable)]
#[diesel(table_name = hold)]
struct HoldRow {
    state: HoldState,
    expires_at: Timestamp,
    answer: String,
}

fn find(conn: &mut Conn, id: HoldId) -> QueryResult<Option<HoldRow>> {
    hold::table.filter(hold::id.eq(id)).select(HoldRow::as_select()).first(conn).optional()
}

fn lines(conn: &mut Conn, id: HoldId) -> QueryResult<Vec<HoldLine>> {
    let rows: Vec<(ProductId, i64)> = hold_line::table
        .filter(hold_line::hold_id.eq(id))
        .order(hold_line::product_id)
        .select((hold_line::product_id, hold_line::quantity))
        .load(conn)?;
    Ok(rows.into_iter().map(|(product_id, quantity)| HoldLine { product_id, quantity }).collect())
}

/// Returns `true` if the lines would take the last item of a product, which changes lists, counts and group leads.
pub fn changes_availability(conn: &mut Conn, requested: &[HoldLine]) -> QueryResult<bool> {
    for line in requested {
        if super::find(conn, line.product_id)?.is_some_and(|row| row.stock == line.quantity) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Most changes that [`level`] shows.
const CHANGES_MAX: i64 = 50;

/// Items of a product that are held for unpaid orders.
fn held(conn: &mut Conn, id: ProductId) -> QueryResult<Quantity> {
    // By the holds of now, which the partial index finds; the lines of all orders ever have none by product.
    let lines: Vec<Quantity> = hold::table
        .inner_join(hold_line::table.on(hold_line::hold_id.eq(hold::id)))
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state = 'held'"))
        .filter(hold_line::product_id.eq(id))
        .select(hold_line::quantity)
        .load(conn)?;
    Ok(lines.iter().sum())
}

/// Reads the stock of a product with its latest changes.
///
/// # Errors
/// `ProductNotFound`.
pub fn level(conn: &mut Conn, id: ProductId) -> Result<StockLevel, CatalogError> {
    let row = super::find(conn, id)?.ok_or(CatalogError::ProductNotFound)?;
    let held = held(conn, id)?;
    let moves: Vec<(Quantity, StockMoveReason, Option<String>, Timestamp)> = stock_move::table
        .filter(stock_move::product_id.eq(id))
        .order(stock_move::seq.desc())
        .limit(CHANGES_MAX)
        .select((stock_move::delta, stock_move::reason, stock_move::note, stock_move::at))
        .load(conn)?;
    let change = |(change, cause, reason, at): (Quantity, StockMoveReason, Option<String>, Timestamp)| StockChange {
        change,
        cause: cause.as_str().to_owned(),
        reason,
        at,
    };
    Ok(StockLevel {
        product_id: id,
        track_stock: row.track_stock,
        on_hand: row.shown_stock() + held,
        held,
        available: row.shown_stock(),
        changes: moves.into_iter().map(change).collect(),
    })
}

/// Changes or sets the stock of a product; returns the number of held items.
///
/// # Errors
/// `ProductNotFound`, or the request is invalid for this product.
pub fn change(tx: &mut Tx<'_>, scope: &WriteScope, request: &ChangeStock) -> Result<Quantity, CatalogError> {
    let before = super::find_for_sale(tx.conn, request.product_id)?;
    let held = held(tx.conn, before.id)?;
    let (kind, stock) = model::changed_stock(request, before.track_stock, before.stock, held)?;
    let reason = StockReason { kind, hold: None, note: request.reason.as_deref() };
    save_product(tx, scope, Some(&before), ProductRow { stock, ..before.clone() }, reason)?;
    Ok(held)
}

/// Reserves stock: all lines or none. `requested` has one line per product, sorted by id.
///
/// # Errors
/// `OutOfStock`, `ProductNotFound`, or `HoldGone` when the hold has ended.
pub fn reserve(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    id: HoldId,
    requested: &[HoldLine],
    expires_at: Timestamp,
) -> Result<StockHold, CatalogError> {
    if let Some(before) = find(tx.conn, id)? {
        return replay(tx, id, &before, requested);
    }
    if expires_at <= tx.now {
        return Err(CatalogError::HoldGone);
    }
    let reference = id.to_string();
    let updated = decrement(tx, scope, requested, StockReason::of_hold(StockMoveReason::Held, &reference))?;
    let held = StockHold { hold: id, offers: offers_of(tx.conn, updated)? };
    insert(tx, id, HoldState::Held, expires_at, to_json(&held)?)?;
    for line in requested {
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

/// Returns the first reply to a repeated request while the hold lasts.
fn replay(tx: &mut Tx<'_>, id: HoldId, before: &HoldRow, requested: &[HoldLine]) -> Result<StockHold, CatalogError> {
    match before.state {
        HoldState::Released | HoldState::Returned => return Err(CatalogError::HoldGone),
        // Expired, although the timer has not released it yet.
        HoldState::Held if before.expires_at <= tx.now => return Err(CatalogError::HoldGone),
        HoldState::Held | HoldState::Sold => {}
    }
    if lines(tx.conn, id)? != requested {
        return Err(FieldError::new("hold", "reused", "was made with other lines; use a new id").into());
    }
    serde_json::from_str(&before.answer).map_err(|error| {
        log::error!("catalog: decoding the reply of hold {id} failed: {error}");
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

/// Takes items from stock and returns the updated rows. Checks every line first, so that an error has changed nothing.
fn decrement(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    requested: &[HoldLine],
    reason: StockReason<'_>,
) -> Result<Vec<ProductRow>, CatalogError> {
    let mut rows = Vec::with_capacity(requested.len());
    for line in requested {
        let row = super::find_for_sale(tx.conn, line.product_id)?;
        if row.stock < line.quantity {
            return Err(CatalogError::OutOfStock { product_id: row.id, left: row.stock });
        }
        rows.push((row, line.quantity));
    }
    let mut updated = Vec::with_capacity(rows.len());
    for (row, quantity) in rows {
        // Updating another product of its group may have made this one the lead.
        let row = if row.group_name.is_some() { super::find_for_sale(tx.conn, row.id)? } else { row };
        let after = ProductRow { stock: row.stock - quantity, ..row.clone() };
        save_product(tx, scope, Some(&row), after.clone(), reason)?;
        updated.push(after);
    }
    Ok(updated)
}

/// Returns the items of all lines of a hold to stock.
fn release_lines(tx: &mut Tx<'_>, scope: &WriteScope, id: HoldId, reason: StockMoveReason) -> Result<(), CatalogError> {
    let all = lines(tx.conn, id)?;
    increment(tx, scope, id, all, reason)
}

/// Returns items to stock.
fn increment(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    id: HoldId,
    back: Vec<HoldLine>,
    reason: StockMoveReason,
) -> Result<(), CatalogError> {
    let reference = id.to_string();
    for line in back {
        let Some(row) = super::find(tx.conn, line.product_id)? else { continue };
        let after = ProductRow { stock: row.stock + line.quantity, ..row.clone() };
        save_product(tx, scope, Some(&row), after, StockReason::of_hold(reason, &reference))?;
    }
    Ok(())
}

fn set_state(tx: &mut Tx<'_>, id: HoldId, state: HoldState) -> QueryResult<()> {
    diesel::update(hold::table.filter(hold::id.eq(id)))
        .set((hold::state.eq(state), hold::updated_at.eq(tx.now)))
        .prepared()
        .execute(tx.conn)?;
    Ok(())
}

/// Releases a hold, once. One that was never made is stored as released, so that a late request for it fails.
pub fn release(tx: &mut Tx<'_>, scope: &WriteScope, id: HoldId) -> Result<(), CatalogError> {
    match find(tx.conn, id)? {
        None => insert(tx, id, HoldState::Released, tx.now, String::new()),
        Some(before) if before.state == HoldState::Held => release_row(tx, scope, id, StockMoveReason::Released),
        Some(_) => Ok(()),
    }
}

fn release_row(tx: &mut Tx<'_>, scope: &WriteScope, id: HoldId, reason: StockMoveReason) -> Result<(), CatalogError> {
    set_state(tx, id, HoldState::Released)?;
    release_lines(tx, scope, id, reason)
}

/// Returns `true` if any hold has expired; read-only, so that an idle shop writes nothing.
pub fn has_expired(conn: &mut Conn, now: Timestamp) -> QueryResult<bool> {
    Ok(!expired(conn, now, 1)?.is_empty())
}

fn expired(conn: &mut Conn, now: Timestamp, limit: i64) -> QueryResult<Vec<HoldId>> {
    hold::table
        // A literal, so that the planner can use the partial index.
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state = 'held'"))
        .filter(hold::expires_at.le(now))
        .order(hold::expires_at)
        .limit(limit)
        .select(hold::id)
        .load(conn)
}

/// Releases some expired holds; returns `true` if there may be more.
pub fn expire(tx: &mut Tx<'_>, scope: &WriteScope) -> Result<bool, CatalogError> {
    let gone = expired(tx.conn, tx.now, EXPIRED_BATCH)?;
    for id in &gone {
        release_row(tx, scope, *id, StockMoveReason::Expired)?;
    }
    Ok(i64::try_from(gone.len()).unwrap_or(0) == EXPIRED_BATCH)
}

/// Marks a hold as sold after its invoice was paid. If the hold has ended, its items are taken from stock if available;
/// otherwise [`SaleRefused`] is emitted and the payment must be refunded.
pub fn sell(tx: &mut Tx<'_>, scope: &WriteScope, id: HoldId, invoice_id: InvoiceId) -> Result<(), CatalogError> {
    match find(tx.conn, id)?.map(|before| before.state) {
        Some(HoldState::Sold | HoldState::Returned) => Ok(()),
        Some(HoldState::Held) => Ok(set_state(tx, id, HoldState::Sold)?),
        Some(HoldState::Released) => {
            let requested = lines(tx.conn, id)?;
            if requested.is_empty() {
                return emit_sale_refused(tx, id, invoice_id);
            }
            let reference = id.to_string();
            match decrement(tx, scope, &requested, StockReason::of_hold(StockMoveReason::Sold, &reference)) {
                Ok(_) => Ok(set_state(tx, id, HoldState::Sold)?),
                Err(CatalogError::OutOfStock { .. } | CatalogError::ProductNotFound) => {
                    emit_sale_refused(tx, id, invoice_id)
                }
                Err(error) => Err(error),
            }
        }
        None => emit_sale_refused(tx, id, invoice_id),
    }
}

fn emit_sale_refused(tx: &mut Tx<'_>, hold: HoldId, invoice_id: InvoiceId) -> Result<(), CatalogError> {
    log::warn!("catalog: invoice {invoice_id} was paid, but hold {hold} has ended and its stock is sold");
    Ok(tx.emit(&SaleRefused { invoice_id, hold })?)
}

/// Returns items of a sold hold to stock: the requested ones, or all not yet returned if none are given. Never more than
/// were sold.
pub fn restock(tx: &mut Tx<'_>, scope: &WriteScope, id: HoldId, requested: &[ReturnLine]) -> Result<(), CatalogError> {
    let sold = find(tx.conn, id)?.is_some_and(|before| before.state.may_become(HoldState::Returned));
    if !sold {
        return Ok(());
    }
    let rows: Vec<(ProductId, i64, i64)> = hold_line::table
        .filter(hold_line::hold_id.eq(id))
        .order(hold_line::product_id)
        .select((hold_line::product_id, hold_line::quantity, hold_line::returned))
        .load(tx.conn)?;
    let (back, all) = model::plan_restock(&rows, requested);
    if all {
        set_state(tx, id, HoldState::Returned)?;
    }
    for line in &back {
        diesel::update(hold_line::table.find((id, line.product_id)))
            .set(hold_line::returned.eq(hold_line::returned + line.quantity))
            .execute(tx.conn)?;
    }
    increment(tx, scope, id, back, StockMoveReason::Returned)
}

/// Products whose stock is not the sum of their moves. For tests.
#[cfg(test)]
pub fn ledger_mismatches(conn: &mut Conn) -> QueryResult<Vec<ProductId>> {
    use crate::domains::catalog::schema::product;
    let rows: Vec<(ProductId, i64)> = product::table.select((product::id, product::stock)).load(conn)?;
    let mut mismatches = Vec::new();
    for (id, stock) in rows {
        let moves: Vec<i64> =
            stock_move::table.filter(stock_move::product_id.eq(id)).select(stock_move::delta).load(conn)?;
        if moves.iter().sum::<i64>() != stock {
            mismatches.push(id);
        }
    }
    Ok(mismatches)
}
