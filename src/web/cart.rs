//! `/user/{id}/cart`.

use serde::Deserialize;

use super::asked::{Answer, Asked, BASE};
use super::input::{ReadOnly, Sent};
use super::problem::Problem;
use crate::contract::cart::{AddItem, CancelCheckout, CartError, Checkout, GetCart, GetItem, RemoveItem, SetQuantity};
use crate::contract::users::UsersError;
use crate::types::{CartItemId, ProductId, Quantity, UserId};

/// What is put into a cart; whose says the path.
#[derive(Deserialize)]
pub struct NewItem {
    product_id: ProductId,
    quantity: Quantity,
}

/// How many of a line.
#[derive(Deserialize)]
pub struct NewQuantity {
    quantity: Quantity,
}

/// Where the receipt goes.
#[derive(Default, Deserialize)]
pub struct CheckoutWish {
    #[serde(default)]
    email: Option<String>,
}

impl ReadOnly for NewItem {}
impl ReadOnly for NewQuantity {
    const FIELDS: &'static [&'static str] = &[
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
impl ReadOnly for CheckoutWish {}

fn user_id(asked: &Asked) -> Result<UserId, Problem> {
    asked.id("id", UsersError::UserNotFound)
}

fn item_id(asked: &Asked) -> Result<CartItemId, Problem> {
    asked.id("item_id", CartError::ItemNotFound)
}

/// POST `/user/{id}/cart/`.
pub async fn add(asked: Asked, sent: Sent) -> Answer {
    let user_id = user_id(&asked)?;
    asked.may(&GetCart { user_id })?;
    let NewItem { product_id, quantity } = sent.json(&asked).await?;
    let item = asked.clients().cart.call(asked.ctx(), AddItem { user_id, product_id, quantity }).await?;
    asked.created(&format!("{BASE}/user/{user_id}/cart/{}", item.id), &item)
}

/// GET `/user/{id}/cart/`.
pub async fn get(asked: Asked) -> Answer {
    let user_id = user_id(&asked)?;
    asked.ok(&asked.clients().cart.call(asked.ctx(), GetCart { user_id }).await?)
}

/// GET `/user/{id}/cart/{item_id}`.
pub async fn get_item(asked: Asked) -> Answer {
    let (user_id, item_id) = (user_id(&asked)?, item_id(&asked)?);
    asked.ok(&asked.clients().cart.call(asked.ctx(), GetItem { user_id, item_id }).await?)
}

/// PUT `/user/{id}/cart/{item_id}`.
pub async fn set_quantity(asked: Asked, sent: Sent) -> Answer {
    let (user_id, item_id) = (user_id(&asked)?, item_id(&asked)?);
    asked.may(&GetCart { user_id })?;
    let NewQuantity { quantity } = sent.json(&asked).await?;
    match asked.clients().cart.call(asked.ctx(), SetQuantity { user_id, item_id, quantity }).await? {
        Some(item) => asked.ok(&item),
        None => asked.done(),
    }
}

/// DELETE `/user/{id}/cart/{item_id}`.
pub async fn remove(asked: Asked) -> Answer {
    let (user_id, item_id) = (user_id(&asked)?, item_id(&asked)?);
    asked.clients().cart.call(asked.ctx(), RemoveItem { user_id, item_id }).await?;
    asked.done()
}

/// POST `/user/{id}/cart/checkout`.
pub async fn checkout(asked: Asked, sent: Sent) -> Answer {
    let user_id = user_id(&asked)?;
    asked.may(&GetCart { user_id })?;
    let CheckoutWish { email } = sent.json_or_nothing(&asked).await?;
    let invoice = asked.clients().cart.call(asked.ctx(), Checkout { user_id, email }).await?;
    asked.created(&format!("{BASE}/invoices/{}", invoice.id), &invoice)
}

/// DELETE `/user/{id}/cart/checkout`.
pub async fn cancel_checkout(asked: Asked) -> Answer {
    let user_id = user_id(&asked)?;
    asked.clients().cart.call(asked.ctx(), CancelCheckout { user_id }).await?;
    asked.done()
}
