//! Rules of the catalog that need neither a clock nor a database: validation, names, states of a hold.

use std::collections::BTreeMap;

use super::text_search::sort_key;
use super::{
    ChangeStock, HoldLine, Image, NewProduct, Offer, Product, ProductPatch, ProductQuery, Sort, UNCOUNTED_STOCK,
};
use crate::contract::payments::ReturnLine;
use crate::store::text_enum;
use crate::types::{Amount, FieldError, ProductId, Quantity, Validator, collapse_whitespace};

/// Maximum price in minor units.
const PRICE_MAX: Amount = 1_000_000_000_000;
/// Maximum stock of a product, in items.
const STOCK_MAX: Quantity = UNCOUNTED_STOCK;
/// Maximum length of a name, an SKU, a category or a tag in characters: that of Shopify.
const LINE_MAX: usize = 255;
/// Maximum length of an SKU that the shop makes itself, in characters.
const MADE_SKU_MAX: usize = 64;
/// Maximum length of a description in characters.
const DESCRIPTION_MAX: usize = 100_000;
/// Maximum number of tags of a product.
const TAGS_MAX: usize = 250;
/// Maximum quantity of a hold's line.
const LINE_QUANTITY_MAX: Quantity = 10_000;
/// Maximum number of lines of a hold.
const LINES_MAX: usize = 1_000;
/// Maximum number of images of a product.
pub const IMAGES_MAX: u32 = 20;
/// Maximum number of products in a group; a change of one reads all.
pub const GROUP_MAX: i64 = 500;

/// Normalizes and validates a product: white space collapsed, duplicate tags removed.
///
/// # Errors
/// All invalid fields at once.
pub fn normalize(product: NewProduct) -> Result<NewProduct, Vec<FieldError>> {
    let product = NewProduct {
        name: product.name.trim().to_owned(),
        sku: product.sku.trim().to_owned(),
        description: product.description.trim().to_owned(),
        category: product.category.map(|text| collapse_whitespace(&text)),
        tags: product.tags.iter().map(|tag| collapse_whitespace(tag)).fold(Vec::new(), |mut tags, tag| {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
            tags
        }),
        attributes: trimmed(product.attributes),
        group: product.group.map(|text| collapse_whitespace(&text)),
        options: trimmed(product.options),
        stock: if product.track_stock { product.stock } else { UNCOUNTED_STOCK },
        ..product
    };
    let mut fields = Validator::new();
    fields.line("name", &product.name, 1, LINE_MAX);
    fields.line("sku", &product.sku, 1, LINE_MAX);
    if product.sku.contains(char::is_whitespace) {
        fields.add_error("sku", "invalid", "must have no white space");
    }
    fields.text("description", &product.description, 0, DESCRIPTION_MAX);
    fields.range("price", product.price, 0, PRICE_MAX);
    fields.range("stock", product.stock, 0, STOCK_MAX);
    if let Some(before) = product.compare_at_price {
        if before <= product.price {
            fields.add_error("compare_at_price", "out_of_range", "must be above the price");
        } else {
            fields.range("compare_at_price", before, 0, PRICE_MAX);
        }
    }
    for (field, value) in [("category", &product.category), ("group", &product.group)] {
        if let Some(text) = value {
            fields.line(field, text, 1, LINE_MAX);
        }
    }
    validate_count(&mut fields, "tags", product.tags.len(), TAGS_MAX);
    for (n, tag) in product.tags.iter().take(TAGS_MAX).enumerate() {
        validate_nested(&mut fields, || format!("tags.{n}"), tag, 1, LINE_MAX);
    }
    validate_attributes(&mut fields, "attributes", &product.attributes, 50, 0);
    validate_attributes(&mut fields, "options", &product.options, 5, 1);
    fields.finish()?;
    Ok(NewProduct { name: collapse_whitespace(&product.name), ..product })
}

fn trimmed(attributes: BTreeMap<String, String>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|(key, value)| (collapse_whitespace(&key), value.trim().to_owned())).collect()
}

fn validate_attributes(
    fields: &mut Validator,
    field: &'static str,
    attributes: &BTreeMap<String, String>,
    max: usize,
    min: usize,
) {
    validate_count(fields, field, attributes.len(), max);
    for (key, value) in attributes.iter().take(max) {
        if key.is_empty() || key.chars().count() > 50 {
            fields.add_error(field, "invalid", "must have keys of 1 to 50 characters");
        } else {
            validate_nested(fields, || format!("{field}.{key}"), value, min, 500);
        }
    }
}

fn validate_count(fields: &mut Validator, field: &'static str, count: usize, max: usize) {
    if count > max {
        fields.add_error(field, "too_many", format!("must be at most {max}"));
    }
}

/// Like [`Validator::text`], for an element of a field.
fn validate_nested(fields: &mut Validator, field: impl Fn() -> String, text: &str, min: usize, max: usize) {
    let length = text.chars().count();
    if length < min {
        fields.add_error(field(), "required", "must not be empty");
    } else if length > max {
        fields.add_error(field(), "too_long", format!("must have at most {max} characters"));
    } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        fields.add_error(field(), "invalid", "must not have control characters");
    }
}

/// Applies a patch to a product; the result is not validated.
///
/// # Errors
/// A product is to be counted from now on, and nothing says how many there are.
pub fn apply_patch(product: NewProduct, patch: ProductPatch) -> Result<NewProduct, FieldError> {
    let track_stock = patch.track_stock.unwrap_or(product.track_stock);
    if track_stock && !product.track_stock && patch.stock.is_none() {
        return Err(FieldError::new("stock", "required", "must be given to count the stock from now on"));
    }
    Ok(NewProduct {
        track_stock,
        name: patch.name.unwrap_or(product.name),
        sku: patch.sku.unwrap_or(product.sku),
        description: patch.description.unwrap_or(product.description),
        price: patch.price.unwrap_or(product.price),
        currency: patch.currency.unwrap_or(product.currency),
        stock: patch.stock.unwrap_or(product.stock),
        compare_at_price: patch.compare_at_price.unwrap_or(product.compare_at_price),
        category: patch.category.unwrap_or(product.category),
        tags: patch.tags.unwrap_or(product.tags),
        attributes: patch.attributes.unwrap_or(product.attributes),
        group: patch.group.unwrap_or(product.group),
        options: patch.options.unwrap_or(product.options),
    })
}

/// The stock after a change by staff, and the kind of the change. `stock` is what is available and `held` what is held
/// for unpaid orders: a count of the store room includes both.
///
/// # Errors
/// All invalid fields at once.
pub fn changed_stock(
    request: &ChangeStock,
    track_stock: bool,
    stock: Quantity,
    held: Quantity,
) -> Result<(StockMoveReason, Quantity), Vec<FieldError>> {
    let mut fields = Validator::new();
    if let Some(reason) = &request.reason {
        fields.text("reason", reason, 0, 200);
    }
    let (kind, field, changed) = match (request.change, request.set) {
        (Some(change), None) => (StockMoveReason::Changed, "change", stock.saturating_add(change)),
        (None, Some(count)) => (StockMoveReason::Set, "set", count.saturating_sub(held)),
        _ => {
            fields.add_error("change", "invalid", "must be given, or `set`, but not both");
            (StockMoveReason::Changed, "change", stock)
        }
    };
    if !track_stock {
        fields.add_error(field, "invalid", "is not possible: the stock of this product is not counted");
    } else if changed < 0 {
        let message = match kind {
            StockMoveReason::Set => format!("must be at least {held}, the number of items held for unpaid orders"),
            _ => format!("must be at least -{stock}, the number of items available"),
        };
        fields.add_error(field, "out_of_range", message);
    } else if changed > STOCK_MAX {
        fields.add_error(field, "out_of_range", format!("must leave at most {STOCK_MAX} items"));
    }
    fields.finish()?;
    Ok((kind, changed))
}

/// Makes an SKU of parts: their letters and digits in lower case, with a hyphen for what is between. Deterministic, so that
/// the same product gets the same one again.
pub fn sku_of_parts<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut sku = String::new();
    for c in parts.flat_map(|part| part.chars().chain(['-'])) {
        if c.is_alphanumeric() {
            sku.extend(c.to_lowercase());
        } else if !sku.is_empty() && !sku.ends_with('-') {
            sku.push('-');
        }
    }
    let sku = sku.trim_end_matches('-');
    if sku.chars().count() <= MADE_SKU_MAX {
        return sku.to_owned();
    }
    // Too long: its beginning and a hash of all of it (FNV-1a), so that different ones stay different.
    let sum =
        sku.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let start: String = sku.chars().take(MADE_SKU_MAX - 17).collect();
    format!("{start}-{sum:016x}")
}

/// Makes the SKU of one of several variants that share `sku`.
pub fn variant_sku<'a>(sku: &str, parts: impl Iterator<Item = &'a str>) -> String {
    let made = format!("{sku}-{}", sku_of_parts(parts));
    if made.chars().count() <= LINE_MAX { made } else { sku_of_parts(std::iter::once(made.as_str())) }
}

/// Builds a slug from the words of the name, up to 80 bytes, and the last `digits` hex digits of the id, which are random.
pub fn slug(name: &str, id: ProductId, digits: usize) -> String {
    let folded = sort_key(name);
    let words = folded.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = String::new();
    for word in words {
        if slug.len() + word.len() > 80 {
            break;
        }
        slug.push_str(word);
        slug.push('-');
    }
    if slug.is_empty() {
        slug.push_str("product-");
    }
    let id = id.uuid().simple().to_string();
    slug + &id[id.len().saturating_sub(digits)..]
}

/// The name followed by the values of the options: `Teapot (Blue, Large)`.
pub fn display_name(name: &str, options: &BTreeMap<String, String>) -> String {
    if options.is_empty() {
        return name.to_owned();
    }
    let values: Vec<&str> = options.values().map(String::as_str).collect();
    format!("{name} ({})", values.join(", "))
}

/// Builds the offer of a product.
pub fn offer(product: &Product) -> Offer {
    Offer {
        product_id: product.id,
        name: display_name(&product.name, &product.options),
        sku: product.sku.clone(),
        slug: product.slug.clone(),
        price: product.price,
        currency: product.currency,
        stock: product.stock,
        deleted: product.deleted,
        image: product.images.first().map(smallest_url),
    }
}

/// The path of an image in its smallest size.
pub fn smallest_url(image: &Image) -> String {
    image.sizes.first().map_or(&image.url, |size| &size.url).clone()
}

/// The mean of ratings, rounded half up to two decimals; `None` without any.
pub fn rating(sum: i64, count: i64) -> Option<f64> {
    if count <= 0 {
        return None;
    }
    // Rounded as an integer: a float would round some halves down.
    let hundredths = (sum.max(0) * 100 + count / 2) / count;
    #[allow(clippy::cast_precision_loss, reason = "a rating of at most a few hundred hundredths")]
    Some(hundredths as f64 / 100.0)
}

/// Normalizes and validates a query, so that equal lists have equal queries: blank filters removed, order explicit.
///
/// # Errors
/// All invalid fields at once.
pub fn normalize_query(query: ProductQuery) -> Result<ProductQuery, Vec<FieldError>> {
    let mut fields = Validator::new();
    let filled = |text: Option<String>| text.map(|text| collapse_whitespace(&text)).filter(|text| !text.is_empty());
    let (q, category, tag) = (filled(query.q), filled(query.category), filled(query.tag));
    for (field, value) in [("q", &q), ("category", &category), ("tag", &tag)] {
        if value.as_ref().is_some_and(|text| text.chars().count() > 200) {
            fields.add_error(field, "too_long", "must have at most 200 characters");
        }
    }
    for (field, value) in [("min_price", query.min_price), ("max_price", query.max_price)] {
        if let Some(price) = value {
            fields.range(field, price, 0, PRICE_MAX);
        }
    }
    if query.min_price.zip(query.max_price).is_some_and(|(min, max)| min > max) {
        fields.add_error("max_price", "out_of_range", "must not be below min_price");
    }
    fields.finish()?;
    let sort = match query.sort {
        Some(Sort::Relevance) if q.is_none() => Sort::default(),
        Some(sort) => sort,
        None if q.is_some() => Sort::Relevance,
        None => Sort::default(),
    };
    Ok(ProductQuery { q, category, tag, sort: Some(sort), ..query })
}

/// Normalizes the lines of a hold: one line per product, in the order of their ids, so that repetitions compare equal.
///
/// # Errors
/// All invalid fields at once.
pub fn hold_lines(lines: &[HoldLine]) -> Result<Vec<HoldLine>, Vec<FieldError>> {
    let mut fields = Validator::new();
    if lines.is_empty() || lines.len() > LINES_MAX {
        fields.add_error("lines", "out_of_range", format!("must be between 1 and {LINES_MAX}"));
    }
    let mut sums = BTreeMap::<ProductId, Quantity>::new();
    for (n, line) in lines.iter().take(LINES_MAX).enumerate() {
        fields.range(format!("lines.{n}.quantity"), line.quantity, 1, LINE_QUANTITY_MAX);
        let sum = sums.entry(line.product_id).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    fields.finish()?;
    Ok(sums.into_iter().map(|(product_id, quantity)| HoldLine { product_id, quantity }).collect())
}

/// Plans the return of items of a sold hold to stock: the lines to restock, and `true` if none remain out after them.
/// `sold` has product, quantity and quantity returned before. Items that were not sold or are back already are ignored; an
/// empty request means all.
pub fn plan_restock(sold: &[(ProductId, Quantity, Quantity)], requested: &[ReturnLine]) -> (Vec<HoldLine>, bool) {
    let mut back = Vec::new();
    let mut left = 0;
    for &(product_id, quantity, returned) in sold {
        let out = quantity - returned;
        let matching = requested.iter().filter(|line| line.product_id == product_id).map(|line| line.quantity.max(0));
        let wanted = if requested.is_empty() { out } else { matching.fold(0, Quantity::saturating_add) };
        let restocked = wanted.min(out);
        left += out - restocked;
        if restocked > 0 {
            back.push(HoldLine { product_id, quantity: restocked });
        }
    }
    (back, left == 0)
}

/// Returns `true` if a change of stock from `before` to `after` crossed the low-stock level.
pub fn crossed_low_stock(before: Quantity, after: Quantity, level: Quantity) -> bool {
    before > level && after <= level
}

/// State of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// Reserved, not paid.
    Held,
    /// Paid.
    Sold,
    /// Released or expired; its items are back in stock.
    Released,
    /// Paid, and all items returned to stock.
    Returned,
}

text_enum!(HoldState { Held => "held", Sold => "sold", Released => "released", Returned => "returned" });

impl HoldState {
    /// Returns `true` if a hold may change from this state to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Held, Self::Sold | Self::Released)
                // Paid late, and the items were still available.
                | (Self::Released, Self::Sold)
                | (Self::Sold, Self::Returned)
        )
    }
}

/// Reason of a stock move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockMoveReason {
    /// Set by staff or an import.
    Set,
    /// Changed by staff, by a difference.
    Changed,
    /// Reserved for a checkout.
    Held,
    /// Released by the holder.
    Released,
    /// Released by expiry.
    Expired,
    /// Sold from stock, because the hold had ended when the payment arrived.
    Sold,
    /// Returned by the buyer.
    Returned,
}

text_enum!(StockMoveReason { Set => "set", Changed => "changed", Held => "held", Released => "released", Expired => "expired", Sold => "sold", Returned => "returned" });

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hold_state_allows_only_legal_transitions() {
        use HoldState::{Held, Released, Returned, Sold};
        let allowed = [(Held, Sold), (Held, Released), (Released, Sold), (Sold, Returned)];
        for from in HoldState::ALL {
            assert_eq!(HoldState::parse(from.as_str()), Some(from));
            for to in HoldState::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&(from, to)), "{from:?} to {to:?}");
            }
        }
    }

    /// An operation on a hold.
    #[derive(Debug, Clone)]
    enum HoldOperation {
        Sell,
        Release,
        Return(Vec<(usize, Quantity)>),
    }

    fn step() -> impl Strategy<Value = HoldOperation> {
        prop_oneof![
            2 => Just(HoldOperation::Sell),
            1 => Just(HoldOperation::Release),
            4 => proptest::collection::vec((0..4_usize, -2..9_i64), 0..4).prop_map(HoldOperation::Return),
        ]
    }

    proptest! {
        /// In any order of operations each item is in stock, reserved or sold, and is returned at most once.
        #[test]
        fn p07_item_of_hold_is_in_one_place(
            quantities in proptest::collection::vec(1..9_i64, 1..4),
            steps in proptest::collection::vec(step(), 0..20),
        ) {
            use HoldState::{Held, Released, Returned, Sold};
            let products: Vec<ProductId> = (0..4).map(|_| ProductId::new()).collect();
            let mut lines: Vec<_> = quantities.iter().enumerate().map(|(n, count)| (products[n], *count, 0)).collect();
            let all: Quantity = quantities.iter().sum();
            // All were in stock and are reserved now.
            let (mut state, mut stock) = (Held, 0);
            for step in steps {
                let before = state;
                match step {
                    HoldOperation::Sell if state.may_become(Sold) => {
                        // Paid late: taken from stock once more.
                        stock -= if state == Released { all } else { 0 };
                        state = Sold;
                    }
                    HoldOperation::Release if state.may_become(Released) => {
                        state = Released;
                        stock += all;
                    }
                    HoldOperation::Return(requested) if state.may_become(Returned) => {
                        let requested: Vec<ReturnLine> = requested
                            .into_iter()
                            .map(|(n, quantity)| ReturnLine { product_id: products[n], quantity })
                            .collect();
                        let (back, all_returned) = plan_restock(&lines, &requested);
                        for line in back {
                            let sold = lines.iter_mut().find(|sold| sold.0 == line.product_id).unwrap();
                            prop_assert!(line.quantity > 0);
                            sold.2 += line.quantity;
                            stock += line.quantity;
                        }
                        if all_returned {
                            state = Returned;
                        }
                    }
                    _ => {}
                }
                prop_assert!(before == state || before.may_become(state));
                let out: Quantity = lines.iter().map(|(_, quantity, returned)| quantity - returned).sum();
                prop_assert!(lines.iter().all(|(_, quantity, returned)| (0..=*quantity).contains(returned)));
                let with_buyers = if matches!(state, Sold | Returned) { out } else { 0 };
                let reserved = if state == Held { all } else { 0 };
                prop_assert_eq!(stock + reserved + with_buyers, all);
                prop_assert_eq!(state == Returned, out == 0);
            }
        }
    }

    #[test]
    fn slug_is_ascii_for_any_name() {
        let id: ProductId = "01890000-0000-7000-8000-00000000c0de".parse().unwrap();
        let cases = [
            ("Teapot, blue", "teapot-blue-c0de"),
            ("Crème brûlée", "creme-brulee-c0de"),
            ("Cre\u{300}me", "creme-c0de"),
            ("Straße 7", "strasse-7-c0de"),
            ("急須", "product-c0de"),
            ("--", "product-c0de"),
        ];
        for (name, link) in cases {
            assert_eq!(slug(name, id, 4), link);
        }
        assert!(slug(&"word ".repeat(40), id, 32).len() <= 120);
    }

    #[test]
    fn rating_rounds_to_two_decimals() {
        for (sum, count, mean) in [(0, 0, None), (5, 1, Some(5.0)), (9, 2, Some(4.5)), (11, 3, Some(3.67))] {
            assert_eq!(rating(sum, count), mean);
        }
    }

    #[test]
    fn low_stock_is_reported_on_crossing_only() {
        let cases = [(10, 5, true), (6, 0, true), (5, 4, false), (10, 6, false), (3, 9, false)];
        for (before, after, crossed) in cases {
            assert_eq!(crossed_low_stock(before, after, 5), crossed, "{before} to {after}");
        }
    }
}
