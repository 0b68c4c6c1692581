//! Product files: read row by row for the import, written row by row for the export.
//!
//! Contains: the file formats. Mercat's CSV, NDJSON, a JSON array, and the product exports of other shops, recognised by
//! their headers. Does not contain: the validation of products (the catalog's rules), network, database. Invariant: a row that
//! cannot be parsed is reported with its line and reason and does not affect the next one; no file is held in memory, and
//! no row is larger than [`ROW_MAX`].
//!
//! Prices: in CSV they are decimal, in the currency's major unit (`9.99`). In JSON an object with a `currency` is in the
//! API's form, its price an integer in minor units (`999`); one without is from another system, its price decimal and in
//! the shop's currency.
//!
//! A column or field that a file does not have says nothing: the product keeps what it has. An empty cell clears the field,
//! except for `stock`: an empty cell is no count.

mod columns;
mod csv;
mod csv_reader;
mod html;
mod json;
mod shop_csv;
mod shopify;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{ImportRow, ProductPatch};
use crate::types::{Currency, hex};

pub use writer::ProductWriter;

/// Maximum size of a row in bytes, quoted line breaks included; several times what the largest product needs.
pub const ROW_MAX: usize = 1 << 20;

/// Format of a product file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header, Mercat's or another shop's.
    Csv,
    /// One JSON object per line.
    Ndjson,
    /// A JSON array of objects, or an object that holds one.
    Json,
}

impl Format {
    /// Detects the format from the file extension; `None` for an unknown one.
    #[must_use]
    pub fn from_path(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The next item of a product file.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportEntry {
    /// A product.
    Product {
        /// Line the row begins on, from 1.
        line: u64,
        /// Fields of the row, not validated yet.
        row: Box<ImportRow>,
        /// Addresses of its pictures, the main one first.
        images: Vec<String>,
    },
    /// A row that cannot be parsed.
    Refused {
        /// Line the row begins on, from 1.
        line: u64,
        /// Column, defect and expected form, for people.
        reason: String,
    },
    /// A remark about the file, at most once per file and topic.
    Note(String),
}

impl ImportEntry {
    fn from_row(line: u64, row: Result<ImportRow, String>) -> Self {
        match row {
            Ok(row) => Self::Product { line, row: Box::new(row), images: Vec::new() },
            Err(reason) => Self::Refused { line, reason },
        }
    }

    /// Adds the addresses of a product's pictures.
    fn with_images(mut self, found: impl IntoIterator<Item = String>) -> Self {
        if let Self::Product { images, .. } = &mut self {
            images.extend(found);
        }
        self
    }
}

/// The file cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// An I/O error.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The content does not have the format of the extension.
    #[error("line {line}: {reason}")]
    Format {
        /// First line that does not, from 1.
        line: u64,
        /// Defect and expected form, for people.
        reason: String,
    },
}

/// The row with these fields, of a file whose prices are in `currency` where it says nothing else.
fn row_in(currency: Currency, fields: ProductPatch) -> ImportRow {
    let defaults = ProductPatch { currency: Some(currency), ..ProductPatch::default() };
    ImportRow { fields, defaults, ..ImportRow::default() }
}

/// Maximum length of a source key in bytes; a longer one is replaced by its hash.
const SOURCE_KEY_MAX: usize = 255;

/// Identity of a product in the system that a file is from.
fn source_key(source: &str, id: &str, options: &BTreeMap<String, String>) -> String {
    let mut key = format!("{source}:{id}");
    for (name, value) in options {
        key.extend(["|", name, "=", value]);
    }
    if key.len() <= SOURCE_KEY_MAX {
        return key;
    }
    format!("{source}:{}", hex(&Sha256::digest(&key)))
}

/// The note about columns that are not used, with all their names.
fn unused_columns(names: &BTreeSet<String>) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Some(format!("columns that are not used: {}", names.join(", ")))
}

/// Reads a product file. Prices without a currency are in `currency`.
///
/// # Errors
/// Defects of the file as a whole: no header, a required column is missing.
pub fn read<'a>(
    format: Format,
    input: impl BufRead + Send + 'a,
    currency: Currency,
) -> Result<Box<dyn Iterator<Item = Result<ImportEntry, FileError>> + Send + 'a>, FileError> {
    match format {
        Format::Ndjson => Ok(Box::new(json::Ndjson::new(input, currency)?)),
        Format::Json => Ok(Box::new(json::JsonArray::new(input, currency)?)),
        Format::Csv => {
            let mut records = csv_reader::CsvRecords::new(input)?;
            let header = records.header()?;
            if shopify::is_shopify_header(&header) {
                Ok(Box::new(shopify::ShopifyProducts::new(&header, records, currency)?))
            } else if let Some(source) = shop_csv::Source::of_header(&header) {
                Ok(Box::new(shop_csv::ShopProducts::new(source, &header, records, currency)))
            } else {
                Ok(Box::new(csv::CsvProducts::new(&header, records, currency)?))
            }
        }
    }
}

#[cfg(test)]
mod tests;
