//! Cache of products, pages and counts that never serves a stale entry.
//!
//! A write job marks the products it changes through [`Invalidation`] while it runs. From then until its outcome is known
//! nothing of them is cached, so every reader queries the database: before the commit it gets the old state, after it the
//! new one, and never the old one again. A read that began before and ends after finds that the stamp it took has
//! changed, and inserts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use quick_cache::sync::Cache as BoundedCache;

use super::{Facets, Product, ProductPage, ProductQuery};
use crate::store::CacheLease;
use crate::types::{ProductId, Timestamp};

/// Maximum number of cached pages, of about twenty products per page, most of them shared with other pages.
const PAGES_MAX: usize = 256;
/// Maximum number of cached counts of large lists.
const COUNTS_MAX: usize = 256;
/// Maximum number of remembered writes of this process, whose events need not invalidate anything again.
const OWN_WRITES_MAX: usize = 4_096;
/// Number of product stamps; more would only avoid spurious invalidations.
const SHARDS: usize = 256;

/// Key of a cached page: query, limit, cursor.
pub type PageKey = (ProductQuery, i64, Option<String>);

/// The cache of the catalog. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<CacheInner>);

struct CacheInner {
    products: BoundedCache<ProductId, Arc<Product>>,
    shards: Vec<Mutex<VersionStamp>>,
    lists: Mutex<VersionStamp>,
    pages: BoundedCache<PageKey, (u64, ProductPage)>,
    counts: BoundedCache<ProductQuery, CachedCounts>,
    own_writes: BoundedCache<ProductId, Timestamp>,
    /// Permission to serve from the cache, with its epoch.
    lease: CacheLease,
    epoch: AtomicU64,
}

/// CachedCounts of a large list, which may be served for a moment although something has changed.
#[derive(Clone)]
pub struct CachedCounts {
    /// Time of counting.
    pub at: Timestamp,
    /// List stamp taken before counting.
    pub stamp: u64,
    /// CachedCounts of the list.
    pub facets: Arc<Facets>,
}

/// Number of changes so far, and of changes in flight.
#[derive(Default)]
struct VersionStamp {
    version: u64,
    in_flight: usize,
}

impl VersionStamp {
    fn begin(&mut self) {
        self.version += 1;
        self.in_flight += 1;
    }

    fn end(&mut self) {
        self.version += 1;
        self.in_flight -= 1;
    }
}

/// A stamp is a number and a count: a panic elsewhere cannot leave it half written.
impl Cache {
    /// Creates an empty cache for `products_max` products, used while `lease` allows it.
    pub fn new(products_max: usize, lease: CacheLease) -> Self {
        Self(Arc::new(CacheInner {
            products: BoundedCache::new(products_max),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            lists: Mutex::default(),
            pages: BoundedCache::new(PAGES_MAX),
            counts: BoundedCache::new(COUNTS_MAX),
            own_writes: BoundedCache::new(OWN_WRITES_MAX),
            epoch: AtomicU64::new(lease.epoch().unwrap_or(0)),
            lease,
        }))
    }

    /// Returns `true` if the cache may be used: not while another process can change the same database.
    fn is_trusted(&self) -> bool {
        let Some(epoch) = self.0.lease.epoch() else { return false };
        if self.0.epoch.swap(epoch, Ordering::SeqCst) != epoch {
            self.clear();
        }
        true
    }

    /// Looks up a product.
    pub fn product(&self, id: ProductId) -> Option<Arc<Product>> {
        if self.is_trusted() { self.0.products.get(&id) } else { None }
    }

    /// Returns the stamp of a product, to be taken before the query and passed to [`Cache::insert`].
    pub fn stamp(&self, id: ProductId) -> u64 {
        self.0.shard(id).lock().version
    }

    /// Inserts a product that was read after `stamp` was taken, unless it changed meanwhile.
    pub fn insert(&self, stamp: u64, product: &Arc<Product>) {
        if !self.is_trusted() {
            return;
        }
        let shard = self.0.shard(product.id).lock();
        if shard.in_flight == 0 && shard.version == stamp {
            self.0.products.insert(product.id, Arc::clone(product));
        }
    }

    /// Looks up a page; `None` if anything has changed since it was read.
    pub fn page(&self, key: &PageKey) -> Option<ProductPage> {
        let (version, page) = self.0.pages.get(key).filter(|_| self.is_trusted())?;
        let now = self.0.lists.lock();
        (now.in_flight == 0 && now.version == version).then_some(page)
    }

    /// Returns the stamp of all lists, to be taken before the query and passed to [`Cache::insert_page`].
    pub fn list_stamp(&self) -> u64 {
        self.0.lists.lock().version
    }

    /// Inserts a page that was read after `stamp` was taken, unless anything changed meanwhile.
    pub fn insert_page(&self, stamp: u64, key: PageKey, page: &ProductPage) {
        if !self.is_trusted() {
            return;
        }
        let now = self.0.lists.lock();
        if now.in_flight == 0 && now.version == stamp {
            self.0.pages.insert(key, (stamp, page.clone()));
        }
    }

    /// Looks up the counts of a large list.
    pub fn counts(&self, query: &ProductQuery) -> Option<CachedCounts> {
        self.0.counts.get(query).filter(|_| self.is_trusted())
    }

    /// Inserts the counts of a large list.
    pub fn insert_counts(&self, query: ProductQuery, counts: CachedCounts) {
        self.0.counts.insert(query, counts);
    }

    /// Returns `true` if this process wrote this state of the product or a later one.
    pub fn is_own_write(&self, id: ProductId, updated_at: Timestamp) -> bool {
        self.0.own_writes.get(&id).is_some_and(|own| updated_at <= own)
    }

    /// Creates the invalidation of a write that is about to begin.
    pub fn invalidation(&self) -> Invalidation {
        Invalidation(Arc::new(PendingInvalidation {
            cache: self.clone(),
            marked: Mutex::default(),
            committed: AtomicBool::new(false),
        }))
    }

    /// Removes everything, for example after a panic.
    pub fn clear(&self) {
        let mut lists = self.0.lists.lock();
        lists.version += 1;
        for shard in &self.0.shards {
            shard.lock().version += 1;
        }
        self.0.products.clear();
        self.0.pages.clear();
        self.0.counts.clear();
    }
}

impl CacheInner {
    fn shard(&self, id: ProductId) -> &Mutex<VersionStamp> {
        // The last byte of an id is random.
        &self.shards[usize::from(id.uuid().as_bytes()[15]) % SHARDS]
    }
}

/// Invalidation by one write. The caller holds one clone until the outcome is known, its job another; when the last one
/// is dropped, readers may cache again what was marked.
#[derive(Clone)]
pub struct Invalidation(Arc<PendingInvalidation>);

struct PendingInvalidation {
    cache: Cache,
    marked: Mutex<Vec<(ProductId, Option<Timestamp>)>>,
    committed: AtomicBool,
}

impl Invalidation {
    /// Marks a product as changed by this write; with `updated_at` if its own row changes.
    pub fn mark(&self, id: ProductId, updated_at: Option<Timestamp>) {
        let inner = &self.0.cache.0;
        let mut marked = self.0.marked.lock();
        if marked.is_empty() {
            inner.lists.lock().begin();
        }
        marked.push((id, updated_at));
        inner.shard(id).lock().begin();
        inner.products.remove(&id);
    }

    /// Records that the write is durable.
    pub fn committed(&self) {
        self.0.committed.store(true, Ordering::Relaxed);
    }
}

impl Drop for PendingInvalidation {
    fn drop(&mut self) {
        let inner = &self.cache.0;
        let marked = self.marked.get_mut();
        for (id, updated_at) in marked.iter() {
            if let (Some(at), true) = (updated_at, *self.committed.get_mut()) {
                inner.own_writes.insert(*id, *at);
            }
            inner.shard(*id).lock().end();
        }
        if !marked.is_empty() {
            inner.lists.lock().end();
        }
    }
}
