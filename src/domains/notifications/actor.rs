//! Answers what the notifications are asked, and turns events into them.

use std::sync::Arc;

use actix::{Actor, Context, Supervised};

use super::outlet::{Batch, Outlet};
use super::{
    AuditTold, Catchup, GetStream, ListNotifications, MarkRead, Missed, NotificationPage, NotificationsError, Push,
    Stream, ToldFacts, model, store,
};
use crate::events::{Deliver, Delivery};
use crate::messaging::{Ctx, Failure};
use crate::store::{Audit, Audited, Store, Tx};
use crate::types::{Page, UserId};

/// What the answers share.
pub struct Room {
    pub(super) store: Store,
    pub(super) outlet: Arc<Outlet>,
    /// How many entries of a user's stream are kept.
    pub(super) keep: i64,
}

/// The actor of this domain. It holds nothing that a restart could lose.
pub struct Notifications {
    pub(super) room: Arc<Room>,
}

impl Actor for Notifications {
    type Context = Context<Self>;
}

impl Supervised for Notifications {}

crate::answers! { Notifications;
    ListNotifications => list_notifications,
    MarkRead => mark_read,
    GetStream => get_stream,
    Catchup => catchup,
    Deliver => deliver,
    Audit => audit,
    AuditTold => audit_told,
}

fn caller(ctx: &Ctx) -> Result<UserId, Failure> {
    ctx.identity().map(|identity| identity.user_id).ok_or(Failure::Unauthenticated)
}

async fn list_notifications(
    room: Arc<Room>,
    ctx: Ctx,
    request: ListNotifications,
) -> Result<NotificationPage, NotificationsError> {
    let (user, limit) = (caller(&ctx)?, request.page.limit()?);
    let (after, before) = (request.after.unwrap_or(0), request.page.after()?);
    let (rows, Stream { epoch, seq }, unread) = room
        .store
        .read(move |conn| Ok::<_, NotificationsError>(store::list(conn, user, after, before, limit + 1)?))
        .await?;
    let Page { items, next } = Page::cut(rows, limit, |notification| notification.seq);
    Ok(NotificationPage { items, next, epoch, seq, unread })
}

async fn mark_read(room: Arc<Room>, ctx: Ctx, request: MarkRead) -> Result<(), NotificationsError> {
    let (user, id) = (caller(&ctx)?, request.notification_id);
    room.store
        .write_once(&ctx, &request, move |tx| match store::mark_read(tx.conn, user, id)? {
            true => Ok(()),
            false => Err(NotificationsError::NotificationNotFound),
        })
        .await
}

async fn get_stream(room: Arc<Room>, _: Ctx, request: GetStream) -> Result<Stream, NotificationsError> {
    room.store.read(move |conn| Ok(store::stream(conn, request.user_id)?)).await
}

async fn catchup(room: Arc<Room>, _: Ctx, request: Catchup) -> Result<Missed, NotificationsError> {
    room.store.read(move |conn| Ok(store::missed(conn, request.user_id, &request.epoch, request.after)?)).await
}

async fn deliver(room: Arc<Room>, _: Ctx, request: Deliver) -> Result<(), Failure> {
    let (batch, keep) = (room.outlet.batch(), room.keep);
    let pushes = Arc::clone(&batch);
    room.store.consume(request.events, move |tx, event| effect(tx, event, keep, &pushes)).await?;
    batch.durable();
    Ok(())
}

/// Writes what an event means into the stream it concerns, and lays aside what goes out once that is durable.
fn effect(tx: &mut Tx<'_>, event: &Delivery, keep: i64, pushes: &Batch) -> Result<(), Failure> {
    let meaning = model::meaning(event).map_err(|error| {
        log::error!("notifications: {} {} cannot be read: {error}", event.name, event.id);
        Failure::Internal
    })?;
    if let Some(user) = meaning.erased {
        store::erase(tx.conn, user)?;
    }
    let own = match meaning.told {
        Some((user_id, telling)) => store::append(tx.conn, user_id, telling, keep, tx.now)?
            .map(|notification| Push::Notification { user_id, notification }),
        None => None,
    };
    // Last, after everything that can fail: an effect that is undone shows nothing.
    pushes.add(own.into_iter().chain(meaning.live));
    Ok(())
}

async fn audit(room: Arc<Room>, _: Ctx, request: Audit) -> Result<Audited, Failure> {
    room.store.audit(request, store::audit::BOOKS).await
}

async fn audit_told(room: Arc<Room>, _: Ctx, request: AuditTold) -> Result<Vec<ToldFacts>, Failure> {
    room.store.read(move |conn| Ok(store::audit::told(conn, &request.paid)?)).await
}
