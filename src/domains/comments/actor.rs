//! Answers what comments are asked.

use std::sync::Arc;

use actix::{Actor, Context, Supervised};

use super::store::{self, Person};
use super::{
    AddComment, AuditRatings, Comment, CommentAdded, CommentsError, DeleteComment, ListComments, RatingChanged,
    RecordComment, model,
};
use crate::contract::catalog::{CatalogError, GetProduct, RatingFacts};
use crate::contract::users::{UserChanged, UserErased, UserRegistered};
use crate::domains::catalog::Catalog;
use crate::events::{Deliver, Delivery};
use crate::messaging::{Client, Ctx, Failure, Identity, Role};
use crate::store::{Audit, Audited, Store, Tx};
use crate::types::{CommentId, Page};

/// What the answers share.
pub struct Room {
    pub(super) store: Store,
    pub(super) catalog: Client<Catalog>,
}

/// The actor of this domain. It holds nothing that a restart could lose.
pub struct Comments {
    pub(super) room: Arc<Room>,
}

impl Actor for Comments {
    type Context = Context<Self>;
}

impl Supervised for Comments {}

crate::answers! { Comments;
    AddComment => add_comment,
    ListComments => list_comments,
    DeleteComment => delete_comment,
    RecordComment => record_comment,
    Deliver => deliver,
    Audit => audit,
    AuditRatings => audit_ratings,
}

async fn add_comment(room: Arc<Room>, ctx: Ctx, request: AddComment) -> Result<Comment, CommentsError> {
    let Some(identity) = ctx.identity().copied() else { return Err(Failure::Unauthenticated.into()) };
    if identity.role == Role::Guest {
        return Err(Failure::Forbidden.into());
    }
    model::check(request.rating, &request.text)?;
    room.store.once(&ctx, &request, || record(&room, &ctx, identity, &request)).await
}

async fn record(room: &Room, ctx: &Ctx, identity: Identity, request: &AddComment) -> Result<Comment, CommentsError> {
    let product = request.product_id;
    match room.catalog.call(ctx.onward("comments", None), GetProduct { product_id: product }).await {
        Ok(found) if !found.deleted => {}
        Ok(_) | Err(CatalogError::ProductNotFound) => return Err(CommentsError::ProductNotFound),
        Err(CatalogError::Failure(failure)) => return Err(failure.into()),
        Err(error) => {
            log::error!("comments: the catalog answered a question for a product with: {error}");
            return Err(Failure::Internal.into());
        }
    }
    let (rating, text) = (request.rating, request.text.trim().to_owned());
    room.store
        .write_once(ctx, request, move |tx| {
            let author = match store::person(tx.conn, identity.user_id)? {
                Person::Named(name) => name,
                Person::Unknown => model::author(None),
                // Erased while this request was on its way: it must not leave a trace of them.
                Person::Gone => return Err(Failure::Unauthenticated.into()),
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

async fn record_comment(room: Arc<Room>, ctx: Ctx, request: RecordComment) -> Result<Comment, CommentsError> {
    model::check(request.rating, &request.text)?;
    let past = request.clone();
    room.store
        .write_once(&ctx, &request, move |tx| {
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

async fn list_comments(room: Arc<Room>, _: Ctx, request: ListComments) -> Result<Page<Comment>, CommentsError> {
    let (limit, after) = (request.page.limit()?, request.page.after()?);
    let rows = room
        .store
        .read(move |conn| Ok::<_, CommentsError>(store::list(conn, request.product_id, after, limit + 1)?))
        .await?;
    Ok(Page::cut(rows, limit, |comment| (comment.created_at, comment.id)))
}

async fn delete_comment(room: Arc<Room>, ctx: Ctx, request: DeleteComment) -> Result<(), CommentsError> {
    let (staff, caller) = (ctx.is_staff(), ctx.identity().map(|identity| identity.user_id));
    let DeleteComment { product_id, comment_id } = request.clone();
    room.store
        .write_once(&ctx, &request, move |tx| {
            let comment = store::find(tx.conn, product_id, comment_id)?
                .filter(|comment| staff || (caller.is_some() && comment.user_id == caller))
                .ok_or(CommentsError::CommentNotFound)?;
            store::delete(tx.conn, comment.id)?;
            rate(tx, &comment, -1)
        })
        .await
}

async fn deliver(room: Arc<Room>, _: Ctx, request: Deliver) -> Result<(), Failure> {
    room.store.consume(request.events, learn).await
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
fn learn(tx: &mut Tx<'_>, event: &Delivery) -> Result<(), Failure> {
    let unreadable = |error: serde_json::Error| {
        log::error!("comments: {} {} cannot be read: {error}", event.name, event.id);
        Failure::Internal
    };
    if let Some(UserRegistered { user_id, name, .. }) = event.open().map_err(unreadable)? {
        store::name_person(tx.conn, user_id, &model::author(Some(&name)))?;
    } else if let Some(UserChanged { user_id, name, .. }) = event.open().map_err(unreadable)? {
        store::name_person(tx.conn, user_id, &model::author(Some(&name)))?;
    } else if let Some(UserErased { user_id, .. }) = event.open().map_err(unreadable)? {
        store::erase_person(tx.conn, user_id)?;
    }
    Ok(())
}

async fn audit(room: Arc<Room>, _: Ctx, request: Audit) -> Result<Audited, Failure> {
    room.store.audit(request, store::audit::BOOKS).await
}

async fn audit_ratings(room: Arc<Room>, _: Ctx, request: AuditRatings) -> Result<Vec<RatingFacts>, Failure> {
    room.store.read(move |conn| Ok(store::audit::ratings(conn, request.which)?)).await
}
