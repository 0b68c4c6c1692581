//! SQL of images and their files.

use std::collections::HashMap;

use super::{WriteScope, from_json, query_chunks, to_json, touch_updated_at};
use crate::contract::catalog::{CatalogError, Image, ImageFile, ImageSize};
use crate::domains::catalog::image_processing::Rendition;
use crate::domains::catalog::model::IMAGES_MAX;
use crate::domains::catalog::schema::{image, image_file};
use crate::store::query::*;
use crate::store::{Conn, Tx};
use crate::types::{ImageId, ProductId};

/// A row of `image`, without its position.
#[derive(Queryable, Selectable)]
#[diesel(table_name = image)]
struct ImageRow {
    id: ImageId,
    product_id: ProductId,
    alt: String,
    width: i32,
    height: i32,
    sizes: String,
}

impl ImageRow {
    fn into_image(self) -> Image {
        let url = format!("/api/v1/product/{}/images/{}", self.product_id, self.id);
        let sizes = from_json::<Vec<(u32, u32)>>(&self.sizes)
            .into_iter()
            .map(|(width, height)| ImageSize { url: format!("{url}?width={width}"), width, height })
            .collect();
        let to_u32 = |pixels: i32| u32::try_from(pixels).unwrap_or(0);
        Image { id: self.id, url, width: to_u32(self.width), height: to_u32(self.height), alt: self.alt, sizes }
    }
}

/// Loads the images of products, in order.
pub fn by_product(conn: &mut Conn, products: &[ProductId]) -> QueryResult<HashMap<ProductId, Vec<Image>>> {
    let mut images: HashMap<ProductId, Vec<Image>> = HashMap::new();
    for chunk in query_chunks(products) {
        let query = image::table.order((image::product_id, image::position)).select(ImageRow::as_select());
        let rows: Vec<ImageRow> = match chunk {
            [id] => query.filter(image::product_id.eq(id)).load(conn)?,
            _ => query.filter(image::product_id.eq_any(chunk)).load(conn)?,
        };
        for row in rows {
            images.entry(row.product_id).or_default().push(row.into_image());
        }
    }
    Ok(images)
}

/// Checks that the product is for sale and may have one more image.
///
/// # Errors
/// `ProductNotFound`, `TooManyImages`.
pub fn check_can_add(conn: &mut Conn, product_id: ProductId) -> Result<(), CatalogError> {
    super::find_for_sale(conn, product_id)?;
    let count: i64 = image::table.filter(image::product_id.eq(product_id)).count().get_result(conn)?;
    if count >= i64::from(IMAGES_MAX) { Err(CatalogError::TooManyImages { max: IMAGES_MAX }) } else { Ok(()) }
}

/// Inserts an image in all its sizes, the smallest first.
pub fn add(
    tx: &mut Tx<'_>,
    scope: &WriteScope,
    product_id: ProductId,
    alt: String,
    files: &[Rendition],
) -> Result<Image, CatalogError> {
    check_can_add(tx.conn, product_id)?;
    let product = super::find_for_sale(tx.conn, product_id)?;
    let Some((largest, smaller)) = files.split_last() else {
        return Err(CatalogError::UnsupportedImage { reason: "it is empty".to_owned() });
    };
    let last: Option<i64> = image::table
        .filter(image::product_id.eq(product_id))
        .select(diesel::dsl::max(image::position))
        .first(tx.conn)?;
    let sizes: Vec<(u32, u32)> = smaller.iter().map(|file| (file.width, file.height)).collect();
    let row = ImageRow {
        id: ImageId::new(),
        product_id,
        alt: if alt.is_empty() { product.name.clone() } else { alt },
        width: to_i32(largest.width),
        height: to_i32(largest.height),
        sizes: to_json(&sizes)?,
    };
    diesel::insert_into(image::table)
        .values((
            image::id.eq(row.id),
            image::product_id.eq(product_id),
            image::position.eq(last.unwrap_or(0) + 1),
            image::alt.eq(&row.alt),
            image::width.eq(row.width),
            image::height.eq(row.height),
            image::sizes.eq(&row.sizes),
        ))
        .execute(tx.conn)?;
    for file in files {
        diesel::insert_into(image_file::table)
            .values((
                image_file::image_id.eq(row.id),
                image_file::width.eq(to_i32(file.width)),
                image_file::height.eq(to_i32(file.height)),
                image_file::content_type.eq(file.content_type),
                image_file::data.eq(&file.data),
            ))
            .execute(tx.conn)?;
    }
    touch_updated_at(tx, scope, &product)?;
    Ok(row.into_image())
}

fn to_i32(pixels: u32) -> i32 {
    i32::try_from(pixels).unwrap_or(i32::MAX)
}

/// Deletes an image and its files.
pub fn delete(tx: &mut Tx<'_>, scope: &WriteScope, product_id: ProductId, id: ImageId) -> Result<(), CatalogError> {
    let product = super::find(tx.conn, product_id)?.ok_or(CatalogError::ProductNotFound)?;
    let gone = diesel::delete(image::table.filter(image::id.eq(id)).filter(image::product_id.eq(product_id)))
        .execute(tx.conn)?;
    if gone == 0 {
        return Err(CatalogError::ImageNotFound);
    }
    diesel::delete(image_file::table.filter(image_file::image_id.eq(id))).execute(tx.conn)?;
    touch_updated_at(tx, scope, &product)
}

/// Reads the file of an image in one of its widths, by default the largest.
pub fn file(
    conn: &mut Conn,
    product_id: ProductId,
    id: ImageId,
    width: Option<u32>,
) -> Result<ImageFile, CatalogError> {
    let largest: i32 = image::table
        .filter(image::id.eq(id))
        .filter(image::product_id.eq(product_id))
        .select(image::width)
        .first(conn)
        .optional()?
        .ok_or(CatalogError::ImageNotFound)?;
    let (content_type, data) = image_file::table
        .filter(image_file::image_id.eq(id))
        .filter(image_file::width.eq(width.map_or(largest, to_i32)))
        .select((image_file::content_type, image_file::data))
        .first(conn)
        .optional()?
        .ok_or(CatalogError::ImageNotFound)?;
    Ok(ImageFile { content_type, data })
}
