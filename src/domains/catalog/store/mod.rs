//! The catalog's SQL: products here, then stock, search and pictures.
//!
//! Every change of a product goes through [`save`], so that nothing that hangs on it can be forgotten: the search
//! index, the tags, the counts, the sibling that stands for its group, the ledger of stock, the memory, the news.

mod facet_counts;
pub mod images;
pub mod invariants;
pub mod search;
pub mod stock;

use std::collections::{BTreeMap, HashMap};

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::Invalidation;
use super::model::{self, StockMoveReason};
use super::schema::{product, product_tag, stock_move};
use super::{
    BackInStock, CatalogError, ExportPage, ImportOutcome, LowStock, NewProduct, Offer, Product, ProductChanged,
    ProductPatch, Variant,
};
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Prepare, Tx};
use crate::types::{Amount, Currency, FieldError, ProductId, Quantity, Timestamp};
use facet_counts::FacetDelta;

/// How many products one part of an export has.
const EXPORT_PART: usize = 500;

/// Up to how many products are read one by one.
const FEW: usize = 8;

/// What a write job of this domain holds besides its transaction.
#[derive(Clone)]
pub struct WriteScope {
    /// Where it says what it changes.
    pub changes: Invalidation,
    /// At how many pieces left staff are told.
    pub low_stock: Quantity,
}

/// Why stock changes, and what that refers to.
pub type StockReason<'a> = (StockMoveReason, Option<&'a str>);

/// Staff said how many there are.
const STAFF_SET: StockReason<'static> = (StockMoveReason::Set, None);

/// A product as it lies in its table.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = product, primary_key(seq), treat_none_as_null = true)]
pub struct Row {
    pub seq: i64,
    pub id: ProductId,
    pub sku: String,
    pub slug: String,
    pub name: String,
    pub name_key: String,
    pub price: Amount,
    pub currency: Currency,
    pub compare_at_price: Option<Amount>,
    pub stock: Quantity,
    pub category: Option<String>,
    pub group_name: Option<String>,
    pub is_lead: bool,
    pub deleted: bool,
    pub rating_sum: i64,
    pub rating_count: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub tags: String,
    pub options: String,
    pub attributes: String,
    pub description: String,
}

impl Row {
    /// The row with everything of `new` in it.
    fn with(mut self, new: NewProduct) -> Result<Self, CatalogError> {
        self.name_key = model::fold(&new.name);
        self.name = new.name;
        self.sku = new.sku;
        self.price = new.price;
        self.currency = new.currency;
        self.compare_at_price = new.compare_at_price;
        self.stock = new.stock;
        self.category = new.category;
        self.group_name = new.group;
        self.tags = json(&new.tags)?;
        self.options = json(&new.options)?;
        self.attributes = json(&new.attributes)?;
        self.description = new.description;
        Ok(self)
    }

    /// The product in the form it is given in.
    fn new_product(&self) -> NewProduct {
        NewProduct {
            name: self.name.clone(),
            sku: self.sku.clone(),
            description: self.description.clone(),
            price: self.price,
            currency: self.currency,
            stock: self.stock,
            compare_at_price: self.compare_at_price,
            category: self.category.clone(),
            tags: read(&self.tags),
            attributes: read(&self.attributes),
            group: self.group_name.clone(),
            options: read(&self.options),
        }
    }

    fn changed(&self) -> ProductChanged {
        ProductChanged {
            product_id: self.id,
            sku: self.sku.clone(),
            name: self.name.clone(),
            group: self.group_name.clone(),
            price: self.price,
            currency: self.currency,
            stock: self.stock,
            rating: model::rating(self.rating_sum, self.rating_count),
            review_count: self.rating_count,
            deleted: self.deleted,
            updated_at: self.updated_at,
        }
    }

    /// How many a buyer could have had.
    const fn for_sale(&self) -> Quantity {
        if self.deleted { 0 } else { self.stock }
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, CatalogError> {
    serde_json::to_string(value).map_err(|error| {
        log::error!("catalog: a value has no JSON form: {error}");
        CommonError::Internal.into()
    })
}

/// What [`json`] wrote.
fn read<T: Default + DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| {
        log::error!("catalog: a column cannot be read: {error}");
        T::default()
    })
}

/// The row of a product, deleted or not.
pub fn find(conn: &mut Conn, id: ProductId) -> QueryResult<Option<Row>> {
    product::table.filter(product::id.eq(id)).select(Row::as_select()).first(conn).optional()
}

/// The row of a product that is for sale.
fn for_sale(conn: &mut Conn, id: ProductId) -> Result<Row, CatalogError> {
    find(conn, id)?.filter(|row| !row.deleted).ok_or(CatalogError::ProductNotFound)
}

/// Puts a new product in.
pub fn create(tx: &mut Tx<'_>, hand: &WriteScope, new: NewProduct) -> Result<ProductId, CatalogError> {
    let id = ProductId::new();
    let seq: Option<i64> = product::table.select(diesel::dsl::max(product::seq)).first(tx.conn)?;
    let row = Row {
        seq: seq.unwrap_or(0) + 1,
        id,
        sku: String::new(),
        slug: free_slug(tx.conn, &new.name, id)?,
        name: String::new(),
        name_key: String::new(),
        price: 0,
        currency: new.currency,
        compare_at_price: None,
        stock: 0,
        category: None,
        group_name: None,
        is_lead: false,
        deleted: false,
        rating_sum: 0,
        rating_count: 0,
        created_at: tx.now,
        updated_at: tx.now,
        tags: String::new(),
        options: String::new(),
        attributes: String::new(),
        description: String::new(),
    };
    save(tx, hand, None, row.with(new)?, STAFF_SET)?;
    Ok(id)
}

/// A link that no other product has: with more of the id, the more like-named ones there are.
fn free_slug(conn: &mut Conn, name: &str, id: ProductId) -> QueryResult<String> {
    for digits in [4, 6, 8, 12] {
        let slug = model::slug(name, id, digits);
        let taken: i64 = product::table.filter(product::slug.eq(&slug)).count().get_result(conn)?;
        if taken == 0 {
            return Ok(slug);
        }
    }
    Ok(model::slug(name, id, 32))
}

/// Invalidation what is given of a product.
pub fn update(tx: &mut Tx<'_>, hand: &WriteScope, id: ProductId, patch: ProductPatch) -> Result<(), CatalogError> {
    let before = for_sale(tx.conn, id)?;
    let new = model::tidy(model::patched(before.new_product(), patch))?;
    save(tx, hand, Some(&before), before.clone().with(new)?, STAFF_SET)
}

/// Makes a product wholly what is given; its link stays, because others hold it.
pub fn replace(tx: &mut Tx<'_>, hand: &WriteScope, id: ProductId, new: NewProduct) -> Result<(), CatalogError> {
    let before = for_sale(tx.conn, id)?;
    save(tx, hand, Some(&before), before.clone().with(new)?, STAFF_SET)
}

/// Takes a product out of the shop. What was, stays readable.
pub fn delete(tx: &mut Tx<'_>, hand: &WriteScope, id: ProductId) -> Result<(), CatalogError> {
    let before = for_sale(tx.conn, id)?;
    save(tx, hand, Some(&before), Row { deleted: true, ..before.clone() }, STAFF_SET)
}

/// The product's ratings are now these.
pub fn rate(tx: &mut Tx<'_>, hand: &WriteScope, id: ProductId, sum: i64, count: i64) -> Result<(), CatalogError> {
    let Some(before) = find(tx.conn, id)? else { return Ok(()) };
    save(tx, hand, Some(&before), Row { rating_sum: sum, rating_count: count, ..before.clone() }, STAFF_SET)
}

/// The product's pictures are others now: it has changed, though none of its columns has.
pub fn renew(tx: &mut Tx<'_>, hand: &WriteScope, before: &Row) -> Result<(), CatalogError> {
    let updated_at = later(before, tx.now);
    save(tx, hand, Some(before), Row { updated_at, ..before.clone() }, STAFF_SET)
}

/// One row of an import: a product with its sku becomes so, also one that was taken out; else it is new.
///
/// A row is refused by checks that come before anything of it is written, so a refusal leaves nothing to undo.
pub fn import(tx: &mut Tx<'_>, hand: &WriteScope, new: NewProduct) -> Result<ImportOutcome, CatalogError> {
    match bring(tx, hand, new) {
        Err(CatalogError::Common(CommonError::ValidationFailed { errors })) => {
            let reasons: Vec<String> = errors.iter().map(|e| format!("`{}` {}", e.field, e.message)).collect();
            Ok(ImportOutcome::Refused(reasons.join("; ")))
        }
        outcome => outcome,
    }
}

fn bring(tx: &mut Tx<'_>, hand: &WriteScope, new: NewProduct) -> Result<ImportOutcome, CatalogError> {
    let new = model::tidy(new)?;
    let before: Option<Row> =
        product::table.filter(product::sku.eq(&new.sku)).select(Row::as_select()).first(tx.conn).optional()?;
    let Some(before) = before else { return create(tx, hand, new).map(ImportOutcome::Created) };
    let after = Row { deleted: false, ..before.clone() }.with(new)?;
    save(tx, hand, Some(&before), after, STAFF_SET)?;
    Ok(ImportOutcome::Updated(before.id))
}

/// A part of an export.
pub fn export(conn: &mut Conn, after: Option<ProductId>) -> Result<ExportPage, CatalogError> {
    let limit = i64::try_from(EXPORT_PART + 1).unwrap_or(i64::MAX);
    let part = product::table.filter(product::deleted.eq(false)).order(product::id).limit(limit);
    let mut rows: Vec<Row> = match after {
        Some(after) => part.filter(product::id.gt(after)).select(Row::as_select()).load(conn)?,
        None => part.select(Row::as_select()).load(conn)?,
    };
    let more = rows.len() > EXPORT_PART;
    rows.truncate(EXPORT_PART);
    let next = rows.last().filter(|_| more).map(|row| row.id);
    Ok(ExportPage { rows: rows.iter().map(Row::new_product).collect(), next })
}

/// Later than the row, so that of two states of a product the larger time is always the newer.
fn later(before: &Row, now: Timestamp) -> Timestamp {
    now.max(Timestamp::from_micros(before.updated_at.micros() + 1))
}

/// Brings a product from `before` to `after` with everything that hangs on it. Nothing happens when they are equal.
fn save(
    tx: &mut Tx<'_>,
    hand: &WriteScope,
    before: Option<&Row>,
    mut after: Row,
    cause: StockReason<'_>,
) -> Result<(), CatalogError> {
    if before == Some(&after) {
        return Ok(());
    }
    let old_group = before.and_then(|row| row.group_name.clone());
    let new_group = after.group_name.clone();
    if before.is_none_or(|row| row.sku != after.sku) {
        let taken: i64 = product::table.filter(product::sku.eq(&after.sku)).count().get_result(tx.conn)?;
        if taken > 0 {
            return Err(CatalogError::SkuTaken);
        }
    }
    if let (Some(group), true) = (&new_group, old_group != new_group) {
        check_group(tx.conn, group)?;
    }
    after.updated_at = before.map_or(tx.now, |row| later(row, tx.now));
    after.is_lead = !after.deleted
        && match before {
            _ if new_group.is_none() => true,
            Some(row) => row.is_lead && old_group == new_group,
            None => false,
        };

    touch(tx.conn, hand, &after, [&old_group, &new_group])?;
    let stock_alone = before.filter(|row| {
        let with_stock = Row { stock: after.stock, updated_at: after.updated_at, ..Row::clone(row) };
        with_stock == after
    });
    if let Some(before) = stock_alone {
        shift(tx.conn, before, &after)?;
    } else {
        write(tx.conn, before, &after)?;
        index(tx.conn, before, &after)?;
    }
    if stock_alone.is_none_or(|row| (row.stock > 0) != (after.stock > 0)) {
        let mut tally = FacetDelta::default();
        if let Some(row) = before {
            tally.count(row, -1);
        }
        tally.count(&after, 1);
        for group in [&old_group, &new_group].into_iter().flatten() {
            elect(tx.conn, &mut tally, group)?;
        }
        tally.write(tx.conn)?;
    }

    let had = before.map_or(0, |row| row.stock);
    if after.stock != had {
        let (reason, reference) = cause;
        diesel::insert_into(stock_move::table)
            .values((
                stock_move::product_id.eq(after.id),
                stock_move::delta.eq(after.stock - had),
                stock_move::reason.eq(reason.as_str()),
                stock_move::reference.eq(reference),
                stock_move::at.eq(tx.now),
            ))
            .execute(tx.conn)?;
    }
    announce(tx, hand, before, &after)?;
    if let (Some(group), true) = (&old_group, old_group != new_group) {
        // Those left behind have lost a sibling, and only their group tells a reader elsewhere which they are.
        let left: Option<Row> =
            product::table.filter(product::group_name.eq(group)).select(Row::as_select()).first(tx.conn).optional()?;
        if let Some(row) = left {
            tx.emit(&row.changed())?;
        }
    }
    Ok(())
}

/// Whether the group may have one more.
fn check_group(conn: &mut Conn, group: &str) -> Result<(), CatalogError> {
    let siblings: i64 = product::table.filter(product::group_name.eq(group)).count().get_result(conn)?;
    if siblings >= model::GROUP_MAX {
        let message = format!("has {} products already, which is the most", model::GROUP_MAX);
        return Err(FieldError::new("group", "too_many", message).into());
    }
    Ok(())
}

/// Says that the product, and those that show it as their sibling, are no longer what is kept of them.
fn touch(conn: &mut Conn, hand: &WriteScope, row: &Row, groups: [&Option<String>; 2]) -> QueryResult<()> {
    hand.changes.touch(row.id, Some(row.updated_at));
    let [old, new] = groups;
    for group in [old.as_ref(), new.as_ref().filter(|_| old != new)].into_iter().flatten() {
        for id in siblings(conn, group)? {
            hand.changes.touch(id, None);
        }
    }
    Ok(())
}

/// The products of a group, deleted ones too, because they still show it.
pub fn siblings(conn: &mut Conn, group: &str) -> QueryResult<Vec<ProductId>> {
    product::table.filter(product::group_name.eq(group)).select(product::id).load(conn)
}

/// Writes another stock: by far the commonest change, and one that no index must follow. The database has the last
/// word on what is left.
fn shift(conn: &mut Conn, before: &Row, after: &Row) -> Result<(), CatalogError> {
    let delta = after.stock - before.stock;
    let written = diesel::update(product::table.filter(product::seq.eq(after.seq)).filter(product::stock.ge(-delta)))
        .set((product::stock.eq(product::stock + delta), product::updated_at.eq(after.updated_at)))
        .prepared()
        .execute(conn)?;
    if written == 1 { Ok(()) } else { Err(CatalogError::OutOfStock { product_id: after.id, left: before.stock }) }
}

fn write(conn: &mut Conn, before: Option<&Row>, after: &Row) -> QueryResult<()> {
    if before.is_some() {
        diesel::update(product::table.filter(product::seq.eq(after.seq))).set(after).prepared().execute(conn)?;
    } else {
        diesel::insert_into(product::table).values(after).execute(conn)?;
    }
    Ok(())
}

/// Keeps the tags and the search index in step. Products that are not for sale are in neither.
fn index(conn: &mut Conn, before: Option<&Row>, after: &Row) -> QueryResult<()> {
    let listed = before.filter(|row| !row.deleted);
    let lists = Some(after).filter(|row| !row.deleted);
    if listed.map(|row| &row.tags) != lists.map(|row| &row.tags) {
        if let Some(row) = listed {
            let tags: Vec<String> = read(&row.tags);
            diesel::delete(product_tag::table)
                .filter(product_tag::tag.eq_any(tags))
                .filter(product_tag::seq.eq(row.seq))
                .execute(conn)?;
        }
        for tag in lists.map(|row| read::<Vec<String>>(&row.tags)).unwrap_or_default() {
            diesel::insert_into(product_tag::table)
                .values((product_tag::tag.eq(tag), product_tag::seq.eq(after.seq)))
                .execute(conn)?;
        }
    }
    let (was, is) = (listed.map(words), lists.map(words));
    if was == is {
        return Ok(());
    }
    let postgres = conn.is_postgres();
    if was.is_some() {
        let row = if postgres { "seq" } else { "rowid" };
        sql_query(format!("DELETE FROM product_fts WHERE {row} = $1")).bind::<BigInt, _>(after.seq).execute(conn)?;
    }
    is.map_or(Ok(()), |words| index_words(conn, after.seq, words))
}

fn index_words(conn: &mut Conn, seq: i64, words: (&str, String, &str)) -> QueryResult<()> {
    let (name, labels, description) = words;
    if conn.is_postgres() {
        sql_query("INSERT INTO product_fts (seq, document) VALUES ($1, CAST($2 AS tsvector))")
            .bind::<BigInt, _>(seq)
            .bind::<Text, _>(model::ts_vector(name, &labels, description))
            .execute(conn)?;
    } else {
        sql_query("INSERT INTO product_fts (rowid, name, labels, description) VALUES ($1, $2, $3, $4)")
            .bind::<BigInt, _>(seq)
            .bind::<Text, _>(name)
            .bind::<Text, _>(labels)
            .bind::<Text, _>(description)
            .execute(conn)?;
    }
    Ok(())
}

/// Makes the index of words anew, of all products that are for sale. For a server that was just filled.
pub fn index_anew(conn: &mut Conn) -> QueryResult<()> {
    let mut after = 0;
    loop {
        let part = product::table.filter(product::seq.gt(after)).order(product::seq).limit(EXPORT_PART as i64);
        let rows: Vec<Row> = part.select(Row::as_select()).load(conn)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.seq;
        for row in rows.iter().filter(|row| !row.deleted) {
            index_words(conn, row.seq, words(row))?;
        }
    }
}

/// What a product can be found by: its name; its sku, category, tags and options; its description.
fn words(row: &Row) -> (&str, String, &str) {
    let mut labels = vec![row.sku.clone()];
    labels.extend(row.category.clone());
    labels.extend(read::<Vec<String>>(&row.tags));
    labels.extend(read::<BTreeMap<String, String>>(&row.options).into_values());
    (&row.name, labels.join("\n"), &row.description)
}

/// Selection of a group stands for it in lists: the cheapest that can be bought, else the first. [`search`] chooses
/// among those that match a filter by the same order.
const BEST_FIRST: &str = "stock = 0, CASE stock WHEN 0 THEN 0 ELSE price END, seq";

fn elect(conn: &mut Conn, tally: &mut FacetDelta, group: &str) -> QueryResult<()> {
    let best: Option<Row> = product::table
        .filter(product::group_name.eq(group))
        .filter(product::deleted.eq(false))
        .order(diesel::dsl::sql::<Text>(BEST_FIRST))
        .select(Row::as_select())
        .first(conn)
        .optional()?;
    let leads: Vec<Row> = product::table
        .filter(product::group_name.eq(group))
        .filter(product::is_lead.eq(true))
        .select(Row::as_select())
        .load(conn)?;
    let mut lead = |row: &Row, is_lead: bool| {
        tally.count_lead(row, if is_lead { 1 } else { -1 });
        diesel::update(product::table.filter(product::seq.eq(row.seq))).set(product::is_lead.eq(is_lead)).execute(conn)
    };
    for row in leads.iter().filter(|row| best.as_ref().is_none_or(|best| best.seq != row.seq)) {
        lead(row, false)?;
    }
    if let Some(row) = best.filter(|row| !row.is_lead) {
        lead(&row, true)?;
    }
    Ok(())
}

fn announce(tx: &mut Tx<'_>, hand: &WriteScope, before: Option<&Row>, after: &Row) -> QueryResult<()> {
    tx.emit(&after.changed())?;
    let Some(before) = before else { return Ok(()) };
    if after.deleted {
        return Ok(());
    }
    if before.for_sale() == 0 && after.stock > 0 {
        tx.emit(&BackInStock { product_id: after.id, name: after.name.clone(), stock: after.stock })?;
    }
    if model::fell_low(before.for_sale(), after.stock, hand.low_stock) {
        tx.emit(&LowStock {
            product_id: after.id,
            sku: after.sku.clone(),
            name: after.name.clone(),
            stock: after.stock,
        })?;
    }
    Ok(())
}

/// The products in the order asked for, from one moment; unknown ones are left out.
pub fn load(conn: &mut Conn, ids: &[ProductId]) -> QueryResult<Vec<Product>> {
    conn.transaction(|conn| {
        let rows = rows(conn, ids)?;
        let mut groups: Vec<&str> = rows.values().filter_map(|row| row.group_name.as_deref()).collect();
        groups.sort_unstable();
        groups.dedup();
        let mut variants: HashMap<String, Vec<Variant>> = HashMap::new();
        if !groups.is_empty() {
            let siblings: Vec<Row> = product::table
                .filter(product::group_name.eq_any(groups))
                .filter(product::deleted.eq(false))
                .order((product::group_name, product::seq))
                .select(Row::as_select())
                .load(conn)?;
            for row in siblings {
                let variant = Variant {
                    id: row.id,
                    sku: row.sku,
                    name: row.name,
                    options: read(&row.options),
                    price: row.price,
                    compare_at_price: row.compare_at_price,
                    currency: row.currency,
                    stock: row.stock,
                };
                variants.entry(row.group_name.unwrap_or_default()).or_default().push(variant);
            }
        }
        let mut images = images::of(conn, ids)?;
        let product = |row: &Row| Product {
            id: row.id,
            name: row.name.clone(),
            sku: row.sku.clone(),
            slug: row.slug.clone(),
            description: row.description.clone(),
            price: row.price,
            currency: row.currency,
            compare_at_price: row.compare_at_price,
            stock: row.stock,
            category: row.category.clone(),
            tags: read(&row.tags),
            attributes: read(&row.attributes),
            group: row.group_name.clone(),
            options: read(&row.options),
            variants: row.group_name.as_ref().and_then(|group| variants.get(group)).cloned().unwrap_or_default(),
            images: images.remove(&row.id).unwrap_or_default(),
            rating: model::rating(row.rating_sum, row.rating_count),
            review_count: row.rating_count,
            deleted: row.deleted,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok(ids.iter().filter_map(|id| rows.get(id)).map(product).collect())
    })
}

/// The product as a writer just left it.
pub fn one(conn: &mut Conn, id: ProductId) -> Result<Product, CatalogError> {
    load(conn, &[id])?.pop().ok_or(CatalogError::ProductNotFound)
}

/// Cuts a few ids into single ones: only SQL of a fixed text is kept prepared, and preparing costs more than a few
/// steps of it.
fn one_by_one(ids: &[ProductId]) -> std::slice::Chunks<'_, ProductId> {
    ids.chunks(if ids.len() <= FEW { 1 } else { ids.len() })
}

fn rows(conn: &mut Conn, ids: &[ProductId]) -> QueryResult<HashMap<ProductId, Row>> {
    let mut rows = Vec::with_capacity(ids.len());
    for few in one_by_one(ids) {
        match few {
            [id] => rows.extend(find(conn, *id)?),
            _ => rows.extend(product::table.filter(product::id.eq_any(few)).select(Row::as_select()).load(conn)?),
        }
    }
    Ok(rows.into_iter().map(|row: Row| (row.id, row)).collect())
}

/// The offers of these rows.
fn offers_of(conn: &mut Conn, rows: Vec<Row>) -> QueryResult<Vec<Offer>> {
    let ids: Vec<ProductId> = rows.iter().map(|row| row.id).collect();
    let images = images::of(conn, &ids)?;
    let offer = |row: Row| Offer {
        product_id: row.id,
        name: model::offer_name(&row.name, &read(&row.options)),
        sku: row.sku,
        slug: row.slug,
        price: row.price,
        currency: row.currency,
        stock: row.stock,
        deleted: row.deleted,
        image: images.get(&row.id).and_then(|images| images.first()).map(model::smallest),
    };
    Ok(rows.into_iter().map(offer).collect())
}
