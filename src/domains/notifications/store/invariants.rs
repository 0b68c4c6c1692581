//! What must hold of streams, and the facts that other domains must agree with.

use std::collections::HashMap;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::contract::notifications::NotificationFacts;
use crate::domains::notifications::schema::{notification, stream};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{InvoiceId, Timestamp, UserId};

/// What must always hold here.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("notifications", "notification"), ("streams", "stream")],
    rules: &[
        Invariant {
            what: "a user's stream has a gap",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT user_id || ' has ' || COUNT(*) || ' from ' || MIN(seq) || ' to ' || MAX(seq) AS found
                  FROM notification GROUP BY user_id HAVING COUNT(*) <> MAX(seq) - MIN(seq) + 1",
            ),
        },
        Invariant {
            what: "a user's stream does not end where it stands",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT s.user_id || ' stands at ' || s.seq || ', the last is ' || COALESCE(MAX(n.seq), 0) AS found
                  FROM stream s LEFT JOIN notification n ON n.user_id = s.user_id WHERE s.erased IS NOT TRUE
                  GROUP BY s.user_id, s.seq HAVING s.seq <> COALESCE(MAX(n.seq), 0)",
            ),
        },
        Invariant {
            what: "an erased user still has notifications, or there are some without a stream",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT DISTINCT n.user_id AS found FROM notification n LEFT JOIN stream s ON s.user_id = n.user_id
                  WHERE s.user_id IS NULL OR s.erased IS TRUE",
            ),
        },
        Invariant {
            what: "the history of the streams has no name",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT 'no epoch' AS found WHERE NOT EXISTS (SELECT 1 FROM meta WHERE key = 'epoch')"),
        },
    ],
};

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    invoice: String,
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// What is known of one user.
struct Stream {
    told: HashMap<String, i64>,
    kept_since: Option<Timestamp>,
    erased: bool,
}

/// How often users were told that these were paid, in their order.
pub fn told(conn: &mut Conn, paid: &[(UserId, InvoiceId)]) -> QueryResult<Vec<NotificationFacts>> {
    let mut streams: HashMap<UserId, Stream> = HashMap::new();
    let mut facts = Vec::with_capacity(paid.len());
    for (user, invoice) in paid {
        if !streams.contains_key(user) {
            streams.insert(*user, read(conn, *user)?);
        }
        let Some(Stream { told, kept_since, erased }) = streams.get(user) else { continue };
        let times = told.get(&invoice.to_string()).copied().unwrap_or(0);
        facts.push(NotificationFacts { times, kept_since: *kept_since, erased: *erased });
    }
    Ok(facts)
}

fn read(conn: &mut Conn, user: UserId) -> QueryResult<Stream> {
    let erased = stream::table.find(user).select(stream::erased).first(conn).optional()?.unwrap_or(false);
    let first: Option<(i64, Timestamp)> = notification::table
        .filter(notification::user_id.eq(user))
        .order(notification::seq)
        .select((notification::seq, notification::created_at))
        .first(conn)
        .optional()?;
    let invoice =
        if conn.is_postgres() { "CAST(data AS jsonb) ->> 'invoice_id'" } else { "json_extract(data, '$.invoice_id')" };
    let rows: Vec<Row> = sql_query(format!(
        "SELECT COALESCE({invoice}, '') AS invoice, COUNT(*) AS n FROM notification
         WHERE user_id = $1 AND kind = 'invoice_paid' GROUP BY 1"
    ))
    .bind::<Text, _>(user)
    .load(conn)?;
    let told = rows.into_iter().map(|Row { invoice, n }| (invoice, n)).collect();
    Ok(Stream { told, kept_since: first.filter(|(seq, _)| *seq > 1).map(|(_, at)| at), erased })
}
