//! Transactional outbox and inbox: an event is written in the transaction that caused it, and its id is recorded in the
//! transaction of its effect. Delivery is at least once, each effect happens exactly once.
//!
//! Does not contain: the delivery itself, see [`crate::events`].

use std::time::Duration;

use diesel::dsl::max;
use diesel::upsert::excluded;

use super::query::*;
use super::schema::{dead_letter, inbox, outbox, outbox_cursor};
use super::{Conn, Prepare, Tx, is_storage_error};
use crate::messaging::{CommonError, DomainError, Event, EventEnvelope, trace};
use crate::types::{EventId, Timestamp};

/// Time for which an event stays readable after all subscribers have received it.
const OUTBOX_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Time for which the id of a consumed event is stored. Longer than an event can be redelivered.
const INBOX_RETENTION: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Subscriber name of the message broker in every outbox: up to its cursor events are confirmed by the broker.
pub const BROKER_CURSOR: &str = "rabbitmq";

/// Inserts an event.
pub fn insert<E: Event>(conn: &mut Conn, now: Timestamp, event: &E) -> QueryResult<()> {
    let data = to_text(event)?;
    diesel::insert_into(outbox::table)
        .values((
            outbox::id.eq(EventId::new()),
            outbox::name.eq(E::NAME),
            outbox::at.eq(now),
            outbox::data.eq(data),
            outbox::trace.eq(trace::current().as_deref()),
        ))
        .execute(conn)?;
    Ok(())
}

/// Reads the next events after the subscriber's cursor.
pub fn read_after(conn: &mut Conn, subscriber: &str, limit: i64) -> Result<Vec<(i64, EventEnvelope)>, CommonError> {
    let cursor: Option<i64> = outbox_cursor::table
        .filter(outbox_cursor::subscriber.eq(subscriber))
        .select(outbox_cursor::seq)
        .first(conn)
        .optional()?;
    let rows: Vec<(i64, EventId, String, Timestamp, String, Option<String>)> =
        outbox::table.filter(outbox::seq.gt(cursor.unwrap_or(0))).order(outbox::seq).limit(limit).load(conn)?;
    rows.into_iter()
        .map(|(seq, id, name, at, data, trace)| {
            let data = serde_json::from_str(&data).map_err(|error| {
                log::error!("outbox: event {id} cannot be decoded: {error}");
                CommonError::Internal
            })?;
            Ok((seq, EventEnvelope { id, name, at, data, trace }))
        })
        .collect()
}

/// Returns `true` if there are events without a sequence number. On SQLite all have one from the start.
pub fn has_unnumbered(conn: &mut Conn) -> QueryResult<bool> {
    if !conn.is_postgres() {
        return Ok(false);
    }
    let found: Option<String> =
        outbox::table.filter(outbox::seq.nullable().is_null()).select(outbox::id).first(conn).optional()?;
    Ok(found.is_some())
}

/// Numbers up to 1,000 visible events in the order in which they were written. The caller holds a lock against other
/// numbering jobs: then events that become visible later get larger numbers, in whatever order their transactions end.
pub fn number(conn: &mut Conn) -> QueryResult<()> {
    diesel::sql_query(
        "UPDATE outbox o SET seq = n.seq FROM (SELECT entry, nextval('outbox_seq') AS seq FROM
         (SELECT entry FROM outbox WHERE seq IS NULL ORDER BY entry LIMIT 1000) unnumbered) n WHERE o.entry = n.entry",
    )
    .execute(conn)?;
    Ok(())
}

/// Advances the subscriber's cursor, never back: two processes may deliver the same events.
pub fn advance_cursor(conn: &mut Conn, subscriber: &str, seq: i64) -> Result<(), CommonError> {
    let upsert = diesel::insert_into(outbox_cursor::table)
        .values((outbox_cursor::subscriber.eq(subscriber), outbox_cursor::seq.eq(seq)))
        .on_conflict(outbox_cursor::subscriber)
        .do_update()
        .set(outbox_cursor::seq.eq(excluded(outbox_cursor::seq)));
    diesel::query_dsl::methods::FilterDsl::filter(upsert, outbox_cursor::seq.lt(excluded(outbox_cursor::seq)))
        .prepared()
        .execute(conn)?;
    Ok(())
}

/// Returns the number of the last event if no subscriber's cursor is behind it, or else `None`. Without subscribers it
/// is 0: on PostgreSQL events that are never read get no number.
pub fn drained_at(conn: &mut Conn, subscribers: &[&str]) -> Result<Option<i64>, CommonError> {
    if subscribers.is_empty() {
        return Ok(Some(0));
    }
    let last = outbox::table.select(max(outbox::seq)).first::<Option<i64>>(conn)?.unwrap_or(0);
    Ok((!has_unnumbered(conn)? && min_cursor(conn, subscribers)? >= last).then_some(last))
}

/// Counts the events after each subscriber's cursor.
pub fn backlog(conn: &mut Conn, subscribers: &[&'static str]) -> Result<Vec<(&'static str, i64)>, CommonError> {
    let last: Option<i64> = outbox::table.select(max(outbox::seq)).first(conn)?;
    let Some(last) = last else { return Ok(subscribers.iter().map(|name| (*name, 0)).collect()) };
    let cursors: Vec<(String, i64)> = outbox_cursor::table.load(conn)?;
    let cursor = |name: &str| cursors.iter().find(|(subscriber, _)| subscriber == name).map_or(0, |(_, seq)| *seq);
    Ok(subscribers.iter().map(|name| (*name, (last - cursor(name)).max(0))).collect())
}

/// Returns the number of the last event that all subscribers have received.
fn min_cursor(conn: &mut Conn, subscribers: &[&str]) -> QueryResult<i64> {
    let cursors: Vec<i64> = outbox_cursor::table
        .filter(outbox_cursor::subscriber.eq_any(subscribers))
        .select(outbox_cursor::seq)
        .load(conn)?;
    if cursors.len() < subscribers.len() {
        return Ok(0);
    }
    Ok(cursors.into_iter().min().unwrap_or(0))
}

/// Applies the effect of one event, unless it was applied before.
pub fn consume<E>(
    domain: &str,
    tx: &mut Tx<'_>,
    event: &EventEnvelope,
    effect: &impl Fn(&mut Tx<'_>, &EventEnvelope) -> Result<(), E>,
) -> Result<(), CommonError>
where
    E: DomainError + From<diesel::result::Error>,
{
    let new = diesel::insert_into(inbox::table)
        .values((inbox::event_id.eq(event.id), inbox::at.eq(tx.now)))
        .on_conflict_do_nothing()
        .execute(tx.conn)?;
    if new == 0 {
        return Ok(());
    }
    // From the effect's own error: if that has rolled back the whole transaction, the savepoint ends with another error.
    let (now, process, mut wrote_events, mut can_save) = (tx.now, tx.process, tx.wrote_events, true);
    // A savepoint, so that a failed effect leaves no partial changes.
    let outcome = trace::in_scope(event.trace.as_deref().and_then(trace::parse), || {
        tx.conn.transaction(|conn| {
            let mut inner = Tx { conn, now, process, wrote_events, change: None };
            effect(&mut inner, event).inspect_err(|error| can_save = !is_storage_error(error))?;
            wrote_events = inner.wrote_events;
            Ok::<_, E>(())
        })
    });
    tx.wrote_events = wrote_events;
    if let Err(reason) = outcome {
        if !can_save || is_storage_error(&reason) {
            // The database failed, not the effect: the event is delivered again.
            return Err(CommonError::StorageUnavailable);
        }
        log::error!("{domain}: event {} {} moved to dead_letter: {reason}", event.name, event.id);
        diesel::insert_into(dead_letter::table)
            .values((
                dead_letter::event_id.eq(event.id),
                dead_letter::name.eq(&event.name),
                dead_letter::at.eq(now),
                dead_letter::data.eq(event.data.to_string()),
                dead_letter::reason.eq(reason.to_string()),
            ))
            .on_conflict(dead_letter::event_id)
            .do_update()
            .set((dead_letter::at.eq(excluded(dead_letter::at)), dead_letter::reason.eq(excluded(dead_letter::reason))))
            .execute(tx.conn)?;
    }
    Ok(())
}

/// Deletes old events that all subscribers have received, and old ids of the inbox.
pub fn delete_consumed(conn: &mut Conn, subscribers: &[&str], now: Timestamp) -> Result<(), CommonError> {
    let old = outbox::at.le(now.saturating_sub(OUTBOX_RETENTION));
    if subscribers.is_empty() {
        // Includes events without a number.
        diesel::delete(outbox::table.filter(old)).execute(conn)?;
    } else {
        let consumed = min_cursor(conn, subscribers)?;
        diesel::delete(outbox::table.filter(outbox::seq.le(consumed)).filter(old)).execute(conn)?;
    }
    diesel::delete(inbox::table.filter(inbox::at.le(now.saturating_sub(INBOX_RETENTION)))).execute(conn)?;
    Ok(())
}
