//! Shopify's product export: one row a variant or a picture; what a row leaves empty is as in the product's first row.
//!
//! Prices have no currency there: they are taken in the shop's. Pictures are named by address and not fetched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufRead;

use super::csv::{amount, whole};
use super::csv_reader::{CsvRecords, Record};
use super::html;
use super::{FileError, ImportEntry};
use crate::contract::catalog::NewProduct;
use crate::types::Currency;

/// Rows of one product: its variants (2,048 at most there) and pictures.
const ROWS_MAX: usize = 4_096;
/// Bytes of the rows of one product, so that many large rows cannot fill the memory either.
const BYTES_MAX: usize = 16 << 20;
/// Characters of a sku.
const SKU_MAX: usize = 64;

/// Whether a header is Shopify's.
pub fn knows(header: &[String]) -> bool {
    let has = |name: &str| header.iter().any(|column| column.eq_ignore_ascii_case(name));
    has("Handle") && has("Title") && (has("Variant Price") || has("Body (HTML)"))
}

/// The products of such a file.
pub struct Products<R> {
    columns: BTreeMap<String, usize>,
    records: CsvRecords<R>,
    currency: Currency,
    /// The first row of the next product, read to know that the one before has ended.
    ahead: Option<(u64, Vec<String>)>,
    /// What was made of the rows read so far.
    ready: VecDeque<ImportEntry>,
    pictures: bool,
    hidden: u64,
    ended: bool,
}

/// One row with names for its columns.
struct Row<'a> {
    columns: &'a BTreeMap<String, usize>,
    cells: &'a [String],
}

impl Row<'_> {
    /// What the column says, if anything.
    fn get(&self, column: &str) -> Option<&str> {
        let cell = self.cells.get(*self.columns.get(&column.to_ascii_lowercase())?)?.trim();
        (!cell.is_empty()).then_some(cell)
    }

    /// A row that only names one more picture is no variant.
    fn is_variant(&self) -> bool {
        ["Variant Price", "Variant SKU", "Option1 Value"].into_iter().any(|column| self.get(column).is_some())
    }

    /// The values of the options, by the names the product's first row gives them.
    fn options(&self, first: &Row<'_>) -> BTreeMap<String, String> {
        (1..=3)
            .filter_map(|n| {
                let value = self.get(&format!("Option{n} Value"))?;
                let name = first.get(&format!("Option{n} Name"))?;
                // What Shopify writes for a product without options.
                (name != "Title" || value != "Default Title").then(|| (name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

impl<R: BufRead> Products<R> {
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
            pictures: false,
            hidden: 0,
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
                Some::<Record>((line, Ok(cells))) => (line, cells),
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
                _ if rows.len() >= ROWS_MAX || bytes > BYTES_MAX => {
                    let reason = format!("the product {:?} has more rows than can be read together", handle(&cells));
                    self.ready.push_back(ImportEntry::Refused { line, reason });
                }
                _ => rows.push((line, cells)),
            }
            // So many refused rows must not wait for the product's last.
            if self.ready.len() > ROWS_MAX {
                break;
            }
        }
        self.product(&rows);
        Ok(())
    }

    /// Makes a product of each variant among the rows of one handle.
    fn product(&mut self, rows: &[(u64, Vec<String>)]) {
        let row = |cells| Row { columns: &self.columns, cells };
        let Some((line, cells)) = rows.first() else { return };
        let first = row(cells);
        let hidden = |column: &str, words: &[&str]| {
            first.get(column).is_some_and(|word| words.iter().any(|hidden| word.eq_ignore_ascii_case(hidden)))
        };
        if first.get("Title").is_none() {
            let reason = "column `Title` is empty: the product's first row, which has it, is missing".to_owned();
            self.ready
                .extend(rows.iter().map(|(line, _)| ImportEntry::Refused { line: *line, reason: reason.clone() }));
            return;
        }
        if hidden("Status", &["draft", "archived", "unlisted"]) || hidden("Published", &["false"]) {
            self.hidden += 1;
            return;
        }
        let variants: Vec<(u64, Row<'_>)> =
            rows.iter().map(|(line, cells)| (*line, row(cells))).filter(|(_, row)| row.is_variant()).collect();
        self.pictures |= rows.iter().any(|(_, cells)| row(cells).get("Image Src").is_some());
        if variants.is_empty() {
            let reason = "the product has no variant: column `Variant Price` is empty".to_owned();
            self.ready.push_back(ImportEntry::Refused { line: *line, reason });
            return;
        }
        let mut skus = BTreeSet::new();
        let mut made = Vec::with_capacity(variants.len());
        for (line, variant) in &variants {
            let product = self.variant(&first, variant, variants.len() > 1).and_then(|product| {
                if skus.insert(product.sku.clone()) {
                    return Ok(product);
                }
                Err(format!("column `Variant SKU`: {:?} belongs to another variant of this product", product.sku))
            });
            made.push(ImportEntry::of(*line, product));
        }
        self.ready.extend(made);
    }

    fn variant(&self, first: &Row<'_>, row: &Row<'_>, several: bool) -> Result<NewProduct, String> {
        let handle = first.get("Handle").unwrap_or_default();
        let options = row.options(first);
        let price = row.get("Variant Price").ok_or("column `Variant Price` is empty")?;
        let price = amount("Variant Price", price, self.currency)?;
        let before = row
            .get("Variant Compare At Price")
            .map(|text| amount("Variant Compare At Price", text, self.currency))
            .transpose()?;
        // It counts what was oversold below zero; here nothing is left then.
        let stock = row.get("Variant Inventory Qty").map_or(Ok(0), |text| whole("Variant Inventory Qty", text))?;
        let category = first.get("Type").or_else(|| {
            let path = first.get("Product Category").or_else(|| first.get("Standard Product Type"))?;
            path.rsplit('>').next().map(str::trim)
        });
        Ok(NewProduct {
            name: first.get("Title").unwrap_or_default().to_owned(),
            sku: match row.get("Variant SKU").map(|sku| sku.trim_start_matches('\'')) {
                Some(sku) if !sku.is_empty() => sku.split_whitespace().collect::<Vec<_>>().join("-"),
                _ => made_sku(handle, &options),
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
            group: several.then(|| handle.to_owned()),
            options,
        })
    }
}

/// A sku for a variant that has none: the same one at each import, so that a second import updates.
fn made_sku(handle: &str, options: &BTreeMap<String, String>) -> String {
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
    // Too long: its beginning, and a number made of all of it (FNV-1a), so that two long ones stay two.
    let sum =
        sku.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let start: String = sku.chars().take(SKU_MAX - 17).collect();
    format!("{start}-{sum:016x}")
}

impl<R: BufRead> Iterator for Products<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.ended && self.ahead.is_none() {
                if std::mem::take(&mut self.pictures) {
                    let note =
                        "pictures are not fetched from the addresses in `Image Src`; add them in the back office";
                    return Some(Ok(ImportEntry::Note(note.to_owned())));
                }
                return match std::mem::take(&mut self.hidden) {
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
