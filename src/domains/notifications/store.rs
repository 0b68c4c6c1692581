//! The only SQL of the notifications.

pub mod invariants;

use super::model::NewNotification;
use super::schema::{meta, notification, stream};
use super::{MissedNotifications, Notification, Stream};
use crate::store::query::*;
use crate::store::{Conn, Prepare};
use crate::types::{NotificationId, Timestamp, UserId};

/// How many missed notifications are told at once: what a listener is told waits in memory until it is read.
pub const PAGE: i64 = 200;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = notification)]
struct Row {
    user_id: UserId,
    seq: i64,
    id: NotificationId,
    kind: String,
    title: String,
    body: String,
    data: String,
    read: bool,
    created_at: Timestamp,
}

impl From<Row> for Notification {
    fn from(row: Row) -> Self {
        let data = serde_json::from_str(&row.data).unwrap_or_else(|error| {
            log::error!("the data of notification {} cannot be read: {error}", row.id);
            serde_json::Value::Null
        });
        Self {
            id: row.id,
            seq: row.seq,
            kind: row.kind,
            title: row.title,
            body: row.body,
            data,
            read: row.read,
            created_at: row.created_at,
        }
    }
}

/// The name of this history.
pub fn epoch(conn: &mut Conn) -> QueryResult<String> {
    meta::table.find("epoch").select(meta::value).first(conn)
}

/// Gives this history another name.
pub fn new_epoch(conn: &mut Conn) -> QueryResult<()> {
    // The half of a new id that is random.
    let (_, random) = crate::types::fresh().as_u64_pair();
    diesel::update(meta::table.find("epoch")).set(meta::value.eq(format!("{random:016x}"))).execute(conn).map(drop)
}

fn seq(conn: &mut Conn, user: UserId) -> QueryResult<i64> {
    Ok(stream::table.find(user).select(stream::seq).first(conn).optional()?.unwrap_or(0))
}

/// Where a user's stream stands; without a user, the epoch alone.
pub fn stream(conn: &mut Conn, user: Option<UserId>) -> QueryResult<Stream> {
    // One transaction, so that both are of one moment.
    conn.transaction(|conn| {
        let seq = user.map_or(Ok(0), |user| seq(conn, user))?;
        Ok(Stream { epoch: epoch(conn)?, seq })
    })
}

/// Gives a user the next entry of their stream and drops what is older than the last `keep`. `None` when the user
/// is gone.
pub fn append(
    conn: &mut Conn,
    user: UserId,
    telling: NewNotification,
    keep: i64,
    now: Timestamp,
) -> QueryResult<Option<Notification>> {
    let (seq, erased): (i64, bool) = diesel::insert_into(stream::table)
        .values((stream::user_id.eq(user), stream::seq.eq(1), stream::erased.eq(false)))
        .on_conflict(stream::user_id)
        .do_update()
        .set(stream::seq.eq(stream::seq + 1))
        .returning((stream::seq, stream::erased))
        .prepared()
        .get_result(conn)?;
    if erased {
        return Ok(None);
    }
    let row = Row {
        user_id: user,
        seq,
        id: NotificationId::new(),
        kind: telling.kind.to_owned(),
        title: telling.title,
        body: telling.body,
        data: telling.data.to_string(),
        read: false,
        created_at: now,
    };
    diesel::insert_into(notification::table).values(&row).execute(conn)?;
    let old = notification::table.filter(notification::user_id.eq(user)).filter(notification::seq.le(seq - keep));
    diesel::delete(old).execute(conn)?;
    Ok(Some(Notification { data: telling.data, ..row.into() }))
}

/// Forgets everything a user was told.
pub fn erase(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::insert_into(stream::table)
        .values((stream::user_id.eq(user), stream::seq.eq(0), stream::erased.eq(true)))
        .on_conflict(stream::user_id)
        .do_update()
        .set((stream::seq.eq(0), stream::erased.eq(true)))
        .execute(conn)?;
    diesel::delete(notification::table.filter(notification::user_id.eq(user))).execute(conn)?;
    Ok(())
}

/// What a user was told after `after`, newest first, from before `before` on; where the stream stands; and how many
/// of all are unread. All of one moment, so that who subscribes from there misses nothing.
pub fn list(
    conn: &mut Conn,
    user: UserId,
    after: i64,
    before: Option<i64>,
    limit: i64,
) -> QueryResult<(Vec<Notification>, Stream, i64)> {
    conn.transaction(|conn| {
        let rows: Vec<Row> = notification::table
            .filter(notification::user_id.eq(user))
            .filter(notification::seq.gt(after))
            .filter(notification::seq.lt(before.unwrap_or(i64::MAX)))
            .order(notification::seq.desc())
            .limit(limit)
            .select(Row::as_select())
            .load(conn)?;
        let unread = notification::table
            .filter(notification::user_id.eq(user))
            .filter(notification::read.eq(false))
            .count()
            .get_result(conn)?;
        let stream = Stream { epoch: epoch(conn)?, seq: seq(conn, user)? };
        Ok((rows.into_iter().map(Notification::from).collect(), stream, unread))
    })
}

/// What a user was told after `after`, in order, if all of it is still kept and of this history.
pub fn missed(conn: &mut Conn, user: UserId, of_epoch: &str, after: i64) -> QueryResult<MissedNotifications> {
    conn.transaction(|conn| {
        let stream = Stream { epoch: epoch(conn)?, seq: seq(conn, user)? };
        let lost = |stream| MissedNotifications { recovered: false, notifications: Vec::new(), stream };
        if of_epoch != stream.epoch || !(0..=stream.seq).contains(&after) {
            return Ok(lost(stream));
        }
        let rows: Vec<Row> = notification::table
            .filter(notification::user_id.eq(user))
            .filter(notification::seq.gt(after))
            .order(notification::seq)
            .limit(PAGE)
            .select(Row::as_select())
            .load(conn)?;
        // What is dropped is dropped from the old end, so only the first place can be missing.
        let first = rows.first().map_or(stream.seq + 1, |row| row.seq);
        if first != after + 1 {
            return Ok(lost(stream));
        }
        Ok(MissedNotifications {
            recovered: true,
            notifications: rows.into_iter().map(Notification::from).collect(),
            stream,
        })
    })
}

/// Notes that a user has seen one of theirs; says whether there is such a one.
pub fn mark_read(conn: &mut Conn, user: UserId, id: NotificationId) -> QueryResult<bool> {
    let own = notification::table.filter(notification::id.eq(id)).filter(notification::user_id.eq(user));
    Ok(diesel::update(own).set(notification::read.eq(true)).execute(conn)? == 1)
}
