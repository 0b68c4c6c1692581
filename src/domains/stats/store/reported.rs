//! SQL of entries that callers report: anyone may, so their total size has a budget. The shop's own entries have none.

use diesel::upsert::excluded;

use crate::domains::stats::schema::{action, counter};
use crate::store::query::*;
use crate::store::{Conn, Prepare};
use crate::types::Timestamp;

/// Name of the counter of their size.
const REPORTED_BYTES: &str = "reported_bytes";
/// Entries that are deleted at a time.
const DELETE_BATCH: i64 = 100;
/// Bytes of an entry and its indexes besides its texts, about.
const ENTRY_OVERHEAD: usize = 250;

/// Size of an entry with these texts.
pub fn size_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> i64 {
    let bytes = texts.into_iter().map(str::len).sum::<usize>() + ENTRY_OVERHEAD;
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Adds an entry's size to the total, and deletes the oldest reported entries while the total is above the budget.
pub fn charge(conn: &mut Conn, bytes: i64, budget: i64) -> QueryResult<()> {
    let mut total = add(conn, bytes)?;
    while total > budget {
        let freed = delete_oldest(conn)?;
        if freed == 0 {
            break;
        }
        total = add(conn, -freed)?;
    }
    Ok(())
}

/// Subtracts the sizes of the reported entries up to `until`, which the caller deletes.
pub fn release_until(conn: &mut Conn, until: Timestamp) -> QueryResult<()> {
    let freed = sizes_until(conn, until)?;
    if freed > 0 {
        add(conn, -freed)?;
    }
    Ok(())
}

/// Deletes some of the oldest reported entries; returns their size.
fn delete_oldest(conn: &mut Conn) -> QueryResult<i64> {
    let oldest: Vec<Timestamp> = action::table
        .filter(action::reported_bytes.is_not_null())
        .order(action::at)
        .limit(DELETE_BATCH)
        .select(action::at)
        .load(conn)?;
    let Some(last) = oldest.last().copied() else { return Ok(0) };
    let freed = sizes_until(conn, last)?;
    diesel::delete(action::table.filter(action::reported_bytes.is_not_null()).filter(action::at.le(last)))
        .execute(conn)?;
    Ok(freed)
}

fn sizes_until(conn: &mut Conn, until: Timestamp) -> QueryResult<i64> {
    let sizes: Vec<Option<i64>> = action::table
        .filter(action::reported_bytes.is_not_null())
        .filter(action::at.le(until))
        .select(action::reported_bytes)
        .load(conn)?;
    Ok(sizes.into_iter().flatten().sum())
}

/// Adds to the total; returns it.
fn add(conn: &mut Conn, bytes: i64) -> QueryResult<i64> {
    diesel::insert_into(counter::table)
        .values((counter::name.eq(REPORTED_BYTES), counter::value.eq(bytes)))
        .on_conflict(counter::name)
        .do_update()
        .set(counter::value.eq(counter::value + excluded(counter::value)))
        .prepared()
        .execute(conn)?;
    counter::table.filter(counter::name.eq(REPORTED_BYTES)).select(counter::value).first(conn)
}
