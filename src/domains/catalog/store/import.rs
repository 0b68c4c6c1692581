//! Import of products: which product a row is about, what it changes, and the change itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{ProductRow, STAFF_SET, WriteScope, create_row, save_product, sku_is_taken};
use crate::contract::catalog::{CatalogError, ImportOutcome, ImportRow, NewProduct, ProductPatch};
use crate::domains::catalog::model;
use crate::domains::catalog::schema::product;
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Tx};
use crate::types::{FieldError, ProductId, hex};

/// Fields that a row must not empty by accident: orders and customers go by them.
const NOT_EMPTIED: [&str; 5] = ["stock", "description", "category", "tags", "attributes"];

/// Effect of a row.
enum Plan {
    Create(Box<NewProduct>),
    Update { before: Box<ProductRow>, after: Box<ProductRow>, fields: Vec<String> },
    Nothing(ImportOutcome),
}

/// Imports one row.
///
/// A row is refused before anything of it is written, so a refusal leaves nothing to undo.
///
/// # Errors
/// Those of the database.
pub fn import(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    row: ImportRow,
    overwrite: bool,
) -> Result<ImportOutcome, CatalogError> {
    let source_key = row.source_key.clone();
    let write = || match plan(tx.conn, row, overwrite)? {
        Plan::Nothing(outcome) => Ok(outcome),
        Plan::Create(new) => {
            let row = create_row(tx, &new)?;
            let id = row.id;
            save_product(tx, scope, None, ProductRow { source_key, ..row.with(*new)? }, STAFF_SET)?;
            Ok(ImportOutcome::Created(id))
        }
        Plan::Update { before, after, fields } => {
            save_product(tx, scope, Some(&before), *after, STAFF_SET)?;
            Ok(ImportOutcome::Updated { product_id: before.id, fields })
        }
    };
    refused(write())
}

/// Returns what [`import`] would do.
///
/// # Errors
/// Those of the database.
pub fn preview(conn: &mut Conn, row: ImportRow, overwrite: bool) -> Result<ImportOutcome, CatalogError> {
    refused(plan(conn, row, overwrite).map(|plan| match plan {
        Plan::Nothing(outcome) => outcome,
        Plan::Create(_) => ImportOutcome::Created(ProductId::new()),
        Plan::Update { before, fields, .. } => ImportOutcome::Updated { product_id: before.id, fields },
    }))
}

/// Turns the errors of a row into its outcome.
fn refused(result: Result<ImportOutcome, CatalogError>) -> Result<ImportOutcome, CatalogError> {
    match result {
        Err(CatalogError::Common(CommonError::ValidationFailed { errors })) => {
            let reasons: Vec<String> = errors.iter().map(|e| format!("`{}` {}", e.field, e.message)).collect();
            Ok(ImportOutcome::Refused(reasons.join("; ")))
        }
        Err(error @ CatalogError::SkuTaken) => Ok(ImportOutcome::Refused(error.to_string())),
        outcome => outcome,
    }
}

fn plan(conn: &mut Conn, row: ImportRow, overwrite: bool) -> Result<Plan, CatalogError> {
    let ImportRow { source_key, mut fields, defaults, withdrawn } = row;
    let Some(before) = locate(conn, source_key.as_deref(), &fields)? else {
        if withdrawn {
            return Ok(Plan::Nothing(ImportOutcome::LeftOut));
        }
        let mut new = model::normalize(new_product(defaults, fields)?)?;
        if let Some(key) = source_key.as_deref() {
            new.sku = free_sku(conn, new.sku, &new.options, key)?;
        }
        return Ok(Plan::Create(Box::new(new)));
    };
    if withdrawn {
        return Ok(withdraw(before));
    }
    if before.deleted && !overwrite {
        let reason = "the product was deleted in this shop; it comes back with --overwrite";
        return Ok(Plan::Nothing(ImportOutcome::Refused(reason.to_owned())));
    }
    check_currency(&before, &fields, &defaults)?;
    // Where the file is from, another product may have the same SKU; this one keeps the one it has here.
    if let (Some(sku), true) = (&fields.sku, source_key.is_some())
        && *sku != before.sku
        && sku_is_taken(conn, sku.trim())?
    {
        fields.sku = None;
    }
    let old = before.new_product();
    let new = model::normalize(model::apply_patch(old.clone(), fields)?)?;
    let changes = changes(&old, &new);
    let emptied: Vec<&String> = changes.iter().filter(|(_, is_emptied)| *is_emptied).map(|(name, _)| name).collect();
    if !emptied.is_empty() && !overwrite {
        return Ok(Plan::Nothing(ImportOutcome::Refused(would_empty(&before, &emptied))));
    }
    let mut fields: Vec<String> = changes.into_iter().map(|(name, _)| name).collect();
    if before.deleted {
        fields.push("deleted".to_owned());
    }
    let adopted = source_key.is_some() && before.source_key != source_key;
    if fields.is_empty() && !adopted {
        return Ok(Plan::Nothing(ImportOutcome::Unchanged(before.id)));
    }
    let source_key = source_key.or_else(|| before.source_key.clone());
    let after = ProductRow { deleted: false, source_key, ..before.clone() }.with(new)?;
    Ok(Plan::Update { before: Box::new(before), after: Box::new(after), fields })
}

/// Finds the product of a row: the one with its source key, or else the one with its SKU that has no key of its own yet.
fn locate(conn: &mut Conn, source_key: Option<&str>, fields: &ProductPatch) -> QueryResult<Option<ProductRow>> {
    if let Some(key) = source_key {
        let found = product::table.filter(product::source_key.eq(key)).select(ProductRow::as_select());
        if let Some(row) = found.first(conn).optional()? {
            return Ok(Some(row));
        }
    }
    let Some(sku) = fields.sku.as_deref().map(str::trim) else { return Ok(None) };
    let found = product::table.filter(product::sku.eq(sku)).select(ProductRow::as_select()).first(conn).optional()?;
    Ok(found.filter(|row: &ProductRow| {
        let options: BTreeMap<String, String> = super::from_json(&row.options);
        let same_variant = options.is_empty() || fields.options.as_ref().is_none_or(|given| *given == options);
        source_key.is_none() || (row.source_key.is_none() && same_variant)
    }))
}

/// Takes a product from sale.
fn withdraw(before: ProductRow) -> Plan {
    if before.deleted {
        return Plan::Nothing(ImportOutcome::LeftOut);
    }
    let after = ProductRow { deleted: true, ..before.clone() };
    Plan::Update { before: Box::new(before), after: Box::new(after), fields: vec!["deleted".to_owned()] }
}

/// Builds a new product from the fields of a row and the values for what it leaves out.
fn new_product(defaults: ProductPatch, fields: ProductPatch) -> Result<NewProduct, CatalogError> {
    let currency = fields.currency.or(defaults.currency);
    let (Some(_), Some(currency)) = (fields.price, currency) else {
        return Err(FieldError::new("price", "required", "must be given for a new product").into());
    };
    let blank = NewProduct {
        name: String::new(),
        sku: String::new(),
        description: String::new(),
        price: 0,
        currency,
        stock: 0,
        track_stock: true,
        compare_at_price: None,
        category: None,
        tags: Vec::new(),
        attributes: BTreeMap::new(),
        group: None,
        options: BTreeMap::new(),
    };
    Ok(model::apply_patch(model::apply_patch(blank, defaults)?, fields)?)
}

/// Checks that prices without a currency are meant in that of the product.
fn check_currency(before: &ProductRow, fields: &ProductPatch, defaults: &ProductPatch) -> Result<(), CatalogError> {
    let assumed = defaults.currency.filter(|_| fields.currency.is_none() && fields.price.is_some());
    match assumed {
        Some(assumed) if assumed != before.currency => {
            let message = format!(
                "is missing: the price would be read as {assumed}, and the product is sold in {}",
                before.currency
            );
            Err(FieldError::new("currency", "required", message).into())
        }
        _ => Ok(()),
    }
}

/// Names of the fields that differ, each with whether the new value is empty.
fn changes(old: &NewProduct, new: &NewProduct) -> Vec<(String, bool)> {
    let fields = |product: &NewProduct| match serde_json::to_value(product) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))).collect();
    names.retain(|name| old.get(*name) != new.get(*name));
    // A product that is not counted any more has another stock, which no file has set.
    let uncounted = new.get("track_stock") == Some(&Value::Bool(false));
    names.retain(|name| *name != "stock" || !uncounted);
    let is_emptied = |name: &String| {
        NOT_EMPTIED.contains(&name.as_str()) && new.get(name).is_none_or(|value| *value == 0 || *value == "")
    };
    names.into_iter().map(|name| (name.clone(), is_emptied(name))).collect()
}

fn would_empty(before: &ProductRow, emptied: &[&String]) -> String {
    let of_field = |name: &&String| match name.as_str() {
        "stock" => format!("set `stock` from {} to 0", before.stock),
        other => format!("empty `{other}`"),
    };
    let parts: Vec<String> = emptied.iter().map(of_field).collect();
    format!("would {}; it does with --overwrite", parts.join(" and "))
}

/// The SKU of the source if no product here has it; else one made of it and the options, as several variants may share
/// the number of their style; else one that also depends on the source key.
fn free_sku(
    conn: &mut Conn,
    sku: String,
    options: &BTreeMap<String, String>,
    source_key: &str,
) -> Result<String, CatalogError> {
    if !sku_is_taken(conn, &sku)? {
        return Ok(sku);
    }
    if !options.is_empty() {
        let with_options = model::variant_sku(&sku, options.values().map(String::as_str));
        if !sku_is_taken(conn, &with_options)? {
            return Ok(with_options);
        }
    }
    let hash = hex(&Sha256::digest(source_key));
    let made = model::variant_sku(&sku, hash.get(..8).into_iter());
    if sku_is_taken(conn, &made)? { Err(CatalogError::SkuTaken) } else { Ok(made) }
}
