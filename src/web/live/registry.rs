//! Registry of the sessions of this process: by number, by topic and by user.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use actix::Recipient;

use super::kill_switch::KillSwitch;
use super::message::SessionMessage;
use super::topic::Topic;
use crate::types::{Timestamp, UserId};

/// A session as the hub sees it. Times are milliseconds on the hub's clock; 0 means never.
pub struct SessionHandle {
    pub number: u64,
    pub recipient: Recipient<SessionMessage>,
    pub kill_switch: Option<KillSwitch>,
    pub answers_pings: bool,
    /// Bytes of frames in the mailbox.
    pub queued_bytes: AtomicUsize,
    fell_behind: AtomicBool,
    /// Last activity of the client.
    pub active_at: AtomicU64,
    /// Last ping.
    pub pinged_at: AtomicU64,
    /// Time at which the connection is cut unless the session has acted.
    deadline: AtomicU64,
    /// Expiry of the token, in microseconds since 1970.
    expires_at: AtomicI64,
}

impl SessionHandle {
    /// A session that starts `now`.
    pub fn new(
        number: u64,
        recipient: Recipient<SessionMessage>,
        kill_switch: Option<KillSwitch>,
        answers_pings: bool,
        now: u64,
    ) -> Self {
        Self {
            number,
            recipient,
            kill_switch,
            answers_pings,
            queued_bytes: AtomicUsize::new(0),
            fell_behind: AtomicBool::new(false),
            active_at: AtomicU64::new(now),
            pinged_at: AtomicU64::new(now),
            deadline: AtomicU64::new(0),
            expires_at: AtomicI64::new(i64::MAX),
        }
    }

    /// Whether messages were lost because the client did not read.
    pub fn fell_behind(&self) -> bool {
        self.fell_behind.load(Relaxed)
    }

    /// Marks the session as one that has lost messages.
    pub fn set_fell_behind(&self) {
        self.fell_behind.store(true, Relaxed);
    }

    /// Records that a message was taken out of the mailbox.
    pub fn on_dequeued(&self, message: &SessionMessage) {
        self.queued_bytes.fetch_sub(message.frame_bytes(), Relaxed);
    }

    /// Sets the time at which the connection is cut. An earlier deadline stays.
    pub fn set_deadline(&self, at: u64) {
        let _ = self.deadline.compare_exchange(0, at, Relaxed, Relaxed);
    }

    /// Removes the deadline, after the session has acted.
    pub fn clear_deadline(&self) {
        if !self.fell_behind() {
            self.deadline.store(0, Relaxed);
        }
    }

    /// Whether the deadline has passed.
    pub fn is_overdue(&self, now: u64) -> bool {
        let deadline = self.deadline.load(Relaxed);
        deadline != 0 && now >= deadline
    }

    /// Sets the expiry of the token.
    pub fn set_expiry(&self, at: Option<Timestamp>) {
        self.expires_at.store(at.map_or(i64::MAX, Timestamp::micros), Relaxed);
    }

    /// Returns `true` once after the token has expired.
    pub fn take_expiry(&self, now: Timestamp) -> bool {
        let is_expired = self.expires_at.load(Relaxed) <= now.micros();
        if is_expired {
            self.expires_at.store(i64::MAX, Relaxed);
        }
        is_expired
    }
}

/// Sessions of one topic or one user, by number.
type Sessions = HashMap<u64, Arc<SessionHandle>>;

/// All sessions of this process.
#[derive(Default)]
pub struct Registry {
    sessions: HashMap<u64, SessionEntry>,
    by_topic: HashMap<Topic, Sessions>,
    by_user: HashMap<UserId, Sessions>,
}

struct SessionEntry {
    handle: Arc<SessionHandle>,
    user: Option<UserId>,
    topics: Vec<Topic>,
}

impl Registry {
    /// Adds a session without user and topics.
    pub fn insert(&mut self, handle: Arc<SessionHandle>) {
        self.sessions.insert(handle.number, SessionEntry { handle, user: None, topics: Vec::new() });
    }

    /// Removes a session.
    pub fn remove(&mut self, number: u64) {
        self.unsubscribe_all(number);
        self.sessions.remove(&number);
    }

    /// Sets the user of a session. The first one stays.
    pub fn set_user(&mut self, number: u64, user: UserId) {
        if let Some(entry) = self.sessions.get_mut(&number)
            && entry.user.is_none()
        {
            entry.user = Some(user);
            self.by_user.entry(user).or_default().insert(number, Arc::clone(&entry.handle));
        }
    }

    /// Subscribes a session to a topic.
    pub fn subscribe(&mut self, number: u64, topic: Topic) {
        if let Some(entry) = self.sessions.get_mut(&number)
            && !entry.topics.contains(&topic)
        {
            entry.topics.push(topic);
            self.by_topic.entry(topic).or_default().insert(number, Arc::clone(&entry.handle));
        }
    }

    /// Ends a session's subscription to a topic.
    pub fn unsubscribe(&mut self, number: u64, topic: Topic) {
        if let Some(entry) = self.sessions.get_mut(&number) {
            entry.topics.retain(|t| *t != topic);
            remove(&mut self.by_topic, &topic, number);
        }
    }

    /// Takes a session out of all topics, including its user's own stream.
    pub fn unsubscribe_all(&mut self, number: u64) {
        let Some(entry) = self.sessions.get_mut(&number) else { return };
        let user = entry.user.take();
        for topic in std::mem::take(&mut entry.topics) {
            remove(&mut self.by_topic, &topic, number);
        }
        if let Some(user) = user {
            remove(&mut self.by_user, &user, number);
        }
    }

    /// Iterates over all sessions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SessionHandle>> {
        self.sessions.values().map(|entry| &entry.handle)
    }

    /// All sessions.
    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.iter().cloned().collect()
    }

    /// Sessions of a user.
    pub fn of_user(&self, user: UserId) -> Vec<Arc<SessionHandle>> {
        self.by_user.get(&user).map(|sessions| sessions.values().cloned().collect()).unwrap_or_default()
    }

    /// Sessions that subscribe to a topic.
    pub fn of_topic(&self, topic: Topic) -> Vec<Arc<SessionHandle>> {
        self.by_topic.get(&topic).map(|sessions| sessions.values().cloned().collect()).unwrap_or_default()
    }
}

/// Removes a session from an index, and the index's key with its last session.
fn remove<K: Hash + Eq>(index: &mut HashMap<K, Sessions>, key: &K, number: u64) {
    if let Some(sessions) = index.get_mut(key) {
        sessions.remove(&number);
        if sessions.is_empty() {
            index.remove(key);
        }
    }
}
