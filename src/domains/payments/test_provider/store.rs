//! SQL of the test provider's ledger.

use crate::domains::payments::provider::{Charge, RefundRequest};
use crate::domains::payments::schema::test_provider_book as ledger;
use crate::store::Conn;
use crate::store::query::*;
use crate::types::{Amount, Currency, InvoiceId, Timestamp};

const CAPTURE: &str = "capture";
const REFUND: &str = "refund";
const VOID: &str = "void";
const FAILURE: &str = "failure";

fn entry_kind(conn: &mut Conn, key: &str) -> QueryResult<Option<String>> {
    ledger::table.find(key).select(ledger::kind).first(conn).optional()
}

fn insert_entry(
    conn: &mut Conn,
    key: &str,
    kind: &str,
    about: &str,
    money: Option<(Amount, Currency)>,
    now: Timestamp,
) -> QueryResult<()> {
    diesel::insert_into(ledger::table)
        .values((
            ledger::key.eq(key),
            ledger::kind.eq(kind),
            ledger::about.eq(about),
            ledger::amount.eq(money.map_or(0, |(amount, _)| amount)),
            ledger::currency.eq(money.map(|(_, currency)| currency)),
            ledger::at.eq(now),
        ))
        .execute(conn)?;
    Ok(())
}

/// Records a capture once per key. Returns `false` if the key is void.
pub fn capture(conn: &mut Conn, charge: &Charge, now: Timestamp) -> QueryResult<bool> {
    if let Some(kind) = entry_kind(conn, &charge.key)? {
        return Ok(kind == CAPTURE);
    }
    let money = Some((charge.amount, charge.currency));
    insert_entry(conn, &charge.key, CAPTURE, &charge.invoice.to_string(), money, now)?;
    Ok(true)
}

/// Records a refund once per key. Returns `false` if there is no such capture or less than the amount is left of it.
pub fn refund(conn: &mut Conn, request: &RefundRequest, now: Timestamp) -> QueryResult<bool> {
    if let Some(kind) = entry_kind(conn, &request.key)? {
        return Ok(kind == REFUND);
    }
    let captured: Option<Amount> = ledger::table
        .find(&request.charge)
        .filter(ledger::kind.eq(CAPTURE))
        .filter(ledger::currency.eq(request.currency))
        .select(ledger::amount)
        .first(conn)
        .optional()?;
    let refunded: Vec<Amount> = ledger::table
        .filter(ledger::about.eq(&request.charge))
        .filter(ledger::kind.eq(REFUND))
        .select(ledger::amount)
        .load(conn)?;
    if captured.is_none_or(|captured| request.amount > captured - refunded.iter().sum::<Amount>()) {
        return Ok(false);
    }
    insert_entry(conn, &request.key, REFUND, &request.charge, Some((request.amount, request.currency)), now)?;
    Ok(true)
}

/// Returns `true` if money was captured under the key; otherwise marks the key void, so that none ever will be.
pub fn settle(conn: &mut Conn, key: &str, now: Timestamp) -> QueryResult<bool> {
    match entry_kind(conn, key)? {
        Some(kind) => Ok(kind == CAPTURE),
        None => insert_entry(conn, key, VOID, "", None, now).map(|()| false),
    }
}

/// Records the one simulated failure of an invoice. Returns `false` if it was recorded before.
pub fn record_failure(conn: &mut Conn, invoice: InvoiceId, now: Timestamp) -> QueryResult<bool> {
    let key = format!("flaky/{invoice}");
    if entry_kind(conn, &key)?.is_some() {
        return Ok(false);
    }
    insert_entry(conn, &key, FAILURE, &invoice.to_string(), None, now)?;
    Ok(true)
}
