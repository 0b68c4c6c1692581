//! `/product`, `/products`.

use super::asked::{ApiRequest, ApiResult, BASE};
use super::input::{Query, ServerSetFields, UnreadBody};
use super::problem::Problem;
use crate::contract::catalog::{
    CatalogError, CreateProduct, DeleteProduct, GetProduct, ListProducts, NewProduct, ProductPatch, ProductQuery,
    ReplaceProduct, UpdateProduct,
};
use crate::messaging::CommonError;
use crate::types::ProductId;

/// What a product carries that nobody can send.
const SERVER_SET: &[&str] =
    &["id", "slug", "variants", "images", "rating", "review_count", "deleted", "created_at", "updated_at"];

impl ServerSetFields for NewProduct {
    const NAMES: &'static [&'static str] = SERVER_SET;
}
impl ServerSetFields for ProductPatch {
    const NAMES: &'static [&'static str] = SERVER_SET;
}

/// The product in the path.
pub fn product_id(asked: &ApiRequest) -> Result<ProductId, Problem> {
    asked.id("id", CatalogError::ProductNotFound)
}

/// Whether the caller may change a product. ApiRequest before the body is read: who may not, hears that and not what is
/// wrong with the body.
fn may_change(asked: &ApiRequest, product_id: ProductId) -> Result<(), CommonError> {
    asked.may(&UpdateProduct { product_id, patch: ProductPatch::default() })
}

/// The id of no product, to ask for rights with where there is none yet.
const fn no_product() -> ProductId {
    ProductId::from_uuid(uuid::Uuid::nil())
}

/// POST `/product/`.
pub async fn create(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    may_change(&asked, no_product())?;
    let product: NewProduct = sent.json(&asked).await?;
    let product = asked.clients().catalog.call(asked.ctx(), CreateProduct { product }).await?;
    asked.created(&format!("{BASE}/product/{}", product.id), &product)
}

/// GET `/product/{id}`.
pub async fn get(asked: ApiRequest) -> ApiResult {
    let product_id = product_id(&asked)?;
    asked.ok(&asked.clients().catalog.call(asked.ctx(), GetProduct { product_id }).await?)
}

/// PUT `/product/{id}`.
pub async fn replace(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let product_id = product_id(&asked)?;
    may_change(&asked, product_id)?;
    let product: NewProduct = sent.json(&asked).await?;
    asked.ok(&asked.clients().catalog.call(asked.ctx(), ReplaceProduct { product_id, product }).await?)
}

/// PATCH `/product/{id}`.
pub async fn update(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let product_id = product_id(&asked)?;
    may_change(&asked, product_id)?;
    let patch: ProductPatch = sent.json(&asked).await?;
    asked.ok(&asked.clients().catalog.call(asked.ctx(), UpdateProduct { product_id, patch }).await?)
}

/// DELETE `/product/{id}`.
pub async fn delete(asked: ApiRequest) -> ApiResult {
    let product_id = product_id(&asked)?;
    asked.clients().catalog.call(asked.ctx(), DeleteProduct { product_id }).await?;
    asked.done()
}

/// What `variants=` may say: the only word there is.
#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Variants {
    All,
}

/// GET `/products/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = ListProducts {
        query: ProductQuery {
            q: query.text("q"),
            category: query.text("category"),
            tag: query.text("tag"),
            min_price: query.number("min_price"),
            max_price: query.number("max_price"),
            in_stock: query.flag("in_stock"),
            sort: query.word("sort", "must be name, price, -price, created_at, -created_at or relevance"),
            all_variants: query.word::<Variants>("variants", "must be all, or left out").is_some(),
        },
        page: query.page(),
    };
    query.done()?;
    let page = asked.clients().catalog.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}
