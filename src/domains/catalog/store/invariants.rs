//! What must hold of stock, holds and lists, and the facts that other domains must agree with.

use std::collections::HashMap;

use crate::contract::catalog::{HoldFacts, HoldLine, RatingFacts};
use crate::domains::catalog::model::HoldState;
use crate::domains::catalog::schema::{hold, hold_line, product};
use crate::messaging::{FACTS_PAGE_SIZE, Selection};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{HoldId, ProductId, Quantity, Timestamp};

const RECOUNT: &str = "find the sale or return that was not booked, and set the product's stock by hand";
const REPORT: &str = "report it as a bug; saving the product again writes its counts anew";

/// What must always hold here.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("products", "product"), ("holds", "hold"), ("stock moves", "stock_move"), ("pictures", "image")],
    rules: &[
        Invariant {
            what: "stock is below nothing",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT id || ' has ' || stock AS found FROM product WHERE stock < 0"),
        },
        Invariant {
            what: "a product's stock is not the sum of its moves",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT p.id || ' has ' || p.stock || ', its moves sum to ' || COALESCE(m.sum, 0) AS found
                  FROM product p
                  LEFT JOIN (SELECT product_id, SUM(delta) AS sum FROM stock_move GROUP BY product_id) m
                  ON m.product_id = p.id WHERE p.stock <> COALESCE(m.sum, 0)"),
        },
        Invariant {
            what: "a hold is in a state that there is not",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM hold
                  WHERE state NOT IN ('held', 'sold', 'released', 'returned')"),
        },
        Invariant {
            what: "what was moved for a hold is not what it holds",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT h.id || ' is ' || h.state || ' over ' || l.quantity || ' of ' || l.product_id || ', moved '
                         || COALESCE(m.sum, 0) AS found
                  FROM hold h JOIN hold_line l ON l.hold_id = h.id
                  LEFT JOIN (SELECT ref, product_id, SUM(delta) AS sum FROM stock_move WHERE ref IS NOT NULL
                             GROUP BY ref, product_id) m ON m.ref = h.id AND m.product_id = l.product_id
                  WHERE COALESCE(m.sum, 0) <> CASE WHEN h.state IN ('held', 'sold') THEN l.returned - l.quantity ELSE 0 END"),
        },
        Invariant {
            what: "stock was moved for a hold that does not have the product",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT m.delta || ' of ' || m.product_id || ' for ' || m.ref AS found FROM stock_move m
                  WHERE m.ref IS NOT NULL AND NOT EXISTS
                  (SELECT 1 FROM hold_line l WHERE l.hold_id = m.ref AND l.product_id = m.product_id)"),
        },
        Invariant {
            what: "a hold has no lines though stock was taken for it",
            remedy: RECOUNT,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM hold h WHERE state <> 'released'
                  AND NOT EXISTS (SELECT 1 FROM hold_line l WHERE l.hold_id = h.id)"),
        },
        Invariant {
            what: "a list's count is not what the list has",
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
            what: "a group of variants has not exactly one that stands for it",
            remedy: REPORT,
            sql: Sql::Shared("SELECT group_name || ' has ' || SUM(CASE WHEN is_lead THEN 1 ELSE 0 END) AS found FROM product
                  WHERE group_name IS NOT NULL AND deleted IS NOT TRUE GROUP BY group_name
                  HAVING SUM(CASE WHEN is_lead THEN 1 ELSE 0 END) <> 1"),
        },
        Invariant {
            what: "a picture belongs to no product",
            remedy: REPORT,
            sql: Sql::Shared("SELECT id AS found FROM image WHERE product_id NOT IN (SELECT id FROM product)"),
        },
        Invariant {
            what: "a picture has no files, or files have no picture",
            remedy: "delete the picture and upload it again",
            sql: Sql::Shared("SELECT id AS found FROM image WHERE id NOT IN (SELECT image_id FROM image_file)
                  UNION ALL SELECT image_id FROM image_file WHERE image_id NOT IN (SELECT id FROM image)"),
        },
    ],
};

type Row = (HoldId, HoldState, Timestamp);

/// Facts about holds.
pub fn holds(conn: &mut Conn, which: Selection<HoldId>) -> QueryResult<Vec<HoldFacts>> {
    let columns = (hold::id, hold::state, hold::expires_at);
    let rows: Vec<Row> = match which {
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
    let facts = |(hold, state, expires_at): Row| HoldFacts {
        hold,
        state: state.as_str().to_owned(),
        expires_at,
        lines: by_hold.remove(&hold).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(facts).collect())
}

/// What products are rated as here.
pub fn ratings(conn: &mut Conn, products: &[ProductId]) -> QueryResult<Vec<RatingFacts>> {
    let rows: Vec<(ProductId, i64, i64)> = product::table
        .filter(product::id.eq_any(products))
        .select((product::id, product::rating_sum, product::rating_count))
        .load(conn)?;
    Ok(rows.into_iter().map(|(product_id, sum, count)| RatingFacts { product_id, sum, count }).collect())
}
