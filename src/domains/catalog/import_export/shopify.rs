//! Shopify's product export: one row per variant or image; empty fields of a row are those of the product's first row.
//!
//! Its prices have no currency and are taken in the shop's. Images are given by URL and not fetched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufRead;

use super::csv::{parse_integer, parse_price};
use super::csv_reader::{CsvRecord, CsvRecords};
use super::html;
use super::{FileError, ImportEntry};
use crate::contract::catalog::NewProduct;
use crate::types::Currency;

/// Maximum number of rows of a product: its variants (at most 2,048 at Shopify) and images.
const PRODUCT_ROWS_MAX: usize = 4_096;
/// Maximum size of the rows of a product in bytes, which bounds memory.
const PRODUCT_BYTES_MAX: usize = 16 << 20;
/// Maximum length of an SKU in characters.
const SKU_MAX: usize = 64;

/// Returns `true` if the header is Shopify's.
pub fn is_shopify_header(header: &[String]) -> bool {
    let has = |name: &str| header.iter().any(|column| column.eq_ignore_ascii_case(name));
    has("Handle") && has("Title") && (has("Variant Price") || has("Body (HTML)"))
}

/// Iterator over the products of a Shopify export.
pub struct ShopifyProducts<R> {
    columns: BTreeMap<String, usize>,
    records: CsvRecords<R>,
    currency: Currency,
    /// First row of the next product, read to detect the end of the one before.
    ahead: Option<(u64, Vec<String>)>,
    /// Parsed entries that are not returned yet.
    ready: VecDeque<ImportEntry>,
    has_images: bool,
    left_out: u64,
    ended: bool,
}

/// A row with access by column name.
struct ShopifyRow<'a> {
    columns: &'a BTreeMap<String, usize>,
    cells: &'a [String],
}

impl ShopifyRow<'_> {
    /// The trimmed value of a column; `None` if empty.
    fn get(&self, column: &str) -> Option<&str> {
        let cell = self.cells.get(*self.columns.get(&column.to_ascii_lowercase())?)?.trim();
        (!cell.is_empty()).then_some(cell)
    }

    /// Returns `true` for a variant, `false` for a row that only has an image.
    fn is_variant(&self) -> bool {
        ["Variant Price", "Variant SKU", "Option1 Value"].into_iter().any(|column| self.get(column).is_some())
    }

    /// Options of the row; their names are in the product's first row.
    fn options(&self, first: &ShopifyRow<'_>) -> BTreeMap<String, String> {
        (1..=3)
            .filter_map(|n| {
                let value = self.get(&format!("Option{n} Value"))?;
                let name = first.get(&format!("Option{n} Name"))?;
                // Shopify's placeholder for a product without options.
                (name != "Title" || value != "Default Title").then(|| (name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

impl<R: BufRead> ShopifyProducts<R> {
    pub fn new(header: &[String], records: CsvRecords<R>, currency: Currency) -> Result<Self, FileError> {
        let columns: BTreeMap<String, usize> =
            header.iter().enumerate().map(|(at, name)| (name.to_ascii_lowercase(), at)).collect();
        if !columns.contains_key("variant price") {
            let reason = "the header is Shopify's, but has no column `Variant Price`".to_owned();
            return Err(FileError::Format { line: 1, reason });
        }
        Ok(Self {
            columns,
            records,
            currency,
            ahead: None,
            ready: VecDeque::new(),
            has_images: false,
            left_out: 0,
            ended: false,
        })
    }

    /// Reads all rows of the next product.
    fn advance(&mut self) -> Result<(), FileError> {
        let handle_at = self.columns.get("handle").copied().unwrap_or(0);
        let handle = |cells: &[String]| cells.get(handle_at).map(|cell| cell.trim().to_owned()).unwrap_or_default();
        let mut rows: Vec<(u64, Vec<String>)> = self.ahead.take().into_iter().collect();
        let mut bytes = 0_usize;
        loop {
            let (line, cells) = match self.records.next()? {
                None => {
                    self.ended = true;
                    break;
                }
                Some((line, Err(reason))) => {
                    self.ready.push_back(ImportEntry::Refused { line, reason });
                    continue;
                }
                Some::<CsvRecord>((line, Ok(cells))) => (line, cells),
            };
            if handle(&cells).is_empty() {
                self.ready.push_back(ImportEntry::Refused { line, reason: "column `Handle` is empty".to_owned() });
                continue;
            }
            bytes += cells.iter().map(|cell| cell.len() + size_of::<String>()).sum::<usize>();
            match rows.first() {
                Some((_, first)) if handle(first) != handle(&cells) => {
                    self.ahead = Some((line, cells));
                    break;
                }
                _ if rows.len() >= PRODUCT_ROWS_MAX || bytes > PRODUCT_BYTES_MAX => {
                    let reason = format!("the product {:?} has more rows than can be read together", handle(&cells));
                    self.ready.push_back(ImportEntry::Refused { line, reason });
                }
                _ => rows.push((line, cells)),
            }
            // Return rejected rows before the product ends, so that they do not accumulate.
            if self.ready.len() > PRODUCT_ROWS_MAX {
                break;
            }
        }
        self.product(&rows);
        Ok(())
    }

    /// Converts each variant among the rows of one handle to a product.
    fn product(&mut self, rows: &[(u64, Vec<String>)]) {
        let row = |cells| ShopifyRow { columns: &self.columns, cells };
        let Some((line, cells)) = rows.first() else { return };
        let first = row(cells);
        let hidden = |column: &str, names: &[&str]| {
            first.get(column).is_some_and(|value| names.iter().any(|name| value.eq_ignore_ascii_case(name)))
        };
        if first.get("Title").is_none() {
            let reason = "column `Title` is empty: the product's first row, which has it, is missing".to_owned();
            self.ready
                .extend(rows.iter().map(|(line, _)| ImportEntry::Refused { line: *line, reason: reason.clone() }));
            return;
        }
        if hidden("Status", &["draft", "archived", "unlisted"]) || hidden("Published", &["false"]) {
            self.left_out += 1;
            return;
        }
        let variants: Vec<(u64, ShopifyRow<'_>)> =
            rows.iter().map(|(line, cells)| (*line, row(cells))).filter(|(_, row)| row.is_variant()).collect();
        self.has_images |= rows.iter().any(|(_, cells)| row(cells).get("Image Src").is_some());
        if variants.is_empty() {
            let reason = "the product has no variant: column `Variant Price` is empty".to_owned();
            self.ready.push_back(ImportEntry::Refused { line: *line, reason });
            return;
        }
        let mut skus = BTreeSet::new();
        let mut entries = Vec::with_capacity(variants.len());
        for (line, variant) in &variants {
            let product = self.variant(&first, variant, variants.len() > 1).and_then(|product| {
                if skus.insert(product.sku.clone()) {
                    return Ok(product);
                }
                Err(format!("column `Variant SKU`: {:?} belongs to another variant of this product", product.sku))
            });
            entries.push(ImportEntry::from_row(*line, product));
        }
        self.ready.extend(entries);
    }

    fn variant(&self, first: &ShopifyRow<'_>, row: &ShopifyRow<'_>, has_siblings: bool) -> Result<NewProduct, String> {
        let handle = first.get("Handle").unwrap_or_default();
        let options = row.options(first);
        let price = row.get("Variant Price").ok_or("column `Variant Price` is empty")?;
        let price = parse_price("Variant Price", price, self.currency)?;
        let before = row
            .get("Variant Compare At Price")
            .map(|text| parse_price("Variant Compare At Price", text, self.currency))
            .transpose()?;
        // Shopify counts oversold stock below zero, which becomes zero.
        let stock =
            row.get("Variant Inventory Qty").map_or(Ok(0), |text| parse_integer("Variant Inventory Qty", text))?;
        let category = first.get("Type").or_else(|| {
            let path = first.get("Product Category").or_else(|| first.get("Standard Product Type"))?;
            path.rsplit('>').next().map(str::trim)
        });
        Ok(NewProduct {
            name: first.get("Title").unwrap_or_default().to_owned(),
            sku: match row.get("Variant SKU").map(|sku| sku.trim_start_matches('\'')) {
                Some(sku) if !sku.is_empty() => sku.split_whitespace().collect::<Vec<_>>().join("-"),
                _ => generated_sku(handle, &options),
            },
            description: html::to_text(first.get("Body (HTML)").unwrap_or_default()),
            price,
            currency: self.currency,
            stock: stock.max(0),
            compare_at_price: before.filter(|before| *before > price),
            category: category.map(str::to_owned),
            tags: first
                .get("Tags")
                .map(|tags| tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
            attributes: first.get("Vendor").map(|v| ("Vendor".to_owned(), v.to_owned())).into_iter().collect(),
            group: has_siblings.then(|| handle.to_owned()),
            options,
        })
    }
}

/// Generates an SKU for a variant without one; deterministic, so that a second import updates.
fn generated_sku(handle: &str, options: &BTreeMap<String, String>) -> String {
    let parts = std::iter::once(handle).chain(options.values().map(String::as_str));
    let mut sku = String::new();
    for c in parts.flat_map(|part| part.chars().chain(['-'])) {
        if c.is_alphanumeric() {
            sku.extend(c.to_lowercase());
        } else if !sku.is_empty() && !sku.ends_with('-') {
            sku.push('-');
        }
    }
    let sku = sku.trim_end_matches('-');
    if sku.chars().count() <= SKU_MAX {
        return sku.to_owned();
    }
    // Too long: its beginning and a hash of all of it (FNV-1a), so that different ones stay different.
    let sum =
        sku.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let start: String = sku.chars().take(SKU_MAX - 17).collect();
    format!("{start}-{sum:016x}")
}

impl<R: BufRead> Iterator for ShopifyProducts<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.ended && self.ahead.is_none() {
                if std::mem::take(&mut self.has_images) {
                    let note = "images are not fetched from the addresses in `Image Src`; add them in the back office";
                    return Some(Ok(ImportEntry::Note(note.to_owned())));
                }
                return match std::mem::take(&mut self.left_out) {
                    0 => None,
                    1 => Some(Ok(ImportEntry::Note(
                        "1 product was left out: it is a draft, archived or unpublished".to_owned(),
                    ))),
                    n => Some(Ok(ImportEntry::Note(format!(
                        "{n} products were left out: drafts, archived or unpublished"
                    )))),
                };
            }
            if let Err(error) = self.advance() {
                self.ended = true;
                self.ahead = None;
                return Some(Err(error));
            }
        }
    }
}
