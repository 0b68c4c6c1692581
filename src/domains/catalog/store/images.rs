//! Pictures: what a product shows, and the files.

use std::collections::HashMap;

use super::{WriteScope, json, one_by_one, read, renew};
use crate::contract::catalog::{CatalogError, Image, ImageFile, ImageSize};
use crate::domains::catalog::image_processing::Rendition;
use crate::domains::catalog::model::IMAGES_MAX;
use crate::domains::catalog::schema::{image, image_file};
use crate::store::query::*;
use crate::store::{Conn, Tx};
use crate::types::{ImageId, ProductId};

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
    fn image(self) -> Image {
        let url = format!("/api/v1/product/{}/images/{}", self.product_id, self.id);
        let sizes = read::<Vec<(u32, u32)>>(&self.sizes)
            .into_iter()
            .map(|(width, height)| ImageSize { url: format!("{url}?width={width}"), width, height })
            .collect();
        let side = |pixels: i32| u32::try_from(pixels).unwrap_or(0);
        Image { id: self.id, url, width: side(self.width), height: side(self.height), alt: self.alt, sizes }
    }
}

/// The pictures of these products.
pub fn of(conn: &mut Conn, products: &[ProductId]) -> QueryResult<HashMap<ProductId, Vec<Image>>> {
    let mut images: HashMap<ProductId, Vec<Image>> = HashMap::new();
    for few in one_by_one(products) {
        let query = image::table.order((image::product_id, image::position)).select(ImageRow::as_select());
        let rows: Vec<ImageRow> = match few {
            [id] => query.filter(image::product_id.eq(id)).load(conn)?,
            _ => query.filter(image::product_id.eq_any(few)).load(conn)?,
        };
        for row in rows {
            images.entry(row.product_id).or_default().push(row.image());
        }
    }
    Ok(images)
}

/// Whether the product is for sale and may have one more picture.
pub fn may_add(conn: &mut Conn, product_id: ProductId) -> Result<(), CatalogError> {
    super::for_sale(conn, product_id)?;
    let count: i64 = image::table.filter(image::product_id.eq(product_id)).count().get_result(conn)?;
    if count >= i64::from(IMAGES_MAX) { Err(CatalogError::TooManyImages { max: IMAGES_MAX }) } else { Ok(()) }
}

/// Adds a picture in all its sizes, the smallest first.
pub fn add(
    tx: &mut Tx<'_>,
    hand: &WriteScope,
    product_id: ProductId,
    alt: String,
    files: &[Rendition],
) -> Result<Image, CatalogError> {
    may_add(tx.conn, product_id)?;
    let product = super::for_sale(tx.conn, product_id)?;
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
        width: side(largest.width),
        height: side(largest.height),
        sizes: json(&sizes)?,
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
                image_file::width.eq(side(file.width)),
                image_file::height.eq(side(file.height)),
                image_file::content_type.eq(file.content_type),
                image_file::data.eq(&file.data),
            ))
            .execute(tx.conn)?;
    }
    renew(tx, hand, &product)?;
    Ok(row.image())
}

fn side(pixels: u32) -> i32 {
    i32::try_from(pixels).unwrap_or(i32::MAX)
}

/// Takes a picture away.
pub fn delete(tx: &mut Tx<'_>, hand: &WriteScope, product_id: ProductId, id: ImageId) -> Result<(), CatalogError> {
    let product = super::find(tx.conn, product_id)?.ok_or(CatalogError::ProductNotFound)?;
    let gone = diesel::delete(image::table.filter(image::id.eq(id)).filter(image::product_id.eq(product_id)))
        .execute(tx.conn)?;
    if gone == 0 {
        return Err(CatalogError::ImageNotFound);
    }
    diesel::delete(image_file::table.filter(image_file::image_id.eq(id))).execute(tx.conn)?;
    renew(tx, hand, &product)
}

/// The file of a picture in one of its widths, the largest when none is named.
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
        .filter(image_file::width.eq(width.map_or(largest, side)))
        .select((image_file::content_type, image_file::data))
        .first(conn)
        .optional()?
        .ok_or(CatalogError::ImageNotFound)?;
    Ok(ImageFile { content_type, data })
}
