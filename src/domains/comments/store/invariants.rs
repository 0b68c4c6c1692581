//! Invariants of the comments database, and the facts that `mercat check` compares with other domains.

use crate::contract::catalog::RatingFacts;
use crate::domains::comments::schema::rating;
use crate::messaging::{FACTS_PAGE_SIZE, Selection};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, Sql};
use crate::types::ProductId;

/// Invariants of this database.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("comments", "comment")],
    rules: &[Invariant {
        violation: "a product's rating totals are not those of its comments",
        remedy: "report it as a bug; the next comment does not repair it",
        sql: Sql::Shared(
            "SELECT r.product_id || ' has the sum ' || r.sum || ' and the count ' || r.count AS found FROM rating r
              LEFT JOIN (SELECT product_id, SUM(rating) AS sum, COUNT(*) AS count FROM comment GROUP BY product_id) c
              ON c.product_id = r.product_id
              WHERE r.sum <> COALESCE(c.sum, 0) OR r.count <> COALESCE(c.count, 0)
              UNION ALL SELECT product_id FROM comment WHERE product_id NOT IN (SELECT product_id FROM rating)",
        ),
    }],
};

/// Reads the rating totals of products.
pub fn list_rating_facts(conn: &mut Conn, which: Selection<ProductId>) -> QueryResult<Vec<RatingFacts>> {
    let rows: Vec<(ProductId, i64, i64)> = match which {
        Selection::These(ids) => rating::table.filter(rating::product_id.eq_any(ids)).load(conn)?,
        Selection::After(None) => rating::table.order(rating::product_id).limit(FACTS_PAGE_SIZE as i64).load(conn)?,
        Selection::After(Some(after)) => rating::table
            .filter(rating::product_id.gt(after))
            .order(rating::product_id)
            .limit(FACTS_PAGE_SIZE as i64)
            .load(conn)?,
    };
    Ok(rows.into_iter().map(|(product_id, sum, count)| RatingFacts { product_id, sum, count }).collect())
}
