//! What must hold of comments, and the facts that other domains must agree with.

use crate::contract::catalog::RatingFacts;
use crate::domains::comments::schema::rating;
use crate::store::query::*;
use crate::store::{Books, Conn, PAGE, Rule, Sql, Which};
use crate::types::ProductId;

/// What must always hold here.
pub const BOOKS: Books = Books {
    counted: &[("comments", "comment")],
    rules: &[Rule {
        what: "a product's rating is not that of its comments",
        way_out: "the next comment on it does not mend this: report it as a bug",
        sql: Sql::Same(
            "SELECT r.product_id || ' says ' || r.sum || ' of ' || r.count AS found FROM rating r
              LEFT JOIN (SELECT product_id, SUM(rating) AS sum, COUNT(*) AS count FROM comment GROUP BY product_id) c
              ON c.product_id = r.product_id
              WHERE r.sum <> COALESCE(c.sum, 0) OR r.count <> COALESCE(c.count, 0)
              UNION ALL SELECT product_id FROM comment WHERE product_id NOT IN (SELECT product_id FROM rating)",
        ),
    }],
};

/// What products are rated as here.
pub fn ratings(conn: &mut Conn, which: Which<ProductId>) -> QueryResult<Vec<RatingFacts>> {
    let rows: Vec<(ProductId, i64, i64)> = match which {
        Which::These(ids) => rating::table.filter(rating::product_id.eq_any(ids)).load(conn)?,
        Which::After(None) => rating::table.order(rating::product_id).limit(PAGE as i64).load(conn)?,
        Which::After(Some(after)) => rating::table
            .filter(rating::product_id.gt(after))
            .order(rating::product_id)
            .limit(PAGE as i64)
            .load(conn)?,
    };
    Ok(rows.into_iter().map(|(product_id, sum, count)| RatingFacts { product_id, sum, count }).collect())
}
