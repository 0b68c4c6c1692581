//! `/user/{id}/cart`.

use serde::Deserialize;

use super::asked::{ApiRequest, ApiResult, BASE};
use super::input::{ServerSetFields, UnreadBody};
use super::problem::Problem;
use crate::contract::cart::{AddItem, CancelCheckout, CartError, Checkout, GetCart, GetItem, RemoveItem, SetQuantity};
use crate::contract::users::UsersError;
use crate::types::{CartItemId, ProductId, Quantity, UserId};

/// What is put into a cart; whose says the path.
#[derive(Deserialize)]
pub struct AddItemBody {
    product_id: ProductId,
    quantity: Quantity,
}

/// How many of a line.
#[derive(Deserialize)]
pub struct SetQuantityBody {
    quantity: Quantity,
}

/// Where the receipt goes.
#[derive(Default, Deserialize)]
pub struct CheckoutBody {
    #[serde(default)]
    email: Option<String>,
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
impl ServerSetFields for CheckoutBody {}

fn user_id(asked: &ApiRequest) -> Result<UserId, Problem> {
    asked.id("id", UsersError::UserNotFound)
}

fn item_id(asked: &ApiRequest) -> Result<CartItemId, Problem> {
    asked.id("item_id", CartError::ItemNotFound)
}

/// POST `/user/{id}/cart/`.
pub async fn add(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.may(&GetCart { user_id })?;
    let AddItemBody { product_id, quantity } = sent.json(&asked).await?;
    let item = asked.clients().cart.call(asked.ctx(), AddItem { user_id, product_id, quantity }).await?;
    asked.created(&format!("{BASE}/user/{user_id}/cart/{}", item.id), &item)
}

/// GET `/user/{id}/cart/`.
pub async fn get(asked: ApiRequest) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.ok(&asked.clients().cart.call(asked.ctx(), GetCart { user_id }).await?)
}

/// GET `/user/{id}/cart/{item_id}`.
pub async fn get_item(asked: ApiRequest) -> ApiResult {
    let (user_id, item_id) = (user_id(&asked)?, item_id(&asked)?);
    asked.ok(&asked.clients().cart.call(asked.ctx(), GetItem { user_id, item_id }).await?)
}

/// PUT `/user/{id}/cart/{item_id}`.
pub async fn set_quantity(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let (user_id, item_id) = (user_id(&asked)?, item_id(&asked)?);
    asked.may(&GetCart { user_id })?;
    let SetQuantityBody { quantity } = sent.json(&asked).await?;
    match asked.clients().cart.call(asked.ctx(), SetQuantity { user_id, item_id, quantity }).await? {
        Some(item) => asked.ok(&item),
        None => asked.done(),
    }
}

/// DELETE `/user/{id}/cart/{item_id}`.
pub async fn remove(asked: ApiRequest) -> ApiResult {
    let (user_id, item_id) = (user_id(&asked)?, item_id(&asked)?);
    asked.clients().cart.call(asked.ctx(), RemoveItem { user_id, item_id }).await?;
    asked.done()
}

/// POST `/user/{id}/cart/checkout`.
pub async fn checkout(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.may(&GetCart { user_id })?;
    let CheckoutBody { email } = sent.json_or_nothing(&asked).await?;
    let invoice = asked.clients().cart.call(asked.ctx(), Checkout { user_id, email }).await?;
    asked.created(&format!("{BASE}/invoices/{}", invoice.id), &invoice)
}

/// DELETE `/user/{id}/cart/checkout`.
pub async fn cancel_checkout(asked: ApiRequest) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.clients().cart.call(asked.ctx(), CancelCheckout { user_id }).await?;
    asked.done()
}
