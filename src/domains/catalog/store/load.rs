//! SQL that reads whole products and offers.

use std::collections::HashMap;

use super::{ProductRow, find, from_json, images};
use crate::contract::catalog::{CatalogError, Offer, Product, Variant};
use crate::domains::catalog::model;
use crate::domains::catalog::schema::product;
use crate::store::Conn;
use crate::store::query::*;
use crate::types::ProductId;

/// Number of products up to which each is read by a query of its own.
const SINGLE_QUERIES_MAX: usize = 8;

/// Loads products in the given order from one snapshot; unknown ids are left out.
pub fn load(conn: &mut Conn, ids: &[ProductId]) -> QueryResult<Vec<Product>> {
    conn.transaction(|conn| {
        let rows = rows(conn, ids)?;
        let mut groups: Vec<&str> = rows.values().filter_map(|row| row.group_name.as_deref()).collect();
        groups.sort_unstable();
        groups.dedup();
        let mut variants: HashMap<String, Vec<Variant>> = HashMap::new();
        if !groups.is_empty() {
            let siblings: Vec<ProductRow> = product::table
                .filter(product::group_name.eq_any(groups))
                .filter(product::deleted.eq(false))
                .order((product::group_name, product::seq))
                .select(ProductRow::as_select())
                .load(conn)?;
            for row in siblings {
                let stock = row.shown_stock();
                let variant = Variant {
                    id: row.id,
                    sku: row.sku,
                    name: row.name,
                    options: from_json(&row.options),
                    price: row.price,
                    compare_at_price: row.compare_at_price,
                    currency: row.currency,
                    stock,
                };
                variants.entry(row.group_name.unwrap_or_default()).or_default().push(variant);
            }
        }
        let mut images = images::by_product(conn, ids)?;
        let product = |row: &ProductRow| Product {
            id: row.id,
            name: row.name.clone(),
            sku: row.sku.clone(),
            slug: row.slug.clone(),
            description: row.description.clone(),
            price: row.price,
            currency: row.currency,
            compare_at_price: row.compare_at_price,
            stock: row.shown_stock(),
            track_stock: row.track_stock,
            category: row.category.clone(),
            tags: from_json(&row.tags),
            attributes: from_json(&row.attributes),
            group: row.group_name.clone(),
            options: from_json(&row.options),
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

/// Loads one product.
///
/// # Errors
/// `ProductNotFound`.
pub fn get(conn: &mut Conn, id: ProductId) -> Result<Product, CatalogError> {
    load(conn, &[id])?.pop().ok_or(CatalogError::ProductNotFound)
}

/// Splits a few ids into single ones, because only SQL of fixed text stays prepared, and preparing costs more than a few
/// executions.
pub(super) fn query_chunks(ids: &[ProductId]) -> std::slice::Chunks<'_, ProductId> {
    ids.chunks(if ids.len() <= SINGLE_QUERIES_MAX { 1 } else { ids.len() })
}

fn rows(conn: &mut Conn, ids: &[ProductId]) -> QueryResult<HashMap<ProductId, ProductRow>> {
    let mut rows = Vec::with_capacity(ids.len());
    for chunk in query_chunks(ids) {
        match chunk {
            [id] => rows.extend(find(conn, *id)?),
            _ => rows
                .extend(product::table.filter(product::id.eq_any(chunk)).select(ProductRow::as_select()).load(conn)?),
        }
    }
    Ok(rows.into_iter().map(|row: ProductRow| (row.id, row)).collect())
}

/// Builds the offers of rows, with their images.
pub(super) fn offers_of(conn: &mut Conn, rows: Vec<ProductRow>) -> QueryResult<Vec<Offer>> {
    let ids: Vec<ProductId> = rows.iter().map(|row| row.id).collect();
    let images = images::by_product(conn, &ids)?;
    let offer = |row: ProductRow| Offer {
        product_id: row.id,
        name: model::display_name(&row.name, &from_json(&row.options)),
        stock: row.shown_stock(),
        sku: row.sku,
        slug: row.slug,
        price: row.price,
        currency: row.currency,
        deleted: row.deleted,
        image: images.get(&row.id).and_then(|images| images.first()).map(model::smallest_url),
    };
    Ok(rows.into_iter().map(offer).collect())
}
