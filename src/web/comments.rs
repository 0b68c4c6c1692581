//! Handlers of `/product/{id}/comments`.

use serde::Deserialize;

use super::body::{ServerSetFields, UnreadBody};
use super::catalog::product_id;
use super::extract::ApiRequest;
use super::names::API_BASE;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::comments::{AddComment, CommentsError, DeleteComment, ListComments};

/// Body of a new comment: stars from 1 to 5, and a text. The path names the product.
#[derive(Deserialize)]
pub struct AddCommentBody {
    rating: i32,
    #[serde(default)]
    text: String,
}

impl ServerSetFields for AddCommentBody {}

/// POST `/product/{id}/comments/`.
pub async fn add(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let product_id = product_id(&request)?;
    request.authorize(&AddComment { product_id, rating: 1, text: String::new() })?;
    let AddCommentBody { rating, text } = body.json(&request).await?;
    let comment = request.clients().comments.call(request.ctx(), AddComment { product_id, rating, text }).await?;
    request.created(&format!("{API_BASE}/product/{product_id}/comments/{}", comment.id), &comment)
}

/// GET `/product/{id}/comments/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let product_id = product_id(&request)?;
    let mut query = Query::of(request.http());
    let message = ListComments { product_id, page: query.page() };
    query.finish()?;
    let page = request.clients().comments.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}

/// DELETE `/product/{id}/comments/{comment_id}`.
pub async fn delete(request: ApiRequest) -> ApiResult {
    let product_id = product_id(&request)?;
    let comment_id = request.path_id("comment_id", CommentsError::CommentNotFound)?;
    request.clients().comments.call(request.ctx(), DeleteComment { product_id, comment_id }).await?;
    request.no_content()
}
