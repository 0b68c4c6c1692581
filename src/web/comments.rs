//! `/product/{id}/comments`.

use serde::Deserialize;

use super::asked::{ApiRequest, ApiResult, BASE};
use super::catalog::product_id;
use super::input::{Query, ServerSetFields, UnreadBody};
use crate::contract::comments::{AddComment, CommentsError, DeleteComment, ListComments};

/// What somebody says of a product; which one says the path.
#[derive(Deserialize)]
pub struct AddCommentBody {
    rating: i32,
    #[serde(default)]
    text: String,
}

impl ServerSetFields for AddCommentBody {}

/// POST `/product/{id}/comments/`.
pub async fn add(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let product_id = product_id(&asked)?;
    asked.may(&AddComment { product_id, rating: 1, text: String::new() })?;
    let AddCommentBody { rating, text } = sent.json(&asked).await?;
    let comment = asked.clients().comments.call(asked.ctx(), AddComment { product_id, rating, text }).await?;
    asked.created(&format!("{BASE}/product/{product_id}/comments/{}", comment.id), &comment)
}

/// GET `/product/{id}/comments/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let product_id = product_id(&asked)?;
    let mut query = Query::of(asked.request());
    let request = ListComments { product_id, page: query.page() };
    query.done()?;
    let page = asked.clients().comments.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}

/// DELETE `/product/{id}/comments/{comment_id}`.
pub async fn delete(asked: ApiRequest) -> ApiResult {
    let product_id = product_id(&asked)?;
    let comment_id = asked.id("comment_id", CommentsError::CommentNotFound)?;
    asked.clients().comments.call(asked.ctx(), DeleteComment { product_id, comment_id }).await?;
    asked.done()
}
