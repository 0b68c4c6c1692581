//! Lists: which products, in which order, from where on, and how the whole is made up.
//!
//! The statements are put together by hand, each with the index it is to walk, because what is quick depends on
//! numbers that SQLite does not know: a list of 20 walks the index of its order and stops; a rare tag or a narrow
//! range of prices is gathered first and sorted then. PostgreSQL has statistics and chooses by itself; there the same
//! statements are said without the names of indexes.

use std::collections::HashMap;

use diesel::pg::Pg;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::facet_counts::{self, CATEGORIES_MAX, TAGS_MAX};
use super::read;
use crate::contract::catalog::{FacetValue, Facets, ProductQuery, Sort};
use crate::domains::catalog::model;
use crate::store::Conn;
use crate::store::query::*;
use crate::types::{Amount, Cursor, FieldError, PageRequest, ProductId, hex};

/// How many products with a match are looked at, the newest, in each of the three places a word can be in.
const HITS_MAX: i64 = 10_000;
/// How many items of a narrowed list are counted.
const COUNTED_MAX: usize = 10_000;
/// Up to how many products are gathered and sorted rather than met on a walk through the order.
const GATHERED_MAX: i64 = 5_000;

/// Where a page starts: the list it belongs to, and the sort key and row of the last item before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStart {
    list: String,
    key: Key,
    seq: i64,
}

/// A sort key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Number(i64),
    Text(String),
}

impl PageStart {
    /// The place that the cursor names, if it is one of this very list.
    pub fn open(page: &PageRequest, query: &ProductQuery) -> Result<Option<Self>, FieldError> {
        let place: Option<Self> = page.after()?;
        let fits = place.as_ref().is_none_or(|place| {
            place.list == fingerprint(query) && matches!(place.key, Key::Text(_)) == (order(query) == Sort::Name)
        });
        if fits {
            Ok(place)
        } else {
            let message = "is not a cursor of this list; start again without one";
            Err(FieldError::new("cursor", "invalid", message))
        }
    }
}

/// By what a cursor knows its list: the same for the same query, also after a restart.
fn fingerprint(query: &ProductQuery) -> String {
    let text = serde_json::to_vec(query).unwrap_or_default();
    hex(&Sha256::digest(text)[..6])
}

fn order(query: &ProductQuery) -> Sort {
    query.sort.unwrap_or_default()
}

/// A statement in the making: its text and the values bound to it, in the same order.
struct SqlBuilder {
    sql: String,
    values: Vec<Value>,
    postgres: bool,
}

enum Value {
    Number(i64),
    Text(String),
}

impl SqlBuilder {
    fn new(postgres: bool) -> Self {
        Self { sql: String::new(), values: Vec::new(), postgres }
    }

    /// The words that lead one of the two databases to an index.
    fn through(&self, index: &str) -> String {
        if self.postgres { String::new() } else { format!(" INDEXED BY {index}") }
    }

    /// A join that SQLite makes in this order.
    const fn then(&self) -> &'static str {
        if self.postgres { "JOIN" } else { "CROSS JOIN" }
    }

    /// Whether a flag is set, in the very words of the partial indexes.
    fn flag(&self, column: &str, set: bool) -> String {
        match (self.postgres, set) {
            (true, true) => column.to_owned(),
            (true, false) => format!("NOT {column}"),
            (false, _) => format!("{column} = {}", i32::from(set)),
        }
    }

    fn place(&mut self) -> &mut Self {
        let place = if self.postgres { format!("${}", self.values.len()) } else { "?".to_owned() };
        self.sql(&place)
    }

    fn sql(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    fn number(&mut self, value: i64) -> &mut Self {
        self.values.push(Value::Number(value));
        self.place()
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.values.push(Value::Text(value.to_owned()));
        self.place()
    }

    fn load<R>(self, conn: &mut Conn) -> QueryResult<Vec<R>>
    where
        R: QueryableByName<Sqlite> + QueryableByName<Pg> + 'static,
    {
        on!(conn, c => {
            let mut query = sql_query(self.sql).into_boxed();
            for value in self.values {
                query = match value {
                    Value::Number(number) => query.bind::<BigInt, _>(number),
                    Value::Text(text) => query.bind::<Text, _>(text),
                };
            }
            diesel::RunQueryDsl::load(query, c)
        })
    }
}

#[derive(QueryableByName)]
struct PageRows {
    #[diesel(sql_type = Text)]
    id: ProductId,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    number: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    text: Option<String>,
}

/// One page of a list: the products in order, and where the next page starts. `query` is tidied.
pub fn page(
    conn: &mut Conn,
    query: &ProductQuery,
    limit: i64,
    after: Option<&PageStart>,
) -> QueryResult<(Vec<ProductId>, Option<Cursor>)> {
    let Some(statement) = ordered(conn, query, limit, after)? else { return Ok((Vec::new(), None)) };
    let mut found: Vec<PageRows> = statement.load(conn)?;
    let wanted = usize::try_from(limit).unwrap_or(0);
    let more = found.len() > wanted;
    found.truncate(wanted);
    let next = found.last().filter(|_| more).map(|last| {
        let key = last.text.clone().map_or(Key::Number(last.number.unwrap_or(0)), Key::Text);
        Cursor::seal(&PageStart { list: fingerprint(query), key, seq: last.seq })
    });
    Ok((found.into_iter().map(|row| row.id).collect(), next))
}

/// The statement of a page and one row more.
fn ordered(
    conn: &mut Conn,
    query: &ProductQuery,
    limit: i64,
    after: Option<&PageStart>,
) -> QueryResult<Option<SqlBuilder>> {
    let sort = order(query);
    // The last part of every order is the row itself, so that no two items have the same place.
    let (number, text, key, direction) = match sort {
        Sort::Name => ("NULL", "p.name_key", "p.name_key", "ASC"),
        Sort::Price => ("p.price", "NULL", "p.price", "ASC"),
        Sort::PriceDescending => ("p.price", "NULL", "p.price", "DESC"),
        Sort::CreatedAt => ("p.created_at", "NULL", "p.created_at", "ASC"),
        Sort::CreatedAtDescending => ("p.created_at", "NULL", "p.created_at", "DESC"),
        // Not the bm25 of FTS5: that of every product moves with each new one, and a page would lose its place.
        Sort::Relevance => {
            let key = "(p.tier * 1000 + CAST(length(p.name) AS BIGINT))";
            (key, "NULL", key, "ASC")
        }
    };
    // Of equally good matches the newest comes first.
    let row = if sort == Sort::Relevance { "-p.seq" } else { "p.seq" };
    let select = format!("SELECT p.id AS id, p.seq AS seq, {number} AS number, {text} AS text");
    let Some(mut statement) = from(conn, query, &select, false)? else { return Ok(None) };
    if let Some(place) = after {
        let (compare, seq) = (if direction == "ASC" { ">" } else { "<" }, place.seq);
        statement.sql(&format!(" AND ({key}, {row}) {compare} ("));
        match &place.key {
            Key::Number(number) => statement.number(*number),
            Key::Text(text) => statement.text(text),
        };
        statement.sql(", ").number(if sort == Sort::Relevance { -seq } else { seq }).sql(")");
    }
    statement.sql(&format!(" ORDER BY {key} {direction}, {row} {direction} LIMIT ")).number(limit + 1);
    Ok(Some(statement))
}

/// How SQLite goes about a page. For tests.
#[cfg(test)]
pub fn plan(conn: &mut Conn, query: &ProductQuery, after: Option<&PageStart>) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    let Some(mut statement) = ordered(conn, query, 20, after)? else { return Ok(Vec::new()) };
    statement.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
    Ok(statement.load::<Step>(conn)?.into_iter().map(|step| step.detail).collect())
}

/// `select` from everything that is in the list, up to and with the filters; nothing when nothing can be.
///
/// `all` when every one of them will be looked at: then a filter that has an index is always the best way in. A page
/// is better met on a walk through its order, unless there are few to gather.
fn from(conn: &mut Conn, query: &ProductQuery, select: &str, all: bool) -> QueryResult<Option<SqlBuilder>> {
    let mut statement = SqlBuilder::new(conn.is_postgres());
    if let Some(q) = &query.q {
        let Some(words) = model::search(q) else { return Ok(None) };
        hits(&mut statement, q, &words);
        found(&mut statement, query, select);
        return Ok(Some(statement));
    }
    statement.sql(select);
    if is_whole(query) && !query.all_variants {
        let through = statement.through(&format!("product_lead_{}", index_of(query)));
        let listed = statement.flag("p.is_lead", true);
        statement.sql(&format!(" FROM product p{through} WHERE {listed}"));
        return Ok(Some(statement));
    }
    let gathered_tag = match &query.tag {
        Some(tag) if all || facet_counts::tagged(conn, tag)? <= GATHERED_MAX => Some(tag),
        _ => None,
    };
    if let Some(tag) = gathered_tag {
        let (then, listed) = (statement.then(), statement.flag("p.deleted", false));
        statement
            .sql(&format!(" FROM product_tag t {then} product p ON p.seq = t.seq WHERE t.tag = "))
            .text(tag)
            .sql(&format!(" AND {listed}"));
    } else {
        let scope = if query.category.is_some() { "category" } else { "all" };
        let order = if gathers_prices(conn, query, all)? { "price" } else { index_of(query) };
        let through = statement.through(&format!("product_{scope}_{order}"));
        let listed = statement.flag("p.deleted", false);
        statement.sql(&format!(" FROM product p{through} WHERE {listed}"));
    }
    filter(&mut statement, "p", query, gathered_tag.is_some());
    if !query.all_variants {
        // One item a group: the best of those that match, where no other that matches is better.
        let (through, listed) = (statement.through("product_group"), statement.flag("s.deleted", false));
        statement.sql(&format!(
            " AND (p.group_name IS NULL OR NOT EXISTS (SELECT 1 FROM product s{through}
              WHERE s.group_name = p.group_name AND {listed}",
        ));
        filter(&mut statement, "s", query, false);
        let rank = |a: &str| format!("({a}.stock = 0, CASE {a}.stock WHEN 0 THEN 0 ELSE {a}.price END, {a}.seq)");
        statement.sql(&format!(" AND {} < {}))", rank("s"), rank("p")));
    }
    Ok(Some(statement))
}

/// `select` from what a search finds. All of it must be looked at for its order, so the best of each group is chosen
/// in one sweep rather than by asking each whether a better one was found too.
fn found(statement: &mut SqlBuilder, query: &ProductQuery, select: &str) {
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
    let (then, listed) = (statement.then(), statement.flag("p.deleted", false));
    statement.sql(select).sql(&format!(
        " FROM (SELECT p.id, p.seq, p.name, p.name_key, p.price, p.created_at, p.stock, p.category, p.tags, h.tier,
            {place} AS place FROM hits h {then} product p ON p.seq = h.seq WHERE {listed}",
    ));
    filter(statement, "p", query, false);
    statement.sql(") p WHERE p.place = 1");
}

/// The products that have all words: in the name (0), in name and labels together (1), anywhere (2).
fn hits(statement: &mut SqlBuilder, q: &str, words: &str) {
    statement.sql("WITH hits (seq, tier) AS MATERIALIZED (SELECT seq, min(tier) FROM (");
    let places = [("name", "A"), ("name labels", "AB"), ("name labels description", "ABC")];
    for (tier, (columns, weights)) in places.into_iter().enumerate() {
        if tier > 0 {
            statement.sql(" UNION ALL ");
        }
        let row = if statement.postgres { "seq" } else { "rowid" };
        statement.sql(&format!(
            "SELECT * FROM (SELECT {row} AS seq, CAST({tier} AS BIGINT) AS tier FROM product_fts WHERE "
        ));
        if statement.postgres {
            statement.sql("document @@ CAST(").text(&model::ts_query(q, weights)).sql(" AS tsquery) ORDER BY seq");
        } else {
            let expression = format!("{{{columns}}} : ({words})");
            statement.sql("product_fts MATCH ").text(&expression).sql(" ORDER BY rowid");
        }
        statement.sql(" DESC LIMIT ").number(HITS_MAX).sql(") found");
    }
    statement.sql(") every GROUP BY seq) ");
}

fn filter(statement: &mut SqlBuilder, of: &str, query: &ProductQuery, tag_is_met: bool) {
    if let Some(category) = &query.category {
        statement.sql(&format!(" AND {of}.category = ")).text(category);
    }
    if let (Some(tag), false) = (&query.tag, tag_is_met) {
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

/// Whether nothing narrows the list.
pub fn is_whole(query: &ProductQuery) -> bool {
    let ProductQuery { q, category, tag, min_price, max_price, in_stock, sort: _, all_variants: _ } = query;
    q.is_none()
        && category.is_none()
        && tag.is_none()
        && min_price.is_none()
        && max_price.is_none()
        && in_stock.is_none()
}

/// The part of an index's name that says its order.
fn index_of(query: &ProductQuery) -> &'static str {
    match order(query) {
        Sort::Name => "name",
        Sort::Price | Sort::PriceDescending => "price",
        Sort::CreatedAt | Sort::CreatedAtDescending | Sort::Relevance => "created",
    }
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Whether products are best gathered by their range of prices.
fn gathers_prices(conn: &mut Conn, query: &ProductQuery, all: bool) -> QueryResult<bool> {
    let has_range = query.min_price.is_some() || query.max_price.is_some();
    if all || !has_range {
        return Ok(has_range);
    }
    let mut statement = SqlBuilder::new(conn.is_postgres());
    let (through, listed) = (statement.through("product_all_price"), statement.flag("deleted", false));
    statement.sql(&format!("SELECT count(*) AS n FROM (SELECT 1 FROM product{through} WHERE {listed}"));
    statement.sql(" AND price >= ").number(query.min_price.unwrap_or(0));
    statement.sql(" AND price <= ").number(query.max_price.unwrap_or(Amount::MAX));
    statement.sql(" LIMIT ").number(GATHERED_MAX + 1).sql(") few");
    let counted: Vec<Count> = statement.load(conn)?;
    Ok(counted.first().is_none_or(|count| count.n <= GATHERED_MAX))
}

#[derive(QueryableByName)]
struct Item {
    #[diesel(sql_type = Nullable<Text>)]
    category: Option<String>,
    #[diesel(sql_type = Text)]
    tags: String,
    #[diesel(sql_type = BigInt)]
    price: Amount,
    #[diesel(sql_type = Bool)]
    in_stock: bool,
}

/// How the list is made up, no filter left out. The whole list is known by heart; another is counted, up to a limit.
pub fn counts(conn: &mut Conn, query: &ProductQuery) -> QueryResult<Facets> {
    if is_whole(query) {
        return facet_counts::whole(conn, query.all_variants);
    }
    let select = "SELECT p.category AS category, p.tags AS tags, p.price AS price, p.stock > 0 AS in_stock";
    let Some(mut statement) = from(conn, query, select, true)? else { return Ok(Facets::default()) };
    statement.sql(" LIMIT ").number(i64::try_from(COUNTED_MAX).unwrap_or(i64::MAX));
    let items: Vec<Item> = statement.load(conn)?;
    let (mut categories, mut tags) = (HashMap::<&str, i64>::new(), HashMap::<String, i64>::new());
    let mut facets = Facets { total: i64::try_from(items.len()).unwrap_or(i64::MAX), ..Facets::default() };
    for item in &items {
        if let Some(category) = &item.category {
            *categories.entry(category).or_default() += 1;
        }
        for tag in read::<Vec<String>>(&item.tags) {
            *tags.entry(tag).or_default() += 1;
        }
        facets.min_price = Some(facets.min_price.map_or(item.price, |price| price.min(item.price)));
        facets.max_price = Some(facets.max_price.map_or(item.price, |price| price.max(item.price)));
        facets.in_stock += i64::from(item.in_stock);
    }
    facets.categories = fullest(categories.into_iter().map(|(value, n)| (value.to_owned(), n)), CATEGORIES_MAX);
    facets.tags = fullest(tags.into_iter(), TAGS_MAX);
    Ok(facets)
}

fn fullest(values: impl Iterator<Item = (String, i64)>, max: usize) -> Vec<FacetValue> {
    let mut values: Vec<FacetValue> = values.map(|(value, count)| FacetValue { value, count }).collect();
    values.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    values.truncate(max);
    values
}
