//! Facet counts of the unfiltered lists, updated by every change instead of counted by every reader.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel::upsert::excluded;

use super::{ProductRow, from_json};
use crate::contract::catalog::{FacetValue, Facets};
use crate::domains::catalog::schema::facet_count;
use crate::store::query::*;
use crate::store::{Conn, Prepare};
use crate::types::Amount;

/// Scope of the list with one product per group.
const GROUP_LEADS: i32 = 0;
/// Scope of the list with every variant.
const ALL_VARIANTS: i32 = 1;

/// Maximum number of values in the category facet.
pub const CATEGORIES_MAX: usize = 100;
/// Maximum number of values in the tag facet.
pub const TAGS_MAX: usize = 30;

/// Changes of counts by one write, by scope, facet and value.
#[derive(Default)]
pub struct FacetDelta(BTreeMap<(i32, &'static str, String), i64>);

impl FacetDelta {
    /// Adds `by` for a product in every list that contains it.
    pub fn count(&mut self, row: &ProductRow, by: i64) {
        if row.deleted {
            return;
        }
        self.count_in(ALL_VARIANTS, row, by);
        if row.is_lead {
            self.count_in(GROUP_LEADS, row, by);
        }
    }

    /// Adds `by` for a product in the list of group leads.
    pub fn count_group_lead(&mut self, row: &ProductRow, by: i64) {
        self.count_in(GROUP_LEADS, row, by);
    }

    fn count_in(&mut self, scope: i32, row: &ProductRow, by: i64) {
        let mut add = |facet, value| *self.0.entry((scope, facet, value)).or_default() += by;
        add("total", String::new());
        if row.stock > 0 {
            add("in_stock", String::new());
        }
        if let Some(category) = &row.category {
            add("category", category.clone());
        }
        for tag in from_json::<Vec<String>>(&row.tags) {
            add("tag", tag);
        }
    }

    /// Writes the changes; counts that become zero are deleted.
    pub fn write(self, conn: &mut Conn) -> QueryResult<()> {
        for ((scope, facet, value), by) in self.0.into_iter().filter(|(_, by)| *by != 0) {
            diesel::insert_into(facet_count::table)
                .values((
                    facet_count::scope.eq(scope),
                    facet_count::facet.eq(facet),
                    facet_count::value.eq(&value),
                    facet_count::count.eq(by),
                ))
                .on_conflict((facet_count::scope, facet_count::facet, facet_count::value))
                .do_update()
                .set(facet_count::count.eq(facet_count::count + excluded(facet_count::count)))
                .prepared()
                .execute(conn)?;
            if by < 0 {
                diesel::delete(facet_count::table.find((scope, facet, value)).filter(facet_count::count.eq(0)))
                    .execute(conn)?;
            }
        }
        Ok(())
    }
}

#[derive(QueryableByName)]
struct PriceRange {
    #[diesel(sql_type = diesel::sql_types::Nullable<BigInt>)]
    low: Option<Amount>,
    #[diesel(sql_type = diesel::sql_types::Nullable<BigInt>)]
    high: Option<Amount>,
}

/// Facets of an unfiltered list.
pub fn unfiltered(conn: &mut Conn, all_variants: bool) -> QueryResult<Facets> {
    let scope = if all_variants { ALL_VARIANTS } else { GROUP_LEADS };
    let count_of = |conn: &mut Conn, facet: &str| -> QueryResult<i64> {
        let n = facet_count::table.find((scope, facet, "")).select(facet_count::count).first(conn).optional()?;
        Ok(n.unwrap_or(0))
    };
    let (index_hint, listed) = match (conn.is_postgres(), all_variants) {
        (false, true) => (" INDEXED BY product_all_price", "deleted = 0"),
        (false, false) => (" INDEXED BY product_lead_price", "is_lead = 1"),
        (true, true) => ("", "NOT deleted"),
        (true, false) => ("", "is_lead"),
    };
    // Two lookups at the ends of the index; min and max in one query would scan it.
    let extreme = |order: &str| {
        format!("(SELECT price FROM product{index_hint} WHERE {listed} ORDER BY price {order}, seq {order} LIMIT 1)")
    };
    let prices: PriceRange =
        sql_query(format!("SELECT {} AS low, {} AS high", extreme("ASC"), extreme("DESC"))).get_result(conn)?;
    Ok(Facets {
        total: count_of(conn, "total")?,
        capped: false,
        categories: most_frequent(conn, scope, "category", CATEGORIES_MAX)?,
        tags: most_frequent(conn, scope, "tag", TAGS_MAX)?,
        min_price: prices.low,
        max_price: prices.high,
        in_stock: count_of(conn, "in_stock")?,
    })
}

fn most_frequent(conn: &mut Conn, scope: i32, facet: &str, max: usize) -> QueryResult<Vec<FacetValue>> {
    let rows: Vec<(String, i64)> = facet_count::table
        .filter(facet_count::scope.eq(scope))
        .filter(facet_count::facet.eq(facet))
        .order((facet_count::count.desc(), facet_count::value))
        .limit(i64::try_from(max).unwrap_or(i64::MAX))
        .select((facet_count::value, facet_count::count))
        .load(conn)?;
    Ok(rows.into_iter().map(|(value, count)| FacetValue { value, count }).collect())
}

/// Number of products with a tag.
pub fn tag_count(conn: &mut Conn, tag: &str) -> QueryResult<i64> {
    let n = facet_count::table.find((ALL_VARIANTS, "tag", tag)).select(facet_count::count).first(conn).optional()?;
    Ok(n.unwrap_or(0))
}
