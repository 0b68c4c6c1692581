//! Lists and search of products.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CatalogError, Product};
use crate::types::{Amount, Cursor, PageRequest};

/// Order of a list of products. Ties are broken by creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sort {
    /// A to Z, without regard to case and accents.
    #[serde(rename = "name")]
    Name,
    /// Lowest price first.
    #[serde(rename = "price")]
    Price,
    /// Highest price first.
    #[serde(rename = "-price")]
    PriceDescending,
    /// Oldest first.
    #[serde(rename = "created_at")]
    CreatedAt,
    /// Newest first.
    #[default]
    #[serde(rename = "-created_at")]
    CreatedAtDescending,
    /// Best match first; the default of a search. Matches of all words in the name come before matches in name, tags,
    /// category, SKU and options together, those before matches that need the description; then short names before
    /// long, new before old. Without a search it is the default order.
    #[serde(rename = "relevance")]
    Relevance,
}

/// Filters and order of a list of products that are for sale.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProductQuery {
    /// Words that name, description, tags, category, SKU and options together must contain; the last one may be a
    /// prefix. At most 200 characters, of which the first 16 words count. Of a word with very many matches, the newest
    /// 10,000 products per tier (name, labels, description) are considered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Category, matched exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Tag, matched exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Lowest price in minor units, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_price: Option<Amount>,
    /// Highest price in minor units, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Amount>,
    /// Only products that are in stock (`true`) or sold out (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_stock: Option<bool>,
    /// Order; the default depends on `q`, see [`Sort`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Sort>,
    /// Whether every variant is listed; otherwise one product stands for its group.
    #[serde(default)]
    pub all_variants: bool,
}

/// Lists products that are for sale, one page at a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListProducts {
    /// Filters and order.
    #[serde(flatten)]
    pub query: ProductQuery,
    /// Page size and cursor.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// A page of products, and the facets of the whole list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductPage {
    /// Products of the page, shared with the domain's cache: a cached page costs no copies.
    pub items: Vec<Arc<Product>>,
    /// Cursor of the next page; `null` on the last one.
    pub next: Option<Cursor>,
    /// Facets of the whole list.
    pub facets: Arc<Facets>,
    /// Another search, for one that finds nothing because of a misspelt word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Counts of a list by value. Each facet ignores its own filter, so that a reader sees the alternatives.
///
/// The unfiltered list is always counted exactly. A list narrowed by a filter or a search is counted exactly up to
/// 10,000 items and no further: then `capped` is true, and the numbers are those of its first 10,000, which bounds the cost
/// of a request. From 2,000 items on they may be up to a second old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facets {
    /// Number of items in the list.
    pub total: i64,
    /// Whether there are more items than were counted, so that all numbers are at least as large.
    #[serde(default)]
    pub capped: bool,
    /// The hundred most frequent categories, most frequent first.
    pub categories: Vec<FacetValue>,
    /// The thirty most frequent tags, most frequent first.
    pub tags: Vec<FacetValue>,
    /// Lowest price in the list, in minor units.
    pub min_price: Option<Amount>,
    /// Highest price in the list, in minor units.
    pub max_price: Option<Amount>,
    /// Number of items in stock.
    pub in_stock: i64,
}

/// A value of a facet and its frequency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacetValue {
    /// Category or tag.
    pub value: String,
    /// Number of items that have it.
    pub count: i64,
}

crate::requests! { CatalogError;
    "catalog.ListProducts": ListProducts => ProductPage, read, |_| Access::Anyone;
}
