//! Import and export of products in bulk.

use serde::{Deserialize, Serialize};

use super::{CatalogError, NewProduct};
use crate::types::ProductId;

/// Creates or updates products by SKU. Each row succeeds or fails on its own; an update also restores a deleted product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportProducts {
    /// Products, at most 1,000.
    pub rows: Vec<NewProduct>,
}

/// Result of one imported row. The reply has one per row, in the order of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// A new product with this id.
    Created(ProductId),
    /// The product with the row's SKU, which now equals the row.
    Updated(ProductId),
    /// Nothing was written, for this reason.
    Refused(String),
}

/// Reads all products that are for sale, one page at a time, in the form that [`ImportProducts`] takes.
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
