//! SQL of product lists: filters, order, pagination and counts.
//!
//! On SQLite each statement names the index to use, because the best one depends on numbers that SQLite does not know:
//! a list of 20 scans the index of its order and stops; a rare tag or a narrow price range is collected first and then
//! sorted. PostgreSQL has statistics and chooses itself; there the same statements name no index.

use std::collections::HashMap;

use diesel::pg::Pg;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::facet_counts::{self, CATEGORIES_MAX, TAGS_MAX};
use super::from_json;
use crate::contract::catalog::{FacetValue, Facets, ProductQuery, Sort};
use crate::domains::catalog::schema::product;
use crate::domains::catalog::text_search::SearchTerms;
use crate::store::Conn;
use crate::store::query::*;
use crate::types::{Amount, Cursor, FieldError, PageRequest, ProductId, hex};

/// Maximum number of matches considered per tier of a search, the newest first; one more than is counted, so that a
/// list is known to be longer.
const MATCHES_MAX: i64 = 10_001;
/// Number of names read at once.
const NAMES_PAGE: i64 = 5_000;
/// Maximum number of items counted of a filtered list.
const COUNTED_MAX: usize = 10_000;
/// Number of products up to which they are collected and sorted rather than found by a scan of the order's index.
const SORTED_MAX: i64 = 5_000;

/// Start of a page: the list it belongs to, and the sort key and row of the last item before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStart {
    list: String,
    key: SortKey,
    seq: i64,
}

/// BoundValue of the sort key of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SortKey {
    Number(i64),
    Text(String),
}

impl PageStart {
    /// Decodes the cursor of a request.
    ///
    /// # Errors
    /// The cursor is malformed or belongs to another list.
    pub fn from_cursor(page: &PageRequest, query: &ProductQuery) -> Result<Option<Self>, FieldError> {
        let start: Option<Self> = page.after()?;
        let matches_query = start.as_ref().is_none_or(|start| {
            start.list == fingerprint(query) && matches!(start.key, SortKey::Text(_)) == (order(query) == Sort::Name)
        });
        if matches_query {
            Ok(start)
        } else {
            let message = "is not a cursor of this list; start again without one";
            Err(FieldError::new("cursor", "invalid", message))
        }
    }
}

/// Hash of a query, by which a cursor recognises its list; stable across restarts.
fn fingerprint(query: &ProductQuery) -> String {
    let text = serde_json::to_vec(query).unwrap_or_default();
    hex(&Sha256::digest(text)[..6])
}

fn order(query: &ProductQuery) -> Sort {
    query.sort.unwrap_or_default()
}

/// A statement under construction: its text, and the bound values in the same order.
struct SqlBuilder {
    sql: String,
    values: Vec<BoundValue>,
    postgres: bool,
}

enum BoundValue {
    Number(i64),
    Text(String),
}

impl SqlBuilder {
    fn new(postgres: bool) -> Self {
        Self { sql: String::new(), values: Vec::new(), postgres }
    }

    /// Index hint for SQLite; empty for PostgreSQL.
    fn indexed_by(&self, index: &str) -> String {
        if self.postgres { String::new() } else { format!(" INDEXED BY {index}") }
    }

    /// Join whose order SQLite keeps.
    const fn cross_join(&self) -> &'static str {
        if self.postgres { "JOIN" } else { "CROSS JOIN" }
    }

    /// Condition on a boolean column, written as in the partial indexes so that the planner recognises it.
    fn flag(&self, column: &str, set: bool) -> String {
        match (self.postgres, set) {
            (true, true) => column.to_owned(),
            (true, false) => format!("NOT {column}"),
            (false, _) => format!("{column} = {}", i32::from(set)),
        }
    }

    fn placeholder(&mut self) -> &mut Self {
        let placeholder = if self.postgres { format!("${}", self.values.len()) } else { "?".to_owned() };
        self.sql(&placeholder)
    }

    fn sql(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    fn number(&mut self, value: i64) -> &mut Self {
        self.values.push(BoundValue::Number(value));
        self.placeholder()
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.values.push(BoundValue::Text(value.to_owned()));
        self.placeholder()
    }

    fn load<R>(self, conn: &mut Conn) -> QueryResult<Vec<R>>
    where
        R: QueryableByName<Sqlite> + QueryableByName<Pg> + 'static,
    {
        for_backend!(conn, c => {
            let mut query = sql_query(self.sql).into_boxed();
            for value in self.values {
                query = match value {
                    BoundValue::Number(number) => query.bind::<BigInt, _>(number),
                    BoundValue::Text(text) => query.bind::<Text, _>(text),
                };
            }
            diesel::RunQueryDsl::load(query, c)
        })
    }
}

#[derive(QueryableByName)]
struct PageRow {
    #[diesel(sql_type = Text)]
    id: ProductId,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    number: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    text: Option<String>,
}

/// Reads a page of a list: the ids in order, and the cursor of the next page. `query` must be normalized.
pub fn page(
    conn: &mut Conn,
    query: &ProductQuery,
    limit: i64,
    after: Option<&PageStart>,
) -> QueryResult<(Vec<ProductId>, Option<Cursor>)> {
    let Some(statement) = page_sql(conn, query, limit, after)? else { return Ok((Vec::new(), None)) };
    let mut found: Vec<PageRow> = statement.load(conn)?;
    let page_size = usize::try_from(limit).unwrap_or(0);
    let more = found.len() > page_size;
    found.truncate(page_size);
    let next = found.last().filter(|_| more).map(|last| {
        let key = last.text.clone().map_or(SortKey::Number(last.number.unwrap_or(0)), SortKey::Text);
        Cursor::encode(&PageStart { list: fingerprint(query), key, seq: last.seq })
    });
    Ok((found.into_iter().map(|row| row.id).collect(), next))
}

/// Builds the statement that reads a page and one row more.
fn page_sql(
    conn: &mut Conn,
    query: &ProductQuery,
    limit: i64,
    after: Option<&PageStart>,
) -> QueryResult<Option<SqlBuilder>> {
    let sort = order(query);
    // Every order ends with the row number, so that no two items are equal.
    let (number, text, key, direction) = match sort {
        Sort::Name => ("NULL", "p.name_key", "p.name_key", "ASC"),
        Sort::Price => ("p.price", "NULL", "p.price", "ASC"),
        Sort::PriceDescending => ("p.price", "NULL", "p.price", "DESC"),
        Sort::CreatedAt => ("p.created_at", "NULL", "p.created_at", "ASC"),
        Sort::CreatedAtDescending => ("p.created_at", "NULL", "p.created_at", "DESC"),
        // Not FTS5's bm25: it changes for every product with each new one, which would invalidate cursors.
        Sort::Relevance => {
            let key = "(p.tier * 1000 + CAST(length(p.name) AS BIGINT))";
            (key, "NULL", key, "ASC")
        }
    };
    // Of equally good matches the newest comes first.
    let row = if sort == Sort::Relevance { "-p.seq" } else { "p.seq" };
    let select = format!("SELECT p.id AS id, p.seq AS seq, {number} AS number, {text} AS text");
    let Some(mut statement) = from_sql(conn, query, &select, false)? else { return Ok(None) };
    if let Some(start) = after {
        let (compare, seq) = (if direction == "ASC" { ">" } else { "<" }, start.seq);
        statement.sql(&format!(" AND ({key}, {row}) {compare} ("));
        match &start.key {
            SortKey::Number(number) => statement.number(*number),
            SortKey::Text(text) => statement.text(text),
        };
        statement.sql(", ").number(if sort == Sort::Relevance { -seq } else { seq }).sql(")");
    }
    statement.sql(&format!(" ORDER BY {key} {direction}, {row} {direction} LIMIT ")).number(limit + 1);
    Ok(Some(statement))
}

/// Calls `visit` with the name of each product for sale, one of each group, page by page.
pub fn for_each_name(conn: &mut Conn, mut visit: impl FnMut(&str)) -> QueryResult<()> {
    let mut after = 0;
    loop {
        let page: Vec<(i64, String)> = product::table
            .filter(product::is_lead.eq(true))
            .filter(product::seq.gt(after))
            .order(product::seq)
            .limit(NAMES_PAGE)
            .select((product::seq, product::name))
            .load(conn)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        page.iter().for_each(|(_, name)| visit(name));
    }
}

/// Query plan of a page on SQLite. For tests.
#[cfg(test)]
pub fn explain(conn: &mut Conn, query: &ProductQuery, after: Option<&PageStart>) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct PlanRow {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    let Some(mut statement) = page_sql(conn, query, 20, after)? else { return Ok(Vec::new()) };
    statement.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
    Ok(statement.load::<PlanRow>(conn)?.into_iter().map(|step| step.detail).collect())
}

/// Builds `select` with its FROM clause and filters; `None` when no product can match.
///
/// With `all`, every match will be read, so an indexed filter is always the best access path. A page is better served by
/// a scan of its order's index, unless few products match.
fn from_sql(conn: &mut Conn, query: &ProductQuery, select: &str, all: bool) -> QueryResult<Option<SqlBuilder>> {
    let mut statement = SqlBuilder::new(conn.is_postgres());
    if let Some(q) = &query.q {
        let Some(terms) = SearchTerms::parse(q) else { return Ok(None) };
        match_sql(&mut statement, &terms);
        search_sql(&mut statement, query, select);
        return Ok(Some(statement));
    }
    statement.sql(select);
    if is_unfiltered(query) && !query.all_variants {
        let index_hint = statement.indexed_by(&format!("product_lead_{}", index_suffix(query)));
        let listed = statement.flag("p.is_lead", true);
        statement.sql(&format!(" FROM product p{index_hint} WHERE {listed}"));
        return Ok(Some(statement));
    }
    let driving_tag = match &query.tag {
        Some(tag) if all || facet_counts::tag_count(conn, tag)? <= SORTED_MAX => Some(tag),
        _ => None,
    };
    if let Some(tag) = driving_tag {
        let (join, listed) = (statement.cross_join(), statement.flag("p.deleted", false));
        statement
            .sql(&format!(" FROM product_tag t {join} product p ON p.seq = t.seq WHERE t.tag = "))
            .text(tag)
            .sql(&format!(" AND {listed}"));
    } else {
        let scope = if query.category.is_some() { "category" } else { "all" };
        let order = if prefers_price_index(conn, query, all)? { "price" } else { index_suffix(query) };
        let index_hint = statement.indexed_by(&format!("product_{scope}_{order}"));
        let listed = statement.flag("p.deleted", false);
        statement.sql(&format!(" FROM product p{index_hint} WHERE {listed}"));
    }
    filter_sql(&mut statement, "p", query, driving_tag.is_some());
    if !query.all_variants {
        // One item per group: the match that no other match of the group precedes.
        let (index_hint, listed) = (statement.indexed_by("product_group"), statement.flag("s.deleted", false));
        statement.sql(&format!(
            " AND (p.group_name IS NULL OR NOT EXISTS (SELECT 1 FROM product s{index_hint}
              WHERE s.group_name = p.group_name AND {listed}",
        ));
        filter_sql(&mut statement, "s", query, false);
        let rank = |a: &str| format!("({a}.stock = 0, CASE {a}.stock WHEN 0 THEN 0 ELSE {a}.price END, {a}.seq)");
        statement.sql(&format!(" AND {} < {}))", rank("s"), rank("p")));
    }
    Ok(Some(statement))
}

/// Appends `select` over the matches of a search. All are read for their order, so the best of each group is chosen by a
/// window function rather than by a subquery per row.
fn search_sql(statement: &mut SqlBuilder, query: &ProductQuery, select: &str) {
    let place = if query.all_variants {
        "1".to_owned()
    } else {
        let group = if statement.postgres {
            "p.group_name, CASE WHEN p.group_name IS NULL THEN p.seq END"
        } else {
            "ifnull(p.group_name, p.seq)"
        };
        let rank = "p.stock = 0, CASE p.stock WHEN 0 THEN 0 ELSE p.price END, p.seq";
        format!("row_number() OVER (PARTITION BY {group} ORDER BY {rank})")
    };
    let (join, listed) = (statement.cross_join(), statement.flag("p.deleted", false));
    statement.sql(select).sql(&format!(
        " FROM (SELECT p.id, p.seq, p.name, p.name_key, p.price, p.created_at, p.stock, p.category, p.tags, h.tier,
            {place} AS place FROM hits h {join} product p ON p.seq = h.seq WHERE {listed}",
    ));
    filter_sql(statement, "p", query, false);
    statement.sql(") p WHERE p.place = 1");
}

/// Appends the products that contain all words: in the name (tier 0), in name and labels (1), anywhere (2).
fn match_sql(statement: &mut SqlBuilder, terms: &SearchTerms) {
    let words = terms.to_fts();
    statement.sql("WITH hits (seq, tier) AS MATERIALIZED (SELECT seq, min(tier) FROM (");
    let tiers = [("name", "A"), ("name labels", "AB"), ("name labels description", "ABC")];
    for (tier, (columns, weights)) in tiers.into_iter().enumerate() {
        if tier > 0 {
            statement.sql(" UNION ALL ");
        }
        let row = if statement.postgres { "seq" } else { "rowid" };
        statement.sql(&format!(
            "SELECT * FROM (SELECT {row} AS seq, CAST({tier} AS BIGINT) AS tier FROM product_fts WHERE "
        ));
        if statement.postgres {
            statement.sql("document @@ CAST(").text(&terms.to_tsquery(weights)).sql(" AS tsquery) ORDER BY seq");
        } else {
            let expression = format!("{{{columns}}} : ({words})");
            statement.sql("product_fts MATCH ").text(&expression).sql(" ORDER BY rowid");
        }
        statement.sql(" DESC LIMIT ").number(MATCHES_MAX).sql(") found");
    }
    statement.sql(") every GROUP BY seq) ");
}

fn filter_sql(statement: &mut SqlBuilder, of: &str, query: &ProductQuery, has_tag_filter: bool) {
    if let Some(category) = &query.category {
        statement.sql(&format!(" AND {of}.category = ")).text(category);
    }
    if let (Some(tag), false) = (&query.tag, has_tag_filter) {
        statement
            .sql(" AND EXISTS (SELECT 1 FROM product_tag x WHERE x.tag = ")
            .text(tag)
            .sql(&format!(" AND x.seq = {of}.seq)"));
    }
    if let Some(price) = query.min_price {
        statement.sql(&format!(" AND {of}.price >= ")).number(price);
    }
    if let Some(price) = query.max_price {
        statement.sql(&format!(" AND {of}.price <= ")).number(price);
    }
    match query.in_stock {
        Some(true) => statement.sql(&format!(" AND {of}.stock > 0")),
        Some(false) => statement.sql(&format!(" AND {of}.stock = 0")),
        None => statement,
    };
}

/// Returns `true` if the query has no filter.
pub fn is_unfiltered(query: &ProductQuery) -> bool {
    let ProductQuery { q, category, tag, min_price, max_price, in_stock, sort: _, all_variants: _ } = query;
    q.is_none()
        && category.is_none()
        && tag.is_none()
        && min_price.is_none()
        && max_price.is_none()
        && in_stock.is_none()
}

/// Suffix of the index names for the order of a query.
fn index_suffix(query: &ProductQuery) -> &'static str {
    match order(query) {
        Sort::Name => "name",
        Sort::Price | Sort::PriceDescending => "price",
        Sort::CreatedAt | Sort::CreatedAtDescending | Sort::Relevance => "created",
    }
}

#[derive(QueryableByName)]
struct MatchCountRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Returns `true` if the price index is the best access path for the query's price range.
fn prefers_price_index(conn: &mut Conn, query: &ProductQuery, all: bool) -> QueryResult<bool> {
    let has_range = query.min_price.is_some() || query.max_price.is_some();
    if all || !has_range {
        return Ok(has_range);
    }
    let mut statement = SqlBuilder::new(conn.is_postgres());
    let (index_hint, listed) = (statement.indexed_by("product_all_price"), statement.flag("deleted", false));
    statement.sql(&format!("SELECT count(*) AS n FROM (SELECT 1 FROM product{index_hint} WHERE {listed}"));
    statement.sql(" AND price >= ").number(query.min_price.unwrap_or(0));
    statement.sql(" AND price <= ").number(query.max_price.unwrap_or(Amount::MAX));
    statement.sql(" LIMIT ").number(SORTED_MAX + 1).sql(") few");
    let counted: Vec<MatchCountRow> = statement.load(conn)?;
    Ok(counted.first().is_none_or(|count| count.n <= SORTED_MAX))
}

#[derive(QueryableByName)]
struct FacetRow {
    #[diesel(sql_type = Nullable<Text>)]
    category: Option<String>,
    #[diesel(sql_type = Text)]
    tags: String,
    #[diesel(sql_type = BigInt)]
    price: Amount,
    #[diesel(sql_type = Bool)]
    in_stock: bool,
}

/// Facets of a list with all its filters. Those of the unfiltered list are stored; others are counted up to a limit.
pub fn counts(conn: &mut Conn, query: &ProductQuery) -> QueryResult<Facets> {
    if is_unfiltered(query) {
        return facet_counts::unfiltered(conn, query.all_variants);
    }
    let select = "SELECT p.category AS category, p.tags AS tags, p.price AS price, p.stock > 0 AS in_stock";
    let Some(mut statement) = from_sql(conn, query, select, true)? else { return Ok(Facets::default()) };
    statement.sql(" LIMIT ").number(i64::try_from(COUNTED_MAX + 1).unwrap_or(i64::MAX));
    let mut items: Vec<FacetRow> = statement.load(conn)?;
    let capped = items.len() > COUNTED_MAX;
    items.truncate(COUNTED_MAX);
    let (mut categories, mut tags) = (HashMap::<&str, i64>::new(), HashMap::<String, i64>::new());
    let mut facets = Facets { total: i64::try_from(items.len()).unwrap_or(i64::MAX), capped, ..Facets::default() };
    for item in &items {
        if let Some(category) = &item.category {
            *categories.entry(category).or_default() += 1;
        }
        for tag in from_json::<Vec<String>>(&item.tags) {
            *tags.entry(tag).or_default() += 1;
        }
        facets.min_price = Some(facets.min_price.map_or(item.price, |price| price.min(item.price)));
        facets.max_price = Some(facets.max_price.map_or(item.price, |price| price.max(item.price)));
        facets.in_stock += i64::from(item.in_stock);
    }
    facets.categories = most_frequent(categories.into_iter().map(|(value, n)| (value.to_owned(), n)), CATEGORIES_MAX);
    facets.tags = most_frequent(tags.into_iter(), TAGS_MAX);
    Ok(facets)
}

fn most_frequent(values: impl Iterator<Item = (String, i64)>, max: usize) -> Vec<FacetValue> {
    let mut values: Vec<FacetValue> = values.map(|(value, count)| FacetValue { value, count }).collect();
    values.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    values.truncate(max);
    values
}
