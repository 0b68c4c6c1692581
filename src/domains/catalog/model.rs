//! The rules of the catalog that need neither a clock nor a database.

use std::collections::BTreeMap;

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::sql_types::Text;

use super::{HoldLine, Image, NewProduct, Offer, Product, ProductPatch, ProductQuery, Sort};
use crate::contract::payments::ReturnLine;
use crate::types::{Amount, FieldError, ProductId, Quantity, Validator, one_line};

/// The dearest thing there is, in minor units.
const PRICE_MAX: Amount = 1_000_000_000_000;
/// The most pieces of one product.
const STOCK_MAX: Quantity = 1_000_000_000;
/// The most pieces one line of a hold may take.
const LINE_MAX: Quantity = 10_000;
/// The most lines of one hold.
const LINES_MAX: usize = 1_000;
/// The most words of a search that count; each costs a look into the index.
const WORDS_MAX: usize = 16;
/// The most pictures of one product.
pub const IMAGES_MAX: u32 = 20;
/// The most siblings in one group: each change of one looks at all.
pub const GROUP_MAX: i64 = 500;

/// The product as it is kept: names on one line, tags once each, nothing blank; or all that is wrong with it.
pub fn tidy(product: NewProduct) -> Result<NewProduct, Vec<FieldError>> {
    let product = NewProduct {
        name: product.name.trim().to_owned(),
        sku: product.sku.trim().to_owned(),
        description: product.description.trim().to_owned(),
        category: product.category.map(|text| one_line(&text)),
        tags: product.tags.iter().map(|tag| one_line(tag)).fold(Vec::new(), |mut tags, tag| {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
            tags
        }),
        attributes: trimmed(product.attributes),
        group: product.group.map(|text| one_line(&text)),
        options: trimmed(product.options),
        ..product
    };
    let mut fields = Validator::new();
    fields.line("name", &product.name, 1, 200);
    fields.line("sku", &product.sku, 1, 64);
    if product.sku.contains(char::is_whitespace) {
        fields.wrong("sku", "invalid", "must have no white space");
    }
    fields.text("description", &product.description, 0, 20_000);
    fields.range("price", product.price, 0, PRICE_MAX);
    fields.range("stock", product.stock, 0, STOCK_MAX);
    if let Some(before) = product.compare_at_price {
        if before <= product.price {
            fields.wrong("compare_at_price", "out_of_range", "must be above the price");
        } else {
            fields.range("compare_at_price", before, 0, PRICE_MAX);
        }
    }
    for (field, value) in [("category", &product.category), ("group", &product.group)] {
        if let Some(text) = value {
            fields.line(field, text, 1, 100);
        }
    }
    at_most(&mut fields, "tags", product.tags.len(), 50);
    for (n, tag) in product.tags.iter().take(50).enumerate() {
        nested(&mut fields, || format!("tags.{n}"), tag, 1, 50);
    }
    facts(&mut fields, "attributes", &product.attributes, 50, 0);
    facts(&mut fields, "options", &product.options, 5, 1);
    fields.done()?;
    Ok(NewProduct { name: one_line(&product.name), ..product })
}

fn trimmed(facts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    facts.into_iter().map(|(key, value)| (one_line(&key), value.trim().to_owned())).collect()
}

fn facts(fields: &mut Validator, field: &'static str, facts: &BTreeMap<String, String>, max: usize, min: usize) {
    at_most(fields, field, facts.len(), max);
    for (key, value) in facts.iter().take(max) {
        if key.is_empty() || key.chars().count() > 50 {
            fields.wrong(field, "invalid", "must have keys of 1 to 50 characters");
        } else {
            nested(fields, || format!("{field}.{key}"), value, min, 500);
        }
    }
}

fn at_most(fields: &mut Validator, field: &'static str, count: usize, max: usize) {
    if count > max {
        fields.wrong(field, "too_many", format!("must be at most {max}"));
    }
}

/// Like [`Validator::text`], for a field inside a field.
fn nested(fields: &mut Validator, field: impl Fn() -> String, text: &str, min: usize, max: usize) {
    let length = text.chars().count();
    if length < min {
        fields.wrong(field(), "required", "must not be empty");
    } else if length > max {
        fields.wrong(field(), "too_long", format!("must have at most {max} characters"));
    } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        fields.wrong(field(), "invalid", "must not have control characters");
    }
}

/// The product after the patch.
pub fn patched(product: NewProduct, patch: ProductPatch) -> NewProduct {
    NewProduct {
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
    }
}

/// The text in small letters without accents, as names are sorted and links are written.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        let plain = match c {
            'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
            'æ' => "ae",
            'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
            'ď' | 'đ' | 'ð' => "d",
            'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
            'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
            'ĥ' | 'ħ' => "h",
            'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
            'ĵ' => "j",
            'ķ' => "k",
            'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
            'ñ' | 'ń' | 'ņ' | 'ň' => "n",
            'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
            'œ' => "oe",
            'ŕ' | 'ŗ' | 'ř' => "r",
            'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
            'ß' => "ss",
            'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
            'þ' => "th",
            'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
            'ŵ' => "w",
            'ý' | 'ÿ' | 'ŷ' => "y",
            'ź' | 'ż' | 'ž' => "z",
            accent if is_accent(accent) => "",
            other => {
                folded.push(other);
                continue;
            }
        };
        folded.push_str(plain);
    }
    folded
}

/// Whether it is a combining accent, of a text that is written in parts.
const fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

/// The product's name in a link: its words and the last `digits` digits of its id, which are random.
pub fn slug(name: &str, id: ProductId, digits: usize) -> String {
    let folded = fold(name);
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

/// The product's name with what sets it apart from its siblings: `Teapot (Blue, Large)`.
pub fn offer_name(name: &str, options: &BTreeMap<String, String>) -> String {
    if options.is_empty() {
        return name.to_owned();
    }
    let values: Vec<&str> = options.values().map(String::as_str).collect();
    format!("{name} ({})", values.join(", "))
}

/// What carts need to know of a product.
pub fn offer(product: &Product) -> Offer {
    Offer {
        product_id: product.id,
        name: offer_name(&product.name, &product.options),
        sku: product.sku.clone(),
        slug: product.slug.clone(),
        price: product.price,
        currency: product.currency,
        stock: product.stock,
        deleted: product.deleted,
        image: product.images.first().map(smallest),
    }
}

/// The path of a picture in its smallest size.
pub fn smallest(image: &Image) -> String {
    image.sizes.first().map_or(&image.url, |size| &size.url).clone()
}

/// The mean of ratings, to one hundredth.
pub fn rating(sum: i64, count: i64) -> Option<f64> {
    if count <= 0 {
        return None;
    }
    // Rounded as an integer: a float would turn some halves the wrong way.
    let hundredths = (sum.max(0) * 100 + count / 2) / count;
    #[allow(clippy::cast_precision_loss, reason = "a rating of at most a few hundred hundredths")]
    Some(hundredths as f64 / 100.0)
}

/// How many letters of a word PostgreSQL's index tells apart; it takes about 2,000 bytes.
const LEXEME_MAX: usize = 400;

/// What a search looks for, in the language of FTS5; `None` when there is no word in it. Every word stands in quotes,
/// so that nothing a person types is an operator or an error; the last one may be unfinished.
pub fn search(text: &str) -> Option<String> {
    let quoted: Vec<String> = words(text).take(WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
    if quoted.is_empty() { None } else { Some(quoted.join(" AND ") + " *") }
}

/// The words of a text. Combining accents stay in their word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && !is_accent(c))
        .filter(|word| word.contains(|c: char| c.is_alphanumeric() && !is_accent(c)))
}

/// A word as PostgreSQL keeps it: without accents and capitals, and not longer than it takes.
fn lexeme(word: &str) -> String {
    fold(word).chars().filter(|c| !is_accent(*c)).take(LEXEME_MAX).collect()
}

/// What [`search`] looks for, in the language of PostgreSQL's text search: words that have one of the `weights`.
pub fn ts_query(text: &str, weights: &str) -> String {
    let quoted: Vec<String> = words(text).take(WORDS_MAX).map(|word| format!("'{}':", lexeme(word))).collect();
    let last = quoted.len().saturating_sub(1);
    let part = |(n, word): (usize, &String)| format!("{word}{}{weights}", if n == last { "*" } else { "" });
    quoted.iter().enumerate().map(part).collect::<Vec<_>>().join(" & ")
}

/// What is found of a product, in the language of PostgreSQL's text search: each word once, with the weight `A` where
/// the name has it, `B` where the labels do, `C` where the description does.
pub fn ts_vector(name: &str, labels: &str, description: &str) -> String {
    let mut all: BTreeMap<String, [bool; 3]> = BTreeMap::new();
    for (n, text) in [name, labels, description].into_iter().enumerate() {
        for word in words(text) {
            all.entry(lexeme(word)).or_default()[n] = true;
        }
    }
    let one = |(word, has): (&String, &[bool; 3])| {
        let places = ["1A", "2B", "3C"].into_iter().zip(has).filter_map(|(place, has)| has.then_some(place));
        format!("'{word}':{}", places.collect::<Vec<_>>().join(","))
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The query as lists and their memory know it: nothing blank in it, its order said; or all that is wrong with it.
pub fn tidy_query(query: ProductQuery) -> Result<ProductQuery, Vec<FieldError>> {
    let mut fields = Validator::new();
    let filled = |text: Option<String>| text.map(|text| one_line(&text)).filter(|text| !text.is_empty());
    let (q, category, tag) = (filled(query.q), filled(query.category), filled(query.tag));
    for (field, value) in [("q", &q), ("category", &category), ("tag", &tag)] {
        if value.as_ref().is_some_and(|text| text.chars().count() > 200) {
            fields.wrong(field, "too_long", "must have at most 200 characters");
        }
    }
    for (field, value) in [("min_price", query.min_price), ("max_price", query.max_price)] {
        if let Some(price) = value {
            fields.range(field, price, 0, PRICE_MAX);
        }
    }
    if query.min_price.zip(query.max_price).is_some_and(|(min, max)| min > max) {
        fields.wrong("max_price", "out_of_range", "must not be below min_price");
    }
    fields.done()?;
    let sort = match query.sort {
        Some(Sort::Relevance) if q.is_none() => Sort::default(),
        Some(sort) => sort,
        None if q.is_some() => Sort::Relevance,
        None => Sort::default(),
    };
    Ok(ProductQuery { q, category, tag, sort: Some(sort), ..query })
}

/// What a hold takes: one line a product, in the order of their ids, so that two askings of the same compare equal.
pub fn hold_lines(lines: &[HoldLine]) -> Result<Vec<HoldLine>, Vec<FieldError>> {
    let mut fields = Validator::new();
    if lines.is_empty() || lines.len() > LINES_MAX {
        fields.wrong("lines", "out_of_range", format!("must be between 1 and {LINES_MAX}"));
    }
    let mut sums = BTreeMap::<ProductId, Quantity>::new();
    for (n, line) in lines.iter().take(LINES_MAX).enumerate() {
        fields.range(format!("lines.{n}.quantity"), line.quantity, 1, LINE_MAX);
        let sum = sums.entry(line.product_id).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    fields.done()?;
    Ok(sums.into_iter().map(|(product_id, quantity)| HoldLine { product_id, quantity }).collect())
}

/// Selection pieces of a sold hold go back on the shelf, and whether none is out after that. `sold` has product, quantity
/// and how many came back before; of goods that were not sold, or of more than are still out, nothing comes back.
pub fn coming_back(sold: &[(ProductId, Quantity, Quantity)], these: &[ReturnLine]) -> (Vec<HoldLine>, bool) {
    let mut back = Vec::new();
    let mut left = 0;
    for &(product_id, quantity, returned) in sold {
        let out = quantity - returned;
        let named = these.iter().filter(|line| line.product_id == product_id).map(|line| line.quantity.max(0));
        let wanted = if these.is_empty() { out } else { named.fold(0, Quantity::saturating_add) };
        let coming = wanted.min(out);
        left += out - coming;
        if coming > 0 {
            back.push(HoldLine { product_id, quantity: coming });
        }
    }
    (back, left == 0)
}

/// Whether a stock that went from `before` to `after` is one that staff should hear of.
pub fn fell_low(before: Quantity, after: Quantity, mark: Quantity) -> bool {
    before > mark && after <= mark
}

/// What became of stock that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum HoldState {
    /// Set aside, not paid.
    StockHold,
    /// Paid.
    Sold,
    /// Let go, by word or by time; what was taken is back on the shelf.
    Released,
    /// Paid, and back on the shelf.
    Returned,
}

impl HoldState {
    const ALL: [Self; 4] = [Self::StockHold, Self::Sold, Self::Released, Self::Returned];

    /// Whether a hold that is in this state may come into that one.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::StockHold, Self::Sold | Self::Released)
                // Paid too late, and the goods were still there.
                | (Self::Released, Self::Sold)
                | (Self::Sold, Self::Returned)
        )
    }

    /// The word for it in a column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StockHold => "held",
            Self::Sold => "sold",
            Self::Released => "released",
            Self::Returned => "returned",
        }
    }

    /// The state that has this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Why a product's stock changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockMoveReason {
    /// Staff, or an import, said how many there are.
    Set,
    /// Set aside for a checkout.
    StockHold,
    /// A hold was let go.
    Released,
    /// A hold ran out.
    Expired,
    /// Sold straight from the shelf, because the hold was gone when the money came.
    Sold,
    /// Given back by the buyer.
    Returned,
}

impl StockMoveReason {
    /// The word for it in a column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::StockHold => "held",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Sold => "sold",
            Self::Returned => "returned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hold_goes_only_where_it_may() {
        use HoldState::{Released, Returned, Sold, StockHold};
        let allowed = [(StockHold, Sold), (StockHold, Released), (Released, Sold), (Sold, Returned)];
        for from in HoldState::ALL {
            assert_eq!(HoldState::parse(from.as_str()), Some(from));
            for to in HoldState::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&(from, to)), "{from:?} to {to:?}");
            }
        }
    }

    /// What may happen to a hold, in any order.
    #[derive(Debug, Clone)]
    enum Step {
        Sell,
        Release,
        Return(Vec<(usize, Quantity)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Sell),
            1 => Just(Step::Release),
            4 => proptest::collection::vec((0..4_usize, -2..9_i64), 0..4).prop_map(Step::Return),
        ]
    }

    proptest! {
        /// Whatever becomes of a hold in whatever order: each piece is on the shelf, set aside or sold, and comes back
        /// at most once.
        #[test]
        fn p07_no_piece_of_a_hold_is_ever_in_two_places(
            pieces in proptest::collection::vec(1..9_i64, 1..4),
            steps in proptest::collection::vec(step(), 0..20),
        ) {
            use HoldState::{StockHold, Released, Returned, Sold};
            let products: Vec<ProductId> = (0..4).map(|_| ProductId::new()).collect();
            let mut lines: Vec<_> = pieces.iter().enumerate().map(|(n, count)| (products[n], *count, 0)).collect();
            let all: Quantity = pieces.iter().sum();
            // All were on the shelf and are set aside now.
            let (mut state, mut shelf) = (StockHold, 0);
            for step in steps {
                let before = state;
                match step {
                    Step::Sell if state.may_become(Sold) => {
                        // Paid too late: taken from the shelf once more.
                        shelf -= if state == Released { all } else { 0 };
                        state = Sold;
                    }
                    Step::Release if state.may_become(Released) => {
                        state = Released;
                        shelf += all;
                    }
                    Step::Return(these) if state.may_become(Returned) => {
                        let these: Vec<ReturnLine> = these
                            .into_iter()
                            .map(|(n, quantity)| ReturnLine { product_id: products[n], quantity })
                            .collect();
                        let (back, none_out) = coming_back(&lines, &these);
                        for line in back {
                            let sold = lines.iter_mut().find(|sold| sold.0 == line.product_id).unwrap();
                            prop_assert!(line.quantity > 0);
                            sold.2 += line.quantity;
                            shelf += line.quantity;
                        }
                        if none_out {
                            state = Returned;
                        }
                    }
                    _ => {}
                }
                prop_assert!(before == state || before.may_become(state));
                let out: Quantity = lines.iter().map(|(_, quantity, returned)| quantity - returned).sum();
                prop_assert!(lines.iter().all(|(_, quantity, returned)| (0..=*quantity).contains(returned)));
                let with_buyers = if matches!(state, Sold | Returned) { out } else { 0 };
                let aside = if state == StockHold { all } else { 0 };
                prop_assert_eq!(shelf + aside + with_buyers, all);
                prop_assert_eq!(state == Returned, out == 0);
            }
        }
    }

    #[test]
    fn links_are_plain_whatever_the_name() {
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
    fn a_search_is_only_ever_words() {
        let cases = [
            ("tea", Some("\"tea\" *")),
            ("blue tea", Some("\"blue\" AND \"tea\" *")),
            ("a OR NEAR(b) -c", Some("\"a\" AND \"OR\" AND \"NEAR\" AND \"b\" AND \"c\" *")),
            ("\"*(", None),
            ("  ", None),
        ];
        for (text, words) in cases {
            assert_eq!(search(text).as_deref(), words, "{text}");
        }
    }

    #[test]
    fn a_mean_rating_is_rounded_to_a_hundredth() {
        for (sum, count, mean) in [(0, 0, None), (5, 1, Some(5.0)), (9, 2, Some(4.5)), (11, 3, Some(3.67))] {
            assert_eq!(rating(sum, count), mean);
        }
    }

    #[test]
    fn low_stock_is_told_when_the_mark_is_crossed_and_not_again() {
        let cases = [(10, 5, true), (6, 0, true), (5, 4, false), (10, 6, false), (3, 9, false)];
        for (before, after, told) in cases {
            assert_eq!(fell_low(before, after, 5), told, "{before} to {after}");
        }
    }
}
