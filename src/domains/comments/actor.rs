//! Handlers of the comments messages and of the users' events.

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
    CheckInvariants, Client, CommonError, DeliverEvents, Identity, ListAuditEntries, RequestContext, Role,
};
use crate::store::{DomainState, Invariants, Store, Tx, check_invariants, list_audit_entries};
use crate::types::{CommentId, Page};

/// State shared by the actor's handlers.
pub struct CommentsState {
    pub(super) store: Store,
    pub(super) catalog: Client<CatalogActor>,
}

/// Actor of the comments domain. It holds nothing that a restart could lose.
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
    ImportComment => import_comment,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    ListRatingFacts => list_rating_facts,
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
    model::validate_comment(request.rating, &request.text)?;
    state.store.idempotent(&ctx, &request)?.check_first(|| add_new(&state, &ctx, identity, &request)).await
}

async fn add_new(
    state: &CommentsState,
    ctx: &RequestContext,
    identity: Identity,
    request: &AddComment,
) -> Result<Comment, CommentsError> {
    let product = request.product_id;
    match state.catalog.call(ctx.for_downstream_call("comments", None), GetProduct { product_id: product }).await {
        Ok(product) if !product.deleted => {}
        Ok(_) | Err(CatalogError::ProductNotFound) => return Err(CommentsError::ProductNotFound),
        Err(CatalogError::Common(error)) => return Err(error.into()),
        Err(error) => {
            log::error!("comments: unexpected catalog error: {error}");
            return Err(CommonError::Internal.into());
        }
    }
    let (rating, text) = (request.rating, request.text.trim().to_owned());
    state
        .store
        .idempotent(ctx, request)?
        .run(move |tx| {
            let author = match store::author_status(tx.conn, identity.user_id)? {
                AuthorStatus::Named(name) => name,
                AuthorStatus::Unknown => model::display_name(None),
                // Deleted while this request was running: it must leave no trace of the user.
                AuthorStatus::Deleted => return Err(CommonError::Unauthenticated.into()),
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
            insert_comment(tx, &comment)?;
            tx.emit(&CommentAdded { comment: comment.clone() })?;
            Ok(comment)
        })
        .await
}

async fn import_comment(
    state: Arc<CommentsState>,
    ctx: RequestContext,
    request: ImportComment,
) -> Result<Comment, CommentsError> {
    model::validate_comment(request.rating, &request.text)?;
    let import = request.clone();
    state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let comment = Comment {
                id: CommentId::new(),
                product_id: import.product_id,
                user_id: Some(import.user_id),
                author: model::display_name(Some(&import.author)),
                rating: import.rating,
                text: import.text.trim().to_owned(),
                created_at: import.at,
            };
            insert_comment(tx, &comment)?;
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
    Ok(Page::from_overfetch(rows, limit, |comment| (comment.created_at, comment.id)))
}

async fn delete_comment(
    state: Arc<CommentsState>,
    ctx: RequestContext,
    request: DeleteComment,
) -> Result<(), CommentsError> {
    let (is_staff, caller) = (ctx.has_role(Role::Support), ctx.identity().map(|identity| identity.user_id));
    let DeleteComment { product_id, comment_id } = request.clone();
    state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let comment = store::find(tx.conn, product_id, comment_id)?
                .filter(|comment| is_staff || (caller.is_some() && comment.user_id == caller))
                .ok_or(CommentsError::CommentNotFound)?;
            store::delete(tx.conn, comment.id)?;
            adjust_rating(tx, &comment, -1)
        })
        .await
}

async fn on_events(state: Arc<CommentsState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    state.store.consume(request.events, apply_event).await
}

/// Inserts a comment and adds its rating to the product's totals.
fn insert_comment(tx: &mut Tx<'_>, comment: &Comment) -> Result<(), CommentsError> {
    if !store::insert(tx.conn, comment)? {
        return Err(CommentsError::AlreadyCommented);
    }
    adjust_rating(tx, comment, 1)
}

/// Adds (`sign` 1) or removes (`sign` -1) a comment's rating and emits the new totals.
fn adjust_rating(tx: &mut Tx<'_>, comment: &Comment, sign: i64) -> Result<(), CommentsError> {
    let (sum, count) = store::adjust_rating(tx.conn, comment.product_id, sign * i64::from(comment.rating), sign)?;
    Ok(tx.emit(&RatingChanged { product_id: comment.product_id, sum, count })?)
}

crate::event_handlers! {
    /// Updates authors' names from an event of the users domain.
    fn apply_event(tx: &mut Tx<'_>) -> Result<(), CommonError>;
    UserRegistered => on_user_registered,
    UserChanged => on_user_changed,
    UserErased => on_user_erased,
}

fn on_user_registered(tx: &mut Tx<'_>, event: UserRegistered) -> Result<(), CommonError> {
    Ok(store::set_author_name(tx.conn, event.user_id, &model::display_name(Some(&event.name)))?)
}

fn on_user_changed(tx: &mut Tx<'_>, event: UserChanged) -> Result<(), CommonError> {
    Ok(store::set_author_name(tx.conn, event.user_id, &model::display_name(Some(&event.name)))?)
}

fn on_user_erased(tx: &mut Tx<'_>, event: UserErased) -> Result<(), CommonError> {
    tx.erase_responses(event.user_id, event.email.is_some())?;
    Ok(store::anonymize_author(tx.conn, event.user_id)?)
}

impl DomainState for CommentsState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn list_rating_facts(
    state: Arc<CommentsState>,
    _: RequestContext,
    request: ListRatingFacts,
) -> Result<Vec<RatingFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::list_rating_facts(conn, request.which)?)).await
}
