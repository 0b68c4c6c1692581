//! Answers what the notifications are asked, and turns events into them.

use std::sync::Arc;

use actix::{Actor, Context, Supervised};

use super::ordered_publisher::{OrderedPublisher, PendingPushes};
use super::{
    AuditPaidNotifications, GetStream, ListNotifications, MarkRead, MissedNotifications, NotificationFacts,
    NotificationPage, NotificationsError, Push, ReadMissed, Stream, model, store,
};
use crate::messaging::{CheckInvariants, CommonError, DeliverEvents, EventEnvelope, InvariantReport, RequestContext};
use crate::store::{Store, Tx};
use crate::types::{Page, UserId};

/// What the answers share.
pub struct NotificationsState {
    pub(super) store: Store,
    pub(super) outlet: Arc<OrderedPublisher>,
    /// How many entries of a user's stream are kept.
    pub(super) keep: i64,
}

/// The actor of this domain. It holds nothing that a restart could lose.
pub struct NotificationsActor {
    pub(super) state: Arc<NotificationsState>,
}

impl Actor for NotificationsActor {
    type Context = Context<Self>;
}

impl Supervised for NotificationsActor {}

crate::handlers! { NotificationsActor;
    ListNotifications => list_notifications,
    MarkRead => mark_read,
    GetStream => get_stream,
    ReadMissed => catchup,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    AuditPaidNotifications => audit_told,
}

fn caller(ctx: &RequestContext) -> Result<UserId, CommonError> {
    ctx.identity().map(|identity| identity.user_id).ok_or(CommonError::Unauthenticated)
}

async fn list_notifications(
    state: Arc<NotificationsState>,
    ctx: RequestContext,
    request: ListNotifications,
) -> Result<NotificationPage, NotificationsError> {
    let (user, limit) = (caller(&ctx)?, request.page.limit()?);
    let (after, before) = (request.after.unwrap_or(0), request.page.after()?);
    let (rows, Stream { epoch, seq }, unread) = state
        .store
        .read(move |conn| Ok::<_, NotificationsError>(store::list(conn, user, after, before, limit + 1)?))
        .await?;
    let Page { items, next } = Page::cut(rows, limit, |notification| notification.seq);
    Ok(NotificationPage { items, next, epoch, seq, unread })
}

async fn mark_read(
    state: Arc<NotificationsState>,
    ctx: RequestContext,
    request: MarkRead,
) -> Result<(), NotificationsError> {
    let (user, id) = (caller(&ctx)?, request.notification_id);
    state
        .store
        .write_idempotent(&ctx, &request, move |tx| match store::mark_read(tx.conn, user, id)? {
            true => Ok(()),
            false => Err(NotificationsError::NotificationNotFound),
        })
        .await
}

async fn get_stream(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: GetStream,
) -> Result<Stream, NotificationsError> {
    state.store.read(move |conn| Ok(store::stream(conn, request.user_id)?)).await
}

async fn catchup(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: ReadMissed,
) -> Result<MissedNotifications, NotificationsError> {
    state.store.read(move |conn| Ok(store::missed(conn, request.user_id, &request.epoch, request.after)?)).await
}

async fn on_events(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: DeliverEvents,
) -> Result<(), CommonError> {
    let (batch, keep) = (state.outlet.batch(), state.keep);
    let pushes = Arc::clone(&batch);
    state.store.consume(request.events, move |tx, event| effect(tx, event, keep, &pushes)).await?;
    batch.durable();
    Ok(())
}

/// Writes what an event means into the stream it concerns, and lays aside what goes out once that is durable.
fn effect(tx: &mut Tx<'_>, event: &EventEnvelope, keep: i64, pushes: &PendingPushes) -> Result<(), CommonError> {
    let meaning = model::meaning(event).map_err(|error| {
        log::error!("notifications: {} {} cannot be read: {error}", event.name, event.id);
        CommonError::Internal
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

async fn audit(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn audit_told(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: AuditPaidNotifications,
) -> Result<Vec<NotificationFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::told(conn, &request.paid)?)).await
}
