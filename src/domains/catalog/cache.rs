//! What the catalog keeps ready in memory, and the rule by which none of it is ever stale.
//!
//! A write job says which products it changes while it runs, through [`Invalidation`]. From that moment until its
//! outcome is known nothing of them is kept, so everybody reads the database: before the commit the old state,
//! after it the new one, and never the old one again. A read that began earlier and ends later finds that the
//! stamp it took has moved on, and keeps nothing either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache as Ready;

use super::{Facets, Product, ProductPage, ProductQuery};
use crate::store::CacheLease;
use crate::types::{ProductId, Timestamp};

/// Pages of lists that are kept; each is twenty products or so, most of which are shared with the others.
const PAGES_MAX: usize = 256;
/// Counts of large lists that are kept.
const COUNTS_MAX: usize = 256;
/// Invalidation of this process that are remembered, so that their own event drops nothing a second time.
const OWN_MAX: usize = 4_096;
/// Stamps for products: more would only spare false alarms.
const SHARDS: usize = 256;

/// The page of a list that is wanted: query, limit, cursor.
pub type PageKey = (ProductQuery, i64, Option<String>);

/// The memory of the catalog. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    products: Ready<ProductId, Arc<Product>>,
    shards: Vec<Mutex<VersionStamp>>,
    lists: Mutex<VersionStamp>,
    pages: Ready<PageKey, (u64, ProductPage)>,
    counts: Ready<ProductQuery, Counts>,
    own: Ready<ProductId, Timestamp>,
    /// Whether anything may be believed, and since when.
    memory: CacheLease,
    era: AtomicU64,
}

/// The counts of a large list, which may be used again for a moment although something has changed.
#[derive(Clone)]
pub struct Counts {
    /// When they were made.
    pub at: Timestamp,
    /// The stamp taken before.
    pub stamp: u64,
    /// What was counted.
    pub facets: Arc<Facets>,
}

/// How often something changed, and how many changes of it are under way.
#[derive(Default)]
struct VersionStamp {
    version: u64,
    under_way: usize,
}

impl VersionStamp {
    fn begin(&mut self) {
        self.version += 1;
        self.under_way += 1;
    }

    fn end(&mut self) {
        self.version += 1;
        self.under_way -= 1;
    }
}

/// A stamp is a number and a count: a panic elsewhere cannot leave it half written.
fn lock(stamp: &Mutex<VersionStamp>) -> MutexGuard<'_, VersionStamp> {
    stamp.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// An empty memory for so many products, believed as long as `memory` says.
    pub fn new(products_max: usize, memory: CacheLease) -> Self {
        Self(Arc::new(Inner {
            products: Ready::new(products_max),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            lists: Mutex::default(),
            pages: Ready::new(PAGES_MAX),
            counts: Ready::new(COUNTS_MAX),
            own: Ready::new(OWN_MAX),
            era: AtomicU64::new(memory.era().unwrap_or(0)),
            memory,
        }))
    }

    /// Whether what is kept may be believed: not while another process can change the products behind our back.
    fn holds(&self) -> bool {
        let Some(era) = self.0.memory.era() else { return false };
        if self.0.era.swap(era, Ordering::SeqCst) != era {
            self.clear();
        }
        true
    }

    /// The product, if it is kept.
    pub fn product(&self, id: ProductId) -> Option<Arc<Product>> {
        if self.holds() { self.0.products.get(&id) } else { None }
    }

    /// To be taken before the database is read, and given back with what was read.
    pub fn stamp(&self, id: ProductId) -> u64 {
        lock(self.0.shard(id)).version
    }

    /// Keeps a product that was read after `stamp` was taken, unless it changed meanwhile.
    pub fn keep(&self, stamp: u64, product: &Arc<Product>) {
        if !self.holds() {
            return;
        }
        let shard = lock(self.0.shard(product.id));
        if shard.under_way == 0 && shard.version == stamp {
            self.0.products.insert(product.id, Arc::clone(product));
        }
    }

    /// The page, if it is kept and nothing has changed since.
    pub fn page(&self, key: &PageKey) -> Option<ProductPage> {
        let (version, page) = self.0.pages.get(key).filter(|_| self.holds())?;
        let now = lock(&self.0.lists);
        (now.under_way == 0 && now.version == version).then_some(page)
    }

    /// To be taken before a list is read, and given back with the page.
    pub fn list_stamp(&self) -> u64 {
        lock(&self.0.lists).version
    }

    /// Keeps a page that was read after `stamp` was taken, unless anything changed meanwhile.
    pub fn keep_page(&self, stamp: u64, key: PageKey, page: &ProductPage) {
        if !self.holds() {
            return;
        }
        let now = lock(&self.0.lists);
        if now.under_way == 0 && now.version == stamp {
            self.0.pages.insert(key, (stamp, page.clone()));
        }
    }

    /// The counts of a large list, if they are kept.
    pub fn counts(&self, query: &ProductQuery) -> Option<Counts> {
        self.0.counts.get(query).filter(|_| self.holds())
    }

    /// Keeps the counts of a large list.
    pub fn keep_counts(&self, query: ProductQuery, counts: Counts) {
        self.0.counts.insert(query, counts);
    }

    /// Whether this process itself brought the product to this state or to a later one.
    pub fn is_own(&self, id: ProductId, updated_at: Timestamp) -> bool {
        self.0.own.get(&id).is_some_and(|own| updated_at <= own)
    }

    /// For a write that is about to begin.
    pub fn changes(&self) -> Invalidation {
        Invalidation(Arc::new(PendingInvalidation {
            cache: self.clone(),
            touched: Mutex::default(),
            committed: AtomicBool::new(false),
        }))
    }

    /// Forgets everything, as after a panic.
    pub fn clear(&self) {
        let mut lists = lock(&self.0.lists);
        lists.version += 1;
        for shard in &self.0.shards {
            lock(shard).version += 1;
        }
        self.0.products.clear();
        self.0.pages.clear();
        self.0.counts.clear();
    }
}

impl Inner {
    fn shard(&self, id: ProductId) -> &Mutex<VersionStamp> {
        // The last byte of an id is random.
        &self.shards[usize::from(id.uuid().as_bytes()[15]) % SHARDS]
    }
}

/// The changes of one write. The caller holds one clone until the outcome is known, its job another; when the last
/// is dropped, readers may keep again what was touched.
#[derive(Clone)]
pub struct Invalidation(Arc<PendingInvalidation>);

struct PendingInvalidation {
    cache: Cache,
    touched: Mutex<Vec<(ProductId, Option<Timestamp>)>>,
    committed: AtomicBool,
}

impl Invalidation {
    /// Says that this write changes what is kept of a product; `updated_at` when the product itself becomes new.
    pub fn touch(&self, id: ProductId, updated_at: Option<Timestamp>) {
        let inner = &self.0.cache.0;
        let mut touched = self.0.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.is_empty() {
            lock(&inner.lists).begin();
        }
        touched.push((id, updated_at));
        lock(inner.shard(id)).begin();
        inner.products.remove(&id);
    }

    /// Says that the write is durable.
    pub fn committed(&self) {
        self.0.committed.store(true, Ordering::Relaxed);
    }
}

impl Drop for PendingInvalidation {
    fn drop(&mut self) {
        let inner = &self.cache.0;
        let touched = self.touched.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (id, updated_at) in touched.iter() {
            if let (Some(at), true) = (updated_at, *self.committed.get_mut()) {
                inner.own.insert(*id, *at);
            }
            lock(inner.shard(*id)).end();
        }
        if !touched.is_empty() {
            lock(&inner.lists).end();
        }
    }
}
