//! The counts of the whole list, moved by every change instead of counted anew for every reader.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel::upsert::excluded;

use super::{Row, read};
use crate::contract::catalog::{FacetValue, Facets};
use crate::domains::catalog::schema::facet_count;
use crate::store::query::*;
use crate::store::{Conn, Prepare};
use crate::types::Amount;

/// One item a group.
const LEADS: i32 = 0;
/// Every variant.
const ALL: i32 = 1;

/// How many values a facet names.
pub const CATEGORIES_MAX: usize = 100;
/// How many values a facet names.
pub const TAGS_MAX: usize = 30;

/// By how much the counts move in one change.
#[derive(Default)]
pub struct FacetDelta(BTreeMap<(i32, &'static str, String), i64>);

impl FacetDelta {
    /// Counts a product in all lists it is in.
    pub fn count(&mut self, row: &Row, by: i64) {
        if row.deleted {
            return;
        }
        self.count_in(ALL, row, by);
        if row.is_lead {
            self.count_in(LEADS, row, by);
        }
    }

    /// Counts a product as the one that stands for its group.
    pub fn count_lead(&mut self, row: &Row, by: i64) {
        self.count_in(LEADS, row, by);
    }

    fn count_in(&mut self, mode: i32, row: &Row, by: i64) {
        let mut add = |kind, value| *self.0.entry((mode, kind, value)).or_default() += by;
        add("total", String::new());
        if row.stock > 0 {
            add("in_stock", String::new());
        }
        if let Some(category) = &row.category {
            add("category", category.clone());
        }
        for tag in read::<Vec<String>>(&row.tags) {
            add("tag", tag);
        }
    }

    /// Writes what moved.
    pub fn write(self, conn: &mut Conn) -> QueryResult<()> {
        for ((mode, kind, value), by) in self.0.into_iter().filter(|(_, by)| *by != 0) {
            diesel::insert_into(facet_count::table)
                .values((
                    facet_count::scope.eq(mode),
                    facet_count::facet.eq(kind),
                    facet_count::value.eq(&value),
                    facet_count::count.eq(by),
                ))
                .on_conflict((facet_count::scope, facet_count::facet, facet_count::value))
                .do_update()
                .set(facet_count::count.eq(facet_count::count + excluded(facet_count::count)))
                .prepared()
                .execute(conn)?;
            if by < 0 {
                diesel::delete(facet_count::table.find((mode, kind, value)).filter(facet_count::count.eq(0)))
                    .execute(conn)?;
            }
        }
        Ok(())
    }
}

#[derive(QueryableByName)]
struct Prices {
    #[diesel(sql_type = diesel::sql_types::Nullable<BigInt>)]
    low: Option<Amount>,
    #[diesel(sql_type = diesel::sql_types::Nullable<BigInt>)]
    high: Option<Amount>,
}

/// The facets of the whole list.
pub fn whole(conn: &mut Conn, all_variants: bool) -> QueryResult<Facets> {
    let mode = if all_variants { ALL } else { LEADS };
    let number = |conn: &mut Conn, kind: &str| -> QueryResult<i64> {
        let n = facet_count::table.find((mode, kind, "")).select(facet_count::count).first(conn).optional()?;
        Ok(n.unwrap_or(0))
    };
    let (through, listed) = match (conn.is_postgres(), all_variants) {
        (false, true) => (" INDEXED BY product_all_price", "deleted = 0"),
        (false, false) => (" INDEXED BY product_lead_price", "is_lead = 1"),
        (true, true) => ("", "NOT deleted"),
        (true, false) => ("", "is_lead"),
    };
    // Two searches of the index's ends; min and max in one query would walk all of it.
    let end = |order: &str| {
        format!("(SELECT price FROM product{through} WHERE {listed} ORDER BY price {order}, seq {order} LIMIT 1)")
    };
    let prices: Prices =
        sql_query(format!("SELECT {} AS low, {} AS high", end("ASC"), end("DESC"))).get_result(conn)?;
    Ok(Facets {
        total: number(conn, "total")?,
        categories: fullest(conn, mode, "category", CATEGORIES_MAX)?,
        tags: fullest(conn, mode, "tag", TAGS_MAX)?,
        min_price: prices.low,
        max_price: prices.high,
        in_stock: number(conn, "in_stock")?,
    })
}

fn fullest(conn: &mut Conn, mode: i32, kind: &str, max: usize) -> QueryResult<Vec<FacetValue>> {
    let rows: Vec<(String, i64)> = facet_count::table
        .filter(facet_count::scope.eq(mode))
        .filter(facet_count::facet.eq(kind))
        .order((facet_count::count.desc(), facet_count::value))
        .limit(i64::try_from(max).unwrap_or(i64::MAX))
        .select((facet_count::value, facet_count::count))
        .load(conn)?;
    Ok(rows.into_iter().map(|(value, count)| FacetValue { value, count }).collect())
}

/// How many products have a tag, and so how far a search for it reaches.
pub fn tagged(conn: &mut Conn, tag: &str) -> QueryResult<i64> {
    let n = facet_count::table.find((ALL, "tag", tag)).select(facet_count::count).first(conn).optional()?;
    Ok(n.unwrap_or(0))
}
