//! Mercat's CSV: one row per product, columns in any order, decimal prices.
//!
//! `tags` are separated by commas. `attributes` and `options` are `Name=Value` pairs separated by semicolons. Values that
//! contain a separator are written as JSON, which is read too.
//!
//! Spreadsheets run a cell that begins with `=`, `+`, `-` or `@` as a formula, and texts may come from strangers. So the
//! export puts an apostrophe before such a text, which spreadsheets hide, and the import removes it again: an exported file
//! is imported unchanged.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use super::csv_reader::CsvRecords;
use super::{FileError, ImportEntry, row_in, unused_columns};
use crate::contract::catalog::{ImportRow, ProductPatch};
use crate::types::{Amount, Currency};

/// Columns in the order of the export.
pub const COLUMNS: [&str; 13] = [
    "name",
    "sku",
    "description",
    "price",
    "currency",
    "stock",
    "compare_at_price",
    "category",
    "tags",
    "attributes",
    "group",
    "options",
    "track_stock",
];
/// Column that a file must have; a new product needs `name` and `price` too.
const REQUIRED_COLUMN: &str = "sku";

/// Iterator over the products of a CSV file.
pub struct CsvProducts<R> {
    columns: BTreeMap<&'static str, usize>,
    records: CsvRecords<R>,
    currency: Currency,
    note: Option<String>,
}

impl<R: BufRead> CsvProducts<R> {
    pub fn new(header: &[String], records: CsvRecords<R>, currency: Currency) -> Result<Self, FileError> {
        let fail = |reason: String| FileError::Format { line: 1, reason };
        let mut columns = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        for (at, name) in header.iter().enumerate() {
            let known = COLUMNS.into_iter().find(|column| column.eq_ignore_ascii_case(name));
            match known {
                None => _ = unknown.insert(name.clone()),
                Some(column) if columns.insert(column, at).is_some() => {
                    return Err(fail(format!("column `{column}` is there twice")));
                }
                Some(_) => {}
            }
        }
        if !columns.contains_key(REQUIRED_COLUMN) {
            return Err(fail(format!(
                "the header has no column `{REQUIRED_COLUMN}`; a product file begins with a line such as {}",
                COLUMNS.join(",")
            )));
        }
        let note = unused_columns(&unknown);
        Ok(Self { columns, records, currency, note })
    }

    fn row(&self, record: &[String]) -> Result<ImportRow, String> {
        // `None` for a column that the file does not have, the empty text for an empty cell.
        let present = |column: &str| {
            let at = self.columns.get(column)?;
            record
                .get(*at)
                .map(|cell| unescape_formula(cell))
                .map(|cell| if cell.trim().is_empty() { "" } else { cell })
        };
        let filled = |column: &str| present(column).filter(|cell| !cell.is_empty());
        let required = |column: &str| match present(column) {
            Some("") => Err(format!("column `{column}` is empty")),
            cell => Ok(cell),
        };
        let currency = match filled("currency") {
            None => None,
            Some(code) => Some(code.trim().parse().map_err(|e| format!("column `currency`: {code:?} is {e}"))?),
        };
        let price = |column: &str, text: &str| parse_price(column, text, currency.unwrap_or(self.currency));
        let track_stock = filled("track_stock").map(parse_flag).transpose()?;
        let fields = ProductPatch {
            name: required("name")?.map(str::to_owned),
            sku: required("sku")?.map(|sku| sku.trim().to_owned()),
            description: present("description").map(str::to_owned),
            price: required("price")?.map(|text| price("price", text)).transpose()?,
            currency,
            stock: filled("stock").map(|text| parse_integer("stock", text)).transpose()?,
            track_stock,
            compare_at_price: present("compare_at_price")
                .map(|text| (!text.is_empty()).then(|| price("compare_at_price", text)).transpose())
                .transpose()?,
            category: present("category").map(optional),
            tags: present("tags").map(parse_tags).transpose()?,
            attributes: present("attributes").map(|text| parse_pairs("attributes", text)).transpose()?,
            group: present("group").map(optional),
            options: present("options").map(|text| parse_pairs("options", text)).transpose()?,
        };
        Ok(row_in(self.currency, fields))
    }
}

/// The text of a cell that may be empty.
fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Parses a yes or no.
fn parse_flag(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(format!("column `track_stock`: {text:?} is not yes or no")),
    }
}

impl<R: BufRead> Iterator for CsvProducts<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(note) = self.note.take() {
            return Some(Ok(ImportEntry::Note(note)));
        }
        match self.records.next() {
            Ok(None) => None,
            Err(error) => Some(Err(error.into())),
            Ok(Some((line, record))) => {
                Some(Ok(ImportEntry::from_row(line, record.and_then(|record| self.row(&record)))))
            }
        }
    }
}

/// Parses a decimal price.
///
/// # Errors
/// Names the column and the expected form.
pub fn parse_price(column: &str, text: &str, currency: Currency) -> Result<Amount, String> {
    let number = with_point(text.trim());
    currency.parse_amount(&number).or_else(|| round_computed(&number, currency)).ok_or_else(|| {
        let digits = currency.exponent();
        let example = currency.decimal(999);
        format!(
            "column `{column}`: {text:?} is not a price in {currency}, such as {example} (at most {digits} decimals \
             after a point or a comma, no sign, no thousands marks)"
        )
    })
}

/// Decimals from which a price is the result of a computation, such as one without its tax, and is rounded.
const COMPUTED_DECIMALS: usize = 5;

/// The number with a point. A comma is taken for the point only if it cannot be a thousands mark.
fn with_point(text: &str) -> Cow<'_, str> {
    match text.split_once(',') {
        Some((whole, fraction)) if !text.contains('.') && (fraction.len() != 3 || whole == "0") => {
            format!("{whole}.{fraction}").into()
        }
        _ => text.into(),
    }
}

/// The result of a computation, rounded to the minor unit; `None` for another number.
fn round_computed(text: &str, currency: Currency) -> Option<Amount> {
    let (whole, fraction) = text.split_once('.')?;
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() < COMPUTED_DECIMALS || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let (kept, rest) = fraction.split_at_checked(currency.exponent() as usize)?;
    let minor: Amount = format!("{whole}{kept}").parse().ok()?;
    minor.checked_add(Amount::from(rest.as_bytes().first()? >= &b'5'))
}

/// Parses a whole number, also one written with decimals that are all zero (`5.0`).
///
/// # Errors
/// Names the column.
pub fn parse_integer(column: &str, text: &str) -> Result<i64, String> {
    let whole = match text.trim().split_once(['.', ',']) {
        Some((whole, zeros)) if !whole.is_empty() && zeros.bytes().all(|byte| byte == b'0') && zeros.len() != 3 => {
            whole
        }
        _ => text.trim(),
    };
    whole.parse().map_err(|_| format!("column `{column}`: {text:?} is not a whole number"))
}

fn parse_tags(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|_| "column `tags`: is not a JSON array of texts".to_owned());
    }
    Ok(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

fn parse_pairs(column: &str, text: &str) -> Result<BTreeMap<String, String>, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|_| format!("column `{column}`: is not a JSON object of texts"));
    }
    let mut pairs = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            format!("column `{column}`: {part:?} is not Name=Value; pairs have semicolons between them")
        })?;
        if pairs.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
            return Err(format!("column `{column}`: {:?} is there twice", name.trim()));
        }
    }
    Ok(pairs)
}

/// The reverse of [`parse_tags`].
pub fn format_tags(words: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && word.trim() == word && !word.contains(',');
    if words.iter().all(plain) && !words.first().is_some_and(|word| word.starts_with('[')) {
        return words.join(", ");
    }
    serde_json::to_string(words).unwrap_or_default()
}

/// The reverse of [`parse_pairs`].
pub fn format_pairs(pairs: &BTreeMap<String, String>) -> String {
    let trimmed = |text: &str| text.trim() == text && !text.contains(';');
    let plain = |(name, value): (&String, &String)| {
        trimmed(name) && trimmed(value) && !name.is_empty() && !name.contains('=') && !name.starts_with('{')
    };
    if pairs.iter().all(plain) {
        let parts: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        return parts.join("; ");
    }
    serde_json::to_string(pairs).unwrap_or_default()
}

/// Returns `true` if a spreadsheet would run the text as a formula, leading apostrophes aside.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// Escapes a text so that no spreadsheet runs it. One with leading apostrophes gets one more, so that
/// [`unescape_formula`] restores it exactly.
pub fn escape_formula(text: &str) -> String {
    if is_formula(text) { format!("'{text}") } else { text.to_owned() }
}

/// The reverse of [`escape_formula`], and the text of a formula such as `="00123"` that is nothing but a text.
fn unescape_formula(cell: &str) -> &str {
    if let Some(text) = cell.strip_prefix("=\"").and_then(|text| text.strip_suffix('"')) {
        return text;
    }
    cell.strip_prefix('\'').filter(|text| is_formula(text)).unwrap_or(cell)
}
