//! SQL of the notifications domain.

pub mod invariants;

use diesel_migrations::embed_migrations;

use super::model::{NewNotification, StaffNotification};
use super::schema::{follower, meta, notification, stream};
use super::{MissedNotifications, Notification, Stream};
use crate::store::query::*;
use crate::store::{Conn, Migrations, Prepare};
use crate::types::{NotificationId, Timestamp, UserId};

/// Migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/notifications/sqlite"),
    postgres: embed_migrations!("migrations/notifications/postgres"),
};

/// Most missed notifications per reply, which a session buffers in memory.
const MISSED_MAX: i64 = 200;
/// Most followers that are notified of one event.
const FOLLOWERS_MAX: i64 = 100;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = notification)]
struct NotificationRow {
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

impl From<NotificationRow> for Notification {
    fn from(row: NotificationRow) -> Self {
        let data = serde_json::from_str(&row.data).unwrap_or_else(|error| {
            log::error!("notifications: data of notification {} cannot be decoded: {error}", row.id);
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

/// Reads the epoch.
pub fn epoch(conn: &mut Conn) -> QueryResult<String> {
    meta::table.find("epoch").select(meta::value).first(conn)
}

/// Replaces the epoch by a new random one.
pub fn rotate_epoch(conn: &mut Conn) -> QueryResult<()> {
    // The random half of a new id.
    let (_, random) = crate::types::new_uuid().as_u64_pair();
    diesel::update(meta::table.find("epoch")).set(meta::value.eq(format!("{random:016x}"))).execute(conn).map(drop)
}

fn last_seq(conn: &mut Conn, user: UserId) -> QueryResult<i64> {
    Ok(stream::table.find(user).select(stream::seq).first(conn).optional()?.unwrap_or(0))
}

/// Reads the position of a user's stream; without a user, the epoch and 0.
pub fn stream_position(conn: &mut Conn, user: Option<UserId>) -> QueryResult<Stream> {
    // One transaction, so that both values are of one moment.
    conn.transaction(|conn| {
        let seq = user.map_or(Ok(0), |user| last_seq(conn, user))?;
        Ok(Stream { epoch: epoch(conn)?, seq })
    })
}

/// Appends a notification to a user's stream and deletes all but the last `keep`. Returns `None` if the user is erased.
pub fn append(
    conn: &mut Conn,
    user: UserId,
    new: &NewNotification,
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
    let row = NotificationRow {
        user_id: user,
        seq,
        id: NotificationId::new(),
        kind: new.kind.to_owned(),
        title: new.title.clone(),
        body: new.body.clone(),
        data: new.data.to_string(),
        read: false,
        created_at: now,
    };
    diesel::insert_into(notification::table).values(&row).execute(conn)?;
    let old = notification::table.filter(notification::user_id.eq(user)).filter(notification::seq.le(seq - keep));
    diesel::delete(old).execute(conn)?;
    Ok(Some(Notification { data: new.data.clone(), ..row.into() }))
}

/// Followers of the shop who may read such a notification. At most [`FOLLOWERS_MAX`].
pub fn followers(conn: &mut Conn, new: &StaffNotification) -> QueryResult<Vec<UserId>> {
    let rows: Vec<(UserId, bool)> = follower::table
        .order(follower::user_id)
        .limit(FOLLOWERS_MAX)
        .select((follower::user_id, follower::sees_email))
        .load(conn)?;
    Ok(rows.into_iter().filter(|(_, sees_email)| *sees_email || !new.is_of_email).map(|(user, _)| user).collect())
}

/// Whether a user follows the shop with these rights.
pub fn is_follower(conn: &mut Conn, user: UserId, sees_email: bool) -> QueryResult<bool> {
    let own: Option<bool> = follower::table.find(user).select(follower::sees_email).first(conn).optional()?;
    Ok(own == Some(sees_email))
}

/// Makes a user a follower of the shop.
pub fn follow(conn: &mut Conn, user: UserId, sees_email: bool) -> QueryResult<()> {
    diesel::insert_into(follower::table)
        .values((follower::user_id.eq(user), follower::sees_email.eq(sees_email)))
        .on_conflict(follower::user_id)
        .do_update()
        .set(follower::sees_email.eq(sees_email))
        .execute(conn)
        .map(drop)
}

/// Ends a user's following. Has no effect on other users.
pub fn unfollow(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::delete(follower::table.find(user)).prepared().execute(conn).map(drop)
}

/// Deletes a user's stream and marks the user as erased.
pub fn erase(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    unfollow(conn, user)?;
    diesel::insert_into(stream::table)
        .values((stream::user_id.eq(user), stream::seq.eq(0), stream::erased.eq(true)))
        .on_conflict(stream::user_id)
        .do_update()
        .set((stream::seq.eq(0), stream::erased.eq(true)))
        .execute(conn)?;
    diesel::delete(notification::table.filter(notification::user_id.eq(user))).execute(conn)?;
    Ok(())
}

/// Lists the notifications with sequence numbers after `after` and before `before`, newest first, with the stream's
/// position and the number of unread ones. All of one moment, so that a subscription from there misses nothing.
pub fn list(
    conn: &mut Conn,
    user: UserId,
    after: i64,
    before: Option<i64>,
    limit: i64,
) -> QueryResult<(Vec<Notification>, Stream, i64)> {
    conn.transaction(|conn| {
        let rows: Vec<NotificationRow> = notification::table
            .filter(notification::user_id.eq(user))
            .filter(notification::seq.gt(after))
            .filter(notification::seq.lt(before.unwrap_or(i64::MAX)))
            .order(notification::seq.desc())
            .limit(limit)
            .select(NotificationRow::as_select())
            .load(conn)?;
        let unread = notification::table
            .filter(notification::user_id.eq(user))
            .filter(notification::read.eq(false))
            .count()
            .get_result(conn)?;
        let stream = Stream { epoch: epoch(conn)?, seq: last_seq(conn, user)? };
        Ok((rows.into_iter().map(Notification::from).collect(), stream, unread))
    })
}

/// Reads the notifications after `after` in order, if all of them are still kept and the epoch is the current one.
pub fn read_missed(conn: &mut Conn, user: UserId, seen_epoch: &str, after: i64) -> QueryResult<MissedNotifications> {
    conn.transaction(|conn| {
        let stream = Stream { epoch: epoch(conn)?, seq: last_seq(conn, user)? };
        let not_recovered = |stream| MissedNotifications { recovered: false, notifications: Vec::new(), stream };
        if seen_epoch != stream.epoch || !(0..=stream.seq).contains(&after) {
            return Ok(not_recovered(stream));
        }
        let rows: Vec<NotificationRow> = notification::table
            .filter(notification::user_id.eq(user))
            .filter(notification::seq.gt(after))
            .order(notification::seq)
            .limit(MISSED_MAX)
            .select(NotificationRow::as_select())
            .load(conn)?;
        // Notifications are dropped from the old end, so only the first can be missing.
        let first = rows.first().map_or(stream.seq + 1, |row| row.seq);
        if first != after + 1 {
            return Ok(not_recovered(stream));
        }
        Ok(MissedNotifications {
            recovered: true,
            notifications: rows.into_iter().map(Notification::from).collect(),
            stream,
        })
    })
}

/// Marks a notification as read. Returns `false` if the user has no such notification.
pub fn mark_read(conn: &mut Conn, user: UserId, id: NotificationId) -> QueryResult<bool> {
    let own = notification::table.filter(notification::id.eq(id)).filter(notification::user_id.eq(user));
    Ok(diesel::update(own).set(notification::read.eq(true)).execute(conn)? == 1)
}
