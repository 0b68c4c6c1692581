//! What can go wrong in the catalog, in its own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::{FieldError, ProductId, Quantity};

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
    Failure(#[from] Failure),
}

crate::failures_become!(CatalogError);

impl DomainError for CatalogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ProductNotFound | Self::ImageNotFound => ErrorKind::NotFound,
            Self::SkuTaken | Self::OutOfStock { .. } | Self::HoldGone | Self::TooManyImages { .. } => {
                ErrorKind::Conflict
            }
            Self::UnsupportedImage { .. } => ErrorKind::UnsupportedMedia,
            Self::ImageTooLarge { .. } => ErrorKind::TooLarge,
            Self::Failure(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Failure(failure) => failure.fields(),
            _ => &[],
        }
    }
}
