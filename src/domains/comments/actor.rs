//! Answers what comments are asked.

use std::sync::Arc;

use actix::{Actor, Context, Supervised};

use super::store::{self, AuthorStatus};
use super::{
    AddComment, Comment, CommentAdded, CommentsError, DeleteComment, ImportComment, ListComments, ListRatingFacts,
    RatingChanged, model,
};
use crate::contract::catalog::{CatalogError, GetProduct, RatingFacts};
use crate::contract::users::{UserChanged, UserErased, UserRegistered};
use crate::domains::catalog::CatalogActor;
use crate::messaging::{
    CheckInvariants, Client, CommonError, DeliverEvents, EventEnvelope, Identity, InvariantReport, RequestContext, Role,
};
use crate::store::{Store, Tx};
use crate::types::{CommentId, Page};

/// What the answers share.
pub struct CommentsState {
    pub(super) store: Store,
    pub(super) catalog: Client<CatalogActor>,
}

/// The actor of this domain. It holds nothing that a restart could lose.
pub struct CommentsActor {
    pub(super) state: Arc<CommentsState>,
}

impl Actor for CommentsActor {
    type Context = Context<Self>;
}

impl Supervised for CommentsActor {}

crate::handlers! { CommentsActor;
    AddComment => add_comment,
    ListComments => list_comments,
    DeleteComment => delete_comment,
    ImportComment => record_comment,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    ListRatingFacts => audit_ratings,
}

async fn add_comment(
    state: Arc<CommentsState>,
    ctx: RequestContext,
    request: AddComment,
) -> Result<Comment, CommentsError> {
    let Some(identity) = ctx.identity().copied() else { return Err(CommonError::Unauthenticated.into()) };
    if identity.role == Role::Guest {
        return Err(CommonError::Forbidden.into());
    }
    model::check(request.rating, &request.text)?;
    state.store.run_idempotent(&ctx, &request, || record(&state, &ctx, identity, &request)).await
}

async fn record(
    state: &CommentsState,
    ctx: &RequestContext,
    identity: Identity,
    request: &AddComment,
) -> Result<Comment, CommentsError> {
    let product = request.product_id;
    match state.catalog.call(ctx.for_downstream_call("comments", None), GetProduct { product_id: product }).await {
        Ok(found) if !found.deleted => {}
        Ok(_) | Err(CatalogError::ProductNotFound) => return Err(CommentsError::ProductNotFound),
        Err(CatalogError::Common(failure)) => return Err(failure.into()),
        Err(error) => {
            log::error!("comments: the catalog answered a question for a product with: {error}");
            return Err(CommonError::Internal.into());
        }
    }
    let (rating, text) = (request.rating, request.text.trim().to_owned());
    state
        .store
        .write_idempotent(ctx, request, move |tx| {
            let author = match store::person(tx.conn, identity.user_id)? {
                AuthorStatus::Named(name) => name,
                AuthorStatus::Unknown => model::author(None),
                // Erased while this request was on its way: it must not leave a trace of them.
                AuthorStatus::Gone => return Err(CommonError::Unauthenticated.into()),
            };
            let comment = Comment {
                id: CommentId::new(),
                product_id: product,
                user_id: Some(identity.user_id),
                author,
                rating,
                text,
                created_at: tx.now,
            };
            put(tx, &comment)?;
            tx.emit(&CommentAdded { comment: comment.clone() })?;
            Ok(comment)
        })
        .await
}

async fn record_comment(
    state: Arc<CommentsState>,
    ctx: RequestContext,
    request: ImportComment,
) -> Result<Comment, CommentsError> {
    model::check(request.rating, &request.text)?;
    let past = request.clone();
    state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
            let comment = Comment {
                id: CommentId::new(),
                product_id: past.product_id,
                user_id: Some(past.user_id),
                author: model::author(Some(&past.author)),
                rating: past.rating,
                text: past.text.trim().to_owned(),
                created_at: past.at,
            };
            put(tx, &comment)?;
            Ok(comment)
        })
        .await
}

async fn list_comments(
    state: Arc<CommentsState>,
    _: RequestContext,
    request: ListComments,
) -> Result<Page<Comment>, CommentsError> {
    let (limit, after) = (request.page.limit()?, request.page.after()?);
    let rows = state
        .store
        .read(move |conn| Ok::<_, CommentsError>(store::list(conn, request.product_id, after, limit + 1)?))
        .await?;
    Ok(Page::cut(rows, limit, |comment| (comment.created_at, comment.id)))
}

async fn delete_comment(
    state: Arc<CommentsState>,
    ctx: RequestContext,
    request: DeleteComment,
) -> Result<(), CommentsError> {
    let (staff, caller) = (ctx.is_staff(), ctx.identity().map(|identity| identity.user_id));
    let DeleteComment { product_id, comment_id } = request.clone();
    state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
            let comment = store::find(tx.conn, product_id, comment_id)?
                .filter(|comment| staff || (caller.is_some() && comment.user_id == caller))
                .ok_or(CommentsError::CommentNotFound)?;
            store::delete(tx.conn, comment.id)?;
            rate(tx, &comment, -1)
        })
        .await
}

async fn on_events(state: Arc<CommentsState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    state.store.consume(request.events, learn).await
}

/// Writes a comment and counts its rating.
fn put(tx: &mut Tx<'_>, comment: &Comment) -> Result<(), CommentsError> {
    if !store::insert(tx.conn, comment)? {
        return Err(CommentsError::AlreadyCommented);
    }
    rate(tx, comment, 1)
}

/// Counts a comment's rating in (1) or out (-1) and tells the sums of that moment.
fn rate(tx: &mut Tx<'_>, comment: &Comment, sign: i64) -> Result<(), CommentsError> {
    let (sum, count) = store::add_rating(tx.conn, comment.product_id, sign * i64::from(comment.rating), sign)?;
    Ok(tx.emit(&RatingChanged { product_id: comment.product_id, sum, count })?)
}

/// Keeps the names of people as the users domain tells them.
fn learn(tx: &mut Tx<'_>, event: &EventEnvelope) -> Result<(), CommonError> {
    let unreadable = |error: serde_json::Error| {
        log::error!("comments: {} {} cannot be read: {error}", event.name, event.id);
        CommonError::Internal
    };
    if let Some(UserRegistered { user_id, name, .. }) = event.decode().map_err(unreadable)? {
        store::name_person(tx.conn, user_id, &model::author(Some(&name)))?;
    } else if let Some(UserChanged { user_id, name, .. }) = event.decode().map_err(unreadable)? {
        store::name_person(tx.conn, user_id, &model::author(Some(&name)))?;
    } else if let Some(UserErased { user_id, .. }) = event.decode().map_err(unreadable)? {
        store::erase_person(tx.conn, user_id)?;
    }
    Ok(())
}

async fn audit(
    state: Arc<CommentsState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn audit_ratings(
    state: Arc<CommentsState>,
    _: RequestContext,
    request: ListRatingFacts,
) -> Result<Vec<RatingFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::ratings(conn, request.which)?)).await
}
