//! Invariants of the notifications database, and the facts that `mercat check` compares with other domains.

use std::collections::HashMap;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::contract::notifications::NotificationFacts;
use crate::domains::notifications::schema::{notification, stream};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{InvoiceId, Timestamp, UserId};

/// Invariants of this database.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("notifications", "notification"), ("streams", "stream")],
    rules: &[
        Invariant {
            violation: "a user's stream has a gap",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT user_id || ' has ' || COUNT(*) || ' from ' || MIN(seq) || ' to ' || MAX(seq) AS found
                  FROM notification GROUP BY user_id HAVING COUNT(*) <> MAX(seq) - MIN(seq) + 1",
            ),
        },
        Invariant {
            violation: "a user's notification sequence does not match its last entry",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT s.user_id || ' is at ' || s.seq || ', the last is ' || COALESCE(MAX(n.seq), 0) AS found
                  FROM stream s LEFT JOIN notification n ON n.user_id = s.user_id WHERE s.erased IS NOT TRUE
                  GROUP BY s.user_id, s.seq HAVING s.seq <> COALESCE(MAX(n.seq), 0)",
            ),
        },
        Invariant {
            violation: "an erased user has notifications, or notifications have no stream",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT DISTINCT n.user_id AS found FROM notification n LEFT JOIN stream s ON s.user_id = n.user_id
                  WHERE s.user_id IS NULL OR s.erased IS TRUE",
            ),
        },
        Invariant {
            violation: "notification epoch is missing",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT 'no epoch' AS found WHERE NOT EXISTS (SELECT 1 FROM meta WHERE key = 'epoch')"),
        },
    ],
};

#[derive(QueryableByName)]
struct PaidCountRow {
    #[diesel(sql_type = Text)]
    invoice: String,
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Notifications of one user as far as the audit needs them.
struct StreamFacts {
    paid_counts: HashMap<String, i64>,
    kept_since: Option<Timestamp>,
    erased: bool,
}

/// Counts the `invoice_paid` notifications of each invoice, in the order of `paid`.
pub fn audit_paid_notifications(conn: &mut Conn, paid: &[(UserId, InvoiceId)]) -> QueryResult<Vec<NotificationFacts>> {
    let mut streams: HashMap<UserId, StreamFacts> = HashMap::new();
    let mut facts = Vec::with_capacity(paid.len());
    for (user, invoice) in paid {
        if !streams.contains_key(user) {
            streams.insert(*user, read_stream(conn, *user)?);
        }
        let Some(StreamFacts { paid_counts, kept_since, erased }) = streams.get(user) else { continue };
        let times = paid_counts.get(&invoice.to_string()).copied().unwrap_or(0);
        facts.push(NotificationFacts { times, kept_since: *kept_since, erased: *erased });
    }
    Ok(facts)
}

fn read_stream(conn: &mut Conn, user: UserId) -> QueryResult<StreamFacts> {
    let erased = stream::table.find(user).select(stream::erased).first(conn).optional()?.unwrap_or(false);
    let first: Option<(i64, Timestamp)> = notification::table
        .filter(notification::user_id.eq(user))
        .order(notification::seq)
        .select((notification::seq, notification::created_at))
        .first(conn)
        .optional()?;
    let invoice =
        if conn.is_postgres() { "CAST(data AS jsonb) ->> 'invoice_id'" } else { "json_extract(data, '$.invoice_id')" };
    let rows: Vec<PaidCountRow> = sql_query(format!(
        "SELECT COALESCE({invoice}, '') AS invoice, COUNT(*) AS n FROM notification
         WHERE user_id = $1 AND kind = 'invoice_paid' GROUP BY 1"
    ))
    .bind::<Text, _>(user)
    .load(conn)?;
    let paid_counts = rows.into_iter().map(|PaidCountRow { invoice, n }| (invoice, n)).collect();
    Ok(StreamFacts { paid_counts, kept_since: first.filter(|(seq, _)| *seq > 1).map(|(_, at)| at), erased })
}
