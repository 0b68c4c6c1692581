//! Handlers of the notifications messages, and the projection of events into streams and pushes.

use std::sync::Arc;

use actix::{Actor, Context, Supervised};

use super::ordered_publisher::{OrderedPublisher, PendingPushes};
use super::{
    AuditPaidNotifications, GetStream, ListNotifications, MarkRead, MissedNotifications, NotificationFacts,
    NotificationPage, NotificationsError, Push, ReadMissed, Stream, model, store,
};
use crate::messaging::{
    CheckInvariants, CommonError, Credential, DeliverEvents, EventEnvelope, Identity, ListAuditEntries, RequestContext,
    Role,
};
use crate::store::{Conn, DomainState, Invariants, Store, Tx, check_invariants, list_audit_entries};
use crate::types::{Page, UserId};

/// State shared by the actor's handlers.
pub struct NotificationsState {
    pub(super) store: Store,
    pub(super) publisher: Arc<OrderedPublisher>,
    /// Number of notifications kept per stream.
    pub(super) keep: i64,
}

/// Actor of the notifications domain. It holds nothing that a restart could lose.
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
    ReadMissed => read_missed,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    AuditPaidNotifications => audit_paid_notifications,
}

fn caller_id(ctx: &RequestContext) -> Result<UserId, CommonError> {
    ctx.identity().map(|identity| identity.user_id).ok_or(CommonError::Unauthenticated)
}

async fn list_notifications(
    state: Arc<NotificationsState>,
    ctx: RequestContext,
    request: ListNotifications,
) -> Result<NotificationPage, NotificationsError> {
    let (user, limit) = (caller_id(&ctx)?, request.page.limit()?);
    follow_as_staff(&state, &ctx).await?;
    let (after, before) = (request.after.unwrap_or(0), request.page.after()?);
    let (rows, Stream { epoch, seq }, unread) = state
        .store
        .read(move |conn| Ok::<_, NotificationsError>(store::list(conn, user, after, before, limit + 1)?))
        .await?;
    let Page { items, next } = Page::from_overfetch(rows, limit, |notification| notification.seq);
    Ok(NotificationPage { items, next, epoch, seq, unread })
}

/// Has staff who look at their notifications follow the shop. A session only: a program with a key has no use for it.
async fn follow_as_staff(state: &NotificationsState, ctx: &RequestContext) -> Result<(), NotificationsError> {
    let is_session = |identity: &&Identity| matches!(identity.credential, Credential::Session(_));
    let Some(identity) = ctx.identity().filter(is_session).filter(|identity| identity.role >= Role::ReadOnly) else {
        return Ok(());
    };
    let (user, sees_email) = (identity.user_id, identity.role >= Role::Support);
    let is_follower = move |conn: &mut Conn| Ok::<_, NotificationsError>(store::is_follower(conn, user, sees_email)?);
    if state.store.read(is_follower).await? {
        return Ok(());
    }
    state.store.write(move |tx| Ok::<_, NotificationsError>(store::follow(tx.conn, user, sees_email)?)).await
}

async fn mark_read(
    state: Arc<NotificationsState>,
    ctx: RequestContext,
    request: MarkRead,
) -> Result<(), NotificationsError> {
    let (user, id) = (caller_id(&ctx)?, request.notification_id);
    let pending = state.publisher.pending();
    let pushes = Arc::clone(&pending);
    state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            if !store::mark_read(tx.conn, user, id)? {
                return Err(NotificationsError::NotificationNotFound);
            }
            pushes.add([model::read_event(user, id)]);
            Ok(())
        })
        .await?;
    pending.commit();
    Ok(())
}

async fn get_stream(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: GetStream,
) -> Result<Stream, NotificationsError> {
    state.store.read(move |conn| Ok(store::stream_position(conn, request.user_id)?)).await
}

async fn read_missed(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: ReadMissed,
) -> Result<MissedNotifications, NotificationsError> {
    state.store.read(move |conn| Ok(store::read_missed(conn, request.user_id, &request.epoch, request.after)?)).await
}

async fn on_events(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: DeliverEvents,
) -> Result<(), CommonError> {
    let (pending, keep) = (state.publisher.pending(), state.keep);
    let pushes = Arc::clone(&pending);
    state.store.consume(request.events, move |tx, event| apply_event(tx, event, keep, &pushes)).await?;
    pending.commit();
    Ok(())
}

/// Appends an event's notification to its user's stream and collects its pushes, which go out after the commit.
fn apply_event(tx: &mut Tx<'_>, event: &EventEnvelope, keep: i64, pushes: &PendingPushes) -> Result<(), CommonError> {
    let projection = model::project(event)?;
    if let Some(user) = projection.erased {
        store::erase(tx.conn, user)?;
    }
    if let Some(user) = projection.unfollowed {
        store::unfollow(tx.conn, user)?;
    }
    let staff = match &projection.for_staff {
        Some(for_staff) => store::followers(tx.conn, for_staff)?,
        None => Vec::new(),
    };
    let for_staff = projection.for_staff.iter().flat_map(|for_staff| staff.iter().map(|user| (*user, &for_staff.new)));
    let mut own = Vec::new();
    for (user_id, new) in projection.notification.iter().map(|(user, new)| (*user, new)).chain(for_staff) {
        let notification = store::append(tx.conn, user_id, new, keep, tx.now)?;
        own.extend(notification.map(|notification| Push::Notification { user_id, notification }));
    }
    // Last, after everything that can fail: an event that is rolled back pushes nothing.
    pushes.add(own.into_iter().chain(projection.pushes));
    Ok(())
}

impl DomainState for NotificationsState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn audit_paid_notifications(
    state: Arc<NotificationsState>,
    _: RequestContext,
    request: AuditPaidNotifications,
) -> Result<Vec<NotificationFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::audit_paid_notifications(conn, &request.paid)?)).await
}
