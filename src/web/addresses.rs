//! Handlers of `/user/{id}/addresses` and `/countries`.

use super::body::{ServerSetFields, UnreadBody};
use super::extract::ApiRequest;
use super::names::API_BASE;
use super::problem::Problem;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::users::{
    CreateAddress, DeleteAddress, GetAddress, ListAddresses, ListCountries, ReplaceAddress, UsersError,
};
use crate::types::{AddressId, PageRequest, PostalAddress, UserId};

impl ServerSetFields for PostalAddress {
    const NAMES: &'static [&'static str] = &["id", "created_at", "updated_at"];
}

fn user_id(request: &ApiRequest) -> Result<UserId, Problem> {
    request.path_id("id", UsersError::UserNotFound)
}

fn address_id(request: &ApiRequest) -> Result<AddressId, Problem> {
    request.path_id("address_id", UsersError::AddressNotFound)
}

/// Fields that an entry of the address book has beside the address. A client that gives an entry as the address of an order
/// sends them along.
pub const ORDER_ADDRESS_SERVER_SET: &[&str] = &[
    "shipping_address.id",
    "shipping_address.created_at",
    "shipping_address.updated_at",
    "billing_address.id",
    "billing_address.created_at",
    "billing_address.updated_at",
];

/// Checks the right to change an address book. Called before the body is read, so that a caller without the right learns
/// that and not the faults of the body.
fn authorize(request: &ApiRequest, user_id: UserId) -> Result<(), Problem> {
    Ok(request.authorize(&ListAddresses { user_id, page: PageRequest::default() })?)
}

/// GET `/countries`.
pub async fn countries(request: ApiRequest) -> ApiResult {
    request.ok(&request.clients().users.call(request.ctx(), ListCountries {}).await?)
}

/// GET `/user/{id}/addresses`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListAddresses { user_id: user_id(&request)?, page: query.page() };
    query.finish()?;
    let page = request.clients().users.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}

/// POST `/user/{id}/addresses`.
pub async fn create(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let user_id = user_id(&request)?;
    authorize(&request, user_id)?;
    let address: PostalAddress = body.json(&request).await?;
    let saved = request.clients().users.call(request.ctx(), CreateAddress { user_id, address }).await?;
    request.created(&format!("{API_BASE}/user/{user_id}/addresses/{}", saved.id), &saved)
}

/// GET `/user/{id}/addresses/{address_id}`.
pub async fn get(request: ApiRequest) -> ApiResult {
    let (user_id, address_id) = (user_id(&request)?, address_id(&request)?);
    let saved = request.clients().users.call(request.ctx(), GetAddress { user_id, address_id }).await?;
    request.ok_tagged(saved.updated_at, &saved)
}

/// PUT `/user/{id}/addresses/{address_id}`.
pub async fn replace(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let (user_id, address_id) = (user_id(&request)?, address_id(&request)?);
    authorize(&request, user_id)?;
    let address: PostalAddress = body.json(&request).await?;
    let saved = request.clients().users.call(request.ctx(), ReplaceAddress { user_id, address_id, address }).await?;
    request.ok_tagged(saved.updated_at, &saved)
}

/// DELETE `/user/{id}/addresses/{address_id}`.
pub async fn delete(request: ApiRequest) -> ApiResult {
    let (user_id, address_id) = (user_id(&request)?, address_id(&request)?);
    request.clients().users.call(request.ctx(), DeleteAddress { user_id, address_id }).await?;
    request.no_content()
}
