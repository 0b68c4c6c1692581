//! Rules of comments: their validation and the names of their authors. No clock, no SQL.

use crate::types::{FieldError, Validator};

/// Most characters of a comment.
pub const TEXT_MAX: usize = 5_000;
/// Display name of an author whose name the users domain has not published yet.
pub const UNKNOWN_AUTHOR: &str = "Customer";
/// Display name of an author whose account is deleted.
pub const DELETED_AUTHOR: &str = "Former customer";

/// Validates a rating and its text.
///
/// # Errors
/// Lists the invalid fields.
pub fn validate_comment(rating: i32, text: &str) -> Result<(), Vec<FieldError>> {
    let mut fields = Validator::new();
    fields.range("rating", i64::from(rating), 1, 5);
    fields.text("text", text, 0, TEXT_MAX);
    fields.finish()
}

/// Returns the trimmed name, or [`UNKNOWN_AUTHOR`] without one.
pub fn display_name(name: Option<&str>) -> String {
    name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(UNKNOWN_AUTHOR).to_owned()
}
