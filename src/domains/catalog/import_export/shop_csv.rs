//! Product exports of other shop systems, each recognised by its header: `WooCommerce`, Magento, `PrestaShop`, Squarespace,
//! `BigCommerce`, Etsy, and feeds for Google Merchant Center. Shopify's has a file of its own.
//!
//! Contains: the mapping of their columns. A variant is a product here, so rows of variants take over what the row of their
//! product has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::BufRead;

use super::columns::{NamedColumns, NamedRow, addresses, path, words};
use super::csv_reader::CsvRecords;
use super::{FileError, ImportEntry, html, row_in, source_key};
use crate::contract::catalog::{ImportRow, ProductPatch, UNCOUNTED_STOCK};
use crate::domains::catalog::model::sku_of_parts;
use crate::types::Currency;

/// Products whose variants may follow that are remembered. Later variants of further ones are refused.
const PARENTS_MAX: usize = 50_000;

/// Shop system that a file was exported from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    WooCommerce,
    Magento,
    PrestaShop,
    Squarespace,
    BigCommerce,
    Etsy,
    GoogleMerchant,
}

/// Columns that only the exports of a system have together, in lower case; of each group one.
const HEADERS: [(Source, &[&[&str]]); 7] = [
    (Source::WooCommerce, &[&["regular price"], &["sku"], &["in stock?", "published", "type"]]),
    (Source::Squarespace, &[&["product id [non editable]", "variant id [non editable]"], &["title"], &["price"]]),
    (Source::BigCommerce, &[&["product name", "name"], &["product code/sku", "product code"], &["price"]]),
    (Source::Etsy, &[&["title"], &["currency_code"], &["quantity"], &["materials", "image1", "variation 1 type"]]),
    (Source::GoogleMerchant, &[&["id"], &["title"], &["price"], &["availability"], &["link", "image_link"]]),
    (Source::PrestaShop, &[&["reference #", "reference"], &["name *", "name"], &PRESTASHOP_PRICES]),
    (
        Source::Magento,
        &[&["sku"], &["name"], &["price"], &["qty", "product_type", "attribute_set_code", "special_price"]],
    ),
];

const PRESTASHOP_PRICES: [&str; 6] = [
    "price tax excluded",
    "price (tax excl.)",
    "price tax included",
    "price (tax incl.)",
    "price tax excluded or price tax included",
    "final price",
];

impl Source {
    /// The system whose header this is.
    pub fn of_header(header: &[String]) -> Option<Self> {
        let columns = NamedColumns::new(header);
        // Our own files have a column `stock` beside these, which none of the others has but Squarespace and WooCommerce.
        let fits = |groups: &&[&[&str]]| groups.iter().all(|names| columns.has(names));
        HEADERS.iter().find(|(_, groups)| fits(groups)).map(|(source, _)| *source)
    }

    const fn key(self) -> &'static str {
        match self {
            Self::WooCommerce => "woocommerce",
            Self::Magento => "magento",
            Self::PrestaShop => "prestashop",
            Self::Squarespace => "squarespace",
            Self::BigCommerce => "bigcommerce",
            Self::Etsy => "etsy",
            Self::GoogleMerchant => "google",
        }
    }
}

/// Iterator over the products of another shop's file.
pub struct ShopProducts<R> {
    source: Source,
    columns: NamedColumns,
    records: CsvRecords<R>,
    mapper: Mapper,
    ready: VecDeque<ImportEntry>,
    ended: bool,
}

/// State of the mapping of a file.
struct Mapper {
    currency: Currency,
    /// Fields that variants take over from their products, by the keys that they name them by.
    parents: HashMap<String, ProductPatch>,
    /// Key of the product whose variants follow without one.
    current: Option<String>,
    left_out: u64,
}

/// Rows that a record stands for: none for one that only describes variants elsewhere.
type Mapped = Result<Vec<ImportRow>, String>;

impl<R: BufRead> ShopProducts<R> {
    pub fn new(source: Source, header: &[String], records: CsvRecords<R>, currency: Currency) -> Self {
        let mapper = Mapper { currency, parents: HashMap::new(), current: None, left_out: 0 };
        Self { source, columns: NamedColumns::new(header), records, mapper, ready: VecDeque::new(), ended: false }
    }

    fn advance(&mut self) -> Result<(), FileError> {
        let Some((line, cells)) = self.records.next()? else {
            self.ended = true;
            let left_out = match self.mapper.left_out {
                0 => None,
                1 => Some("1 row was left out: it is no product that can be sold here".to_owned()),
                n => Some(format!("{n} rows were left out: they are no products that can be sold here")),
            };
            self.ready.extend(left_out.into_iter().chain(self.columns.unused()).map(ImportEntry::Note));
            return Ok(());
        };
        let mapped = cells.and_then(|cells| {
            let row = self.columns.row(&cells);
            Ok((self.mapper.map(self.source, row)?, images(row)))
        });
        match mapped {
            Ok((rows, mut images)) => self.ready.extend(
                rows.into_iter()
                    .map(|row| ImportEntry::from_row(line, Ok(row)).with_images(std::mem::take(&mut images))),
            ),
            Err(reason) => self.ready.push_back(ImportEntry::Refused { line, reason }),
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for ShopProducts<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.advance() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}

impl Mapper {
    fn map(&mut self, source: Source, row: NamedRow<'_>) -> Mapped {
        match source {
            Source::WooCommerce => self.woocommerce(row),
            Source::Magento => self.magento(row),
            Source::PrestaShop => self.prestashop(row),
            Source::Squarespace => self.squarespace(row),
            Source::BigCommerce => self.bigcommerce(row),
            Source::Etsy => self.etsy(row),
            Source::GoogleMerchant => self.google(row),
        }
    }

    /// Makes the row of a product: its SKU and key, and the values for a new product.
    fn finish(&self, source: Source, id: Option<&str>, mut fields: ProductPatch, withdrawn: bool) -> Mapped {
        let options = fields.options.clone().unwrap_or_default();
        let sku = fields.sku.take().map(|sku| sku.split_whitespace().collect::<Vec<_>>().join("-"));
        let made = || {
            let name = fields.name.as_deref().unwrap_or_default();
            sku_of_parts(std::iter::once(name).chain(options.values().map(String::as_str)))
        };
        let source_key = id.map(|id| source_key(source.key(), id, &BTreeMap::new()));
        fields.sku = sku.filter(|sku| !sku.is_empty()).or_else(|| Some(made()).filter(|sku| !sku.is_empty()));
        Ok(vec![ImportRow { source_key, withdrawn, ..row_in(self.currency, fields) }])
    }

    fn remember(&mut self, keys: impl Iterator<Item = String>, parent: &ProductPatch) {
        for key in keys {
            if self.parents.len() < PARENTS_MAX {
                self.parents.insert(key, parent.clone());
            }
        }
    }

    /// Sets price and former price from a regular price and one of a sale.
    fn prices(
        &self,
        fields: &mut ProductPatch,
        row: NamedRow<'_>,
        regular: &[&str],
        sale: &[&str],
    ) -> Result<(), String> {
        let (regular, sale) = (row.price(regular, self.currency)?, row.price(sale, self.currency)?);
        let is_sale = |(sale, regular): &(i64, i64)| sale < regular;
        match sale.zip(regular).filter(is_sale) {
            Some((sale, regular)) => {
                fields.price = Some(sale);
                fields.compare_at_price = Some(Some(regular));
            }
            None => {
                fields.price = regular.or(sale);
                fields.compare_at_price = Some(None);
            }
        }
        Ok(())
    }

    fn woocommerce(&mut self, row: NamedRow<'_>) -> Mapped {
        let kinds = row.get(&["type"]).unwrap_or("simple").to_ascii_lowercase();
        let is = |kind: &str| kinds.split(',').any(|one| one.trim() == kind);
        let (id, sku) = (row.get(&["id"]), row.get(&["sku"]));
        let mut attributes = BTreeMap::new();
        for n in 1..=20 {
            let column = |suffix: &str| format!("attribute {n} {suffix}");
            if let (Some(name), Some(value)) = (row.get(&[&column("name")]), row.get(&[&column("value(s)")])) {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        let mut fields = ProductPatch {
            name: row.get(&["name"]).map(str::to_owned),
            sku: sku.map(str::to_owned),
            description: row.text(&["description", "short description"]).map(html::to_text),
            category: row.text(&["categories"]).map(|text| text.split(',').next().and_then(|first| path(first, '>'))),
            tags: row.text(&["tags"]).map(words),
            ..ProductPatch::default()
        };
        if is("grouped") || is("external") {
            self.left_out += 1;
            return Ok(Vec::new());
        }
        if is("variable") {
            fields.group = Some(sku.or(id).or(row.get(&["name"])).map(str::to_owned));
            self.remember(id.map(|id| format!("id:{id}")).into_iter().chain(sku.map(str::to_owned)), &fields);
            return Ok(Vec::new());
        }
        if is("variation") {
            let parent = row.get(&["parent"]).ok_or("column `Parent` is empty")?;
            let parent =
                self.parents.get(parent).ok_or_else(|| format!("column `Parent`: {parent:?} is not before it"))?;
            fields = ProductPatch { sku: fields.sku, options: Some(attributes), ..parent.clone() };
        } else {
            fields.attributes = Some(attributes);
        }
        self.prices(&mut fields, row, &["regular price"], &["sale price"])?;
        fields.stock = row.stock(&["stock"])?;
        let backorders = row.get(&["backorders allowed?"]).is_some_and(|text| matches!(text, "1" | "notify"));
        let in_stock = row.get(&["in stock?"]);
        // Without a number the shop does not count: it only says whether there are any.
        fields.track_stock = match (fields.stock, in_stock) {
            (None, Some("0")) => {
                fields.stock = Some(0);
                Some(true)
            }
            (None, Some(_)) => Some(false),
            (None, None) => None,
            (Some(_), _) => Some(!backorders),
        };
        let withdrawn = row.get(&["published"]).is_some_and(|text| text != "1");
        self.finish(Source::WooCommerce, id, fields, withdrawn)
    }

    fn magento(&mut self, row: NamedRow<'_>) -> Mapped {
        // Further rows of a product have its texts in other languages, or only pictures.
        let Some(sku) = row.get(&["sku"]).filter(|_| row.get(&["store_view_code"]).is_none()) else {
            self.left_out += 1;
            return Ok(Vec::new());
        };
        if let Some(variations) = row.get(&["configurable_variations"]) {
            return Ok(variations.split('|').filter_map(|text| magento_variation(sku, text)).collect());
        }
        if row.get(&["product_type"]).is_some_and(|kind| matches!(kind, "configurable" | "grouped" | "bundle")) {
            self.left_out += 1;
            return Ok(Vec::new());
        }
        let categories = row.text(&["categories"]).map(|text| {
            let paths = text.split(',').filter_map(|one| path(one.trim().trim_start_matches("Default Category"), '/'));
            // The most exact one.
            paths.max_by_key(|path| path.matches('>').count())
        });
        let attributes = row.text(&["additional_attributes"]).map(|text| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
        });
        let mut fields = ProductPatch {
            name: row.get(&["name"]).map(str::to_owned),
            sku: Some(sku.to_owned()),
            description: row.text(&["description", "short_description"]).map(html::to_text),
            category: categories,
            attributes,
            stock: row.stock(&["qty"])?,
            ..ProductPatch::default()
        };
        self.prices(&mut fields, row, &["price"], &["special_price"])?;
        let uncounted = row.is_no(&["manage_stock"]) && !row.is_yes(&["use_config_manage_stock"]);
        let backorders = row.get(&["allow_backorders"]).is_some_and(|text| matches!(text, "1" | "2"));
        fields.track_stock = row.has(&["qty"]).then_some(!uncounted && !backorders);
        if row.is_no(&["is_in_stock"]) && fields.stock.is_some() && !backorders {
            fields.stock = Some(0);
        }
        let withdrawn =
            row.get(&["product_online", "status"]).is_some_and(|text| matches!(text, "2" | "0" | "Disabled"));
        self.finish(Source::Magento, None, fields, withdrawn)
    }

    fn prestashop(&mut self, row: NamedRow<'_>) -> Mapped {
        let id = row.get(&["id", "product id"]);
        let mut fields = ProductPatch {
            name: row.get(&["name *", "name"]).map(str::to_owned),
            sku: row.get(&["reference #", "reference"]).map(str::to_owned),
            description: row.text(&["description", "summary"]).map(html::to_text),
            category: row
                .text(&["categories (x,y,z...)", "categories (x,y,z…)", "category"])
                .map(|text| text.split(',').next().and_then(|first| path(first, '>'))),
            tags: row.text(&["tags (x,y,z...)", "tags (x,y,z…)", "tags"]).map(words),
            stock: row.stock(&["quantity"])?,
            ..ProductPatch::default()
        };
        // What buyers pay is the price with tax; a file with the other one alone has no tax in it.
        let prices = ["price tax included", "price (tax incl.)", "final price"];
        fields.price = match row.price(&prices, self.currency)? {
            Some(price) => Some(price),
            None => row.price(&PRESTASHOP_PRICES, self.currency)?,
        };
        if let Some(maker) = row.get(&["manufacturer", "brand"]) {
            fields.attributes = Some(BTreeMap::from([("Brand".to_owned(), maker.to_owned())]));
        }
        let withdrawn = row.is_no(&["active (0/1)", "active", "status"]);
        self.finish(Source::PrestaShop, id, fields, withdrawn)
    }

    fn squarespace(&mut self, row: NamedRow<'_>) -> Mapped {
        let product = row.get(&["product id [non editable]"]).map(str::to_owned);
        if let Some(title) = row.get(&["title"]) {
            let group = product.clone().or_else(|| row.get(&["product url"]).map(str::to_owned));
            let parent = ProductPatch {
                name: Some(title.to_owned()),
                description: row.text(&["description"]).map(html::to_text),
                category: row
                    .text(&["categories"])
                    .map(|text| text.split(',').next().and_then(|first| path(first.trim_matches('/'), '/'))),
                tags: row.text(&["tags"]).map(words),
                group: group.clone().map(Some),
                ..ProductPatch::default()
            };
            self.current.clone_from(&group);
            self.remember(group.into_iter(), &parent);
        }
        let parent = product.or_else(|| self.current.clone()).and_then(|key| self.parents.get(&key));
        let mut fields = parent.cloned().ok_or("column `Title` is empty: the first row of the product is missing")?;
        let mut options = BTreeMap::new();
        for n in 1..=6 {
            let cell = |suffix: &str| row.get(&[&format!("option {suffix} {n}")]);
            if let (Some(name), Some(value)) = (cell("name"), cell("value")) {
                options.insert(name.to_owned(), value.to_owned());
            }
        }
        if options.is_empty() {
            fields.group = None;
        }
        fields.options = Some(options);
        fields.sku = row.get(&["sku"]).map(str::to_owned);
        let on_sale = row.is_yes(&["on sale"]);
        self.prices(&mut fields, row, &["price"], if on_sale { &["sale price"] } else { &[] })?;
        let unlimited = row.get(&["stock"]).is_some_and(|text| text.eq_ignore_ascii_case("unlimited"));
        fields.stock = if unlimited { None } else { row.stock(&["stock"])? };
        fields.track_stock = row.get(&["stock"]).map(|_| !unlimited);
        let withdrawn = row.is_no(&["visible"]);
        self.finish(Source::Squarespace, row.get(&["variant id [non editable]"]), fields, withdrawn)
    }

    fn bigcommerce(&mut self, row: NamedRow<'_>) -> Mapped {
        let kind = row.get(&["item type", "item"]).unwrap_or("Product");
        let (name, id) = (row.get(&["product name", "name"]), row.get(&["product id", "id"]));
        let sku = row.get(&["product code/sku", "product code", "sku"]);
        if kind.eq_ignore_ascii_case("rule") || kind.eq_ignore_ascii_case("image") {
            self.left_out += 1;
            return Ok(Vec::new());
        }
        if kind.eq_ignore_ascii_case("sku") || kind.eq_ignore_ascii_case("variant") {
            let parent = self.current.as_ref().and_then(|key| self.parents.get(key));
            let mut fields = parent.cloned().ok_or("the row of its product is missing")?;
            // `[RB]Colour=Black,[S]Size=Large`
            let options = name.unwrap_or_default().split(',').filter_map(|part| part.trim().split_once('='));
            let plain = |text: &str| text.rsplit(']').next().unwrap_or_default().trim().to_owned();
            fields.options = Some(options.map(|(name, value)| (plain(name), value.trim().to_owned())).collect());
            fields.sku = sku.map(str::to_owned);
            if let Some(price) = row.price(&["price"], self.currency)? {
                fields.price = Some(price);
            }
            fields.stock = row.stock(&["current stock level", "current stock"])?;
            return self.finish(Source::BigCommerce, id, fields, false);
        }
        let mut fields = ProductPatch {
            name: name.map(str::to_owned),
            sku: sku.map(str::to_owned),
            description: row.text(&["product description", "description"]).map(html::to_text),
            category: row
                .text(&["category", "categories"])
                .map(|text| text.split(';').next().and_then(|first| path(first, '/'))),
            stock: row.stock(&["current stock level", "current stock"])?,
            ..ProductPatch::default()
        };
        self.prices(&mut fields, row, &["price"], &["sale price"])?;
        if let Some(brand) = row.get(&["brand name", "brand"]) {
            fields.attributes = Some(BTreeMap::from([("Brand".to_owned(), brand.to_owned())]));
        }
        let tracking = row.get(&["track inventory", "inventory tracking"]).map(str::to_ascii_lowercase);
        fields.track_stock = tracking.as_deref().map(|how| how != "none");
        // Of a product with variants only those are sold; it is one itself until the first of them comes.
        let key = id.or(sku).or(name).unwrap_or_default().to_owned();
        let parent = ProductPatch { group: Some(Some(key.clone())), ..fields.clone() };
        self.remember(std::iter::once(key.clone()), &parent);
        self.current = Some(key);
        if tracking.as_deref() == Some("by option") || tracking.as_deref() == Some("variant") {
            return Ok(Vec::new());
        }
        let withdrawn = row.is_no(&["product visible?", "product visible", "is visible"]);
        self.finish(Source::BigCommerce, id, fields, withdrawn)
    }

    fn etsy(&mut self, row: NamedRow<'_>) -> Mapped {
        let currency = match row.get(&["currency_code"]) {
            None => self.currency,
            Some(code) => code.parse().map_err(|e| format!("column `CURRENCY_CODE`: {code:?} is {e}"))?,
        };
        let mut attributes = BTreeMap::new();
        if let Some(materials) = row.get(&["materials"]) {
            attributes.insert("Materials".to_owned(), words(materials).join(", "));
        }
        for n in 1..=2 {
            let cell = |suffix: &str| row.get(&[&format!("variation {n} {suffix}")]);
            if let (Some(name), Some(values)) = (cell("name").or_else(|| cell("type")), cell("values")) {
                attributes.insert(name.to_owned(), words(values).join(", "));
            }
        }
        let title = row.get(&["title"]).ok_or("column `TITLE` is empty")?;
        let fields = ProductPatch {
            name: Some(title.to_owned()),
            // A listing with variants has the SKUs of all of them.
            sku: row.get(&["sku"]).and_then(|skus| skus.split(',').next()).map(str::to_owned),
            description: row.text(&["description"]).map(html::to_text),
            price: row.price(&["price"], currency)?,
            currency: Some(currency),
            stock: row.stock(&["quantity"])?,
            tags: row.text(&["tags"]).map(|text| words(&text.replace('_', " "))),
            attributes: Some(attributes),
            ..ProductPatch::default()
        };
        self.finish(Source::Etsy, None, fields, false)
    }

    fn google(&mut self, row: NamedRow<'_>) -> Mapped {
        let id = row.get(&["id"]).ok_or("column `id` is empty")?;
        // `19.90 EUR`
        let price = |names: &[&str]| {
            let Some(text) = row.get(names) else { return Ok(None) };
            let (amount, code) = text.rsplit_once(' ').unwrap_or((text, ""));
            let (amount, code) = if code.chars().all(char::is_alphabetic) { (amount, code) } else { (text, "") };
            let currency = if code.is_empty() { Ok(self.currency) } else { code.parse() };
            let currency: Currency = currency.map_err(|e| format!("column `price`: {code:?} is {e}"))?;
            super::csv::parse_price("price", amount, currency).map(|price| Some((price, currency)))
        };
        let (regular, sale) = (price(&["price"])?, price(&["sale_price"])?);
        let is_on_sale = matches!((sale, regular), (Some((sale, _)), Some((regular, _))) if sale < regular);
        let paid = if is_on_sale { sale } else { regular };
        let group = row.get(&["item_group_id"]);
        let traits = |names: &[&str]| {
            let pair = |name: &&str| {
                let label = name.split('_').map(capitalized).collect::<Vec<_>>().join(" ");
                row.get(&[name]).map(|value| (label, value.to_owned()))
            };
            names.iter().filter_map(pair).collect::<BTreeMap<_, _>>()
        };
        let choices = traits(&["color", "size", "material", "pattern"]);
        let mut attributes = traits(&["brand", "gtin", "mpn", "condition"]);
        let options = if group.is_some() {
            choices
        } else {
            attributes.extend(choices);
            BTreeMap::new()
        };
        let available = row.get(&["availability"]).map(|text| text.replace('_', " ").to_ascii_lowercase());
        let in_stock = available.as_deref().map(|text| text == "in stock" || text == "backorder");
        let fields = ProductPatch {
            name: row.get(&["title"]).map(str::to_owned),
            sku: Some(id.to_owned()),
            description: row.text(&["description"]).map(html::to_text),
            price: paid.map(|(price, _)| price),
            currency: paid.map(|(_, currency)| currency),
            compare_at_price: Some(regular.filter(|_| is_on_sale).map(|(price, _)| price)),
            category: row.text(&["product_type"]).map(|text| path(text, '>')),
            attributes: Some(attributes),
            group: row.has(&["item_group_id"]).then(|| group.map(str::to_owned)),
            options: Some(options),
            stock: (in_stock == Some(false)).then_some(0),
            ..ProductPatch::default()
        };
        let mut rows = self.finish(Source::GoogleMerchant, Some(id), fields, false)?;
        if let (Some(new), Some(true)) = (rows.first_mut(), in_stock) {
            // The feed says that there are some, not how many.
            new.defaults.track_stock = Some(false);
            new.defaults.stock = Some(UNCOUNTED_STOCK);
        }
        Ok(rows)
    }
}

/// Addresses of the pictures of a row, whatever its columns for them are called.
fn images(row: NamedRow<'_>) -> Vec<String> {
    let mut images = Vec::new();
    let lists = [
        "images",
        "image urls (x,y,z...)",
        "image urls (x,y,z…)",
        "image",
        "hosted image urls",
        "image_link",
        "additional_image_link",
        "base_image",
        "additional_images",
    ];
    images.extend(lists.iter().filter_map(|column| row.get(&[column])).flat_map(addresses));
    for n in 1..=20 {
        let names = [format!("image{n}"), format!("product image url - {n}"), format!("product image file - {n}")];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        images.extend(row.get(&names).into_iter().flat_map(addresses));
    }
    images
}

/// A variation in Magento's `sku=Bag-Red,color=Red,size=M`: the variant itself was in a row of its own before.
fn magento_variation(parent: &str, text: &str) -> Option<ImportRow> {
    let mut pairs: BTreeMap<String, String> = text
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let fields = ProductPatch {
        sku: Some(pairs.remove("sku")?),
        group: Some(Some(parent.to_owned())),
        options: Some(pairs),
        ..ProductPatch::default()
    };
    Some(ImportRow { fields, ..ImportRow::default() })
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
