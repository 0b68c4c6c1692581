//! Hub: the sessions of this process, the one task that feeds them, and the check that ends those that cannot end
//! on their own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::Recipient;
use actix::prelude::SendError;
use bytestring::ByteString;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::close_cause::CloseCause;
use super::domain_calls::{Authenticator, DomainCalls, authenticator};
use super::error::LiveError;
use super::frames::ServerFrame;
use super::kill_switch::KillSwitch;
use super::message::SessionMessage;
use super::registry::{Registry, SessionHandle};
use super::settings::LiveSettings;
use super::topic::Topic;
use crate::domains::notifications::{Feed, NotificationsActor, Push};
use crate::domains::users::UsersActor;
use crate::messaging::Client;
use crate::types::{ClientNetwork, Clock, SessionId, Timestamp, UserId};
use crate::web::network_limit::{NetworkLimit, NetworkPermit};

/// Time in which a session must act on a change of its user's rights, or on its end, before its connection is cut.
const ACTION_TIMEOUT: Duration = Duration::from_millis(800);
/// Interval at which all sessions are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval at which the end of all sessions is checked when the process stops.
const CLOSE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// All live sessions of this process. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<HubState>);

struct HubState {
    settings: LiveSettings,
    clock: Clock,
    calls: DomainCalls,
    started_at: Instant,
    is_closing: AtomicBool,
    /// Sessions with a permit, registered or not.
    open: Arc<NetworkLimit>,
    next_number: AtomicU64,
    registry: Mutex<Registry>,
}

/// Action of the check on a session.
enum Action {
    Cut,
    End(CloseCause),
    Ping,
}

/// Registration of a session. The session is removed from the hub when this is dropped.
pub struct HubRegistration {
    hub: Hub,
    pub handle: Arc<SessionHandle>,
}

impl Drop for HubRegistration {
    fn drop(&mut self) {
        self.hub.registry().remove(self.handle.number);
    }
}

impl Hub {
    /// Starts the hub of this process on the feed of the notifications domain. Must be called on an actix system's
    /// thread; its tasks end with the last clone.
    #[must_use]
    pub fn start(
        feed: &Feed,
        clock: Clock,
        users: Client<UsersActor>,
        notifications: Client<NotificationsActor>,
        settings: LiveSettings,
    ) -> Self {
        Self::start_with(feed, clock, authenticator(users), notifications, settings)
    }

    pub(super) fn start_with(
        feed: &Feed,
        clock: Clock,
        authenticator: Authenticator,
        notifications: Client<NotificationsActor>,
        settings: LiveSettings,
    ) -> Self {
        let hub = Self(Arc::new(HubState {
            open: NetworkLimit::new(settings.sockets_max, settings.sockets_per_network),
            settings,
            clock,
            calls: DomainCalls::new(authenticator, notifications),
            // A second ago, so that no time is 0, which means never.
            started_at: Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now),
            is_closing: AtomicBool::new(false),
            next_number: AtomicU64::new(0),
            registry: Mutex::default(),
        }));
        actix::spawn(run_feed(Arc::downgrade(&hub.0), feed.subscribe()));
        actix::spawn(run_checks(Arc::downgrade(&hub.0)));
        hub
    }

    /// Limits of the sessions.
    #[must_use]
    pub fn settings(&self) -> &LiveSettings {
        &self.0.settings
    }

    /// Number of sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.0.open.open()
    }

    /// Ends all sessions (WebSocket: 1001), accepts no more, and returns when they are gone. Sessions that are still there
    /// after `timeout` are cut. To be called before the server stops, which waits for open connections.
    pub async fn close_all(&self, timeout: Duration) {
        self.0.is_closing.store(true, Relaxed);
        let end = Instant::now() + timeout;
        for handle in self.all() {
            self.deliver(&handle, SessionMessage::End(CloseCause::GoingAway));
        }
        while self.session_count() > 0 {
            if Instant::now() >= end {
                for kill_switch in self.all().iter().filter_map(|handle| handle.kill_switch.as_ref()) {
                    kill_switch.kill();
                }
                return;
            }
            tokio::time::sleep(CLOSE_POLL_INTERVAL).await;
        }
    }

    /// Calls to the domains.
    pub(super) fn calls(&self) -> &DomainCalls {
        &self.0.calls
    }

    /// Returns a permit for one more connection, from a network if it is known.
    ///
    /// # Errors
    /// [`LiveError::TooManySockets`] at the limits and while the hub closes.
    pub(super) fn admit(&self, network: Option<ClientNetwork>) -> Result<NetworkPermit, LiveError> {
        // Counted first, so that closing the hub waits for this session, or this session sees that the hub closes.
        let permit = self.0.open.admit(network).ok_or(LiveError::TooManySockets)?;
        if self.0.is_closing.load(Relaxed) { Err(LiveError::TooManySockets) } else { Ok(permit) }
    }

    pub(super) fn register(
        &self,
        recipient: Recipient<SessionMessage>,
        kill_switch: Option<KillSwitch>,
        answers_pings: bool,
    ) -> HubRegistration {
        let number = self.0.next_number.fetch_add(1, Relaxed);
        let handle = Arc::new(SessionHandle::new(number, recipient, kill_switch, answers_pings, self.millis()));
        self.registry().insert(Arc::clone(&handle));
        if self.0.is_closing.load(Relaxed) {
            // The hub began to close after this session had its permit.
            self.deliver(&handle, SessionMessage::End(CloseCause::GoingAway));
        }
        HubRegistration { hub: self.clone(), handle }
    }

    /// Sets the user of a session, whose own stream it receives from now on.
    pub(super) fn set_user(&self, handle: &SessionHandle, user: UserId) {
        self.registry().set_user(handle.number, user);
    }

    pub(super) fn subscribe(&self, handle: &SessionHandle, topic: Topic) {
        self.registry().subscribe(handle.number, topic);
    }

    pub(super) fn unsubscribe(&self, handle: &SessionHandle, topic: Topic) {
        self.registry().unsubscribe(handle.number, topic);
    }

    /// Stops feeding a session that ends, and cuts its connection if it cannot send its close frame in time.
    pub(super) fn evict(&self, handle: &SessionHandle) {
        self.registry().unsubscribe_all(handle.number);
        handle.set_deadline(self.millis() + millis(ACTION_TIMEOUT));
    }

    /// Records activity of the client.
    pub(super) fn on_activity(&self, handle: &SessionHandle) {
        handle.active_at.store(self.millis(), Relaxed);
    }

    /// Most bytes in the mailbox of any session.
    #[cfg(test)]
    pub(super) fn max_queued_bytes(&self) -> usize {
        self.all().iter().map(|handle| handle.queued_bytes.load(Relaxed)).max().unwrap_or(0)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock()
    }

    fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.registry().all()
    }

    /// Milliseconds on the hub's clock.
    fn millis(&self) -> u64 {
        millis(self.0.started_at.elapsed())
    }

    /// Puts a message into a session's mailbox, which is bounded in number and in bytes. A session without space loses
    /// the message and therefore ends: with a close frame if its client reads again in time, and cut if not.
    fn deliver(&self, handle: &SessionHandle, message: SessionMessage) {
        if handle.fell_behind() {
            return;
        }
        let bytes = message.frame_bytes();
        let queued = handle.queued_bytes.fetch_add(bytes, Relaxed);
        let is_full = queued > 0 && queued + bytes > self.0.settings.queued_bytes_max;
        if is_full || matches!(handle.recipient.try_send(message), Err(SendError::Full(_))) {
            handle.set_fell_behind();
            handle.set_deadline(self.millis() + millis(self.0.settings.stall_max));
            self.registry().unsubscribe_all(handle.number);
            // If this does not fit, another message in the mailbox wakes the session as well.
            let _ = handle.recipient.try_send(SessionMessage::Wake);
        }
    }

    /// Delivers a push to the sessions it concerns.
    fn broadcast(&self, push: &Push) {
        match push {
            Push::Notification { user_id, notification } => {
                let handles = self.registry().of_user(*user_id);
                if !handles.is_empty() {
                    let (seq, frame) = (notification.seq, ServerFrame::from(notification).encode());
                    for handle in &handles {
                        self.deliver(handle, SessionMessage::Notification { seq, frame: frame.clone() });
                    }
                }
            }
            Push::Event { topic: name, kind, data } => {
                let Some(topic) = Topic::parse(name) else {
                    log::error!("live: unknown topic {name} of event {kind}");
                    return;
                };
                let handles = self.registry().of_topic(topic);
                if !handles.is_empty() {
                    let frame: ByteString = ServerFrame::Event { topic: name, kind, data }.encode();
                    for handle in &handles {
                        self.deliver(handle, SessionMessage::Event { topic, frame: frame.clone() });
                    }
                }
            }
            Push::UserEvent { user_id, kind, data } => {
                let handles = self.registry().of_user(*user_id);
                let frame = ServerFrame::Event { topic: Topic::USER, kind, data }.encode();
                for handle in &handles {
                    self.deliver(handle, SessionMessage::Event { topic: Topic::User, frame: frame.clone() });
                }
            }
            Push::AccessChanged { user_id, session_id } => self.access_changed(*user_id, *session_id),
            Push::Resync => self.resync_all(),
        }
    }

    /// Makes every session read back what it may have missed.
    fn resync_all(&self) {
        for handle in self.all() {
            self.deliver(&handle, SessionMessage::Resync);
        }
    }

    fn access_changed(&self, user: UserId, session: Option<SessionId>) {
        let handles = self.registry().of_user(user);
        for handle in handles {
            handle.set_deadline(self.millis() + millis(ACTION_TIMEOUT));
            self.deliver(&handle, SessionMessage::AccessChanged { session });
        }
    }

    /// Checks every session once: overdue ones are cut, expired and silent ones ended, idle ones pinged.
    fn check_sessions(&self) {
        let (now, time) = (self.millis(), self.0.clock.now());
        let due = |handle: &Arc<SessionHandle>| Some((Arc::clone(handle), self.due_action(handle, now, time)?));
        let actions: Vec<_> = self.registry().iter().filter_map(due).collect();
        for (handle, action) in actions {
            match action {
                Action::Cut => {
                    // Without a switch the connection is left to the kernel's own timeout.
                    if let Some(kill_switch) = &handle.kill_switch {
                        kill_switch.kill();
                    }
                }
                Action::End(cause) => {
                    handle.set_deadline(now + millis(ACTION_TIMEOUT));
                    self.deliver(&handle, SessionMessage::End(cause));
                }
                Action::Ping => self.deliver(&handle, SessionMessage::Ping),
            }
        }
    }

    fn due_action(&self, handle: &SessionHandle, now: u64, time: Timestamp) -> Option<Action> {
        let settings = &self.0.settings;
        let pinged_at = handle.pinged_at.load(Relaxed);
        if handle.is_overdue(now) {
            Some(Action::Cut)
        } else if handle.take_expiry(time) {
            Some(Action::End(CloseCause::Expired))
        } else if handle.answers_pings && handle.active_at.load(Relaxed) < pinged_at {
            (now >= pinged_at + millis(settings.pong_timeout)).then_some(Action::End(CloseCause::PingTimeout))
        } else if now >= pinged_at + millis(settings.ping_interval) {
            handle.pinged_at.store(now, Relaxed);
            Some(Action::Ping)
        } else {
            None
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Delivers the pushes of the feed one after the other: the only place that determines the order clients see.
async fn run_feed(hub: Weak<HubState>, mut feed: Receiver<Arc<Push>>) {
    loop {
        let push = feed.recv().await;
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        match push {
            Ok(push) => hub.broadcast(&push),
            Err(RecvError::Lagged(lost)) => {
                log::warn!("live: the feed lost {lost} pushes; every session resyncs");
                hub.resync_all();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn run_checks(hub: Weak<HubState>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        hub.check_sessions();
    }
}
