//! Messages, errors and events of the comments domain.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{CommentId, FieldError, Page, PageRequest, ProductId, Timestamp, UserId};

/// A customer's review of a product: a rating with an optional text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Identifier of the comment.
    pub id: CommentId,
    /// Product that the comment is about.
    pub product_id: ProductId,
    /// Author; `null` once the account is deleted.
    pub user_id: Option<UserId>,
    /// Display name of the author.
    pub author: String,
    /// Rating from 1 to 5.
    pub rating: i32,
    /// Plain text, at most 5,000 characters; may be empty.
    pub text: String,
    /// Time of writing.
    pub created_at: Timestamp,
}

/// Adds the caller's comment on a product. A customer may have one comment per product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddComment {
    /// Product that the comment is about.
    pub product_id: ProductId,
    /// Rating from 1 to 5.
    pub rating: i32,
    /// Plain text, at most 5,000 characters.
    #[serde(default)]
    pub text: String,
}

/// Lists the comments on a product, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListComments {
    /// Product that the comment is about.
    pub product_id: ProductId,
    /// Cursor and page size.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Deletes a comment: the caller's own, or any for administrators.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteComment {
    /// Product that the comment is about.
    pub product_id: ProductId,
    /// Comment to delete.
    pub comment_id: CommentId,
}

/// Imports a comment with its author and time. For the sample data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportComment {
    /// Product that the comment is about.
    pub product_id: ProductId,
    /// Author.
    pub user_id: UserId,
    /// Display name of the author.
    pub author: String,
    /// Rating from 1 to 5.
    pub rating: i32,
    /// Plain text, at most 5,000 characters.
    pub text: String,
    /// Time of writing.
    pub at: Timestamp,
}

crate::requests! { CommentsError;
    "comments.AddComment": AddComment => Comment, once, |_| Access::SignedIn;
    "comments.ListComments": ListComments => Page<Comment>, read, |_| Access::Anyone;
    "comments.DeleteComment": DeleteComment => (), retry, |_| Access::SignedIn;
    "comments.ImportComment": ImportComment => Comment, once, |_| Access::Internal;
}

/// Event: a customer added a comment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommentAdded {
    /// Comment as it was stored.
    pub comment: Comment,
}

/// Event: a product's ratings changed. Carries the totals and not the difference, so the latest event suffices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RatingChanged {
    /// Product that the comment is about.
    pub product_id: ProductId,
    /// Sum of all ratings.
    pub sum: i64,
    /// Number of ratings.
    pub count: i64,
}

crate::events! { pub const EVENTS;
    "comments.comment_added": CommentAdded;
    "comments.rating_changed": RatingChanged;
}

/// Reads the rating totals of products. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListRatingFacts {
    /// Products to read.
    pub which: crate::messaging::Selection<ProductId>,
}

crate::requests! { crate::messaging::CommonError;
    "comments.ListRatingFacts": ListRatingFacts => Vec<crate::contract::catalog::RatingFacts>, read, |_| Access::Internal;
}

/// Error of the comments domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CommentsError {
    /// The product does not exist or is deleted.
    #[error("there is no such product")]
    ProductNotFound,
    /// The product has no such comment, or it is another customer's.
    #[error("there is no such comment of yours")]
    CommentNotFound,
    /// The caller has a comment on this product already.
    #[error("you have commented on this product already; delete that comment first")]
    AlreadyCommented,
    /// An error that any request can have.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(CommentsError);

impl DomainError for CommentsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ProductNotFound | Self::CommentNotFound => ErrorKind::NotFound,
            Self::AlreadyCommented => ErrorKind::Conflict,
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
