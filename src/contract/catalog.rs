//! What the catalog can be asked, answers and announces.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{
    Amount, Currency, Cursor, FieldError, HoldId, ImageId, InvoiceId, PageRequest, ProductId, Quantity, Timestamp,
};

/// A thing for sale. A variant is a product of its own that shares its `group` with its siblings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// Which.
    pub id: ProductId,
    /// What it is called.
    pub name: String,
    /// The shop's own number for it, unique.
    pub sku: String,
    /// Its name in a link, unique: `teapot-blue-3f9a`.
    pub slug: String,
    /// Plain text, line ends kept.
    pub description: String,
    /// In minor units.
    pub price: Amount,
    /// Of the price.
    pub currency: Currency,
    /// What it cost before, when that is worth saying; in minor units, above the price.
    pub compare_at_price: Option<Amount>,
    /// How many can be bought now: on hand, less what is set aside for others.
    pub stock: Quantity,
    /// Its one category.
    pub category: Option<String>,
    /// Words it can be found by.
    pub tags: Vec<String>,
    /// Facts about it, as `{"Material": "Stoneware"}`.
    pub attributes: BTreeMap<String, String>,
    /// What its siblings share with it.
    pub group: Option<String>,
    /// Which of the siblings it is, as `{"Size": "Large"}`.
    pub options: BTreeMap<String, String>,
    /// All products of its group, itself included, that are for sale; empty without a group.
    pub variants: Vec<Variant>,
    /// Its pictures, the first one first.
    pub images: Vec<Image>,
    /// The mean of its ratings, 1 to 5, to one hundredth; `null` without any.
    pub rating: Option<f64>,
    /// How many ratings.
    pub review_count: i64,
    /// Whether it was taken out of the shop.
    pub deleted: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A sibling, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Which.
    pub id: ProductId,
    /// Its number.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// What sets it apart.
    pub options: BTreeMap<String, String>,
    /// In minor units.
    pub price: Amount,
    /// What it cost before.
    pub compare_at_price: Option<Amount>,
    /// Of the price.
    pub currency: Currency,
    /// How many can be bought now.
    pub stock: Quantity,
}

/// A picture of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Which.
    pub id: ImageId,
    /// Where the largest one is, as a path of this shop.
    pub url: String,
    /// Of the largest, in pixels.
    pub width: u32,
    /// Of the largest, in pixels.
    pub height: u32,
    /// What it shows, for those who cannot see it.
    pub alt: String,
    /// The same picture smaller, the smallest first.
    pub sizes: Vec<ImageSize>,
}

/// A picture in one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Where it is, as a path of this shop.
    pub url: String,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// What a new product is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewProduct {
    /// 1 to 200 characters on one line.
    pub name: String,
    /// 1 to 64 characters without white space.
    pub sku: String,
    /// At most 20,000 characters.
    #[serde(default)]
    pub description: String,
    /// In minor units, 0 to 1,000,000,000,000.
    pub price: Amount,
    /// Of the price.
    pub currency: Currency,
    /// 0 to 1,000,000,000.
    pub stock: Quantity,
    /// In minor units, above the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare_at_price: Option<Amount>,
    /// 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// At most 50, each 1 to 50 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// At most 50; keys 1 to 50, values at most 500 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// 1 to 100 characters; at most 500 products may share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// At most 5; keys 1 to 50, values 1 to 500 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What changes of a product: absent stays, `null` takes away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is that of `NewProduct`")]
#[allow(clippy::option_option, reason = "absent and null mean different things in a merge patch (RFC 7396)")]
pub struct ProductPatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock: Option<Quantity>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub compare_at_price: Option<Option<Amount>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub category: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub group: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
}

/// Reads `null` as "take it away", where serde alone would read it as absent.
#[allow(clippy::option_option, reason = "see `ProductPatch`")]
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

/// Puts a new product into the shop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateProduct {
    /// What it is.
    #[serde(flatten)]
    pub product: NewProduct,
}

/// Reads one product, also one that was taken out of the shop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetProduct {
    /// Which.
    pub product_id: ProductId,
}

/// Reads several products at once, in the order asked for and each once; unknown ones are left out. What is promised
/// to a buyer is decided by [`HoldStock`], not by this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetOffers {
    /// Which, at most 1,000.
    pub product_ids: Vec<ProductId>,
}

/// What a cart needs to know of a product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Which.
    pub product_id: ProductId,
    /// Its name, with its options: `Teapot (Blue)`.
    pub name: String,
    /// Its number.
    pub sku: String,
    /// Its name in a link.
    pub slug: String,
    /// In minor units.
    pub price: Amount,
    /// Of the price.
    pub currency: Currency,
    /// How many can be bought now.
    pub stock: Quantity,
    /// Whether it was taken out of the shop.
    pub deleted: bool,
    /// The smallest picture's path.
    pub image: Option<String>,
}

/// Changes what is given of a product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateProduct {
    /// Which.
    pub product_id: ProductId,
    /// What changes.
    pub patch: ProductPatch,
}

/// Makes a product wholly what is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceProduct {
    /// Which.
    pub product_id: ProductId,
    /// What it becomes.
    pub product: NewProduct,
}

/// Takes a product out of the shop; it can still be read by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteProduct {
    /// Which.
    pub product_id: ProductId,
}

/// In which order products are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sort {
    /// A to Z.
    #[serde(rename = "name")]
    Name,
    /// Cheapest first.
    #[serde(rename = "price")]
    Price,
    /// Dearest first.
    #[serde(rename = "-price")]
    PriceDescending,
    /// Oldest first.
    #[serde(rename = "created_at")]
    CreatedAt,
    /// Newest first.
    #[default]
    #[serde(rename = "-created_at")]
    CreatedAtDescending,
    /// Best match first; the default of a search. All words in the name come before words in tags, category, sku and
    /// options, those before words in the description; then short names before long, new before old. Without a
    /// search it is the default order.
    #[serde(rename = "relevance")]
    Relevance,
}

/// Lists what is for sale.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProductQuery {
    /// Words to find in name, description, tags, category, sku and options, all of them; the last one may be
    /// unfinished. At most 200 characters, of which the first 16 words count. Of a word that very many products have,
    /// the newest 10,000 of those in each place (name, labels, description) are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Only this category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Only with this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only from this price on, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_price: Option<Amount>,
    /// Only up to this price, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Amount>,
    /// Only what can be bought now (`true`) or what cannot (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_stock: Option<bool>,
    /// In which order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Sort>,
    /// Every variant on its own, where otherwise one stands for its group.
    #[serde(default)]
    pub all_variants: bool,
}

/// Lists what is for sale, a page at a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListProducts {
    /// What to list.
    #[serde(flatten)]
    pub query: ProductQuery,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// A page of products and what the whole list holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductPage {
    /// The products, shared with the room's memory: a page from there costs no copies.
    pub items: Vec<Arc<Product>>,
    /// Where the next page starts.
    pub next: Option<Cursor>,
    /// How the whole list is made up.
    pub facets: Arc<Facets>,
}

/// How a list is made up. Each facet leaves its own filter out, so that a reader sees what else there is.
///
/// The whole list is always counted exactly. A list narrowed by a filter or a search is counted exactly up to 10,000
/// items and no further: then the numbers are those of its first 10,000, which bounds what a question can cost. From
/// 2,000 items on they may be up to a second old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facets {
    /// How many items the whole list has.
    pub total: i64,
    /// The hundred fullest categories, the fullest first.
    pub categories: Vec<FacetValue>,
    /// The thirty commonest tags.
    pub tags: Vec<FacetValue>,
    /// The cheapest price in the list, in minor units.
    pub min_price: Option<Amount>,
    /// The dearest price in the list, in minor units.
    pub max_price: Option<Amount>,
    /// How many can be bought now.
    pub in_stock: i64,
}

/// A value and how many items have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacetValue {
    /// The value.
    pub value: String,
    /// How many.
    pub count: i64,
}

/// Adds a picture to a product. Its type is told by its content: JPEG, PNG or WebP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddImage {
    /// Of what.
    pub product_id: ProductId,
    /// What it shows; the product's name when empty.
    #[serde(default)]
    pub alt: String,
    /// The file, in base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

/// Takes a picture away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteImage {
    /// Of what.
    pub product_id: ProductId,
    /// Which.
    pub image_id: ImageId,
}

/// Lists a product's pictures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListImages {
    /// Of what.
    pub product_id: ProductId,
}

/// Reads a picture's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetImage {
    /// Of what.
    pub product_id: ProductId,
    /// Which.
    pub image_id: ImageId,
    /// One of the widths its product names; the largest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
}

/// A picture's file. Under one id and width it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// `image/jpeg` or `image/png`.
    pub content_type: String,
    /// The file, in base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

/// Puts products in or brings them up to date by `sku`; each row for itself. For the import.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportProducts {
    /// At most 1,000.
    pub rows: Vec<NewProduct>,
}

/// What became of an imported row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// It is new.
    Created(ProductId),
    /// A product with its sku is now so.
    Updated(ProductId),
    /// It cannot be, for this reason.
    Refused(String),
}

/// Reads all products that are for sale in the form they are imported in. For the export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportProducts {
    /// Only those after this one; from the start when absent.
    pub after: Option<ProductId>,
}

/// A part of an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportPage {
    /// The products, oldest first.
    pub rows: Vec<NewProduct>,
    /// After which to go on; `null` at the end.
    pub next: Option<ProductId>,
}

/// Sets stock aside for one checkout, so that two buyers cannot both get the last one: all lines or none.
/// Asked again with the same `hold` it changes nothing and gives the first answer; with other lines it is refused.
/// The `hold` is what makes it happen once, so an idempotency key beside it has no meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldStock {
    /// The holder's name for it.
    pub hold: HoldId,
    /// What and how many; a product may come twice, at most 1,000 lines.
    pub lines: Vec<HoldLine>,
    /// Until when, if nobody pays or lets go before.
    pub expires_at: Timestamp,
}

/// A product and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldLine {
    /// What.
    pub product_id: ProductId,
    /// How many.
    pub quantity: Quantity,
}

/// Stock that is set aside, with the prices of that moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockHold {
    /// The holder's name for it.
    pub hold: HoldId,
    /// The products as they are sold, one for each different product of the hold.
    pub offers: Vec<Offer>,
}

/// Lets held stock go. Asked again, or of a hold that was never made, it changes nothing; a hold that is asked
/// for after its release is refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseHold {
    /// Which.
    pub hold: HoldId,
}

crate::requests! { CatalogError;
    "catalog.CreateProduct": CreateProduct => Product, once, |_| Access::Admin;
    "catalog.GetProduct": GetProduct => Product, retry, |_| Access::Anyone;
    "catalog.GetOffers": GetOffers => Vec<Offer>, retry, |_| Access::Internal;
    "catalog.UpdateProduct": UpdateProduct => Product, retry, |_| Access::Admin;
    "catalog.ReplaceProduct": ReplaceProduct => Product, retry, |_| Access::Admin;
    "catalog.DeleteProduct": DeleteProduct => (), retry, |_| Access::Admin;
    "catalog.ListProducts": ListProducts => ProductPage, retry, |_| Access::Anyone;
    "catalog.AddImage": AddImage => Image, once, |_| Access::Admin;
    "catalog.DeleteImage": DeleteImage => (), retry, |_| Access::Admin;
    "catalog.ListImages": ListImages => Vec<Image>, retry, |_| Access::Anyone;
    "catalog.GetImage": GetImage => ImageFile, retry, |_| Access::Anyone;
    "catalog.ImportProducts": ImportProducts => Vec<ImportOutcome>, retry, |_| Access::Admin;
    "catalog.ExportProducts": ExportProducts => ExportPage, retry, |_| Access::Admin;
    "catalog.HoldStock": HoldStock => StockHold, retry, |_| Access::Internal;
    "catalog.ReleaseHold": ReleaseHold => (), retry, |_| Access::Internal;
}

/// A product is new or different: its text, price, stock, pictures, rating, or that it is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProductChanged {
    /// Which.
    pub product_id: ProductId,
    /// Its number.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// In minor units.
    pub price: Amount,
    /// Of the price.
    pub currency: Currency,
    /// How many can be bought now.
    pub stock: Quantity,
    /// The mean of its ratings.
    pub rating: Option<f64>,
    /// How many ratings.
    pub review_count: i64,
    /// Whether it was taken out of the shop.
    pub deleted: bool,
    /// When it changed: the larger one is the newer state.
    pub updated_at: Timestamp,
}

/// A product that could not be bought can be bought again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackInStock {
    /// Which.
    pub product_id: ProductId,
    /// Its name.
    pub name: String,
    /// How many.
    pub stock: Quantity,
}

/// A product's stock fell to the mark the shop set, or below.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LowStock {
    /// Which.
    pub product_id: ProductId,
    /// Its number.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// How many are left.
    pub stock: Quantity,
}

/// An invoice was paid, but its stock is neither held nor left: the money must go back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaleRefused {
    /// Which invoice.
    pub invoice_id: InvoiceId,
    /// Its hold.
    pub hold: HoldId,
}

crate::events! {
    "catalog.product_changed": ProductChanged;
    "catalog.back_in_stock": BackInStock;
    "catalog.low_stock": LowStock;
    "catalog.sale_refused": SaleRefused;
}

/// Bytes as base64 text, so that every transport that speaks JSON can carry them.
mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(de::Error::custom)
    }
}

/// Tells facts about holds. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListHoldFacts {
    /// About which.
    pub which: crate::store::Selection<HoldId>,
}

/// What must agree with the books of others about a hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldFacts {
    /// Which.
    pub hold: HoldId,
    /// How it stands: `held`, `sold`, `released`, `returned`.
    pub state: String,
    /// Until when it was made.
    pub expires_at: Timestamp,
    /// Of what, one line a product, in the order of their ids.
    pub lines: Vec<HoldLine>,
}

/// Says how products are rated here, at most 500. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetRatings {
    /// Which.
    pub products: Vec<ProductId>,
}

/// How a product is rated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatingFacts {
    /// Which.
    pub product_id: ProductId,
    /// The sum of its ratings.
    pub sum: i64,
    /// How many.
    pub count: i64,
}

crate::requests! { crate::messaging::CommonError;
    "catalog.ListHoldFacts": ListHoldFacts => Vec<HoldFacts>, retry, |_| Access::Internal;
    "catalog.GetRatings": GetRatings => Vec<RatingFacts>, retry, |_| Access::Internal;
}

/// An error of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CatalogError {
    /// No such product, or it is no longer for sale.
    #[error("there is no such product, or it is no longer for sale")]
    ProductNotFound,
    /// Another product has this sku.
    #[error("another product has this sku; a sku is unique")]
    SkuTaken,
    /// Fewer are left than were asked for.
    #[error("only {left} of this product can be bought now")]
    OutOfStock {
        /// Of what.
        product_id: ProductId,
        /// How many are left.
        left: Quantity,
    },
    /// The hold was let go or ran out.
    #[error("the reservation is gone; check out again")]
    HoldGone,
    /// No such picture.
    #[error("there is no such picture")]
    ImageNotFound,
    /// The product has as many pictures as it may.
    #[error("a product can have at most {max} pictures; delete one first")]
    TooManyImages {
        /// How many it may have.
        max: u32,
    },
    /// The file is no picture we read.
    #[error("the file is not a JPEG, PNG or WebP picture that can be read: {reason}")]
    UnsupportedImage {
        /// What is wrong with it.
        reason: String,
    },
    /// The file or what it unfolds to is too large.
    #[error("the picture is too large: at most {max_bytes} bytes and {max_pixels} pixels")]
    ImageTooLarge {
        /// Of the file.
        max_bytes: u64,
        /// Of the picture.
        max_pixels: u64,
    },
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(CatalogError);

impl DomainError for CatalogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ProductNotFound | Self::ImageNotFound => ErrorKind::NotFound,
            Self::SkuTaken | Self::OutOfStock { .. } | Self::HoldGone | Self::TooManyImages { .. } => {
                ErrorKind::Conflict
            }
            Self::UnsupportedImage { .. } => ErrorKind::UnsupportedMedia,
            Self::ImageTooLarge { .. } => ErrorKind::TooLarge,
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}
