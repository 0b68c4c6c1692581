//! Import and export of products in bulk.

use serde::{Deserialize, Serialize};

use super::{CatalogError, NewProduct, ProductPatch};
use crate::types::ProductId;

/// Creates or updates products. Each row succeeds or fails on its own.
///
/// A row is about the product with its `source_key`, or else the one with its SKU. Fields that it leaves out stay as they
/// are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportProducts {
    /// Products, at most 1,000.
    pub rows: Vec<ImportRow>,
    /// Whether rows may empty stock and texts of existing products and bring deleted ones back. If not, such rows are
    /// refused.
    #[serde(default)]
    pub overwrite: bool,
    /// Whether nothing is written, and the outcomes say what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// A product as a file from somewhere describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportRow {
    /// Identity of the product in the system that the file is from, such as `shopify:teapot|Color=Red`: there, an SKU may
    /// change, be missing, or belong to several products. At most 255 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_key: Option<String>,
    /// Fields that the file has.
    pub fields: ProductPatch,
    /// Values for a new product of fields that the file does not have.
    #[serde(default)]
    pub defaults: ProductPatch,
    /// Whether the file says that the product is not for sale: an existing one is deleted, and none is created.
    #[serde(default)]
    pub withdrawn: bool,
}

impl From<NewProduct> for ImportRow {
    /// The row with all fields of a product.
    fn from(product: NewProduct) -> Self {
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
        } = product;
        let fields = ProductPatch {
            name: Some(name),
            sku: Some(sku),
            description: Some(description),
            price: Some(price),
            currency: Some(currency),
            stock: Some(stock),
            track_stock: Some(track_stock),
            compare_at_price: Some(compare_at_price),
            category: Some(category),
            tags: Some(tags),
            attributes: Some(attributes),
            group: Some(group),
            options: Some(options),
        };
        Self { fields, ..Self::default() }
    }
}

/// Result of one imported row. The reply has one per row, in the order of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// A new product with this id.
    Created(ProductId),
    /// The product has changed.
    Updated {
        /// Id of the product.
        product_id: ProductId,
        /// Names of the fields that have changed.
        fields: Vec<String>,
    },
    /// The product with this id was like the row before.
    Unchanged(ProductId),
    /// The product is not for sale where the file is from, and not here either.
    LeftOut,
    /// Nothing was written, for this reason.
    Refused(String),
}

/// Reads all products that are for sale, one page at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportProducts {
    /// Last product of the page before; the first page when absent.
    pub after: Option<ProductId>,
}

/// A page of an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportPage {
    /// At most 500 products, oldest first.
    pub rows: Vec<NewProduct>,
    /// Value of [`ExportProducts::after`] for the next page; `null` on the last one.
    pub next: Option<ProductId>,
}

crate::requests! { CatalogError;
    "catalog.ImportProducts": ImportProducts => Vec<ImportOutcome>, retry, |_| Access::Staff(Role::Manager);
    "catalog.ExportProducts": ExportProducts => ExportPage, read, |_| Access::Staff(Role::ReadOnly);
}
