//! Keyset pagination. A cursor is opaque to clients and holds the sort key of the last item, so that rows that are
//! inserted or deleted between two pages are neither repeated nor skipped.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::FieldError;

/// Items of a page when the request does not say.
const LIMIT_DEFAULT: u32 = 20;
/// Upper limit of the items of a page.
const LIMIT_MAX: u32 = 100;

/// Request for one page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// Number of items, 1 to 100; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before; absent for the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

impl PageRequest {
    /// Returns the number of items.
    ///
    /// # Errors
    ///
    /// A field error when the requested number is outside 1 to 100.
    pub fn limit(&self) -> Result<i64, FieldError> {
        match self.limit {
            None => Ok(i64::from(LIMIT_DEFAULT)),
            Some(limit @ 1..=LIMIT_MAX) => Ok(i64::from(limit)),
            Some(_) => Err(FieldError::new("limit", "out_of_range", "must be between 1 and 100")),
        }
    }

    /// Decodes the sort key in the cursor, when there is one.
    ///
    /// # Errors
    ///
    /// A field error when the cursor is not one of this list.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, FieldError> {
        self.cursor
            .as_ref()
            .map(|cursor| {
                cursor.decode().ok_or_else(|| {
                    FieldError::new("cursor", "invalid", "is not a cursor of this list; start again without one")
                })
            })
            .transpose()
    }
}

/// Opaque position in a list: a sort key as JSON, base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// Encodes the sort key of the last item of a page.
    pub fn encode<T: Serialize>(key: &T) -> Self {
        Self(URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default()))
    }

    /// Decodes the sort key; `None` when the cursor is not one of this list.
    #[must_use]
    pub fn decode<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&self.0).ok()?).ok()
    }

    /// The cursor as text, for a link.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of a list, as clients receive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Items, in the order of the list.
    pub items: Vec<T>,
    /// Cursor of the next page; `null` at the end.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page from up to `limit + 1` rows of the store: the extra row only shows that there is another page.
    pub fn from_overfetch<K: Serialize>(mut rows: Vec<T>, limit: i64, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(|last| Cursor::encode(&key(last))) } else { None };
        Self { items: rows, next }
    }

    /// Converts the items; the cursor stays.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}
