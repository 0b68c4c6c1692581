//! Files of products: read row by row for the import, written row by row for the export.
//!
//! Lives here: the forms such files have. A CSV of ours, NDJSON, a JSON array, and the product export of Shopify,
//! known by its header. Each row stands for itself: one that cannot be understood is told with its line and reason,
//! and reading goes on behind it. No file is held in memory, and no row may be larger than [`ROW_MAX`].
//! Never enters: what may be sold under which name and price (the catalog's own rules), the network, the database.
//!
//! Prices. In CSV they are what people write: decimal, in the currency's major unit (`9.99`). In JSON an object that
//! names its `currency` is in the API's own form, its price an integer in minor units (`999`); one that does not is
//! somebody else's, its price again decimal and in the shop's currency.
//!
//! A row is the whole product: what it leaves out is empty afterwards, also when it updates one that exists.

mod csv;
mod csv_reader;
mod html;
mod json;
mod shopify;
mod writer;

use std::io::BufRead;
use std::path::Path;

use super::NewProduct;
use crate::types::Currency;

pub use writer::Writer;

/// Bytes of a row, line ends inside quotes included; several times what the largest possible product needs.
pub const ROW_MAX: usize = 1 << 20;

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header; ours, or Shopify's.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// A JSON array of objects, or an object that holds one.
    Json,
}

impl Format {
    /// Tells the format by the ending of a file's name.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What a file says next.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportEntry {
    /// A product.
    Product {
        /// The line it begins on, the first being 1.
        line: u64,
        /// What the row says. Whether it can be sold so is for the catalog to say.
        product: Box<NewProduct>,
    },
    /// A row that cannot be understood.
    Refused {
        /// The line it begins on.
        line: u64,
        /// What is wrong with which column, and what would be right.
        reason: String,
    },
    /// Something the reader of the file should know, said once a file.
    Note(String),
}

impl ImportEntry {
    fn of(line: u64, product: Result<NewProduct, String>) -> Self {
        match product {
            Ok(product) => Self::Product { line, product: Box::new(product) },
            Err(reason) => Self::Refused { line, reason },
        }
    }
}

/// Why a file cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is not what its ending says, from the line on that is named.
    #[error("line {line}: {reason}")]
    Format {
        /// The line.
        line: u64,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// Reads a file of products. Prices without a currency are in `currency`.
///
/// Only what makes the file as a whole useless is an error here: no header, a column that must be there and is not.
pub fn read<'a>(
    format: Format,
    input: impl BufRead + Send + 'a,
    currency: Currency,
) -> Result<Box<dyn Iterator<Item = Result<ImportEntry, FileError>> + Send + 'a>, FileError> {
    match format {
        Format::Ndjson => Ok(Box::new(json::Ndjson::new(input, currency)?)),
        Format::Json => Ok(Box::new(json::Array::new(input, currency)?)),
        Format::Csv => {
            let mut records = csv_reader::CsvRecords::new(input)?;
            let header = records.header()?;
            if shopify::knows(&header) {
                Ok(Box::new(shopify::Products::new(&header, records, currency)?))
            } else {
                Ok(Box::new(csv::Products::new(&header, records, currency)?))
            }
        }
    }
}

#[cfg(test)]
mod tests;
