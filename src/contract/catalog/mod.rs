//! Messages, events and errors of the catalog: products here, lists, images, stock and import in their own files.
//!
//! Contains: serde types only, shared by the domain, the gateway and every transport between processes. Does not
//! contain: the rules that a product or a hold is checked by (`domains::catalog`). All amounts are integers in the minor
//! unit of the currency beside them; all quantities are whole items.

mod images;
mod import;
mod list;
mod stock;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{Amount, Currency, FieldError, ProductId, Quantity, Timestamp};

pub use images::*;
pub use import::*;
pub use list::*;
pub use stock::*;

/// A product. A variant is a product of its own that shares its `group` with the other variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// Id, kept also after the product is deleted.
    pub id: ProductId,
    /// Name on one line.
    pub name: String,
    /// Stock keeping unit: the shop's own article number, unique also among deleted products.
    pub sku: String,
    /// Path segment for links, unique and never changed: `teapot-blue-3f9a`.
    pub slug: String,
    /// Description in plain text, line breaks kept.
    pub description: String,
    /// Price in minor units.
    pub price: Amount,
    /// Currency of both prices.
    pub currency: Currency,
    /// Former price in minor units, above `price`; shown crossed out.
    pub compare_at_price: Option<Amount>,
    /// Items available: in stock, less those on hold for other checkouts. [`UNCOUNTED_STOCK`] of a product whose stock is
    /// not counted.
    pub stock: Quantity,
    /// Whether the stock is counted; if not, the product is always for sale.
    #[serde(default = "default_track_stock")]
    pub track_stock: bool,
    /// Category; a product has at most one.
    pub category: Option<String>,
    /// Tags in the order given, each once.
    pub tags: Vec<String>,
    /// Properties by name, as `{"Material": "Stoneware"}`.
    pub attributes: BTreeMap<String, String>,
    /// Name shared by all variants of one product.
    pub group: Option<String>,
    /// Choices that set it apart within its group, as `{"Size": "Large"}`.
    pub options: BTreeMap<String, String>,
    /// All products of its group that are not deleted, itself included; empty without a group.
    pub variants: Vec<Variant>,
    /// Images, the main one first.
    pub images: Vec<Image>,
    /// Mean of its ratings, 1 to 5, rounded to two decimals; `null` without any.
    pub rating: Option<f64>,
    /// Number of ratings.
    pub review_count: i64,
    /// Whether it is archived: no longer for sale, still readable by id.
    pub deleted: bool,
    /// Time it was created.
    pub created_at: Timestamp,
    /// Time of the last change; strictly increases with every change of the product itself.
    pub updated_at: Timestamp,
}

/// A product of the same group, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Id of the product.
    pub id: ProductId,
    /// Stock keeping unit.
    pub sku: String,
    /// Name of the product.
    pub name: String,
    /// Choices that set it apart within its group.
    pub options: BTreeMap<String, String>,
    /// Price in minor units.
    pub price: Amount,
    /// Former price in minor units, above `price`.
    pub compare_at_price: Option<Amount>,
    /// Currency of both prices.
    pub currency: Currency,
    /// Items available.
    pub stock: Quantity,
}

/// The fields of a product that a client sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewProduct {
    /// Name, 1 to 255 characters on one line.
    pub name: String,
    /// Stock keeping unit, 1 to 255 characters without white space.
    pub sku: String,
    /// Description in plain text, at most 100,000 characters.
    #[serde(default)]
    pub description: String,
    /// Price in minor units, 0 to 1,000,000,000,000.
    pub price: Amount,
    /// Currency of both prices.
    pub currency: Currency,
    /// Items available, 0 to 1,000,000,000.
    pub stock: Quantity,
    /// Whether the stock is counted. If not, the product is always for sale, and `stock` is ignored.
    #[serde(default = "default_track_stock", skip_serializing_if = "is_default_track_stock")]
    pub track_stock: bool,
    /// Former price in minor units, above `price`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare_at_price: Option<Amount>,
    /// Category, 1 to 255 characters; a path has ` > ` between its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Tags: at most 250 of 1 to 255 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Properties: at most 50; names of 1 to 50, values of at most 500 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Group name, 1 to 255 characters; at most 500 products share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Choices: at most 5; names of 1 to 50, values of 1 to 500 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Changes to a product as a merge patch (RFC 7396): absent fields stay, `null` clears.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_stock: Option<bool>,
    #[serde(default, deserialize_with = "null_or_value", skip_serializing_if = "Option::is_none")]
    pub compare_at_price: Option<Option<Amount>>,
    #[serde(default, deserialize_with = "null_or_value", skip_serializing_if = "Option::is_none")]
    pub category: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "null_or_value", skip_serializing_if = "Option::is_none")]
    pub group: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
}

/// Stock of products that are not counted: more than any order takes, so that a client that only looks at `stock` sells them.
pub const UNCOUNTED_STOCK: Quantity = 1_000_000_000;

/// The stock of products is counted unless they say otherwise.
const fn default_track_stock() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_default_track_stock(track_stock: &bool) -> bool {
    *track_stock
}

/// Reads `null` as `Some(None)`, where serde alone would read it as absent.
#[allow(clippy::option_option, reason = "see `ProductPatch`")]
fn null_or_value<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Creates a product.
///
/// # Errors
/// [`CatalogError::SkuTaken`] when another product, deleted ones included, has the SKU.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateProduct {
    /// Fields of the product.
    #[serde(flatten)]
    pub product: NewProduct,
}

/// Reads one product, also a deleted one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetProduct {
    /// Id of the product.
    pub product_id: ProductId,
}

/// Reads several products in the order given, each once; unknown ids are left out. Promises no stock to a buyer: only
/// [`HoldStock`] does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetOffers {
    /// Ids of the products, at most 1,000.
    pub product_ids: Vec<ProductId>,
}

/// The fields of a product that a cart needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Id of the product.
    pub product_id: ProductId,
    /// Name with the options: `Teapot (Blue)`.
    pub name: String,
    /// Stock keeping unit.
    pub sku: String,
    /// Path segment for links.
    pub slug: String,
    /// Price in minor units.
    pub price: Amount,
    /// Currency of the price.
    pub currency: Currency,
    /// Items available.
    pub stock: Quantity,
    /// Whether it is no longer for sale.
    pub deleted: bool,
    /// Path of the main image in its smallest size.
    pub image: Option<String>,
}

/// Changes the given fields of a product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateProduct {
    /// Id of the product.
    pub product_id: ProductId,
    /// Fields to change.
    pub patch: ProductPatch,
}

/// Replaces all fields of a product; those left out are cleared. The slug stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceProduct {
    /// Id of the product.
    pub product_id: ProductId,
    /// New fields.
    pub product: NewProduct,
}

/// Archives a product: it is no longer for sale, but readable by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteProduct {
    /// Id of the product.
    pub product_id: ProductId,
}

crate::requests! { CatalogError;
    "catalog.CreateProduct": CreateProduct => Product, once, |_| Access::Staff(Role::Manager);
    "catalog.GetProduct": GetProduct => Product, read, |_| Access::Anyone;
    "catalog.GetOffers": GetOffers => Vec<Offer>, read, |_| Access::Internal;
    "catalog.UpdateProduct": UpdateProduct => Product, retry, |_| Access::Staff(Role::Manager);
    "catalog.ReplaceProduct": ReplaceProduct => Product, retry, |_| Access::Staff(Role::Manager);
    "catalog.DeleteProduct": DeleteProduct => (), retry, |_| Access::Staff(Role::Manager);
}

/// Event: a product was created or changed in text, price, stock, images or rating, or was deleted. Carries the state
/// after the change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProductChanged {
    /// Id of the product.
    pub product_id: ProductId,
    /// Stock keeping unit.
    pub sku: String,
    /// Name of the product.
    pub name: String,
    /// Group name, if it has one.
    pub group: Option<String>,
    /// Price in minor units.
    pub price: Amount,
    /// Currency of the price.
    pub currency: Currency,
    /// Items available.
    pub stock: Quantity,
    /// Mean of its ratings, 1 to 5; `null` without any.
    pub rating: Option<f64>,
    /// Number of ratings.
    pub review_count: i64,
    /// Whether it is no longer for sale.
    pub deleted: bool,
    /// Time of the change; of two events of one product, the one with the later time is the newer state.
    pub updated_at: Timestamp,
}

crate::events! { pub const EVENTS;
    "catalog.back_in_stock": BackInStock;
    "catalog.low_stock": LowStock;
    "catalog.sale_refused": SaleRefused;
    "catalog.product_changed": ProductChanged;
}

/// Returns the ratings of products as the catalog stores them. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetRatings {
    /// Ids of the products, at most 500.
    pub products: Vec<ProductId>,
}

/// The rating of a product before its mean is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatingFacts {
    /// Id of the product.
    pub product_id: ProductId,
    /// Sum of its ratings, 1 to 5 per rating.
    pub sum: i64,
    /// Number of ratings.
    pub count: i64,
}

crate::requests! { crate::messaging::CommonError;
    "catalog.GetRatings": GetRatings => Vec<RatingFacts>, read, |_| Access::Internal;
}

/// An error of the catalog. Its code is the variant's name in snake case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CatalogError {
    /// No product has this id, or the request needs one that is for sale.
    #[error("there is no such product, or it is no longer for sale")]
    ProductNotFound,
    /// Another product has this SKU; it may be a deleted one.
    #[error("another product already uses this SKU")]
    SkuTaken,
    /// Fewer items are available than were requested.
    #[error("only {left} of this product can be bought now")]
    OutOfStock {
        /// Id of the product.
        product_id: ProductId,
        /// Items available.
        left: Quantity,
    },
    /// The hold was released or has expired.
    #[error("the reservation has ended; check out again")]
    HoldGone,
    /// The product has no image with this id, or none in this width.
    #[error("there is no such image")]
    ImageNotFound,
    /// The product has the maximum number of images.
    #[error("a product can have at most {max} images; delete one first")]
    TooManyImages {
        /// Maximum number of images of a product.
        max: u32,
    },
    /// The file is not an image of a supported format, or is damaged.
    #[error("the file is not a valid JPEG, PNG or WebP image: {reason}")]
    UnsupportedImage {
        /// Defect of the file, for people.
        reason: String,
    },
    /// The file has too many bytes, or the image too many pixels.
    #[error("the image is too large: at most {max_bytes} bytes and {max_pixels} pixels")]
    ImageTooLarge {
        /// Maximum size of the file in bytes.
        max_bytes: u64,
        /// Maximum number of pixels, width times height.
        max_pixels: u64,
    },
    /// An error that every request can meet.
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
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
