//! The catalog actor: its state, handlers of products and stock, and the timer that expires holds.
//!
//! Does not contain: handlers of lists and images (`list_handlers.rs`, `image_handlers.rs`), SQL (`store`), rules that need
//! no database (`model.rs`). Invariant: a write invalidates the cache entries of what it changes before it commits; see
//! `cache.rs`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::image_handlers::{RENDER_MEMORY_MIB, add_image, delete_image, get_image, list_images};
use super::list_handlers::{list_products, read_products};
use super::store::{self, WriteScope, import, stock};
use super::suggestions::VocabularyCache;
use super::*;
use crate::contract::comments::RatingChanged;
use crate::contract::payments::{InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceVoided};
use crate::messaging::{
    CheckInvariants, CommonError, DeliverEvents, Event as _, EventEnvelope, ListAuditEntries, Request, RequestContext,
};
use crate::runtime::spawn_leader_interval;
use crate::settings;
use crate::store::{
    Conn, DomainState, Invariants, LockSet, StaffAction, Store, Tx, check_invariants, list_audit_entries,
};
use crate::types::{FieldError, HoldId, ProductId};

/// Interval between searches for expired holds.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between looks whether a rebuild of the search index is left, also after one that failed.
const REBUILD_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of products per [`GetOffers`].
const IDS_MAX: usize = 1_000;
/// Maximum number of rows per [`ImportProducts`].
const ROWS_MAX: usize = 1_000;

/// State shared by the handlers of this domain.
pub struct CatalogState {
    pub(super) store: Store,
    pub(super) cache: Cache,
    pub(super) vocabulary: VocabularyCache,
    pub(super) settings: settings::CatalogSettings,
    pub(super) renders: Arc<Semaphore>,
    expiring: Arc<Semaphore>,
}

impl CatalogState {
    pub(super) fn new(store: Store, settings: &settings::CatalogSettings) -> Self {
        Self {
            cache: Cache::new(settings.cache_max, store.cache_lease()),
            vocabulary: VocabularyCache::default(),
            store,
            settings: settings.clone(),
            renders: Arc::new(Semaphore::new(RENDER_MEMORY_MIB as usize)),
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
    pub(super) async fn write_idempotent<R: Request, T>(
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
            let action = StaffAction::of(ctx, request);
            let recorded = move |tx: &mut Tx<'_>, scope: &WriteScope| {
                let reply = job(tx, scope)?;
                tx.record_action(action.as_ref())?;
                Ok(reply)
            };
            return self.write(recorded).await;
        }
        let scope = self.write_scope();
        let job_scope = scope.clone();
        let reply = self.store.idempotent(ctx, request)?.run(move |tx| job(tx, &job_scope)).await?;
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
        spawn_leader_interval(ctx, &self.state.store, &self.state, REBUILD_INTERVAL, rebuild_search);
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
    ChangeStock => change_stock,
    GetStock => get_stock,
    HoldStock => hold_stock,
    ReleaseHold => release_hold,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
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
            let created = store::get(tx.conn, id)?;
            tx.describe_change(Value::Null, audited(&created));
            Ok(created)
        })
        .await
}

pub(super) async fn get_product(
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
    let versions = ctx.clone();
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            let (after, ()) = change(tx, &versions, product_id, |tx| store::update(tx, scope, product_id, patch))?;
            Ok(after)
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
    let versions = ctx.clone();
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            let (after, ()) = change(tx, &versions, product_id, |tx| store::replace(tx, scope, product_id, new))?;
            Ok(after)
        })
        .await
}

/// Changes a product that the caller knows in its present version, and describes the change for the audit log. Returns the
/// product after it, and the result of `work`.
fn change<T>(
    tx: &mut Tx<'_>,
    versions: &RequestContext,
    product_id: ProductId,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, CatalogError>,
) -> Result<(Product, T), CatalogError> {
    let before = store::get(tx.conn, product_id)?;
    versions.check_version(before.updated_at)?;
    let result = work(tx)?;
    let after = store::get(tx.conn, product_id)?;
    tx.describe_change(audited(&before), audited(&after));
    Ok((after, result))
}

/// Part of a product that the audit log keeps.
fn audited(product: &Product) -> Value {
    let Product { id, sku, name, price, currency, stock, .. } = product;
    json!({ "id": id, "sku": sku, "name": name, "price": price, "currency": currency, "stock": stock })
}

async fn delete_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: DeleteProduct,
) -> Result<(), CatalogError> {
    let (product_id, versions) = (request.product_id, ctx.clone());
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            versions.check_version(store::get(tx.conn, product_id)?.updated_at)?;
            store::delete(tx, scope, product_id)
        })
        .await
}

async fn change_stock(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ChangeStock,
) -> Result<StockedProduct, CatalogError> {
    let (requested, versions) = (request.clone(), ctx.clone());
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            let (product, held) =
                change(tx, &versions, requested.product_id, |tx| stock::change(tx, scope, &requested))?;
            let on_hand = product.stock + held;
            Ok(StockedProduct { product, on_hand, held })
        })
        .await
}

async fn get_stock(state: Arc<CatalogState>, _: RequestContext, request: GetStock) -> Result<StockLevel, CatalogError> {
    state.store.read(move |conn| stock::level(conn, request.product_id)).await
}

async fn import_products(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ImportProducts,
) -> Result<Vec<ImportOutcome>, CatalogError> {
    if request.rows.len() > ROWS_MAX {
        return Err(FieldError::new("rows", "too_many", format!("must be at most {ROWS_MAX}")).into());
    }
    let (rows, overwrite) = (request.rows.clone(), request.overwrite);
    if request.dry_run {
        let preview =
            move |conn: &mut Conn| rows.into_iter().map(|row| import::preview(conn, row, overwrite)).collect();
        return state.store.read(preview).await;
    }
    state
        .write_idempotent(&ctx, &request, move |tx, scope| {
            rows.into_iter().map(|row| import::import(tx, scope, row, overwrite)).collect()
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

/// Rebuilds the search index after an upgrade, in small jobs, so that other writes do not wait. Until it is done, a search
/// finds the products that are done.
pub(super) async fn rebuild_search(state: Arc<CatalogState>) {
    let rebuild = async || {
        if !state.store.read(|conn| Ok::<_, CommonError>(store::is_rebuild_pending(conn)?)).await? {
            return Ok(());
        }
        log::info!("catalog: building the search index anew");
        while state.store.write(|tx| Ok::<_, CommonError>(store::rebuild_some(tx)?)).await? {}
        state.cache.clear();
        log::info!("catalog: the search index is complete");
        Ok::<_, CommonError>(())
    };
    if let Err(error) = rebuild().await {
        log::warn!("catalog: building the search index failed, will retry: {error}");
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

impl DomainState for CatalogState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
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
