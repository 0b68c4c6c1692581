//! Handlers of lists: pages and facets, from the cache or the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::actor::CatalogState;
use super::cache::{CachedCounts, PageKey};
use super::store::{self, search};
use super::suggestions::Vocabulary;
use super::{CatalogError, Facets, ListProducts, Product, ProductPage, ProductQuery, model};
use crate::messaging::RequestContext;
use crate::store::Conn;
use crate::types::{Cursor, ProductId};

/// Number of items from which on the counts of a filtered list are cached.
const LARGE_LIST_MIN: i64 = 2_000;
/// Time for which cached counts of a large list are used.
const LARGE_COUNTS_TTL: Duration = Duration::from_secs(1);

pub(super) async fn list_products(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: ListProducts,
) -> Result<ProductPage, CatalogError> {
    let query = model::normalize_query(request.query)?;
    let limit = request.page.limit()?;
    let after = search::PageStart::from_cursor(&request.page, &query)?;
    let key: PageKey = (query, limit, request.page.cursor.map(|cursor| cursor.as_str().to_owned()));
    if let Some(page) = state.cache.page(&key) {
        return Ok(page);
    }
    let (query, reader, stamp) = (key.0.clone(), Arc::clone(&state), state.cache.list_stamp());
    let (page, is_fresh) = state
        .store
        .read(move |conn| {
            let (items, next) = read_items(&reader, conn, &query, limit, after.as_ref())?;
            let (facets, is_fresh) = FacetQuery { state: &reader, conn, stamp, is_fresh: true }.facets(&query)?;
            let suggestion = match &query.q {
                Some(q) if facets.total == 0 => suggest(&reader, conn, q)?,
                _ => None,
            };
            Ok::<_, CatalogError>((ProductPage { items, next, facets: Arc::new(facets), suggestion }, is_fresh))
        })
        .await?;
    if is_fresh {
        state.cache.insert_page(stamp, key, &page);
    }
    Ok(page)
}

/// Suggests another search for one that finds nothing.
fn suggest(state: &CatalogState, conn: &mut Conn, q: &str) -> Result<Option<String>, CatalogError> {
    let read = || {
        let mut vocabulary = Vocabulary::default();
        search::for_each_name(conn, |name| vocabulary.add(name))?;
        Ok::<_, CatalogError>(vocabulary)
    };
    Ok(state.vocabulary.get(state.store.now(), read)?.and_then(|vocabulary| vocabulary.suggest(q)))
}

/// Reads products from the cache, else from the database; unknown ids are left out.
pub(super) fn read_products(
    state: &CatalogState,
    conn: &mut Conn,
    ids: &[ProductId],
) -> Result<HashMap<ProductId, Arc<Product>>, CatalogError> {
    let mut products: HashMap<ProductId, Arc<Product>> =
        ids.iter().filter_map(|id| Some((*id, state.cache.product(*id)?))).collect();
    let missing: Vec<ProductId> = ids.iter().copied().filter(|id| !products.contains_key(id)).collect();
    // Taken before the query, as the cache requires.
    let stamps: HashMap<ProductId, u64> = missing.iter().map(|id| (*id, state.cache.stamp(*id))).collect();
    for product in store::load(conn, &missing)? {
        let product = Arc::new(product);
        if let Some(stamp) = stamps.get(&product.id) {
            state.cache.insert(*stamp, &product);
        }
        products.insert(product.id, product);
    }
    Ok(products)
}

fn read_items(
    state: &CatalogState,
    conn: &mut Conn,
    query: &ProductQuery,
    limit: i64,
    after: Option<&search::PageStart>,
) -> Result<(Vec<Arc<Product>>, Option<Cursor>), CatalogError> {
    let (ids, next) = search::page(conn, query, limit, after)?;
    let mut products = read_products(state, conn, &ids)?;
    // One that was deleted since the list was read is left out.
    let items = ids.iter().filter_map(|id| products.remove(id)).filter(|product| !product.deleted).collect();
    Ok((items, next))
}

/// Computation of the facets of one list.
struct FacetQuery<'a> {
    state: &'a CatalogState,
    conn: &'a mut Conn,
    /// List stamp taken before the query.
    stamp: u64,
    /// Whether all counts so far are as of that stamp.
    is_fresh: bool,
}

impl FacetQuery<'_> {
    /// Returns the facets, each without its own filter, and `true` if all are as of the stamp.
    fn facets(mut self, query: &ProductQuery) -> Result<(Facets, bool), CatalogError> {
        let base = ProductQuery { sort: None, ..query.clone() };
        let mut facets = Facets::clone(&*self.counts(&base)?);
        if base.category.is_some() {
            let unfiltered = ProductQuery { category: None, ..base.clone() };
            facets.categories.clone_from(&self.counts(&unfiltered)?.categories);
        }
        if base.tag.is_some() {
            let unfiltered = ProductQuery { tag: None, ..base.clone() };
            facets.tags.clone_from(&self.counts(&unfiltered)?.tags);
        }
        if base.min_price.is_some() || base.max_price.is_some() {
            let unfiltered = self.counts(&ProductQuery { min_price: None, max_price: None, ..base.clone() })?;
            (facets.min_price, facets.max_price) = (unfiltered.min_price, unfiltered.max_price);
        }
        if base.in_stock.is_some() {
            facets.in_stock = self.counts(&ProductQuery { in_stock: None, ..base })?.in_stock;
        }
        Ok((facets, self.is_fresh))
    }

    /// CachedCounts a list; for a large one, returns counts up to [`LARGE_COUNTS_TTL`] old.
    fn counts(&mut self, query: &ProductQuery) -> Result<Arc<Facets>, CatalogError> {
        let (cache, now) = (&self.state.cache, self.state.store.now());
        if let Some(cached) =
            cache.counts(query).filter(|cached| cached.at <= now && now.duration_since(cached.at) < LARGE_COUNTS_TTL)
        {
            // A page with older counts is not cached: it would outlive them.
            self.is_fresh &= cached.stamp == self.stamp;
            return Ok(cached.facets);
        }
        let facets = Arc::new(search::counts(self.conn, query)?);
        if facets.total >= LARGE_LIST_MIN && !search::is_unfiltered(query) {
            cache
                .insert_counts(query.clone(), CachedCounts { at: now, stamp: self.stamp, facets: Arc::clone(&facets) });
        }
        Ok(facets)
    }
}
