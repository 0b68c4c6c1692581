//! Lists come in pages. A cursor is opaque to its holder and says where the next page starts, so that rows that
//! come or go between two pages are neither shown twice nor lost.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::FieldError;

/// How many items a page has when nobody says.
const LIMIT_DEFAULT: u32 = 20;
/// The most items one page may have.
const LIMIT_MAX: u32 = 100;

/// Which page is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// How many items, 1 to 100; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

impl PageRequest {
    /// The number of items to give, or why the number asked for cannot be.
    pub fn limit(&self) -> Result<i64, FieldError> {
        match self.limit {
            None => Ok(i64::from(LIMIT_DEFAULT)),
            Some(limit @ 1..=LIMIT_MAX) => Ok(i64::from(limit)),
            Some(_) => Err(FieldError::new("limit", "out_of_range", "must be between 1 and 100")),
        }
    }

    /// What the cursor holds, when there is one, or why it is none of ours.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, FieldError> {
        self.cursor
            .as_ref()
            .map(|cursor| {
                cursor.open().ok_or_else(|| {
                    FieldError::new("cursor", "invalid", "is not a cursor of this list; start again without one")
                })
            })
            .transpose()
    }
}

/// An opaque place in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor that holds `place`: the sort key of the last item given.
    pub fn seal<T: Serialize>(place: &T) -> Self {
        Self(URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default()))
    }

    /// What it holds, or `None` when it is not of this list.
    #[must_use]
    pub fn open<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&self.0).ok()?).ok()
    }

    /// Its text, for a link.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Where the next page starts; `null` at the end.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page from `limit + 1` rows asked of the store: the extra row only says that there is more.
    pub fn cut<P: Serialize>(mut rows: Vec<T>, limit: i64, place: impl Fn(&T) -> P) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(|last| Cursor::seal(&place(last))) } else { None };
        Self { items: rows, next }
    }

    /// The same page of other things.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}
