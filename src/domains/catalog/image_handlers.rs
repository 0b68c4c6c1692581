//! Handlers of images: upload, which decodes and scales off the actor's thread, and reads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::actor::{CatalogState, get_product};
use super::image_processing::{self, ImageFileError, Rendition};
use super::store::images;
use super::{AddImage, CatalogError, DeleteImage, GetImage, GetProduct, Image, ImageFile, ListImages};
use crate::messaging::{CommonError, RequestContext};
use crate::types::{ProductId, Validator};

/// Memory in MiB for all images that are rendered at once. A larger image waits until it is the only one.
pub(super) const RENDER_MEMORY_MIB: u32 = 384;
/// Images rendered at once, whatever their size; each takes a core.
const RENDERS_MAX: u32 = 2;

/// The part of [`AddImage`] that identifies it under an idempotency key: a digest in place of the file.
#[derive(Serialize, Deserialize)]
struct AddedImage {
    product_id: ProductId,
    alt: String,
    digest: Vec<u8>,
}

crate::requests! { CatalogError;
    "catalog.AddImage": AddedImage => Image, once, |_| Access::Staff(Role::Manager);
}

pub(super) async fn add_image(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: AddImage,
) -> Result<Image, CatalogError> {
    let AddImage { product_id, alt, data } = request;
    let alt = crate::types::collapse_whitespace(&alt);
    let mut fields = Validator::new();
    fields.line("alt", &alt, 0, 500);
    fields.finish()?;
    let too_large = CatalogError::ImageTooLarge {
        max_bytes: u64::try_from(state.settings.image_bytes_max).unwrap_or(u64::MAX),
        max_pixels: state.settings.image_pixels_max,
    };
    if data.len() > state.settings.image_bytes_max {
        return Err(too_large);
    }
    let (digest, memory, data) = {
        let pixels_max = state.settings.image_pixels_max;
        let inspect = move || (Sha256::digest(&data).to_vec(), image_processing::memory_mib(&data, pixels_max), data);
        run_blocking_limited(&state, 0, inspect).await?
    };
    let request = AddedImage { product_id, alt: alt.clone(), digest };
    let add = || async {
        state.store.read(move |conn| images::check_can_add(conn, product_id)).await?;
        let (bytes_max, pixels_max) = (state.settings.image_bytes_max, state.settings.image_pixels_max);
        let files: Vec<Rendition> =
            run_blocking_limited(&state, memory, move || image_processing::render(&data, bytes_max, pixels_max))
                .await?
                .map_err(|error| match error {
                    ImageFileError::Unreadable(reason) => CatalogError::UnsupportedImage { reason },
                    ImageFileError::TooLarge => too_large,
                })?;
        state.write_idempotent(&ctx, &request, move |tx, scope| images::add(tx, scope, product_id, alt, &files)).await
    };
    state.store.idempotent(&ctx, &request)?.check_first(add).await
}

/// Runs CPU-bound work that takes `memory` MiB on the blocking pool: at most [`RENDERS_MAX`] at once, within
/// [`RENDER_MEMORY_MIB`].
async fn run_blocking_limited<T: Send + 'static>(
    state: &CatalogState,
    memory: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CommonError> {
    let share = memory.clamp(RENDER_MEMORY_MIB / RENDERS_MAX, RENDER_MEMORY_MIB);
    let permit = Arc::clone(&state.renders).acquire_many_owned(share).await.map_err(|_| CommonError::Unavailable)?;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|panicked| {
        log::error!("catalog: image decoder panicked: {panicked}");
        CommonError::Internal
    })
}

pub(super) async fn delete_image(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: DeleteImage,
) -> Result<(), CatalogError> {
    let DeleteImage { product_id, image_id } = request;
    state.write_idempotent(&ctx, &request, move |tx, scope| images::delete(tx, scope, product_id, image_id)).await
}

pub(super) async fn list_images(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ListImages,
) -> Result<Vec<Image>, CatalogError> {
    Ok(get_product(state, ctx, GetProduct { product_id: request.product_id }).await?.images)
}

pub(super) async fn get_image(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: GetImage,
) -> Result<ImageFile, CatalogError> {
    let GetImage { product_id, image_id, width } = request;
    state.store.read(move |conn| images::file(conn, product_id, image_id, width)).await
}
