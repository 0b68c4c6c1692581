//! The catalog actor: its state, one handler per message, and the timer that expires holds.
//!
//! Does not contain: SQL (`store`), rules that need no database (`model.rs`). Invariant: a write invalidates the cache
//! entries of what it changes before it commits; see `cache.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::cache::{Cache, Counts, PageKey};
use super::image_processing::{self, ImageFileError, Rendition};
use super::store::{self, WriteScope, images, search, stock};
use super::*;
use crate::contract::comments::RatingChanged;
use crate::contract::payments::{InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceVoided};
use crate::messaging::{
    CheckInvariants, CommonError, DeliverEvents, Event as _, EventEnvelope, InvariantReport, Request, RequestContext,
};
use crate::runtime::spawn_leader_interval;
use crate::settings;
use crate::store::{Conn, LockSet, Store, Tx};
use crate::types::{Cursor, FieldError, HoldId, ProductId, Validator};

/// Interval between searches for expired holds.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(2);
/// Images rendered at once; each takes a core and some ten megabytes.
const RENDERS_MAX: usize = 2;
/// Maximum number of products per [`GetOffers`].
const IDS_MAX: usize = 1_000;
/// Maximum number of rows per [`ImportProducts`].
const ROWS_MAX: usize = 1_000;
/// Number of items from which on the counts of a filtered list are cached.
const LARGE_LIST_MIN: i64 = 2_000;
/// Time for which cached counts of a large list are used.
const LARGE_COUNTS_TTL: Duration = Duration::from_secs(1);

/// State shared by the handlers of this domain.
pub struct CatalogState {
    pub(super) store: Store,
    pub(super) cache: Cache,
    settings: settings::CatalogSettings,
    renders: Arc<Semaphore>,
    expiring: Arc<Semaphore>,
}

impl CatalogState {
    pub(super) fn new(store: Store, settings: &settings::CatalogSettings) -> Self {
        Self {
            cache: Cache::new(settings.cache_max, store.cache_lease()),
            store,
            settings: settings.clone(),
            renders: Arc::new(Semaphore::new(RENDERS_MAX)),
            expiring: Arc::new(Semaphore::new(1)),
        }
    }

    fn write_scope(&self) -> WriteScope {
        WriteScope { changes: self.cache.invalidation(), low_stock: self.settings.low_stock }
    }

    /// Runs a write job. What it changes is removed from the cache before its result is visible to any caller.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tx<'_>, &WriteScope) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.write_locked(LockSet::domain(), job).await
    }

    /// Like [`CatalogState::write`], with the locks of the job instead of the whole domain.
    async fn write_locked<T: Send + 'static>(
        &self,
        locks: LockSet,
        job: impl FnOnce(&mut Tx<'_>, &WriteScope) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let scope = self.write_scope();
        let job_scope = scope.clone();
        let reply = self.store.write_locked(locks, move |tx| job(tx, &job_scope)).await?;
        scope.changes.committed();
        Ok(reply)
    }

    /// Like [`CatalogState::write`], idempotent by the context's key.
    async fn write_idempotent<R: Request, T>(
        &self,
        ctx: &RequestContext,
        request: &R,
        job: impl FnOnce(&mut Tx<'_>, &WriteScope) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError>
    where
        T: Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        if ctx.key.is_none() {
            // Avoids the fingerprint of a request that may have a thousand rows.
            return self.write(job).await;
        }
        let scope = self.write_scope();
        let job_scope = scope.clone();
        let reply = self.store.write_idempotent(ctx, request, move |tx| job(tx, &job_scope)).await?;
        scope.changes.committed();
        Ok(reply)
    }
}

/// The actor of this domain.
pub struct CatalogActor {
    pub(super) state: Arc<CatalogState>,
}

impl Actor for CatalogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_leader_interval(ctx, &self.state.store, &self.state, EXPIRE_INTERVAL, expire);
    }
}

impl Supervised for CatalogActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.state.cache.clear();
    }
}

crate::handlers! { CatalogActor;
    CreateProduct => create_product,
    GetProduct => get_product,
    GetOffers => get_offers,
    UpdateProduct => update_product,
    ReplaceProduct => replace_product,
    DeleteProduct => delete_product,
    ListProducts => list_products,
    AddImage => add_image,
    DeleteImage => delete_image,
    ListImages => list_images,
    GetImage => get_image,
    ImportProducts => import_products,
    ExportProducts => export_products,
    HoldStock => hold_stock,
    ReleaseHold => release_hold,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListHoldFacts => list_hold_facts,
    GetRatings => get_ratings,
}

async fn create_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: CreateProduct,
) -> Result<Product, CatalogError> {
    let new = model::normalize(request.product.clone())?;
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            let id = store::create(tx, scope, new)?;
            store::get(tx.conn, id)
        })
        .await
}

async fn get_product(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: GetProduct,
) -> Result<Product, CatalogError> {
    if let Some(product) = state.cache.product(request.product_id) {
        return Ok(Product::clone(&product));
    }
    let stamp = state.cache.stamp(request.product_id);
    let product = Arc::new(state.store.read(move |conn| store::get(conn, request.product_id)).await?);
    state.cache.insert(stamp, &product);
    Ok(Arc::unwrap_or_clone(product))
}

async fn get_offers(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: GetOffers,
) -> Result<Vec<Offer>, CatalogError> {
    if request.product_ids.len() > IDS_MAX {
        return Err(FieldError::new("product_ids", "too_many", format!("must be at most {IDS_MAX}")).into());
    }
    let mut requested = request.product_ids;
    let mut seen = HashSet::with_capacity(requested.len());
    requested.retain(|id| seen.insert(*id));
    let cached: Option<Vec<Arc<Product>>> = requested.iter().map(|id| state.cache.product(*id)).collect();
    let products = match cached {
        Some(all) => all,
        None => {
            let reader = Arc::clone(&state);
            let read = move |conn: &mut Conn| {
                let mut products = read_products(&reader, conn, &requested)?;
                Ok::<_, CatalogError>(requested.iter().filter_map(|id| products.remove(id)).collect())
            };
            state.store.read(read).await?
        }
    };
    Ok(products.iter().map(|product| model::offer(product)).collect())
}

async fn update_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: UpdateProduct,
) -> Result<Product, CatalogError> {
    let UpdateProduct { product_id, patch } = request.clone();
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            store::update(tx, scope, product_id, patch)?;
            store::get(tx.conn, product_id)
        })
        .await
}

async fn replace_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ReplaceProduct,
) -> Result<Product, CatalogError> {
    let product_id = request.product_id;
    let new = model::normalize(request.product.clone())?;
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            store::replace(tx, scope, product_id, new)?;
            store::get(tx.conn, product_id)
        })
        .await
}

async fn delete_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: DeleteProduct,
) -> Result<(), CatalogError> {
    let product_id = request.product_id;
    state.write_idempotent(&ctx, &request, move |tx, scope| store::delete(tx, scope, product_id)).await
}

async fn list_products(
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
            Ok::<_, CatalogError>((ProductPage { items, next, facets: Arc::new(facets) }, is_fresh))
        })
        .await?;
    if is_fresh {
        state.cache.insert_page(stamp, key, &page);
    }
    Ok(page)
}

/// Reads products from the cache, else from the database; unknown ids are left out.
fn read_products(
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

    /// Counts a list; for a large one, returns counts up to [`LARGE_COUNTS_TTL`] old.
    fn counts(&mut self, query: &ProductQuery) -> Result<Arc<Facets>, CatalogError> {
        let (cache, now) = (&self.state.cache, self.state.store.now());
        if let Some(cached) =
            cache.counts(query).filter(|cached| cached.at <= now && now.since(cached.at) < LARGE_COUNTS_TTL)
        {
            // A page with older counts is not cached: it would outlive them.
            self.is_fresh &= cached.stamp == self.stamp;
            return Ok(cached.facets);
        }
        let facets = Arc::new(search::counts(self.conn, query)?);
        if facets.total >= LARGE_LIST_MIN && !search::is_unfiltered(query) {
            cache.insert_counts(query.clone(), Counts { at: now, stamp: self.stamp, facets: Arc::clone(&facets) });
        }
        Ok(facets)
    }
}

/// The part of [`AddImage`] that identifies it under an idempotency key: a digest in place of the file.
#[derive(Serialize, Deserialize)]
struct AddedImage {
    product_id: ProductId,
    alt: String,
    digest: Vec<u8>,
}

crate::requests! { CatalogError;
    "catalog.AddImage": AddedImage => Image, once, |_| Access::Admin;
}

async fn add_image(state: Arc<CatalogState>, ctx: RequestContext, request: AddImage) -> Result<Image, CatalogError> {
    let AddImage { product_id, alt, data } = request;
    let alt = crate::types::one_line(&alt);
    let mut fields = Validator::new();
    fields.line("alt", &alt, 0, 500);
    fields.done()?;
    let too_large = CatalogError::ImageTooLarge {
        max_bytes: u64::try_from(state.settings.image_bytes_max).unwrap_or(u64::MAX),
        max_pixels: state.settings.image_pixels_max,
    };
    if data.len() > state.settings.image_bytes_max {
        return Err(too_large);
    }
    let (digest, data) = run_blocking_limited(&state, move || (Sha256::digest(&data).to_vec(), data)).await?;
    let request = AddedImage { product_id, alt: alt.clone(), digest };
    let add = || async {
        state.store.read(move |conn| images::check_can_add(conn, product_id)).await?;
        let (bytes_max, pixels_max) = (state.settings.image_bytes_max, state.settings.image_pixels_max);
        let files: Vec<Rendition> =
            run_blocking_limited(&state, move || image_processing::render(&data, bytes_max, pixels_max))
                .await?
                .map_err(|error| match error {
                    ImageFileError::Unreadable(reason) => CatalogError::UnsupportedImage { reason },
                    ImageFileError::TooLarge => too_large,
                })?;
        state.write_idempotent(&ctx, &request, move |tx, scope| images::add(tx, scope, product_id, alt, &files)).await
    };
    state.store.run_idempotent(&ctx, &request, add).await
}

/// Runs CPU-bound work on the blocking pool, at most [`RENDERS_MAX`] at once.
async fn run_blocking_limited<T: Send + 'static>(
    state: &CatalogState,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CommonError> {
    let permit = Arc::clone(&state.renders).acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|panicked| {
        log::error!("catalog: image decoder panicked: {panicked}");
        CommonError::Internal
    })
}

async fn delete_image(state: Arc<CatalogState>, ctx: RequestContext, request: DeleteImage) -> Result<(), CatalogError> {
    let DeleteImage { product_id, image_id } = request;
    state.write_idempotent(&ctx, &request, move |tx, scope| images::delete(tx, scope, product_id, image_id)).await
}

async fn list_images(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ListImages,
) -> Result<Vec<Image>, CatalogError> {
    Ok(get_product(state, ctx, GetProduct { product_id: request.product_id }).await?.images)
}

async fn get_image(state: Arc<CatalogState>, _: RequestContext, request: GetImage) -> Result<ImageFile, CatalogError> {
    let GetImage { product_id, image_id, width } = request;
    state.store.read(move |conn| images::file(conn, product_id, image_id, width)).await
}

async fn import_products(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ImportProducts,
) -> Result<Vec<ImportOutcome>, CatalogError> {
    if request.rows.len() > ROWS_MAX {
        return Err(FieldError::new("rows", "too_many", format!("must be at most {ROWS_MAX}")).into());
    }
    let rows = request.rows.clone();
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            rows.into_iter().map(|row| store::import(tx, scope, row)).collect()
        })
        .await
}

async fn export_products(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: ExportProducts,
) -> Result<ExportPage, CatalogError> {
    state.store.read(move |conn| store::export(conn, request.after)).await
}

/// Idempotent by the hold, not by the context's key, under which a hold released since would still be returned.
async fn hold_stock(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: HoldStock,
) -> Result<StockHold, CatalogError> {
    let lines = model::hold_lines(&request.lines)?;
    let HoldStock { hold, expires_at, .. } = request;
    if state.store.is_concurrent() {
        // If no product sells out, only the products change, and their locks suffice.
        let locks = lines.iter().fold(LockSet::key("hold", hold), |locks, line| locks.with("product", line.product_id));
        let requested = lines.clone();
        let job = move |tx: &mut Tx<'_>, scope: &WriteScope| {
            if stock::changes_availability(tx.conn, &requested)? {
                return Ok(None);
            }
            stock::reserve(tx, scope, hold, &requested, expires_at).map(Some)
        };
        if let Some(held) = state.write_locked(locks, job).await? {
            return Ok(held);
        }
    }
    state.write(move |tx, scope| stock::reserve(tx, scope, hold, &lines, expires_at)).await
}

async fn release_hold(state: Arc<CatalogState>, _: RequestContext, request: ReleaseHold) -> Result<(), CatalogError> {
    let hold = request.hold;
    state.write(move |tx, scope| stock::release(tx, scope, hold)).await
}

async fn on_events(state: Arc<CatalogState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let (own, others): (Vec<EventEnvelope>, Vec<EventEnvelope>) =
        request.events.into_iter().partition(|event| event.name == ProductChanged::NAME);
    invalidate_changed(&state, &own).await?;
    if others.is_empty() {
        return Ok(());
    }
    let scope = state.write_scope();
    let job_scope = scope.clone();
    state.store.consume(others, move |tx, event| apply_event(tx, &job_scope, event)).await?;
    scope.changes.committed();
    Ok(())
}

/// Removes from the cache what another process has changed in this database.
async fn invalidate_changed(state: &CatalogState, events: &[EventEnvelope]) -> Result<(), CommonError> {
    let changes = state.cache.invalidation();
    for event in events {
        let changed: ProductChanged = event.decode_data()?;
        if state.cache.is_own_write(changed.product_id, changed.updated_at) {
            continue;
        }
        changes.mark(changed.product_id, None);
        if let Some(group) = changed.group {
            let siblings = state.store.read(move |conn| Ok::<_, CommonError>(store::siblings(conn, &group)?)).await?;
            for id in siblings {
                changes.mark(id, None);
            }
        }
    }
    Ok(())
}

crate::event_handlers! {
    /// Applies an event to stock and ratings. Its own `ProductChanged` invalidates the cache before the transaction.
    fn apply_event(tx: &mut Tx<'_>, scope: &WriteScope) -> Result<(), CatalogError>, also [ProductChanged];
    InvoicePaid => on_invoice_paid,
    InvoiceExpired => on_invoice_expired,
    InvoiceVoided => on_invoice_voided,
    InvoiceRefunded => on_invoice_refunded,
    RatingChanged => on_rating_changed,
}

fn on_invoice_paid(tx: &mut Tx<'_>, scope: &WriteScope, event: InvoicePaid) -> Result<(), CatalogError> {
    match event.hold {
        Some(hold) if !event.imported => stock::sell(tx, scope, hold, event.invoice.id),
        _ => Ok(()),
    }
}

fn on_invoice_expired(tx: &mut Tx<'_>, scope: &WriteScope, event: InvoiceExpired) -> Result<(), CatalogError> {
    release(tx, scope, event.hold)
}

fn on_invoice_voided(tx: &mut Tx<'_>, scope: &WriteScope, event: InvoiceVoided) -> Result<(), CatalogError> {
    release(tx, scope, event.hold)
}

fn on_invoice_refunded(tx: &mut Tx<'_>, scope: &WriteScope, event: InvoiceRefunded) -> Result<(), CatalogError> {
    match event.hold {
        Some(hold) if event.restock && !event.imported => stock::restock(tx, scope, hold, &event.lines),
        _ => Ok(()),
    }
}

fn on_rating_changed(tx: &mut Tx<'_>, scope: &WriteScope, event: RatingChanged) -> Result<(), CatalogError> {
    store::set_rating(tx, scope, event.product_id, event.sum, event.count)
}

fn release(tx: &mut Tx<'_>, scope: &WriteScope, hold: Option<HoldId>) -> Result<(), CatalogError> {
    hold.map_or(Ok(()), |hold| stock::release(tx, scope, hold))
}

/// Releases expired holds in small jobs, so that other writes do not wait.
async fn expire(state: Arc<CatalogState>) {
    // One at a time, also when the database is slower than the interval.
    let Ok(_permit) = state.expiring.try_acquire() else { return };
    if let Err(error) = expire_all(&state).await {
        log::warn!("catalog: expiring holds failed, will retry: {error}");
    }
}

pub(super) async fn expire_all(state: &CatalogState) -> Result<(), CatalogError> {
    let now = state.store.now();
    if !state.store.read(move |conn| Ok::<_, CommonError>(stock::has_expired(conn, now)?)).await? {
        return Ok(());
    }
    while state.write(stock::expire).await? {}
    Ok(())
}

async fn check_invariants(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn list_hold_facts(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: ListHoldFacts,
) -> Result<Vec<HoldFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::list_hold_facts(conn, request.which)?)).await
}

async fn get_ratings(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: GetRatings,
) -> Result<Vec<RatingFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::get_ratings(conn, &request.products)?)).await
}
