//! SQL of the catalog: changes of products here; reads, stock, search, images and facet counts in their own files.
//!
//! Invariant: every change of a product goes through [`save_product`], which keeps in step whatever depends on a product:
//! the search index, the tags, the facet counts, the lead of its group, the stock ledger, the cache and the events.

mod facet_counts;
pub mod images;
pub mod import;
pub mod invariants;
mod load;
pub mod search;
mod search_index;
pub mod stock;

use diesel::sql_types::Text;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::Invalidation;
use super::model::{self, StockMoveReason};
use super::schema::{product, stock_move};
use super::{
    BackInStock, CatalogError, ExportPage, LowStock, NewProduct, ProductChanged, ProductPatch, UNCOUNTED_STOCK,
    text_search,
};
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Prepare, Tx};
use crate::types::{Amount, Currency, FieldError, ProductId, Quantity, Timestamp};
use facet_counts::FacetDelta;
pub use load::{get, load};
use load::{offers_of, query_chunks};
use search_index::update_search_index;
pub use search_index::{is_rebuild_pending, rebuild_search_index, rebuild_some};

/// Products per page of an export.
const EXPORT_PAGE_SIZE: usize = 500;

/// State of a write job besides its transaction.
#[derive(Clone)]
pub struct WriteScope {
    /// Cache entries that the job invalidates.
    pub changes: Invalidation,
    /// Stock level, in items, at or below which [`LowStock`] is emitted.
    pub low_stock: Quantity,
}

/// Reason of a stock move.
#[derive(Debug, Clone, Copy)]
pub struct StockReason<'a> {
    /// Kind of the move.
    pub kind: StockMoveReason,
    /// Id of the hold it belongs to.
    pub hold: Option<&'a str>,
    /// Note of staff.
    pub note: Option<&'a str>,
}

impl<'a> StockReason<'a> {
    /// A move for a hold.
    const fn of_hold(kind: StockMoveReason, hold: &'a str) -> Self {
        Self { kind, hold: Some(hold), note: None }
    }
}

/// Stock set by staff or an import.
const STAFF_SET: StockReason<'static> = StockReason { kind: StockMoveReason::Set, hold: None, note: None };

/// A row of `product`.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = product, primary_key(seq), treat_none_as_null = true)]
pub struct ProductRow {
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
    pub track_stock: bool,
    pub source_key: Option<String>,
}

impl ProductRow {
    /// Replaces all client-set fields by those of `new`. Both sides are destructured, so that a field that is added to
    /// a product and forgotten here does not compile.
    fn with(self, new: NewProduct) -> Result<Self, CatalogError> {
        let NewProduct {
            name,
            sku,
            description,
            price,
            currency,
            stock,
            track_stock,
            compare_at_price,
            category,
            tags,
            attributes,
            group,
            options,
        } = new;
        Ok(Self {
            name_key: text_search::sort_key(&name),
            name,
            sku,
            description,
            price,
            currency,
            stock,
            track_stock,
            compare_at_price,
            category,
            tags: to_json(&tags)?,
            attributes: to_json(&attributes)?,
            group_name: group,
            options: to_json(&options)?,
            ..self
        })
    }

    /// The client-set fields of the row.
    fn new_product(&self) -> NewProduct {
        NewProduct {
            name: self.name.clone(),
            sku: self.sku.clone(),
            description: self.description.clone(),
            price: self.price,
            currency: self.currency,
            stock: self.stock,
            track_stock: self.track_stock,
            compare_at_price: self.compare_at_price,
            category: self.category.clone(),
            tags: from_json(&self.tags),
            attributes: from_json(&self.attributes),
            group: self.group_name.clone(),
            options: from_json(&self.options),
        }
    }

    fn to_changed_event(&self) -> ProductChanged {
        ProductChanged {
            product_id: self.id,
            sku: self.sku.clone(),
            name: self.name.clone(),
            group: self.group_name.clone(),
            price: self.price,
            currency: self.currency,
            stock: self.shown_stock(),
            rating: model::rating(self.rating_sum, self.rating_count),
            review_count: self.rating_count,
            deleted: self.deleted,
            updated_at: self.updated_at,
        }
    }

    /// Stock as others see it: of a product that is not counted, what it has of its large figure left says nothing.
    const fn shown_stock(&self) -> Quantity {
        if self.track_stock { self.stock } else { UNCOUNTED_STOCK }
    }

    /// Items a buyer can order: none of a deleted product.
    const fn available(&self) -> Quantity {
        if self.deleted { 0 } else { self.stock }
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String, CatalogError> {
    serde_json::to_string(value).map_err(|error| {
        log::error!("catalog: encoding a column as JSON failed: {error}");
        CommonError::Internal.into()
    })
}

/// Decodes a column written by [`to_json`]; the default for one that cannot be decoded, which is logged.
fn from_json<T: Default + DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| {
        log::error!("catalog: decoding a JSON column failed: {error}");
        T::default()
    })
}

/// Finds the row of a product, deleted or not.
pub fn find(conn: &mut Conn, id: ProductId) -> QueryResult<Option<ProductRow>> {
    product::table.filter(product::id.eq(id)).select(ProductRow::as_select()).first(conn).optional()
}

/// Finds the row of a product that is not deleted.
///
/// # Errors
/// `ProductNotFound`.
fn find_for_sale(conn: &mut Conn, id: ProductId) -> Result<ProductRow, CatalogError> {
    find(conn, id)?.filter(|row| !row.deleted).ok_or(CatalogError::ProductNotFound)
}

/// Inserts a product.
///
/// # Errors
/// `SkuTaken`, or the group is full.
pub fn create(tx: &mut Tx<'_>, scope: &WriteScope, new: NewProduct) -> Result<ProductId, CatalogError> {
    let row = create_row(tx, &new)?;
    let id = row.id;
    save_product(tx, scope, None, row.with(new)?, STAFF_SET)?;
    Ok(id)
}

/// The row of a new product with its id and slug, and none of the fields that clients set.
fn create_row(tx: &mut Tx<'_>, new: &NewProduct) -> Result<ProductRow, CatalogError> {
    let id = ProductId::new();
    let seq: Option<i64> = product::table.select(diesel::dsl::max(product::seq)).first(tx.conn)?;
    Ok(ProductRow {
        seq: seq.unwrap_or(0) + 1,
        id,
        sku: String::new(),
        slug: unique_slug(tx.conn, &new.name, id)?,
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
        track_stock: true,
        source_key: None,
    })
}

/// A slug that no other product has, with more digits of the id as more products share the name.
fn unique_slug(conn: &mut Conn, name: &str, id: ProductId) -> QueryResult<String> {
    for digits in [4, 6, 8, 12] {
        let slug = model::slug(name, id, digits);
        let taken: i64 = product::table.filter(product::slug.eq(&slug)).count().get_result(conn)?;
        if taken == 0 {
            return Ok(slug);
        }
    }
    Ok(model::slug(name, id, 32))
}

/// Applies a patch to a product.
///
/// # Errors
/// `ProductNotFound`, `SkuTaken`, or the patched product is invalid.
pub fn update(tx: &mut Tx<'_>, scope: &WriteScope, id: ProductId, patch: ProductPatch) -> Result<(), CatalogError> {
    let before = find_for_sale(tx.conn, id)?;
    let new = model::normalize(model::apply_patch(before.new_product(), patch)?)?;
    save_product(tx, scope, Some(&before), before.clone().with(new)?, STAFF_SET)
}

/// Replaces all client-set fields of a product. The slug stays, because links to it exist.
///
/// # Errors
/// `ProductNotFound`, `SkuTaken`, or the group is full.
pub fn replace(tx: &mut Tx<'_>, scope: &WriteScope, id: ProductId, new: NewProduct) -> Result<(), CatalogError> {
    let before = find_for_sale(tx.conn, id)?;
    save_product(tx, scope, Some(&before), before.clone().with(new)?, STAFF_SET)
}

/// Marks a product as deleted; its row stays readable.
///
/// # Errors
/// `ProductNotFound`.
pub fn delete(tx: &mut Tx<'_>, scope: &WriteScope, id: ProductId) -> Result<(), CatalogError> {
    let before = find_for_sale(tx.conn, id)?;
    save_product(tx, scope, Some(&before), ProductRow { deleted: true, ..before.clone() }, STAFF_SET)
}

/// Sets the rating sums of a product; unknown products are ignored.
pub fn set_rating(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    id: ProductId,
    sum: i64,
    count: i64,
) -> Result<(), CatalogError> {
    let Some(before) = find(tx.conn, id)? else { return Ok(()) };
    save_product(
        tx,
        scope,
        Some(&before),
        ProductRow { rating_sum: sum, rating_count: count, ..before.clone() },
        STAFF_SET,
    )
}

/// Advances `updated_at` of a product whose images changed although none of its columns did.
pub fn touch_updated_at(tx: &mut Tx<'_>, scope: &WriteScope, before: &ProductRow) -> Result<(), CatalogError> {
    let updated_at = next_updated_at(before, tx.now);
    save_product(tx, scope, Some(before), ProductRow { updated_at, ..before.clone() }, STAFF_SET)
}

/// Reads a page of an export, by id.
pub fn export(conn: &mut Conn, after: Option<ProductId>) -> Result<ExportPage, CatalogError> {
    let limit = i64::try_from(EXPORT_PAGE_SIZE + 1).unwrap_or(i64::MAX);
    let page = product::table.filter(product::deleted.eq(false)).order(product::id).limit(limit);
    let mut rows: Vec<ProductRow> = match after {
        Some(after) => page.filter(product::id.gt(after)).select(ProductRow::as_select()).load(conn)?,
        None => page.select(ProductRow::as_select()).load(conn)?,
    };
    let more = rows.len() > EXPORT_PAGE_SIZE;
    rows.truncate(EXPORT_PAGE_SIZE);
    let next = rows.last().filter(|_| more).map(|row| row.id);
    Ok(ExportPage { rows: rows.iter().map(ProductRow::new_product).collect(), next })
}

/// A time after the row's, so that of two states of a product the one with the later time is the newer.
fn next_updated_at(before: &ProductRow, now: Timestamp) -> Timestamp {
    now.max(Timestamp::from_micros(before.updated_at.micros() + 1))
}

/// Writes the change of a product from `before` to `after` and of everything that depends on it. A no-op when equal.
fn save_product(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    before: Option<&ProductRow>,
    mut after: ProductRow,
    reason: StockReason<'_>,
) -> Result<(), CatalogError> {
    if before == Some(&after) {
        return Ok(());
    }
    let old_group = before.and_then(|row| row.group_name.clone());
    let new_group = after.group_name.clone();
    if before.is_none_or(|row| row.sku != after.sku) && sku_is_taken(tx.conn, &after.sku)? {
        return Err(CatalogError::SkuTaken);
    }
    if let (Some(group), true) = (&new_group, old_group != new_group) {
        check_group(tx.conn, group)?;
    }
    after.updated_at = before.map_or(tx.now, |row| next_updated_at(row, tx.now));
    after.is_lead = !after.deleted
        && match before {
            _ if new_group.is_none() => true,
            Some(row) => row.is_lead && old_group == new_group,
            None => false,
        };

    write_product(tx, scope, before, &after, [&old_group, &new_group])?;
    write_stock_move(tx, before, &after, reason)?;
    emit_changes(tx, scope, before, &after)?;
    if let (Some(group), true) = (&old_group, old_group != new_group) {
        emit_group_change(tx, group)?;
    }
    Ok(())
}

/// Whether a product, deleted ones included, has the SKU.
fn sku_is_taken(conn: &mut Conn, sku: &str) -> QueryResult<bool> {
    let taken: i64 = product::table.filter(product::sku.eq(sku)).count().get_result(conn)?;
    Ok(taken > 0)
}

/// Writes the row of a product, its search index, the facet counts and the leads of its groups.
fn write_product(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    before: Option<&ProductRow>,
    after: &ProductRow,
    groups: [&Option<String>; 2],
) -> Result<(), CatalogError> {
    mark_changed(tx.conn, scope, after, groups)?;
    let stock_only = before.filter(|row| {
        let with_stock = ProductRow { stock: after.stock, updated_at: after.updated_at, ..ProductRow::clone(row) };
        with_stock == *after
    });
    if let Some(before) = stock_only {
        update_stock_only(tx.conn, before, after)?;
    } else {
        write_row(tx.conn, before, after)?;
        update_search_index(tx.conn, before, after)?;
    }
    if stock_only.is_none_or(|row| (row.stock > 0) != (after.stock > 0)) {
        let mut delta = FacetDelta::default();
        if let Some(row) = before {
            delta.count(row, -1);
        }
        delta.count(after, 1);
        for group in groups.into_iter().flatten() {
            choose_group_lead(tx.conn, &mut delta, group)?;
        }
        delta.write(tx.conn)?;
    }
    Ok(())
}

/// Records the difference between the stock of `before`, 0 for a new product, and of `after`.
fn write_stock_move(
    tx: &mut Tx<'_>,
    before: Option<&ProductRow>,
    after: &ProductRow,
    reason: StockReason<'_>,
) -> QueryResult<()> {
    let delta = after.stock - before.map_or(0, |row| row.stock);
    if delta != 0 {
        diesel::insert_into(stock_move::table)
            .values((
                stock_move::product_id.eq(after.id),
                stock_move::delta.eq(delta),
                stock_move::reason.eq(reason.kind),
                stock_move::reference.eq(reason.hold),
                stock_move::at.eq(tx.now),
                stock_move::note.eq(reason.note),
            ))
            .execute(tx.conn)?;
    }
    Ok(())
}

/// Emits a change of one product of a group that has lost another: one event with the group's name lets other processes
/// invalidate all of the group.
fn emit_group_change(tx: &mut Tx<'_>, group: &str) -> Result<(), CatalogError> {
    let remaining: Option<ProductRow> = product::table
        .filter(product::group_name.eq(group))
        .select(ProductRow::as_select())
        .first(tx.conn)
        .optional()?;
    if let Some(row) = remaining {
        tx.emit(&row.to_changed_event())?;
    }
    Ok(())
}

/// Checks that the group may have one more product.
///
/// # Errors
/// `group` is full.
fn check_group(conn: &mut Conn, group: &str) -> Result<(), CatalogError> {
    let siblings: i64 = product::table.filter(product::group_name.eq(group)).count().get_result(conn)?;
    if siblings >= model::GROUP_MAX {
        let message = format!("has {} products already, which is the most", model::GROUP_MAX);
        return Err(FieldError::new("group", "too_many", message).into());
    }
    Ok(())
}

/// Invalidates the cache entries of a product and of the products that show it as a variant.
fn mark_changed(
    conn: &mut Conn,
    scope: &WriteScope,
    row: &ProductRow,
    groups: [&Option<String>; 2],
) -> QueryResult<()> {
    scope.changes.mark(row.id, Some(row.updated_at));
    let [old, new] = groups;
    for group in [old.as_ref(), new.as_ref().filter(|_| old != new)].into_iter().flatten() {
        for id in siblings(conn, group)? {
            scope.changes.mark(id, None);
        }
    }
    Ok(())
}

/// Ids of the products of a group, deleted ones included, because they show the others as variants.
pub fn siblings(conn: &mut Conn, group: &str) -> QueryResult<Vec<ProductId>> {
    product::table.filter(product::group_name.eq(group)).select(product::id).load(conn)
}

/// Writes a change of stock alone: by far the most frequent change, and one that affects no index. The condition in the
/// statement keeps stock from becoming negative.
fn update_stock_only(conn: &mut Conn, before: &ProductRow, after: &ProductRow) -> Result<(), CatalogError> {
    let delta = after.stock - before.stock;
    let written = diesel::update(product::table.filter(product::seq.eq(after.seq)).filter(product::stock.ge(-delta)))
        .set((product::stock.eq(product::stock + delta), product::updated_at.eq(after.updated_at)))
        .prepared()
        .execute(conn)?;
    if written == 1 { Ok(()) } else { Err(CatalogError::OutOfStock { product_id: after.id, left: before.stock }) }
}

fn write_row(conn: &mut Conn, before: Option<&ProductRow>, after: &ProductRow) -> QueryResult<()> {
    if before.is_some() {
        diesel::update(product::table.filter(product::seq.eq(after.seq))).set(after).prepared().execute(conn)?;
    } else {
        diesel::insert_into(product::table).values(after).execute(conn)?;
    }
    Ok(())
}

/// Order by which the lead of a group is chosen: the cheapest in stock, else the first. [`search`] applies the same order
/// to the products that match a filter.
const BEST_FIRST: &str = "stock = 0, CASE stock WHEN 0 THEN 0 ELSE price END, seq";

fn choose_group_lead(conn: &mut Conn, delta: &mut FacetDelta, group: &str) -> QueryResult<()> {
    let best: Option<ProductRow> = product::table
        .filter(product::group_name.eq(group))
        .filter(product::deleted.eq(false))
        .order(diesel::dsl::sql::<Text>(BEST_FIRST))
        .select(ProductRow::as_select())
        .first(conn)
        .optional()?;
    let leads: Vec<ProductRow> = product::table
        .filter(product::group_name.eq(group))
        .filter(product::is_lead.eq(true))
        .select(ProductRow::as_select())
        .load(conn)?;
    let mut lead = |row: &ProductRow, is_lead: bool| {
        delta.count_group_lead(row, if is_lead { 1 } else { -1 });
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

fn emit_changes(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    before: Option<&ProductRow>,
    after: &ProductRow,
) -> QueryResult<()> {
    tx.emit(&after.to_changed_event())?;
    let Some(before) = before else { return Ok(()) };
    if after.deleted {
        return Ok(());
    }
    if before.available() == 0 && after.stock > 0 {
        let stock = after.shown_stock();
        tx.emit(&BackInStock { product_id: after.id, name: after.name.clone(), stock })?;
    }
    if model::crossed_low_stock(before.available(), after.stock, scope.low_stock) {
        tx.emit(&LowStock {
            product_id: after.id,
            sku: after.sku.clone(),
            name: after.name.clone(),
            stock: after.stock,
        })?;
    }
    Ok(())
}
