//! The rules of comments: what one may say, and under which name. No clock, no SQL.

use crate::types::{FieldError, Validator};

/// The most characters of a comment.
pub const TEXT_MAX: usize = 5_000;
/// What an author is called until the users domain has told us.
pub const UNKNOWN_AUTHOR: &str = "Customer";
/// What an author is called once the account is gone.
pub const DELETED_AUTHOR: &str = "Former customer";

/// Whether a rating and its words are as they may be.
pub fn check(rating: i32, text: &str) -> Result<(), Vec<FieldError>> {
    let mut fields = Validator::new();
    fields.range("rating", i64::from(rating), 1, 5);
    fields.text("text", text, 0, TEXT_MAX);
    fields.done()
}

/// The name to show for a person who calls themselves `name`.
pub fn author(name: Option<&str>) -> String {
    name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(UNKNOWN_AUTHOR).to_owned()
}
