//! `/user`, `/guest`, `/signin`, `/me`, `/password`, `/email`, `/api_keys`.

use serde::Deserialize;
use serde_json::json;

use super::asked::{ApiRequest, ApiResult, BASE, PublicApiRequest};
use super::input::{Query, ServerSetFields, UnreadBody};
use crate::contract::users::{
    CreateApiKey, CreateGuest, DeleteApiKey, DeleteUser, ForgotPassword, GetUser, ListApiKeys, ListUsers, Register,
    ResetPassword, SignIn, SignOut, UpdateUser, UsersError, VerifyEmail,
};
use crate::messaging::Role;
use crate::types::{ApiKeyId, UserId};

impl ServerSetFields for Register {}
impl ServerSetFields for SignIn {}
impl ServerSetFields for ForgotPassword {}
impl ServerSetFields for ResetPassword {}
impl ServerSetFields for VerifyEmail {}
impl ServerSetFields for CreateApiKey {}

/// What changes of a user; who it is says the path.
#[derive(Deserialize)]
pub struct UpdateUserBody {
    name: Option<String>,
    email: Option<String>,
    password: Option<String>,
    current_password: Option<String>,
    role: Option<Role>,
}

impl ServerSetFields for UpdateUserBody {
    const NAMES: &'static [&'static str] = &["id", "email_verified", "created_at", "updated_at"];
}

fn user_id(asked: &ApiRequest) -> Result<UserId, super::problem::Problem> {
    asked.id("id", UsersError::UserNotFound)
}

/// POST `/user/`.
pub async fn register(PublicApiRequest(asked): PublicApiRequest, sent: UnreadBody) -> ApiResult {
    let request: Register = sent.json(&asked).await?;
    let user = asked.clients().users.call(asked.ctx(), request).await?;
    let mut answer = asked.created(&format!("{BASE}/user/{}", user.id), &user)?;
    asked.keep_cookie(&mut answer);
    Ok(answer)
}

/// POST `/guest`.
pub async fn guest(PublicApiRequest(asked): PublicApiRequest) -> ApiResult {
    let signed_in = asked.clients().users.call(asked.ctx(), CreateGuest {}).await?;
    let mut answer = asked.created(&format!("{BASE}/user/{}", signed_in.user.id), &signed_in)?;
    asked.set_cookie(&mut answer, &signed_in);
    Ok(answer)
}

/// POST `/signin`.
pub async fn sign_in(PublicApiRequest(asked): PublicApiRequest, sent: UnreadBody) -> ApiResult {
    let request: SignIn = sent.json(&asked).await?;
    let signed_in = asked.clients().users.call(asked.ctx(), request).await?;
    let mut answer = asked.ok(&signed_in)?;
    asked.set_cookie(&mut answer, &signed_in);
    Ok(answer)
}

/// POST `/signout`.
pub async fn sign_out(asked: ApiRequest) -> ApiResult {
    asked.clients().users.call(asked.ctx(), SignOut {}).await?;
    asked.drop_cookie();
    asked.done()
}

/// GET `/me`.
pub async fn me(asked: ApiRequest) -> ApiResult {
    let user_id = asked.identity()?.user_id;
    asked.ok(&asked.clients().users.call(asked.ctx(), GetUser { user_id }).await?)
}

/// GET `/user/{id}`.
pub async fn get(asked: ApiRequest) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.ok(&asked.clients().users.call(asked.ctx(), GetUser { user_id }).await?)
}

/// PUT and PATCH `/user/{id}`: what is given changes, the rest stays. A user has no field that could be left out
/// on purpose, so both mean the same.
pub async fn update(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.may(&GetUser { user_id })?;
    let UpdateUserBody { name, email, password, current_password, role } = sent.json(&asked).await?;
    let request = UpdateUser { user_id, name, email, password, current_password, role };
    asked.ok(&asked.clients().users.call(asked.ctx(), request).await?)
}

/// DELETE `/user/{id}`.
pub async fn delete(asked: ApiRequest) -> ApiResult {
    let user_id = user_id(&asked)?;
    asked.clients().users.call(asked.ctx(), DeleteUser { user_id }).await?;
    if asked.identity().is_ok_and(|who| who.user_id == user_id) {
        asked.drop_cookie();
    }
    asked.done()
}

/// GET `/users/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = ListUsers { q: query.text("q"), page: query.page() };
    query.done()?;
    let page = asked.clients().users.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}

/// POST `/password/forgot`.
pub async fn forgot_password(PublicApiRequest(asked): PublicApiRequest, sent: UnreadBody) -> ApiResult {
    let request: ForgotPassword = sent.json(&asked).await?;
    asked.clients().users.call(asked.ctx(), request).await?;
    asked.accepted(&json!({ "status": "accepted" }))
}

/// POST `/password/reset`.
pub async fn reset_password(PublicApiRequest(asked): PublicApiRequest, sent: UnreadBody) -> ApiResult {
    let request: ResetPassword = sent.json(&asked).await?;
    asked.clients().users.call(asked.ctx(), request).await?;
    asked.done()
}

/// POST `/email/verify`.
pub async fn verify_email(PublicApiRequest(asked): PublicApiRequest, sent: UnreadBody) -> ApiResult {
    let request: VerifyEmail = sent.json(&asked).await?;
    asked.clients().users.call(asked.ctx(), request).await?;
    asked.done()
}

/// GET `/api_keys`.
pub async fn list_api_keys(asked: ApiRequest) -> ApiResult {
    let page = asked.clients().users.call(asked.ctx(), ListApiKeys {}).await?;
    asked.page(page.next.as_ref(), &page)
}

/// POST `/api_keys`.
pub async fn create_api_key(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    asked.may(&ListApiKeys {})?;
    let request: CreateApiKey = sent.json(&asked).await?;
    let key = asked.clients().users.call(asked.ctx(), request).await?;
    asked.created(&format!("{BASE}/api_keys/{}", key.api_key.id), &key)
}

/// DELETE `/api_keys/{id}`.
pub async fn delete_api_key(asked: ApiRequest) -> ApiResult {
    let api_key_id: ApiKeyId = asked.id("id", UsersError::ApiKeyNotFound)?;
    asked.clients().users.call(asked.ctx(), DeleteApiKey { api_key_id }).await?;
    asked.done()
}
