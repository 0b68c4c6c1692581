//! Handlers of `/user`, `/guest`, `/signin`, `/me`, `/session`, `/password`, `/email` and `/api_keys`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::{ServerSetFields, UnreadBody};
use super::extract::{ApiRequest, PublicApiRequest};
use super::names::{API_BASE, GATEWAY};
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::cart::MergeCart;
use crate::contract::users::{
    ConfirmTotp, CreateApiKey, CreateGuest, DeleteApiKey, DeleteUser, DisableTotp, EnrollTotp, ForgotPassword, GetUser,
    ListApiKeys, ListUsers, Register, Registration, ResetPassword, SignIn, SignOut, SignedIn, UpdateUser, User,
    UsersError, VerifyEmail,
};
use crate::messaging::{Identity, Role};
use crate::types::{ApiKeyId, UserId};

impl ServerSetFields for Register {}
impl ServerSetFields for SignIn {}
impl ServerSetFields for ForgotPassword {}
impl ServerSetFields for ResetPassword {}
impl ServerSetFields for VerifyEmail {}
impl ServerSetFields for CreateApiKey {}

/// Body of a request about a second factor: the code of the app. The path names the user.
#[derive(Deserialize)]
pub struct CodeBody {
    code: String,
}

impl ServerSetFields for CodeBody {}

/// Body of a request to switch a second factor off; an administrator leaves the code out.
#[derive(Default, Deserialize)]
pub struct OptionalCodeBody {
    code: Option<String>,
}

impl ServerSetFields for OptionalCodeBody {}

/// Body of a change of a user: absent fields stay as they are. The path names the user.
#[derive(Deserialize)]
pub struct UpdateUserBody {
    name: Option<String>,
    email: Option<String>,
    password: Option<String>,
    current_password: Option<String>,
    role: Option<Role>,
    #[serde(default)]
    keep_api_keys: bool,
}

impl ServerSetFields for UpdateUserBody {
    const NAMES: &'static [&'static str] = &["id", "email_verified", "pending_email", "created_at", "updated_at"];
}

fn user_id(request: &ApiRequest) -> Result<UserId, super::problem::Problem> {
    request.path_id("id", UsersError::UserNotFound)
}

/// POST `/user/`.
pub async fn register(PublicApiRequest(request): PublicApiRequest, body: UnreadBody) -> ApiResult {
    let message: Register = body.json(&request).await?;
    let registration = request.clients().users.call(request.ctx(), message).await?;
    let mut response = request.created(&format!("{API_BASE}/user/{}", registration.user.id), &registration)?;
    if let Registration { user, token: Some(token), expires_at: Some(expires_at) } = registration {
        request.set_session_cookie(&mut response, &SignedIn { token, expires_at, user });
    }
    Ok(response)
}

/// POST `/guest`.
pub async fn guest(PublicApiRequest(request): PublicApiRequest) -> ApiResult {
    let signed_in = request.clients().users.call(request.ctx(), CreateGuest {}).await?;
    let mut response = request.created(&format!("{API_BASE}/user/{}", signed_in.user.id), &signed_in)?;
    request.set_session_cookie(&mut response, &signed_in);
    Ok(response)
}

/// Reply to a sign-in.
#[derive(Serialize)]
pub struct SignInReply<'a> {
    #[serde(flatten)]
    signed_in: &'a SignedIn,
    /// Names of the products in the guest's cart that could not be moved to the account's; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cart_left: Vec<String>,
}

/// Moves the cart of the guest who makes the request to the account. The sign-in succeeds without: it must not depend on
/// the cart. Returns the names of products that could not be moved.
async fn merge_guest_cart(request: &ApiRequest, user_id: UserId) -> Vec<String> {
    let guest_id = match request.identity() {
        Ok(identity) if identity.role == Role::Guest && identity.user_id != user_id => identity.user_id,
        _ => return Vec::new(),
    };
    let ctx = request.ctx().for_downstream_call(GATEWAY, None);
    match request.clients().cart.call(ctx, MergeCart { guest_id, user_id }).await {
        Ok(merged) => merged.left,
        Err(error) => {
            log::warn!("the cart of guest {guest_id} was not moved at sign-in: {error}");
            Vec::new()
        }
    }
}

/// POST `/signin`.
pub async fn sign_in(PublicApiRequest(request): PublicApiRequest, body: UnreadBody) -> ApiResult {
    let message: SignIn = body.json(&request).await?;
    let signed_in = request.clients().users.call(request.ctx(), message).await?;
    let cart_left = merge_guest_cart(&request, signed_in.user.id).await;
    let mut response = request.ok(&SignInReply { signed_in: &signed_in, cart_left })?;
    request.set_session_cookie(&mut response, &signed_in);
    Ok(response)
}

/// POST `/signout`.
pub async fn sign_out(request: ApiRequest) -> ApiResult {
    request.clients().users.call(request.ctx(), SignOut {}).await?;
    request.remove_cookie();
    request.no_content()
}

/// GET `/me`.
pub async fn me(request: ApiRequest) -> ApiResult {
    let user_id = request.identity()?.user_id;
    request.ok(&request.clients().users.call(request.ctx(), GetUser { user_id }).await?)
}

/// The user that a request is of.
#[derive(Serialize)]
pub struct SessionUser {
    /// `null` for a caller without a user.
    user: Option<User>,
}

/// GET `/session`: as `/me`, but an answer for everyone, so that a page can ask whose it is without an error.
pub async fn session(request: ApiRequest) -> ApiResult {
    let user = match request.identity() {
        Ok(Identity { user_id, .. }) => Some(request.clients().users.call(request.ctx(), GetUser { user_id }).await?),
        Err(_) => None,
    };
    request.ok(&SessionUser { user })
}

/// GET `/user/{id}`.
pub async fn get(request: ApiRequest) -> ApiResult {
    let user_id = user_id(&request)?;
    request.ok(&request.clients().users.call(request.ctx(), GetUser { user_id }).await?)
}

/// PUT and PATCH `/user/{id}`. A user has no field that could be removed by leaving it out, so both change the fields
/// that are given and keep the rest.
pub async fn update(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let user_id = user_id(&request)?;
    request.authorize(&GetUser { user_id })?;
    let UpdateUserBody { name, email, password, current_password, role, keep_api_keys } = body.json(&request).await?;
    let message = UpdateUser { user_id, name, email, password, current_password, role, keep_api_keys };
    request.ok(&request.clients().users.call(request.ctx(), message).await?)
}

/// DELETE `/user/{id}`.
pub async fn delete(request: ApiRequest) -> ApiResult {
    let user_id = user_id(&request)?;
    request.clients().users.call(request.ctx(), DeleteUser { user_id }).await?;
    if request.identity().is_ok_and(|identity| identity.user_id == user_id) {
        request.remove_cookie();
    }
    request.no_content()
}

/// POST `/user/{id}/totp`.
pub async fn enroll_totp(request: ApiRequest) -> ApiResult {
    let user_id = user_id(&request)?;
    let enrolment = request.clients().users.call(request.ctx(), EnrollTotp { user_id }).await?;
    request.ok(&enrolment)
}

/// POST `/user/{id}/totp/confirm`.
pub async fn confirm_totp(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let user_id = user_id(&request)?;
    request.authorize(&EnrollTotp { user_id })?;
    let CodeBody { code } = body.json(&request).await?;
    request.ok(&request.clients().users.call(request.ctx(), ConfirmTotp { user_id, code }).await?)
}

/// DELETE `/user/{id}/totp`.
pub async fn disable_totp(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let user_id = user_id(&request)?;
    request.authorize(&DisableTotp { user_id, code: None })?;
    let OptionalCodeBody { code } = body.json_or_default(&request).await?;
    request.clients().users.call(request.ctx(), DisableTotp { user_id, code }).await?;
    request.no_content()
}

/// GET `/users/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListUsers { q: query.text("q"), page: query.page() };
    query.finish()?;
    let page = request.clients().users.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}

/// POST `/password/forgot`.
pub async fn forgot_password(PublicApiRequest(request): PublicApiRequest, body: UnreadBody) -> ApiResult {
    let message: ForgotPassword = body.json(&request).await?;
    request.clients().users.call(request.ctx(), message).await?;
    request.accepted(&json!({ "status": "accepted" }))
}

/// POST `/password/reset`.
pub async fn reset_password(PublicApiRequest(request): PublicApiRequest, body: UnreadBody) -> ApiResult {
    let message: ResetPassword = body.json(&request).await?;
    request.clients().users.call(request.ctx(), message).await?;
    request.no_content()
}

/// POST `/email/verify`.
pub async fn verify_email(PublicApiRequest(request): PublicApiRequest, body: UnreadBody) -> ApiResult {
    let message: VerifyEmail = body.json(&request).await?;
    request.clients().users.call(request.ctx(), message).await?;
    request.no_content()
}

/// GET `/api_keys`.
pub async fn list_api_keys(request: ApiRequest) -> ApiResult {
    let page = request.clients().users.call(request.ctx(), ListApiKeys {}).await?;
    request.page(page.next.as_ref(), &page)
}

/// POST `/api_keys`.
pub async fn create_api_key(request: ApiRequest, body: UnreadBody) -> ApiResult {
    request.authorize(&ListApiKeys {})?;
    let message: CreateApiKey = body.json(&request).await?;
    let key = request.clients().users.call(request.ctx(), message).await?;
    request.created(&format!("{API_BASE}/api_keys/{}", key.api_key.id), &key)
}

/// DELETE `/api_keys/{id}`.
pub async fn delete_api_key(request: ApiRequest) -> ApiResult {
    let api_key_id: ApiKeyId = request.path_id("id", UsersError::ApiKeyNotFound)?;
    request.clients().users.call(request.ctx(), DeleteApiKey { api_key_id }).await?;
    request.no_content()
}
