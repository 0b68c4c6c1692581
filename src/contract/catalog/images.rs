//! Images of products.

use serde::{Deserialize, Serialize};

use super::CatalogError;
use crate::types::{ImageId, ProductId};

/// An image of a product in all its sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Id of the image.
    pub id: ImageId,
    /// Path of the largest size.
    pub url: String,
    /// Width of the largest size, in pixels.
    pub width: u32,
    /// Height of the largest size, in pixels.
    pub height: u32,
    /// Alternative text, for readers who cannot see the image.
    pub alt: String,
    /// Smaller sizes, the smallest first.
    pub sizes: Vec<ImageSize>,
}

/// One size of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Path of the file.
    pub url: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Adds an image to a product. The format is detected from the content: JPEG, PNG or WebP.
///
/// # Errors
/// [`CatalogError::UnsupportedImage`], [`CatalogError::ImageTooLarge`], or [`CatalogError::TooManyImages`] above 20.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddImage {
    /// Id of the product.
    pub product_id: ProductId,
    /// Alternative text, at most 500 characters; the product's name when empty.
    #[serde(default)]
    pub alt: String,
    /// Content of the file, base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

/// Deletes an image and its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteImage {
    /// Id of the product.
    pub product_id: ProductId,
    /// Id of the image.
    pub image_id: ImageId,
}

/// Lists the images of a product, the main one first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListImages {
    /// Id of the product.
    pub product_id: ProductId,
}

/// Reads the file of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetImage {
    /// Id of the product.
    pub product_id: ProductId,
    /// Id of the image.
    pub image_id: ImageId,
    /// Width in pixels, one of those that [`Image::sizes`] lists; the largest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
}

/// The file of an image. Under one id and width it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// `image/jpeg` or `image/png`.
    pub content_type: String,
    /// Content of the file, base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

crate::requests! { CatalogError;
    "catalog.AddImage": AddImage => Image, once, |_| Access::Staff(Role::Manager);
    "catalog.DeleteImage": DeleteImage => (), retry, |_| Access::Staff(Role::Manager);
    "catalog.ListImages": ListImages => Vec<Image>, read, |_| Access::Anyone;
    "catalog.GetImage": GetImage => ImageFile, read, |_| Access::Anyone;
}

/// Serde form of bytes as base64 text, which every JSON transport can carry.
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
