//! Imports for a domain's `store.rs`: diesel's query builder, with this crate's own traits in place of those that are
//! bound to one backend.

pub use diesel::prelude::{
    AsChangeset, BoolExpressionMethods, CombineDsl, EscapeExpressionMethods, ExpressionMethods, Identifiable,
    Insertable, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable,
    QueryableByName, Selectable, Table, TextExpressionMethods,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use super::conn::for_backend;
pub use super::conn::{Columns, RunQuery};

/// Returns the error of a row whose columns do not go together or cannot be read.
pub fn malformed_row(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(error.into())
}

/// Converts a value to the JSON of its column.
///
/// # Errors
/// A value that has no JSON form.
pub fn to_text<T: Serialize + ?Sized>(value: &T) -> QueryResult<String> {
    serde_json::to_string(value).map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))
}

/// Converts the JSON of a column to its value.
///
/// # Errors
/// Text that is not the JSON of such a value.
pub fn from_text<T: DeserializeOwned>(text: &str) -> QueryResult<T> {
    serde_json::from_str(text).map_err(malformed_row)
}
