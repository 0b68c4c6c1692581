//! What must hold of figures, and the facts that other domains must agree with.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::domains::stats::schema::daily;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, Sql};
use crate::types::{InvoiceId, Timestamp};

/// What must always hold here.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("logged actions", "action")],
    rules: &[
        Invariant {
            what: "the hours of a day do not add up to the day",
            remedy: "report it as a bug; the figures of that day are not to be trusted",
            sql: Sql::Shared(
                "SELECT d.start || ': ' || d.orders || ' orders, ' || d.revenue || ' revenue' AS found FROM daily d
                  LEFT JOIN (SELECT start - start % 86400000000 AS day, SUM(revenue) AS revenue, SUM(orders) AS orders,
                             SUM(sign_ups) AS sign_ups, SUM(carts) AS carts FROM hourly GROUP BY 1) h ON h.day = d.start
                  WHERE d.revenue IS DISTINCT FROM h.revenue OR d.orders IS DISTINCT FROM h.orders
                  OR d.sign_ups IS DISTINCT FROM h.sign_ups OR d.carts IS DISTINCT FROM h.carts",
            ),
        },
        Invariant {
            what: "an hour is counted that its day knows nothing of",
            remedy: "report it as a bug; the figures of that day are not to be trusted",
            sql: Sql::Shared(
                "SELECT CAST(start AS TEXT) AS found FROM hourly
                  WHERE start - start % 86400000000 NOT IN (SELECT start FROM daily)",
            ),
        },
    ],
};

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// How often the log says that each of these was paid at its time.
pub fn orders(conn: &mut Conn, orders: &[(InvoiceId, Timestamp)]) -> QueryResult<Vec<i64>> {
    let mut times = Vec::with_capacity(orders.len());
    for (invoice, at) in orders {
        let found: Number =
            sql_query("SELECT COUNT(*) AS n FROM action WHERE at = $1 AND kind = 'order_paid' AND subject = $2")
                .bind::<BigInt, _>(*at)
                .bind::<Text, _>(*invoice)
                .get_result(conn)?;
        times.push(found.n);
    }
    Ok(times)
}

/// How many orders were counted on each day of UTC.
pub fn orders_by_day(conn: &mut Conn) -> QueryResult<Vec<(Timestamp, i64)>> {
    daily::table.filter(daily::orders.ne(0)).select((daily::start, daily::orders)).load(conn)
}
