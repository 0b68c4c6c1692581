//! Shopify's product export: one row per variant or image; empty fields of a row are those of the product's first row.
//!
//! Its prices have no currency and are taken in the shop's. Images are given by their addresses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufRead;

use super::columns::{NamedColumns, NamedRow, addresses, path, words};
use super::csv_reader::{CsvRecord, CsvRecords};
use super::{FileError, ImportEntry, html, row_in, source_key};
use crate::contract::catalog::{ImportRow, ProductPatch};
use crate::domains::catalog::model::{sku_of_parts, variant_sku};
use crate::types::Currency;

/// Maximum number of rows of a product: its variants (at most 2,048 at Shopify) and images.
const PRODUCT_ROWS_MAX: usize = 4_096;
/// Maximum size of the rows of a product in bytes, which bounds memory.
const PRODUCT_BYTES_MAX: usize = 16 << 20;

// Names of a column in Shopify's export, in its present template, and in older ones, in lower case.
const HANDLE: &[&str] = &["handle", "url handle"];
const TITLE: &[&str] = &["title"];
const BODY: &[&str] = &["body (html)", "body", "description"];
const SKU: &[&str] = &["variant sku", "sku"];
const PRICE: &[&str] = &["variant price", "price"];
const PRICE_BEFORE: &[&str] = &["variant compare at price", "compare-at price", "compare at price"];
const QUANTITY: &[&str] = &["variant inventory qty", "variant inventory quantity", "inventory quantity"];
const TRACKER: &[&str] = &["variant inventory tracker", "inventory tracker"];
const OVERSELL: &[&str] = &["variant inventory policy", "continue selling when out of stock"];
const CATEGORY: &[&str] = &["product category", "standard product type", "standardized product type"];
const TYPE: &[&str] = &["type", "custom product type"];
const PUBLISHED: &[&str] = &["published", "published on online store"];
const IMAGE: &[&str] = &["image src", "product image url"];

/// Returns `true` if the header is Shopify's.
pub fn is_shopify_header(header: &[String]) -> bool {
    let columns = NamedColumns::new(header);
    columns.has(HANDLE) && columns.has(TITLE) && (columns.has(PRICE) || columns.has(&["body (html)"]))
}

/// Iterator over the products of a Shopify export.
pub struct ShopifyProducts<R> {
    columns: NamedColumns,
    records: CsvRecords<R>,
    currency: Currency,
    /// First row of the next product, read to detect the end of the one before.
    ahead: Option<(u64, Vec<String>)>,
    /// Parsed entries that are not returned yet.
    ready: VecDeque<ImportEntry>,
    ended: bool,
    /// Whether the notes about the whole file were given.
    is_noted: bool,
}

fn is_variant(row: NamedRow<'_>) -> bool {
    [PRICE, SKU, &["option1 value"]].into_iter().any(|column| row.get(column).is_some())
}

/// Options of a row; their names are in the product's first row.
fn options(row: NamedRow<'_>, first: NamedRow<'_>) -> BTreeMap<String, String> {
    (1..=3)
        .filter_map(|n| {
            let name = first.get(&[&format!("option{n} name")]);
            let (value, name) = (row.get(&[&format!("option{n} value")])?, name?);
            // Shopify's placeholder for a product without options.
            (name != "Title" || value != "Default Title").then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

impl<R: BufRead> ShopifyProducts<R> {
    pub fn new(header: &[String], records: CsvRecords<R>, currency: Currency) -> Result<Self, FileError> {
        let columns = NamedColumns::new(header);
        if !columns.has(PRICE) {
            let reason = "the header is Shopify's, but has no column `Variant Price`".to_owned();
            return Err(FileError::Format { line: 1, reason });
        }
        Ok(Self { columns, records, currency, ahead: None, ready: VecDeque::new(), ended: false, is_noted: false })
    }

    /// Reads all rows of the next product.
    fn advance(&mut self) -> Result<(), FileError> {
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
            let handle = |cells: &[String]| self.columns.row(cells).get(HANDLE).map(str::to_owned);
            let Some(own) = handle(&cells) else {
                self.ready.push_back(ImportEntry::Refused { line, reason: "column `Handle` is empty".to_owned() });
                continue;
            };
            bytes += cells.iter().map(|cell| cell.len() + size_of::<String>()).sum::<usize>();
            match rows.first() {
                Some((_, first)) if handle(first).as_ref() != Some(&own) => {
                    self.ahead = Some((line, cells));
                    break;
                }
                _ if rows.len() >= PRODUCT_ROWS_MAX || bytes > PRODUCT_BYTES_MAX => {
                    let reason = format!("the product {own:?} has more rows than can be read together");
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
        let Some((line, cells)) = rows.first() else { return };
        let first = self.columns.row(cells);
        if first.get(TITLE).is_none() {
            let reason = "column `Title` is empty: the product's first row, which has it, is missing".to_owned();
            self.ready
                .extend(rows.iter().map(|(line, _)| ImportEntry::Refused { line: *line, reason: reason.clone() }));
            return;
        }
        let hidden = ["draft", "archived", "unlisted"];
        let withdrawn = first.is_no(PUBLISHED)
            || first.get(&["status"]).is_some_and(|status| hidden.iter().any(|name| status.eq_ignore_ascii_case(name)));
        let variants: Vec<(u64, NamedRow<'_>)> = rows
            .iter()
            .map(|(line, cells)| (*line, self.columns.row(cells)))
            .filter(|(_, row)| is_variant(*row))
            .collect();
        let images: Vec<String> =
            rows.iter().filter_map(|(_, cells)| self.columns.row(cells).get(IMAGE)).flat_map(addresses).collect();
        if variants.is_empty() {
            let reason = "the product has no variant: column `Variant Price` is empty".to_owned();
            self.ready.push_back(ImportEntry::Refused { line: *line, reason });
            return;
        }
        let mut skus = BTreeSet::new();
        let mut entries = Vec::with_capacity(variants.len());
        for (line, variant) in &variants {
            let row = self.variant(first, *variant, variants.len() > 1).map(|mut row| {
                row.withdrawn = withdrawn;
                if let Some(sku) = row.fields.sku.as_mut()
                    && !skus.insert(sku.clone())
                {
                    // Variants may share the number of their style.
                    let values = row.fields.options.iter().flatten().map(|(_, value)| value.as_str());
                    *sku = variant_sku(sku, values);
                }
                row
            });
            // A variant's own picture, and all of the product for the first one, the main one for the others.
            let own = variant.get(&["variant image", "variant image url"]).map(str::to_owned);
            let shared = if entries.is_empty() {
                &images[..]
            } else {
                images.get(..1).filter(|_| own.is_none()).unwrap_or_default()
            };
            let mut all: Vec<String> = own.into_iter().collect();
            all.extend(shared.iter().filter(|image| all.first() != Some(*image)).cloned().collect::<Vec<_>>());
            entries.push(ImportEntry::from_row(*line, row).with_images(all));
        }
        self.ready.extend(entries);
    }

    fn variant(&self, first: NamedRow<'_>, row: NamedRow<'_>, has_siblings: bool) -> Result<ImportRow, String> {
        let handle = first.get(HANDLE).unwrap_or_default();
        let options = options(row, first);
        let price = row.price(PRICE, self.currency)?.ok_or("column `Variant Price` is empty")?;
        let before = row.price(PRICE_BEFORE, self.currency)?.filter(|before| *before > price);
        let stock = row.stock(QUANTITY)?;
        let uncounted = row.has(TRACKER) && row.get(TRACKER).is_none();
        let oversells = row.get(OVERSELL).is_some_and(|policy| policy.eq_ignore_ascii_case("continue"));
        let category = |columns: &[&str]| first.get(columns).and_then(|text| path(text, '>'));
        let sku = row.get(SKU).map(|sku| sku.trim_start_matches('\'')).filter(|sku| !sku.is_empty());
        let parts = || std::iter::once(handle).chain(options.values().map(String::as_str));
        let fields = ProductPatch {
            name: first.get(TITLE).map(str::to_owned),
            sku: Some(match sku {
                Some(sku) => sku.split_whitespace().collect::<Vec<_>>().join("-"),
                None => sku_of_parts(parts()),
            }),
            description: first.text(BODY).map(html::to_text),
            price: Some(price),
            stock,
            track_stock: if uncounted || oversells { Some(false) } else { stock.map(|_| true) },
            compare_at_price: row.has(PRICE_BEFORE).then_some(before),
            category: (first.has(TYPE) || first.has(CATEGORY)).then(|| category(TYPE).or_else(|| category(CATEGORY))),
            tags: first.text(&["tags"]).map(words),
            attributes: first.text(&["vendor"]).map(|vendor| {
                Some(vendor)
                    .filter(|vendor| !vendor.is_empty())
                    .map(|v| ("Vendor".to_owned(), v.to_owned()))
                    .into_iter()
                    .collect()
            }),
            group: Some(has_siblings.then(|| handle.to_owned())),
            options: Some(options.clone()),
            ..ProductPatch::default()
        };
        let source_key = Some(source_key("shopify", handle, &options));
        Ok(ImportRow { source_key, ..row_in(self.currency, fields) })
    }
}

impl<R: BufRead> Iterator for ShopifyProducts<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.ended && self.ahead.is_none() {
                if !std::mem::replace(&mut self.is_noted, true) {
                    let no_quantity = (!self.columns.has(QUANTITY)).then(|| {
                        "the file has no quantities, as of a shop with several locations: stock stays as it is, and that of \
                         new products is 0"
                            .to_owned()
                    });
                    self.ready.extend(no_quantity.into_iter().chain(self.columns.unused()).map(ImportEntry::Note));
                    continue;
                }
                return None;
            }
            if let Err(error) = self.advance() {
                self.ended = true;
                self.ahead = None;
                return Some(Err(error));
            }
        }
    }
}
