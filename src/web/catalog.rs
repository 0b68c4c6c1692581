//! Handlers of `/product` and `/products`.

use serde::Deserialize;

use super::body::{ServerSetFields, UnreadBody};
use super::extract::ApiRequest;
use super::names::API_BASE;
use super::problem::Problem;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::catalog::{
    CatalogError, ChangeStock, CreateProduct, DeleteProduct, GetProduct, GetStock, ListProducts, NewProduct,
    ProductPatch, ProductQuery, ReplaceProduct, UpdateProduct,
};
use crate::messaging::CommonError;
use crate::types::{ProductId, Quantity};

/// Fields of a product that only the server sets.
const SERVER_SET: &[&str] =
    &["id", "slug", "variants", "images", "rating", "review_count", "deleted", "created_at", "updated_at"];

impl ServerSetFields for NewProduct {
    const NAMES: &'static [&'static str] = SERVER_SET;
}
impl ServerSetFields for ProductPatch {
    const NAMES: &'static [&'static str] = SERVER_SET;
}

/// Id of the product in the path.
pub fn product_id(request: &ApiRequest) -> Result<ProductId, Problem> {
    request.path_id("id", CatalogError::ProductNotFound)
}

/// Checks the right to change a product. Called before the body is read, so that a caller without the right learns that
/// and not the faults of the body.
fn authorize_change(request: &ApiRequest, product_id: ProductId) -> Result<(), CommonError> {
    request.authorize(&UpdateProduct { product_id, patch: ProductPatch::default() })
}

/// Id of no product, for checking rights where there is no product yet.
const fn no_product() -> ProductId {
    ProductId::from_uuid(uuid::Uuid::nil())
}

/// POST `/product/`.
pub async fn create(request: ApiRequest, body: UnreadBody) -> ApiResult {
    authorize_change(&request, no_product())?;
    let product: NewProduct = body.json(&request).await?;
    let product = request.clients().catalog.call(request.ctx(), CreateProduct { product }).await?;
    request.created(&format!("{API_BASE}/product/{}", product.id), &product)
}

/// GET `/product/{id}`.
pub async fn get(request: ApiRequest) -> ApiResult {
    let product_id = product_id(&request)?;
    let product = request.clients().catalog.call(request.ctx(), GetProduct { product_id }).await?;
    request.ok_tagged(product.updated_at, &product)
}

/// PUT `/product/{id}`.
pub async fn replace(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let product_id = product_id(&request)?;
    authorize_change(&request, product_id)?;
    let product: NewProduct = body.json(&request).await?;
    let product = request.clients().catalog.call(request.ctx(), ReplaceProduct { product_id, product }).await?;
    request.ok_tagged(product.updated_at, &product)
}

/// PATCH `/product/{id}`.
pub async fn update(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let product_id = product_id(&request)?;
    authorize_change(&request, product_id)?;
    let patch: ProductPatch = body.json(&request).await?;
    let product = request.clients().catalog.call(request.ctx(), UpdateProduct { product_id, patch }).await?;
    request.ok_tagged(product.updated_at, &product)
}

/// DELETE `/product/{id}`.
pub async fn delete(request: ApiRequest) -> ApiResult {
    let product_id = product_id(&request)?;
    request.clients().catalog.call(request.ctx(), DeleteProduct { product_id }).await?;
    request.no_content()
}

/// Body of POST `/product/{id}/stock`.
#[derive(Deserialize)]
pub struct ChangeStockBody {
    change: Option<Quantity>,
    set: Option<Quantity>,
    reason: Option<String>,
}

impl ServerSetFields for ChangeStockBody {}

/// POST `/product/{id}/stock`.
pub async fn change_stock(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let product_id = product_id(&request)?;
    request.authorize(&ChangeStock { product_id, change: None, set: None, reason: None })?;
    let ChangeStockBody { change, set, reason } = body.json(&request).await?;
    let message = ChangeStock { product_id, change, set, reason };
    let stocked = request.clients().catalog.call(request.ctx(), message).await?;
    // The tag of the product itself: the next change begins with this one.
    request.ok_tagged(stocked.product.updated_at, &stocked)
}

/// GET `/product/{id}/stock`.
pub async fn stock(request: ApiRequest) -> ApiResult {
    let product_id = product_id(&request)?;
    request.ok(&request.clients().catalog.call(request.ctx(), GetStock { product_id }).await?)
}

/// Value of the query parameter `variants`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum VariantsParameter {
    All,
}

/// GET `/products/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListProducts {
        query: ProductQuery {
            q: query.text("q"),
            category: query.text("category"),
            tag: query.text("tag"),
            min_price: query.number("min_price"),
            max_price: query.number("max_price"),
            in_stock: query.flag("in_stock"),
            sort: query.one_of("sort", "must be name, price, -price, created_at, -created_at or relevance"),
            all_variants: query.one_of::<VariantsParameter>("variants", "must be all, or left out").is_some(),
        },
        page: query.page(),
    };
    query.finish()?;
    let page = request.clients().catalog.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}
