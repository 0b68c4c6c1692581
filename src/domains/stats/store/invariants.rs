//! Invariants of the stats database, and the facts that `mercat check` compares with other domains.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::domains::stats::schema::daily;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, Sql};
use crate::types::{InvoiceId, Timestamp};

/// Invariants of this database.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("logged actions", "action")],
    rules: &[
        Invariant {
            violation: "the hourly totals of a day do not add up to its daily totals",
            remedy: "report it as a bug; the totals of that day are unreliable",
            sql: Sql::Shared(
                "SELECT d.start || ': ' || d.orders || ' orders, ' || d.revenue || ' revenue' AS found FROM daily d
                  LEFT JOIN (SELECT start - start % 86400000000 AS day, SUM(revenue) AS revenue, SUM(orders) AS orders,
                             SUM(sign_ups) AS sign_ups, SUM(carts) AS carts FROM hourly GROUP BY 1) h ON h.day = d.start
                  WHERE d.revenue IS DISTINCT FROM h.revenue OR d.orders IS DISTINCT FROM h.orders
                  OR d.sign_ups IS DISTINCT FROM h.sign_ups OR d.carts IS DISTINCT FROM h.carts",
            ),
        },
        Invariant {
            violation: "hourly statistics exist without a daily row",
            remedy: "report it as a bug; the totals of that day are unreliable",
            sql: Sql::Shared(
                "SELECT CAST(start AS TEXT) AS found FROM hourly
                  WHERE start - start % 86400000000 NOT IN (SELECT start FROM daily)",
            ),
        },
    ],
};

#[derive(QueryableByName)]
struct OrderEntryCountRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Counts the `order_paid` entries of each invoice at its time of payment.
pub fn count_order_entries(conn: &mut Conn, orders: &[(InvoiceId, Timestamp)]) -> QueryResult<Vec<i64>> {
    let mut times = Vec::with_capacity(orders.len());
    for (invoice, at) in orders {
        let row: OrderEntryCountRow =
            sql_query("SELECT COUNT(*) AS n FROM action WHERE at = $1 AND kind = 'order_paid' AND subject = $2")
                .bind::<BigInt, _>(*at)
                .bind::<Text, _>(*invoice)
                .get_result(conn)?;
        times.push(row.n);
    }
    Ok(times)
}

/// Reads the number of orders per day of UTC.
pub fn orders_by_day(conn: &mut Conn) -> QueryResult<Vec<(Timestamp, i64)>> {
    daily::table.filter(daily::orders.ne(0)).select((daily::start, daily::orders)).load(conn)
}
