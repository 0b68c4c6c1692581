//! Invariants of stock, holds and lists for `mercat check`, and the facts that other domains are checked against.

use std::collections::HashMap;

use crate::contract::catalog::{HoldFacts, HoldLine, RatingFacts};
use crate::domains::catalog::model::HoldState;
use crate::domains::catalog::schema::{hold, hold_line, product};
use crate::messaging::{FACTS_PAGE_SIZE, Selection};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{HoldId, ProductId, Quantity, Timestamp};

const RECOUNT: &str = "find the sale or return that was not recorded, and correct the product's stock";
const REPORT: &str = "report it as a bug; saving the product again rewrites its counts";

/// Invariants of this domain.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("products", "product"), ("holds", "hold"), ("stock moves", "stock_move"), ("images", "image")],
    rules: &[
        Invariant {
            violation: "negative stock",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT id || ' has ' || stock AS found FROM product WHERE stock < 0"),
        },
        Invariant {
            violation: "a product's stock is not the sum of its moves",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT p.id || ' has ' || p.stock || ', its moves sum to ' || COALESCE(m.sum, 0) AS found
                  FROM product p
                  LEFT JOIN (SELECT product_id, SUM(delta) AS sum FROM stock_move GROUP BY product_id) m
                  ON m.product_id = p.id WHERE p.stock <> COALESCE(m.sum, 0)"),
        },
        Invariant {
            violation: "unknown hold state",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM hold
                  WHERE state NOT IN ('held', 'sold', 'released', 'returned')"),
        },
        Invariant {
            violation: "stock moves of a hold do not match its lines",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT h.id || ' is ' || h.state || ' over ' || l.quantity || ' of ' || l.product_id || ', moved '
                         || COALESCE(m.sum, 0) AS found
                  FROM hold h JOIN hold_line l ON l.hold_id = h.id
                  LEFT JOIN (SELECT ref, product_id, SUM(delta) AS sum FROM stock_move WHERE ref IS NOT NULL
                             GROUP BY ref, product_id) m ON m.ref = h.id AND m.product_id = l.product_id
                  WHERE COALESCE(m.sum, 0) <> CASE WHEN h.state IN ('held', 'sold') THEN l.returned - l.quantity ELSE 0 END"),
        },
        Invariant {
            violation: "stock was moved for a hold without the product",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT m.delta || ' of ' || m.product_id || ' for ' || m.ref AS found FROM stock_move m
                  WHERE m.ref IS NOT NULL AND NOT EXISTS
                  (SELECT 1 FROM hold_line l WHERE l.hold_id = m.ref AND l.product_id = m.product_id)"),
        },
        Invariant {
            violation: "hold has no lines although stock was taken for it",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM hold h WHERE state <> 'released'
                  AND NOT EXISTS (SELECT 1 FROM hold_line l WHERE l.hold_id = h.id)"),
        },
        Invariant {
            violation: "facet count does not match the list",
            remedy: REPORT,
            sql: Sql::Shared("SELECT k.name || ' is counted as ' || COALESCE(f.count, 0) || ', there are ' || k.count AS found FROM (
                  SELECT 'all variants' AS name, 1 AS scope, 'total' AS facet, COUNT(*) AS count FROM product WHERE deleted IS NOT TRUE
                  UNION ALL SELECT 'all items', 0, 'total', COUNT(*) FROM product WHERE is_lead IS TRUE
                  UNION ALL SELECT 'variants in stock', 1, 'in_stock', COUNT(*) FROM product
                            WHERE deleted IS NOT TRUE AND stock > 0
                  UNION ALL SELECT 'items in stock', 0, 'in_stock', COUNT(*) FROM product
                            WHERE is_lead IS TRUE AND stock > 0) k
                  LEFT JOIN facet_count f ON f.scope = k.scope AND f.facet = k.facet AND f.value = ''
                  WHERE COALESCE(f.count, 0) <> k.count"),
        },
        Invariant {
            violation: "variant group must have exactly one lead product",
            remedy: REPORT,
            sql: Sql::Shared("SELECT group_name || ' has ' || SUM(CASE WHEN is_lead THEN 1 ELSE 0 END) AS found FROM product
                  WHERE group_name IS NOT NULL AND deleted IS NOT TRUE GROUP BY group_name
                  HAVING SUM(CASE WHEN is_lead THEN 1 ELSE 0 END) <> 1"),
        },
        Invariant {
            violation: "image without a product",
            remedy: REPORT,
            sql: Sql::Shared("SELECT id AS found FROM image WHERE product_id NOT IN (SELECT id FROM product)"),
        },
        Invariant {
            violation: "image without files, or files without an image",
            remedy: "delete the image and upload it again",
            sql: Sql::Shared("SELECT id AS found FROM image WHERE id NOT IN (SELECT image_id FROM image_file)
                  UNION ALL SELECT image_id FROM image_file WHERE image_id NOT IN (SELECT id FROM image)"),
        },
    ],
};

/// Id, state and expiry of a hold.
type HoldFactsRow = (HoldId, HoldState, Timestamp);

/// Reads facts about holds: a page of all, or the given ones.
pub fn list_hold_facts(conn: &mut Conn, which: Selection<HoldId>) -> QueryResult<Vec<HoldFacts>> {
    let columns = (hold::id, hold::state, hold::expires_at);
    let rows: Vec<HoldFactsRow> = match which {
        Selection::These(ids) => hold::table.filter(hold::id.eq_any(ids)).select(columns).load(conn)?,
        Selection::After(after) => {
            let page = hold::table.select(columns).order(hold::id).limit(FACTS_PAGE_SIZE as i64);
            match after {
                Some(after) => page.filter(hold::id.gt(after)).load(conn)?,
                None => page.load(conn)?,
            }
        }
    };
    let ids: Vec<HoldId> = rows.iter().map(|(id, ..)| *id).collect();
    let lines: Vec<(HoldId, ProductId, Quantity)> = hold_line::table
        .filter(hold_line::hold_id.eq_any(ids))
        .order((hold_line::hold_id, hold_line::product_id))
        .select((hold_line::hold_id, hold_line::product_id, hold_line::quantity))
        .load(conn)?;
    let mut by_hold: HashMap<HoldId, Vec<HoldLine>> = HashMap::new();
    for (hold, product_id, quantity) in lines {
        by_hold.entry(hold).or_default().push(HoldLine { product_id, quantity });
    }
    let facts = |(hold, state, expires_at): HoldFactsRow| HoldFacts {
        hold,
        state: state.as_str().to_owned(),
        expires_at,
        lines: by_hold.remove(&hold).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(facts).collect())
}

/// Reads the rating sums of products.
pub fn get_ratings(conn: &mut Conn, products: &[ProductId]) -> QueryResult<Vec<RatingFacts>> {
    let rows: Vec<(ProductId, i64, i64)> = product::table
        .filter(product::id.eq_any(products))
        .select((product::id, product::rating_sum, product::rating_count))
        .load(conn)?;
    Ok(rows.into_iter().map(|(product_id, sum, count)| RatingFacts { product_id, sum, count }).collect())
}
