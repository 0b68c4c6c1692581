//! One handler a message: check, ask the store, drop from memory what has changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::cache::{Cache, Counts, PageKey};
use super::image_processing::{self, PictureError, Rendition};
use super::store::{self as shelf, WriteScope, images, search, stock};
use super::*;
use crate::messaging::{
    CheckInvariants, CommonError, DeliverEvents, Event, EventEnvelope, InvariantReport, Request, RequestContext,
};
use crate::runtime::spawn_leader_interval;
use crate::settings;
use crate::store::{Conn, LockSet, Store, Tx};
use crate::types::{Cursor, FieldError, HoldId, ProductId, Validator};

/// How often holds that ran out are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(2);
/// How many pictures are made smaller at once: each takes a core and some ten megabytes.
const RENDERS_MAX: usize = 2;
/// The most products one question may name.
const IDS_MAX: usize = 1_000;
/// The most rows of one import.
const ROWS_MAX: usize = 1_000;
/// From how many items on a list counts as large, and for how long its counts are then used again.
const LARGE_LIST: (i64, Duration) = (2_000, Duration::from_secs(1));

/// What the handlers of this domain share.
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

    fn hand(&self) -> WriteScope {
        WriteScope { changes: self.cache.changes(), low_stock: self.settings.low_stock }
    }

    /// Has a change made durably; what it touches is out of memory before anybody can hear of it.
    async fn change<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tx<'_>, &WriteScope) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.change_on(LockSet::domain(), job).await
    }

    /// Like [`CatalogState::change`], for a job that touches only this.
    async fn change_on<T: Send + 'static>(
        &self,
        touch: LockSet,
        job: impl FnOnce(&mut Tx<'_>, &WriteScope) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let hand = self.hand();
        let held = hand.clone();
        let answer = self.store.write_locked(touch, move |tx| job(tx, &held)).await?;
        hand.changes.committed();
        Ok(answer)
    }

    /// Like [`CatalogState::change`], and under a key once only.
    async fn change_once<R: Request, T>(
        &self,
        ctx: &RequestContext,
        request: &R,
        job: impl FnOnce(&mut Tx<'_>, &WriteScope) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError>
    where
        T: Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        if ctx.key.is_none() {
            // Spares the fingerprint of a request that may be a thousand rows.
            return self.change(job).await;
        }
        let hand = self.hand();
        let held = hand.clone();
        let answer = self.store.write_idempotent(ctx, request, move |tx| job(tx, &held)).await?;
        hand.changes.committed();
        Ok(answer)
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
    CheckInvariants => audit,
    ListHoldFacts => audit_holds,
    GetRatings => get_ratings,
}

async fn create_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: CreateProduct,
) -> Result<Product, CatalogError> {
    let new = model::tidy(request.product.clone())?;
    state
        .change_once(&ctx, &request, move |tx, hand| {
            let id = shelf::create(tx, hand, new)?;
            shelf::one(tx.conn, id)
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
    let product = Arc::new(state.store.read(move |conn| shelf::one(conn, request.product_id)).await?);
    state.cache.keep(stamp, &product);
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
    let mut wanted = request.product_ids;
    let mut seen = HashSet::with_capacity(wanted.len());
    wanted.retain(|id| seen.insert(*id));
    let ready: Option<Vec<Arc<Product>>> = wanted.iter().map(|id| state.cache.product(*id)).collect();
    let products = match ready {
        Some(all) => all,
        None => {
            let reader = Arc::clone(&state);
            let read = move |conn: &mut Conn| {
                let mut products = read_products(&reader, conn, &wanted)?;
                Ok::<_, CatalogError>(wanted.iter().filter_map(|id| products.remove(id)).collect())
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
        .change_once(&ctx, &request, move |tx, hand| {
            shelf::update(tx, hand, product_id, patch)?;
            shelf::one(tx.conn, product_id)
        })
        .await
}

async fn replace_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: ReplaceProduct,
) -> Result<Product, CatalogError> {
    let product_id = request.product_id;
    let new = model::tidy(request.product.clone())?;
    state
        .change_once(&ctx, &request, move |tx, hand| {
            shelf::replace(tx, hand, product_id, new)?;
            shelf::one(tx.conn, product_id)
        })
        .await
}

async fn delete_product(
    state: Arc<CatalogState>,
    ctx: RequestContext,
    request: DeleteProduct,
) -> Result<(), CatalogError> {
    let product_id = request.product_id;
    state.change_once(&ctx, &request, move |tx, hand| shelf::delete(tx, hand, product_id)).await
}

async fn list_products(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: ListProducts,
) -> Result<ProductPage, CatalogError> {
    let query = model::tidy_query(request.query)?;
    let limit = request.page.limit()?;
    let after = search::PageStart::open(&request.page, &query)?;
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
        state.cache.keep_page(stamp, key, &page);
    }
    Ok(page)
}

/// These products, from memory or else from the database; unknown ones are left out.
fn read_products(
    state: &CatalogState,
    conn: &mut Conn,
    ids: &[ProductId],
) -> Result<HashMap<ProductId, Arc<Product>>, CatalogError> {
    let mut products: HashMap<ProductId, Arc<Product>> =
        ids.iter().filter_map(|id| Some((*id, state.cache.product(*id)?))).collect();
    let missing: Vec<ProductId> = ids.iter().copied().filter(|id| !products.contains_key(id)).collect();
    // Before they are read, as the memory wants it.
    let stamps: HashMap<ProductId, u64> = missing.iter().map(|id| (*id, state.cache.stamp(*id))).collect();
    for product in shelf::load(conn, &missing)? {
        let product = Arc::new(product);
        if let Some(stamp) = stamps.get(&product.id) {
            state.cache.keep(*stamp, &product);
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
    // One that was taken out since the list was read is no longer in it.
    let items = ids.iter().filter_map(|id| products.remove(id)).filter(|product| !product.deleted).collect();
    Ok((items, next))
}

/// The counting of one list.
struct FacetQuery<'a> {
    state: &'a CatalogState,
    conn: &'a mut Conn,
    /// Taken before anything was read.
    stamp: u64,
    /// Whether all that was counted is as of that stamp.
    is_fresh: bool,
}

impl FacetQuery<'_> {
    /// How the list is made up, each facet without its own filter; and whether that is as of the stamp.
    fn facets(mut self, query: &ProductQuery) -> Result<(Facets, bool), CatalogError> {
        let base = ProductQuery { sort: None, ..query.clone() };
        let mut facets = Facets::clone(&*self.counts(&base)?);
        if base.category.is_some() {
            let without = ProductQuery { category: None, ..base.clone() };
            facets.categories.clone_from(&self.counts(&without)?.categories);
        }
        if base.tag.is_some() {
            let without = ProductQuery { tag: None, ..base.clone() };
            facets.tags.clone_from(&self.counts(&without)?.tags);
        }
        if base.min_price.is_some() || base.max_price.is_some() {
            let without = self.counts(&ProductQuery { min_price: None, max_price: None, ..base.clone() })?;
            (facets.min_price, facets.max_price) = (without.min_price, without.max_price);
        }
        if base.in_stock.is_some() {
            facets.in_stock = self.counts(&ProductQuery { in_stock: None, ..base })?.in_stock;
        }
        Ok((facets, self.is_fresh))
    }

    /// What a list holds; of a large one, what it held up to a second ago, because counting it takes that much longer.
    fn counts(&mut self, query: &ProductQuery) -> Result<Arc<Facets>, CatalogError> {
        let (cache, now) = (&self.state.cache, self.state.store.now());
        if let Some(kept) = cache.counts(query).filter(|kept| kept.at <= now && now.since(kept.at) < LARGE_LIST.1) {
            // A page with older counts is given but not kept: it would outlive their second.
            self.is_fresh &= kept.stamp == self.stamp;
            return Ok(kept.facets);
        }
        let facets = Arc::new(search::counts(self.conn, query)?);
        if facets.total >= LARGE_LIST.0 && !search::is_whole(query) {
            cache.keep_counts(query.clone(), Counts { at: now, stamp: self.stamp, facets: Arc::clone(&facets) });
        }
        Ok(facets)
    }
}

/// What an added picture is known by under its key: its fingerprint, not its megabytes.
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
    let (digest, data) = heavy(&state, move || (Sha256::digest(&data).to_vec(), data)).await?;
    let request = AddedImage { product_id, alt: alt.clone(), digest };
    let add = || async {
        state.store.read(move |conn| images::may_add(conn, product_id)).await?;
        let (bytes_max, pixels_max) = (state.settings.image_bytes_max, state.settings.image_pixels_max);
        let files: Vec<Rendition> = heavy(&state, move || image_processing::render(&data, bytes_max, pixels_max))
            .await?
            .map_err(|error| match error {
                PictureError::Unreadable(reason) => CatalogError::UnsupportedImage { reason },
                PictureError::TooLarge => too_large,
            })?;
        state.change_once(&ctx, &request, move |tx, hand| images::add(tx, hand, product_id, alt, &files)).await
    };
    state.store.run_idempotent(&ctx, &request, add).await
}

/// Does work that takes a core, off this thread and never too much at once.
async fn heavy<T: Send + 'static>(
    state: &CatalogState,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CommonError> {
    let permit = Arc::clone(&state.renders).acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|panicked| {
        log::error!("catalog: a picture made its reader panic: {panicked}");
        CommonError::Internal
    })
}

async fn delete_image(state: Arc<CatalogState>, ctx: RequestContext, request: DeleteImage) -> Result<(), CatalogError> {
    let DeleteImage { product_id, image_id } = request;
    state.change_once(&ctx, &request, move |tx, hand| images::delete(tx, hand, product_id, image_id)).await
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
        .change_once(&ctx, &request, move |tx, hand| rows.into_iter().map(|row| shelf::import(tx, hand, row)).collect())
        .await
}

async fn export_products(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: ExportProducts,
) -> Result<ExportPage, CatalogError> {
    state.store.read(move |conn| shelf::export(conn, request.after)).await
}

/// The hold is its own key, and a better one than the caller's: under that a hold let go since would still look held.
async fn hold_stock(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: HoldStock,
) -> Result<StockHold, CatalogError> {
    let lines = model::hold_lines(&request.lines)?;
    let HoldStock { hold, expires_at, .. } = request;
    if state.store.is_concurrent() {
        // Where some of each is left, nothing but the products themselves changes, and other buyers need not wait.
        let touch = lines.iter().fold(LockSet::key("hold", hold), |touch, line| touch.with("product", line.product_id));
        let wanted = lines.clone();
        let job = move |tx: &mut Tx<'_>, hand: &WriteScope| {
            if stock::would_empty(tx.conn, &wanted)? {
                return Ok(None);
            }
            stock::take_hold(tx, hand, hold, &wanted, expires_at).map(Some)
        };
        if let Some(held) = state.change_on(touch, job).await? {
            return Ok(held);
        }
    }
    state.change(move |tx, hand| stock::take_hold(tx, hand, hold, &lines, expires_at)).await
}

async fn release_hold(state: Arc<CatalogState>, _: RequestContext, request: ReleaseHold) -> Result<(), CatalogError> {
    let hold = request.hold;
    state.change(move |tx, hand| stock::release(tx, hand, hold)).await
}

async fn on_events(state: Arc<CatalogState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let (own, others): (Vec<EventEnvelope>, Vec<EventEnvelope>) =
        request.events.into_iter().partition(|event| event.name == ProductChanged::NAME);
    drop_changed(&state, &own).await?;
    if others.is_empty() {
        return Ok(());
    }
    let hand = state.hand();
    let held = hand.clone();
    state.store.consume(others, move |tx, event| effect(tx, &held, event)).await?;
    hand.changes.committed();
    Ok(())
}

/// Drops from memory what another process has changed in this database.
async fn drop_changed(state: &CatalogState, events: &[EventEnvelope]) -> Result<(), CommonError> {
    let changes = state.cache.changes();
    for event in events {
        let Some(changed) = open::<ProductChanged>(event)? else { continue };
        if state.cache.is_own(changed.product_id, changed.updated_at) {
            continue;
        }
        changes.touch(changed.product_id, None);
        if let Some(group) = changed.group {
            let siblings = state.store.read(move |conn| Ok::<_, CommonError>(shelf::siblings(conn, &group)?)).await?;
            for id in siblings {
                changes.touch(id, None);
            }
        }
    }
    Ok(())
}

/// What the events of other domains mean for what is for sale.
fn effect(tx: &mut Tx<'_>, hand: &WriteScope, event: &EventEnvelope) -> Result<(), CatalogError> {
    if let Some(paid) = open::<InvoicePaid>(event)? {
        if let (Some(hold), false) = (paid.hold, paid.imported) {
            stock::sell(tx, hand, hold, paid.invoice.id)?;
        }
    } else if let Some(gone) = open::<InvoiceExpired>(event)? {
        release(tx, hand, gone.hold)?;
    } else if let Some(gone) = open::<InvoiceVoided>(event)? {
        release(tx, hand, gone.hold)?;
    } else if let Some(refunded) = open::<InvoiceRefunded>(event)? {
        if let (Some(hold), true, false) = (refunded.hold, refunded.restock, refunded.imported) {
            stock::take_back(tx, hand, hold, &refunded.lines)?;
        }
    } else if let Some(rating) = open::<RatingChanged>(event)? {
        shelf::rate(tx, hand, rating.product_id, rating.sum, rating.count)?;
    }
    Ok(())
}

fn release(tx: &mut Tx<'_>, hand: &WriteScope, hold: Option<HoldId>) -> Result<(), CatalogError> {
    hold.map_or(Ok(()), |hold| stock::release(tx, hand, hold))
}

fn open<E: Event>(event: &EventEnvelope) -> Result<Option<E>, CommonError> {
    event.decode().map_err(|error| {
        log::error!("catalog: event {} {} cannot be read: {error}", event.name, event.id);
        CommonError::Internal
    })
}

/// Lets go the holds that have run out, a few a job, so that nobody waits long behind them.
async fn expire(state: Arc<CatalogState>) {
    // One at a time: a slow database must not gather a crowd of these.
    let Ok(_permit) = state.expiring.try_acquire() else { return };
    if let Err(error) = expire_all(&state).await {
        log::warn!("catalog: holds that ran out could not be let go, trying again soon: {error}");
    }
}

pub(super) async fn expire_all(state: &CatalogState) -> Result<(), CatalogError> {
    let now = state.store.now();
    if !state.store.read(move |conn| Ok::<_, CommonError>(stock::any_expired(conn, now)?)).await? {
        return Ok(());
    }
    while state.change(stock::expire).await? {}
    Ok(())
}

async fn audit(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, shelf::invariants::INVARIANTS).await
}

async fn audit_holds(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: ListHoldFacts,
) -> Result<Vec<HoldFacts>, CommonError> {
    state.store.read(move |conn| Ok(shelf::invariants::holds(conn, request.which)?)).await
}

async fn get_ratings(
    state: Arc<CatalogState>,
    _: RequestContext,
    request: GetRatings,
) -> Result<Vec<RatingFacts>, CommonError> {
    state.store.read(move |conn| Ok(shelf::invariants::ratings(conn, &request.products)?)).await
}
