//! Handlers of `/user/{id}/cart`.

use serde::Deserialize;

use super::addresses::ORDER_ADDRESS_SERVER_SET;
use super::body::{ServerSetFields, UnreadBody};
use super::extract::ApiRequest;
use super::names::API_BASE;
use super::problem::Problem;
use super::respond::ApiResult;
use crate::contract::cart::{AddItem, CancelCheckout, CartError, Checkout, GetCart, GetItem, RemoveItem, SetQuantity};
use crate::contract::users::UsersError;
use crate::types::{CartItemId, PostalAddress, ProductId, Quantity, UserId};

/// Body of a new cart line. The path names the cart.
#[derive(Deserialize)]
pub struct AddItemBody {
    product_id: ProductId,
    quantity: Quantity,
}

/// Body with the new quantity of a cart line; 0 removes it.
#[derive(Deserialize)]
pub struct SetQuantityBody {
    quantity: Quantity,
}

/// Body of a checkout: the e-mail address for the receipt, required of guests, and what is printed on the invoice.
#[derive(Default, Deserialize)]
pub struct CheckoutBody {
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    shipping_address: Option<PostalAddress>,
    #[serde(default)]
    billing_address: Option<PostalAddress>,
    #[serde(default)]
    note: Option<String>,
}

impl ServerSetFields for AddItemBody {}
impl ServerSetFields for SetQuantityBody {
    const NAMES: &'static [&'static str] = &[
        "id",
        "product_id",
        "name",
        "slug",
        "unit_price",
        "total",
        "currency",
        "image",
        "changed",
        "added_unit_price",
    ];
}
impl ServerSetFields for CheckoutBody {
    const NAMES: &'static [&'static str] = ORDER_ADDRESS_SERVER_SET;
}

fn user_id(request: &ApiRequest) -> Result<UserId, Problem> {
    request.path_id("id", UsersError::UserNotFound)
}

fn item_id(request: &ApiRequest) -> Result<CartItemId, Problem> {
    request.path_id("item_id", CartError::ItemNotFound)
}

/// POST `/user/{id}/cart/`.
pub async fn add(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let user_id = user_id(&request)?;
    request.authorize(&GetCart { user_id })?;
    let AddItemBody { product_id, quantity } = body.json(&request).await?;
    let item = request.clients().cart.call(request.ctx(), AddItem { user_id, product_id, quantity }).await?;
    request.created(&format!("{API_BASE}/user/{user_id}/cart/{}", item.id), &item)
}

/// GET `/user/{id}/cart/`.
pub async fn get(request: ApiRequest) -> ApiResult {
    let user_id = user_id(&request)?;
    request.ok(&request.clients().cart.call(request.ctx(), GetCart { user_id }).await?)
}

/// GET `/user/{id}/cart/{item_id}`.
pub async fn get_item(request: ApiRequest) -> ApiResult {
    let (user_id, item_id) = (user_id(&request)?, item_id(&request)?);
    request.ok(&request.clients().cart.call(request.ctx(), GetItem { user_id, item_id }).await?)
}

/// PUT `/user/{id}/cart/{item_id}`.
pub async fn set_quantity(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let (user_id, item_id) = (user_id(&request)?, item_id(&request)?);
    request.authorize(&GetCart { user_id })?;
    let SetQuantityBody { quantity } = body.json(&request).await?;
    match request.clients().cart.call(request.ctx(), SetQuantity { user_id, item_id, quantity }).await? {
        Some(item) => request.ok(&item),
        None => request.no_content(),
    }
}

/// DELETE `/user/{id}/cart/{item_id}`.
pub async fn remove(request: ApiRequest) -> ApiResult {
    let (user_id, item_id) = (user_id(&request)?, item_id(&request)?);
    request.clients().cart.call(request.ctx(), RemoveItem { user_id, item_id }).await?;
    request.no_content()
}

/// POST `/user/{id}/cart/checkout`.
pub async fn checkout(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let user_id = user_id(&request)?;
    request.authorize(&GetCart { user_id })?;
    let CheckoutBody { email, shipping_address, billing_address, note } = body.json_or_default(&request).await?;
    let message = Checkout { user_id, email, shipping_address, billing_address, note };
    let invoice = request.clients().cart.call(request.ctx(), message).await?;
    request.created(&format!("{API_BASE}/invoices/{}", invoice.id), &invoice)
}

/// DELETE `/user/{id}/cart/checkout`.
pub async fn cancel_checkout(request: ApiRequest) -> ApiResult {
    let user_id = user_id(&request)?;
    request.clients().cart.call(request.ctx(), CancelCheckout { user_id }).await?;
    request.no_content()
}
