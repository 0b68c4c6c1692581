//! The hub: who listens to what in this process, the one task that feeds them, and the watcher that ends those who
//! cannot end themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix::Recipient;
use actix::prelude::SendError;
use bytestring::ByteString;
use futures_util::future::LocalBoxFuture;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::LiveError;
use super::frames::ServerFrame;
use super::kill_switch::KillSwitch;
use super::session::{CloseCause, SessionMessage};
use super::topic::Topic;
use crate::contract::notifications::{GetStream, MissedNotifications, ReadMissed, Stream};
use crate::contract::users::{Authenticate, Authenticated, UsersError};
use crate::domains::notifications::{Feed, NotificationsActor, Push};
use crate::domains::users::UsersActor;
use crate::messaging::{Client, DomainError, ErrorKind, RequestContext};
use crate::types::{Clock, SessionId, Timestamp, UserId};

/// How many sessions may ask the domains at once; the others wait in line. A thousand that reconnect together must
/// not be more than the domains take.
const CONCURRENT_CALLS_MAX: usize = 64;
/// How long a session waits for an answer of a domain, its time in line included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a domain that is away is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long a session may take to act on a change of what its listener may see, or on being told to end.
const ACTION_TIMEOUT: Duration = Duration::from_millis(800);
/// How often the watcher looks.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

// N7: a session whose rights have changed has acted on it, or is cut, within a second.
const _: () = assert!(ACTION_TIMEOUT.as_millis() + 2 * CHECK_INTERVAL.as_millis() <= 1_000);

/// The limits of the live sessions.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// How many may listen at once.
    pub sockets_max: usize,
    /// How many frames may wait for one listener.
    pub queued_max: usize,
    /// How many bytes of frames may wait for one listener.
    pub queued_bytes_max: usize,
    /// How long a listener that fell behind may take to be told so before its connection is cut.
    pub stall_max: Duration,
    /// How often a listener is pinged.
    pub ping_every: Duration,
    /// How long it may take to answer.
    pub pong_within: Duration,
    /// How many frames a second a listener may send; twice as many at once.
    pub frames_per_second: u32,
    /// How many topics a listener may listen to.
    pub topics_max: usize,
    /// How long a nameless listener may take to show who it is before it is told that it is taken as nameless.
    pub grace: Duration,
    /// The address people reach the shop at, whose pages may listen.
    pub public_url: Option<String>,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            sockets_max: 20_000,
            queued_max: 1_024,
            queued_bytes_max: 256 * 1_024,
            stall_max: Duration::from_secs(5),
            ping_every: Duration::from_secs(25),
            pong_within: Duration::from_secs(10),
            frames_per_second: 100,
            topics_max: 200,
            grace: Duration::from_millis(250),
            public_url: None,
        }
    }
}

/// A listener who has shown who they are.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Principal, and until when.
    pub authenticated: Authenticated,
    /// By which token: asked about again whenever what it is good for may have changed.
    pub token: Arc<str>,
}

/// Asks the users domain whose a token is. A function, so that what a session makes of each answer can be tried.
pub(super) type Authenticator = Arc<
    dyn Fn(RequestContext, Authenticate) -> LocalBoxFuture<'static, Result<Authenticated, UsersError>> + Send + Sync,
>;

/// All who listen in this process. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    settings: LiveSettings,
    clock: Clock,
    whose: Authenticator,
    notifications: Client<NotificationsActor>,
    asking: Semaphore,
    born: Instant,
    closing: AtomicBool,
    /// Connections admitted, joined or not.
    admitted: Arc<AtomicUsize>,
    numbers: AtomicU64,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    seats: HashMap<u64, SessionEntry>,
    topics: HashMap<Topic, HashMap<u64, Arc<SessionHandle>>>,
    people: HashMap<UserId, HashMap<u64, Arc<SessionHandle>>>,
}

struct SessionEntry {
    seat: Arc<SessionHandle>,
    user: Option<UserId>,
    topics: Vec<Topic>,
}

/// One session as the hub sees it. Times are milliseconds since the hub was born; 0 is never.
pub struct SessionHandle {
    number: u64,
    to: Recipient<SessionMessage>,
    kill: Option<KillSwitch>,
    answers_pings: bool,
    queued_bytes: AtomicUsize,
    fell_behind: AtomicBool,
    heard: AtomicU64,
    pinged: AtomicU64,
    /// When the connection is cut unless the session has acted.
    deadline: AtomicU64,
    /// When the sign-in ends, in microseconds since the epoch.
    expires_at: AtomicI64,
}

impl SessionHandle {
    /// Whether frames were lost because the listener did not take them.
    pub fn fell_behind(&self) -> bool {
        self.fell_behind.load(Relaxed)
    }

    /// A message was taken out of the mailbox.
    pub fn took(&self, live: &SessionMessage) {
        self.queued_bytes.fetch_sub(live.bytes(), Relaxed);
    }

    /// The session has acted on what it was told to act on.
    pub fn acted(&self) {
        if !self.fell_behind() {
            self.deadline.store(0, Relaxed);
        }
    }

    /// When the sign-in ends.
    pub fn expires(&self, at: Option<Timestamp>) {
        self.expires_at.store(at.map_or(i64::MAX, Timestamp::micros), Relaxed);
    }

    fn act_before(&self, at: u64) {
        // An earlier deadline stands.
        let _ = self.deadline.compare_exchange(0, at, Relaxed, Relaxed);
    }
}

/// A connection's place among those that may be. Given back when dropped.
pub struct ConnectionPermit(Arc<AtomicUsize>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A session's being in the hub. It leaves when this is dropped.
pub struct Registration {
    hub: Hub,
    pub seat: Arc<SessionHandle>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registry = self.hub.registry();
        registry.mute(self.seat.number);
        registry.seats.remove(&self.seat.number);
    }
}

/// Why a domain's answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// The token is good for nothing.
    Denied,
    /// The domain does not answer.
    Unavailable,
}

impl Registry {
    /// Takes a session out of everything it listens to.
    fn mute(&mut self, number: u64) {
        let Some(entry) = self.seats.get_mut(&number) else { return };
        let (topics, user) = (std::mem::take(&mut entry.topics), entry.user.take());
        for topic in topics {
            leave(&mut self.topics, &topic, number);
        }
        if let Some(user) = user {
            leave(&mut self.people, &user, number);
        }
    }
}

fn leave<K: std::hash::Hash + Eq>(rooms: &mut HashMap<K, HashMap<u64, Arc<SessionHandle>>>, room: &K, number: u64) {
    if let Some(seats) = rooms.get_mut(room) {
        seats.remove(&number);
        if seats.is_empty() {
            rooms.remove(room);
        }
    }
}

impl Hub {
    /// Starts the hub of this process on what the notifications domain tells. Must be called on an actix system's
    /// thread; its tasks end with the last handle.
    #[must_use]
    pub fn start(
        feed: &Feed,
        clock: Clock,
        users: Client<UsersActor>,
        notifications: Client<NotificationsActor>,
        settings: LiveSettings,
    ) -> Self {
        let whose: Authenticator = Arc::new(move |ctx, request| {
            let users = users.clone();
            Box::pin(async move { users.call(ctx, request).await })
        });
        Self::start_with(feed, clock, whose, notifications, settings)
    }

    pub(super) fn start_with(
        feed: &Feed,
        clock: Clock,
        whose: Authenticator,
        notifications: Client<NotificationsActor>,
        settings: LiveSettings,
    ) -> Self {
        let hub = Self(Arc::new(Inner {
            settings,
            clock,
            whose,
            notifications,
            asking: Semaphore::new(CONCURRENT_CALLS_MAX),
            // A second ago, so that no time is 0, which means never.
            born: Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now),
            closing: AtomicBool::new(false),
            admitted: Arc::default(),
            numbers: AtomicU64::new(0),
            registry: Mutex::default(),
        }));
        actix::spawn(listen(Arc::downgrade(&hub.0), feed.subscribe()));
        actix::spawn(watch(Arc::downgrade(&hub.0)));
        hub
    }

    /// The limits.
    #[must_use]
    pub fn settings(&self) -> &LiveSettings {
        &self.0.settings
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.0.admitted.load(Relaxed)
    }

    /// Ends all sessions (WebSocket: 1001) and admits no more; answers when they are gone. Those that are not after
    /// `patience` are cut. To be called before the server stops, which waits for open connections.
    pub async fn close_all(&self, patience: Duration) {
        self.0.closing.store(true, Relaxed);
        let end = Instant::now() + patience;
        for seat in self.all() {
            self.deliver(&seat, SessionMessage::End(CloseCause::GoingAway));
        }
        while self.listeners() > 0 {
            if Instant::now() >= end {
                for kill in self.all().iter().filter_map(|seat| seat.kill.as_ref()) {
                    kill.kill();
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes room for one more connection, if there is any.
    pub(super) fn admit(&self) -> Result<ConnectionPermit, LiveError> {
        let admission = ConnectionPermit(Arc::clone(&self.0.admitted));
        let before = self.0.admitted.fetch_add(1, Relaxed);
        // Refused, the admission is dropped and so gives its place back.
        let full = before >= self.0.settings.sockets_max || self.0.closing.load(Relaxed);
        if full { Err(LiveError::TooManySockets) } else { Ok(admission) }
    }

    pub(super) fn join(
        &self,
        to: Recipient<SessionMessage>,
        kill: Option<KillSwitch>,
        answers_pings: bool,
    ) -> Registration {
        let (number, now) = (self.0.numbers.fetch_add(1, Relaxed), self.millis());
        let seat = Arc::new(SessionHandle {
            number,
            to,
            kill,
            answers_pings,
            queued_bytes: AtomicUsize::new(0),
            fell_behind: AtomicBool::new(false),
            heard: AtomicU64::new(now),
            pinged: AtomicU64::new(now),
            deadline: AtomicU64::new(0),
            expires_at: AtomicI64::new(i64::MAX),
        });
        let entry = SessionEntry { seat: Arc::clone(&seat), user: None, topics: Vec::new() };
        self.registry().seats.insert(number, entry);
        if self.0.closing.load(Relaxed) {
            // It came in while the doors were closing.
            self.deliver(&seat, SessionMessage::End(CloseCause::GoingAway));
        }
        Registration { hub: self.clone(), seat }
    }

    /// From now on the session hears what concerns this user.
    pub(super) fn identify(&self, seat: &Arc<SessionHandle>, user: UserId) {
        let mut registry = self.registry();
        let Registry { seats, people, .. } = &mut *registry;
        if let Some(entry) = seats.get_mut(&seat.number)
            && entry.user.is_none()
        {
            entry.user = Some(user);
            people.entry(user).or_default().insert(seat.number, Arc::clone(seat));
        }
    }

    pub(super) fn subscribe(&self, seat: &Arc<SessionHandle>, topic: Topic) {
        let mut registry = self.registry();
        let Registry { seats, topics, .. } = &mut *registry;
        if let Some(entry) = seats.get_mut(&seat.number)
            && !entry.topics.contains(&topic)
        {
            entry.topics.push(topic);
            topics.entry(topic).or_default().insert(seat.number, Arc::clone(seat));
        }
    }

    pub(super) fn unsubscribe(&self, seat: &Arc<SessionHandle>, topic: Topic) {
        let mut registry = self.registry();
        let Registry { seats, topics, .. } = &mut *registry;
        if let Some(entry) = seats.get_mut(&seat.number) {
            entry.topics.retain(|t| *t != topic);
            leave(topics, &topic, seat.number);
        }
    }

    /// The session ends: it hears nothing more, and is cut if it cannot say good-bye in time.
    pub(super) fn dismiss(&self, seat: &SessionHandle) {
        self.registry().mute(seat.number);
        seat.act_before(self.millis() + millis(ACTION_TIMEOUT));
    }

    /// The listener has said something.
    pub(super) fn heard(&self, seat: &SessionHandle) {
        seat.heard.store(self.millis(), Relaxed);
    }

    /// Asks whose a token is.
    pub(super) async fn authenticate(&self, token: &str) -> Result<Authenticated, LookupError> {
        let request = Authenticate { token: token.to_owned() };
        let answer = self.asking(async |ctx| (self.0.whose)(ctx, request).await).await?;
        answer.map_err(|error| match error.kind() {
            ErrorKind::Unauthenticated | ErrorKind::NotFound | ErrorKind::Forbidden => LookupError::Denied,
            _ => LookupError::Unavailable,
        })
    }

    /// Asks where a stream stands.
    pub(super) async fn stream(&self, user_id: Option<UserId>) -> Result<Stream, LookupError> {
        self.insisting(async |ctx| self.0.notifications.call(ctx, GetStream { user_id }).await).await
    }

    /// Asks what a listener missed.
    pub(super) async fn missed(
        &self,
        user_id: UserId,
        epoch: String,
        after: i64,
    ) -> Result<MissedNotifications, LookupError> {
        let request = ReadMissed { user_id, epoch, after };
        self.insisting(async |ctx| self.0.notifications.call(ctx, request.clone()).await).await
    }

    /// Asks again and again while the domain is away for a moment, as when its process is started anew: a listener who
    /// had to come again would ask the same.
    async fn insisting<T, E: DomainError>(
        &self,
        ask: impl AsyncFn(RequestContext) -> Result<T, E>,
    ) -> Result<T, LookupError> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.asking(&ask).await? {
                Ok(answer) => return Ok(answer),
                Err(error) if error.kind() == ErrorKind::Unavailable && begun.elapsed() < CALL_TIMEOUT => {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                Err(_) => return Err(LookupError::Unavailable),
            }
        }
    }

    /// Waits in line, then asks.
    async fn asking<T>(&self, ask: impl AsyncFnOnce(RequestContext) -> T) -> Result<T, LookupError> {
        let permit: Result<Result<SemaphorePermit<'_>, _>, _> =
            tokio::time::timeout(CALL_TIMEOUT, self.0.asking.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(LookupError::Unavailable) };
        Ok(ask(RequestContext::internal("web").with_timeout(CALL_TIMEOUT)).await)
    }

    /// The most bytes that wait for any one session.
    #[cfg(test)]
    pub(super) fn most_queued(&self) -> usize {
        self.all().iter().map(|seat| seat.queued_bytes.load(Relaxed)).max().unwrap_or(0)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u64 {
        millis(self.0.born.elapsed())
    }

    fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.registry().seats.values().map(|entry| Arc::clone(&entry.seat)).collect()
    }

    fn of_user(&self, user: UserId) -> Vec<Arc<SessionHandle>> {
        self.registry().people.get(&user).map(|seats| seats.values().cloned().collect()).unwrap_or_default()
    }

    fn of_topic(&self, topic: Topic) -> Vec<Arc<SessionHandle>> {
        self.registry().topics.get(&topic).map(|seats| seats.values().cloned().collect()).unwrap_or_default()
    }

    /// Puts something into a session's mailbox, which is bounded in number and in bytes. A session that has no room
    /// has lost something, so it is over: it will be told if it can be, and cut if not.
    fn deliver(&self, seat: &Arc<SessionHandle>, live: SessionMessage) {
        if seat.fell_behind() {
            return;
        }
        let bytes = live.bytes();
        let queued = seat.queued_bytes.fetch_add(bytes, Relaxed);
        let too_much = queued > 0 && queued + bytes > self.0.settings.queued_bytes_max;
        if too_much || matches!(seat.to.try_send(live), Err(SendError::Full(_))) {
            seat.fell_behind.store(true, Relaxed);
            seat.act_before(self.millis() + millis(self.0.settings.stall_max));
            self.registry().mute(seat.number);
            // If this does not fit, something else waits in the mailbox that will wake it as well.
            let _ = seat.to.try_send(SessionMessage::Wake);
        }
    }

    /// Shows a push to all whom it concerns.
    fn show(&self, push: &Push) {
        match push {
            Push::Notification { user_id, notification } => {
                let seats = self.of_user(*user_id);
                if !seats.is_empty() {
                    let frame = ServerFrame::from(notification).encode();
                    for seat in &seats {
                        self.deliver(
                            seat,
                            SessionMessage::Notification { seq: notification.seq, frame: frame.clone() },
                        );
                    }
                }
            }
            Push::Event { topic: name, kind, data } => {
                let Some(topic) = Topic::parse(name) else {
                    log::error!("live: there is no topic {name} to show {kind} on");
                    return;
                };
                let seats = self.of_topic(topic);
                if !seats.is_empty() {
                    let frame: ByteString = ServerFrame::Event { topic: name, kind, data }.encode();
                    for seat in &seats {
                        self.deliver(seat, SessionMessage::Event { topic, frame: frame.clone() });
                    }
                }
            }
            Push::AccessChanged { user_id, session_id } => self.access_changed(*user_id, *session_id),
            Push::Resync => self.lost(),
        }
    }

    /// Has every session read back what it may have missed.
    fn lost(&self) {
        for seat in self.all() {
            self.deliver(&seat, SessionMessage::Lost);
        }
    }

    fn access_changed(&self, user: UserId, session: Option<SessionId>) {
        for seat in self.of_user(user) {
            seat.act_before(self.millis() + millis(ACTION_TIMEOUT));
            self.deliver(&seat, SessionMessage::AccessChanged { session });
        }
    }

    /// Looks after every session once.
    fn look(&self) {
        enum Action {
            Cut,
            Tell(SessionMessage),
        }
        let (now, settings) = (self.millis(), &self.0.settings);
        let (today, ping_every) = (self.0.clock.now().micros(), millis(settings.ping_every));
        let mut acts = Vec::new();
        for entry in self.registry().seats.values() {
            let seat = &entry.seat;
            let (deadline, pinged) = (seat.deadline.load(Relaxed), seat.pinged.load(Relaxed));
            if deadline != 0 && now >= deadline {
                acts.push((Arc::clone(seat), Action::Cut));
            } else if seat.expires_at.load(Relaxed) <= today {
                seat.expires_at.store(i64::MAX, Relaxed);
                seat.act_before(now + millis(ACTION_TIMEOUT));
                acts.push((Arc::clone(seat), Action::Tell(SessionMessage::End(CloseCause::Expired))));
            } else if seat.answers_pings && seat.heard.load(Relaxed) < pinged {
                if now >= pinged + millis(settings.pong_within) {
                    seat.act_before(now + millis(ACTION_TIMEOUT));
                    acts.push((Arc::clone(seat), Action::Tell(SessionMessage::End(CloseCause::PingTimeout))));
                }
            } else if now >= pinged + ping_every {
                seat.pinged.store(now, Relaxed);
                acts.push((Arc::clone(seat), Action::Tell(SessionMessage::Ping)));
            }
        }
        for (seat, act) in acts {
            match (act, &seat.kill) {
                (Action::Tell(live), _) => self.deliver(&seat, live),
                (Action::Cut, Some(kill)) => kill.kill(),
                // Without a switch the kernel's own patience with a full connection must do.
                (Action::Cut, None) => {}
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Shows what the feed tells, one after the other: the one place where the order that listeners see is made.
async fn listen(hub: Weak<Inner>, mut feed: Receiver<Arc<Push>>) {
    loop {
        let push = feed.recv().await;
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        match push {
            Ok(push) => hub.show(&push),
            Err(RecvError::Lagged(lost)) => {
                log::warn!("live: {lost} pushes came too fast; every session reads back what it missed");
                hub.lost();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn watch(hub: Weak<Inner>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        hub.look();
    }
}
