//! What the comments can be asked, answer and announce.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{CommentId, FieldError, Page, PageRequest, ProductId, Timestamp, UserId};

/// A customer's rating of a product, with words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Which.
    pub id: CommentId,
    /// Of what.
    pub product_id: ProductId,
    /// By whom; `null` once the account is gone.
    pub user_id: Option<UserId>,
    /// What they are called.
    pub author: String,
    /// 1 to 5.
    pub rating: i32,
    /// What they say.
    pub text: String,
    /// When.
    pub created_at: Timestamp,
}

/// Says what one thinks of a product; once a customer and product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddComment {
    /// Of what.
    pub product_id: ProductId,
    /// 1 to 5.
    pub rating: i32,
    /// At most 5,000 characters.
    #[serde(default)]
    pub text: String,
}

/// Lists what is said of a product, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListComments {
    /// Of what.
    pub product_id: ProductId,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Takes a comment away: one's own, or for staff anybody's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteComment {
    /// Of what.
    pub product_id: ProductId,
    /// Which.
    pub comment_id: CommentId,
}

/// Writes a comment of the past; for the demo shop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportComment {
    /// Of what.
    pub product_id: ProductId,
    /// By whom.
    pub user_id: UserId,
    /// What they are called.
    pub author: String,
    /// 1 to 5.
    pub rating: i32,
    /// What they say.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

crate::requests! { CommentsError;
    "comments.AddComment": AddComment => Comment, once, |_| Access::SignedIn;
    "comments.ListComments": ListComments => Page<Comment>, retry, |_| Access::Anyone;
    "comments.DeleteComment": DeleteComment => (), retry, |_| Access::SignedIn;
    "comments.ImportComment": ImportComment => Comment, once, |_| Access::Internal;
}

/// Somebody said what they think of a product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommentAdded {
    /// The comment.
    pub comment: Comment,
}

/// The ratings of a product are now these: all of them, so that a newer telling replaces an older one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RatingChanged {
    /// Of what.
    pub product_id: ProductId,
    /// The sum of all ratings.
    pub sum: i64,
    /// How many.
    pub count: i64,
}

crate::events! {
    "comments.comment_added": CommentAdded;
    "comments.rating_changed": RatingChanged;
}

/// Says how products are rated. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListRatingFacts {
    /// Which.
    pub which: crate::messaging::Selection<ProductId>,
}

crate::requests! { crate::messaging::CommonError;
    "comments.ListRatingFacts": ListRatingFacts => Vec<crate::contract::catalog::RatingFacts>, retry, |_| Access::Internal;
}

/// An error of the comments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CommentsError {
    /// No such product.
    #[error("there is no such product")]
    ProductNotFound,
    /// No such comment on this product, or not the caller's.
    #[error("there is no such comment of yours")]
    CommentNotFound,
    /// One comment a customer and product.
    #[error("you have commented on this product already; delete that comment first")]
    AlreadyCommented,
    /// What can happen to any request.
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
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}
