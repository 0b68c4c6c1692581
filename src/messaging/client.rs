//! The only way from one part of the shop to a domain. A caller never learns on which side of it the domain is.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, MailboxError};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::grpc::{Peer, Remote, RemoteAddress};
use super::{ActorHealth, CommonError, Envelope, Request, RequestContext, hooks, trace};
use crate::types::{Clock, Timestamp};

/// Asks one domain.
///
/// It counts what is in flight, because an actor's mailbox is no limit (each sender may always add one more),
/// and it stops waiting at the caller's deadline. Clones share where the domain is: when it moves, all of them ask it
/// at its new place, and who asks meanwhile waits.
pub struct Client<A: Actor> {
    domain: &'static str,
    seat: Arc<Target<A>>,
}

/// Where the domain is at present.
struct Target<A: Actor> {
    side: RwLock<Arc<Backend<A>>>,
    /// Told when that changes.
    moved: watch::Sender<()>,
}

/// One place of the domain.
struct Backend<A: Actor> {
    to: BackendKind<A>,
    permits: Arc<Semaphore>,
    in_flight_max: usize,
}

impl<A: Actor> Backend<A> {
    fn new(to: BackendKind<A>, in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self { to, permits: Arc::new(Semaphore::new(in_flight_max)), in_flight_max })
    }

    const fn is_here(&self) -> bool {
        matches!(self.to, BackendKind::Local { .. })
    }
}

/// Whose request something is logged of.
struct LogFields {
    request_id: Arc<str>,
    trace: Option<Arc<str>>,
}

impl From<&RequestContext> for LogFields {
    fn from(ctx: &RequestContext) -> Self {
        Self { request_id: Arc::clone(&ctx.request_id), trace: ctx.trace.clone() }
    }
}

/// Leave to ask a domain at a place.
struct CallPermit<A: Actor> {
    side: Arc<Backend<A>>,
    _permit: OwnedSemaphorePermit,
}

enum BackendKind<A: Actor> {
    /// In this process.
    Local { address: Addr<A>, vitals: Arc<ActorHealth>, storage: Arc<StorageHealth> },
    /// In another process.
    Remote(Remote),
    /// On its way from one to the other. The permits are for those who wait.
    Moving,
    /// Switched off by configuration, or waiting to be moved here.
    Off,
}

/// How a domain is, for people and machines that watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Its state.
    pub status: HealthStatus,
    /// Where it runs: `local`, `off`, or the address of another process.
    pub place: Cow<'static, str>,
    /// StatusTracker when it has been in this state, as far as this process has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How many requests it has in hand.
    pub queue_depth: usize,
    /// How often it was restarted after a panic.
    pub restarts: u64,
    /// Whether its database cannot be written: it reads, and refuses every change.
    pub read_only: bool,
    /// Whether the last look into its database failed.
    pub unreadable: bool,
    /// In another process: the addresses it has, and how it is at each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<RemoteAddress>,
    /// What is wrong with its place, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Health {
    /// Whether the domain is in this process.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.place == "local"
    }
}

/// Remembers since when a domain has been in its state. Somebody has to look now and then.
#[derive(Debug, Default)]
pub struct StatusTracker(Mutex<Option<(HealthStatus, Timestamp)>>);

impl StatusTracker {
    /// Notes the state of now; gives since when it has been so.
    pub fn note(&self, state: HealthStatus, clock: &Clock) -> Timestamp {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *noted {
            Some((before, since)) if before == state => since,
            _ => {
                let now = clock.now();
                *noted = Some((state, now));
                now
            }
        }
    }
}

/// How a domain's database is, noted by whoever works on it.
#[derive(Debug, Default)]
pub struct StorageHealth {
    /// Whether the last try to write failed.
    pub read_only: AtomicBool,
    /// Whether the last try to read failed.
    pub unreadable: AtomicBool,
}

impl StorageHealth {
    /// Whether anything is wrong with it.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        self.read_only.load(Ordering::Relaxed) || self.unreadable.load(Ordering::Relaxed)
    }
}

/// Whether a domain answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It answers.
    Up,
    /// It answers, but is full or has lately been restarted.
    Degraded,
    /// It does not answer.
    Down,
    /// It is switched off.
    Off,
}

impl<A: Actor> Clone for Client<A> {
    fn clone(&self) -> Self {
        Self { domain: self.domain, seat: Arc::clone(&self.seat) }
    }
}

impl<A: Actor> Target<A> {
    fn side(&self) -> Arc<Backend<A>> {
        Arc::clone(&self.side.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the domain there; gives where it was.
    fn place(&self, side: Arc<Backend<A>>) -> Arc<Backend<A>> {
        let before = std::mem::replace(&mut *self.side.write().unwrap_or_else(PoisonError::into_inner), side);
        self.moved.send_replace(());
        before
    }
}

/// A domain that nobody reaches for a while: new calls wait. Dropped, it is where it was before.
pub struct Pause<A: Actor> {
    seat: Arc<Target<A>>,
    before: Option<Arc<Backend<A>>>,
}

impl<A: Actor> Pause<A> {
    /// Waits until the calls under way have ended; `false` when they have not within that time. Once they have, nothing
    /// reaches the old place any more, and somebody has to say where the domain is from now on.
    pub async fn drained(&mut self, within: Duration) -> bool {
        let Some(before) = &self.before else { return true };
        let all = u32::try_from(before.in_flight_max).unwrap_or(u32::MAX);
        match tokio::time::timeout(within, before.permits.acquire_many(all)).await {
            Ok(Ok(_all)) => before.permits.close(),
            Ok(Err(_)) => {}
            Err(_) => return false,
        }
        self.before = None;
        true
    }
}

impl<A: Actor> Drop for Pause<A> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.seat.place(before);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Client<A> {
    fn new(domain: &'static str, to: BackendKind<A>, in_flight_max: usize) -> Self {
        let side = RwLock::new(Backend::new(to, in_flight_max));
        Self { domain, seat: Arc::new(Target { side, moved: watch::Sender::new(()) }) }
    }

    /// A client of a domain in this process that may have `in_flight_max` requests in hand. `storage` says how the
    /// domain's database is.
    #[must_use]
    pub fn local(
        domain: &'static str,
        address: Addr<A>,
        vitals: Arc<ActorHealth>,
        in_flight_max: usize,
        storage: Arc<StorageHealth>,
    ) -> Self {
        Self::new(domain, BackendKind::Local { address, vitals, storage }, in_flight_max)
    }

    /// A client of a domain in another process, of which so many requests may be in hand.
    #[must_use]
    pub fn remote(domain: &'static str, remote: Remote, in_flight_max: usize) -> Self {
        Self::new(domain, BackendKind::Remote(remote), in_flight_max)
    }

    /// A client of a domain that is switched off: every call fails as unavailable.
    #[must_use]
    pub fn off(domain: &'static str) -> Self {
        Self::new(domain, BackendKind::Off, 1)
    }

    /// The other process the domain is in, if it is in one.
    #[must_use]
    pub fn elsewhere(&self) -> Option<Arc<Peer>> {
        match &self.seat.side().to {
            BackendKind::Remote(remote) => Some(Arc::clone(remote.peer())),
            BackendKind::Local { .. } | BackendKind::Moving | BackendKind::Off => None,
        }
    }

    /// Whether the domain is in this process.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.seat.side().is_here()
    }

    /// Lets no new call begin: whoever asks waits.
    #[must_use]
    pub fn pause(&self) -> Pause<A> {
        let before = self.seat.place(Backend::new(BackendKind::Moving, self.seat.side().in_flight_max));
        Pause { seat: Arc::clone(&self.seat), before: Some(before) }
    }

    /// From now on this client and all its clones ask where `other` does. Whoever waited goes on there.
    pub fn goes_to(&self, other: &Self) {
        self.seat.place(other.seat.side());
    }

    /// Asks, and waits for the answer until the context's deadline.
    ///
    /// Besides the domain's own errors: `Overloaded` (certainly not done), `Unavailable`, `DeadlineExceeded` and
    /// `Internal` after a panic (nobody knows whether it was done; so it is not repeated here). A domain in another
    /// process is asked again where the contract allows it; see [`super::grpc`].
    pub async fn call<R: Request>(&self, ctx: RequestContext, request: R) -> Result<R::Reply, R::Error>
    where
        A: Handler<Envelope<R>>,
    {
        let side = self.seat.side();
        let watched = R::meter().begin(side.is_here());
        watched.end(match self.admit(side, R::NAME, &ctx).await {
            Err(refused) => Err(refused.into()),
            Ok(admitted) => match &admitted.side.to {
                BackendKind::Local { address, vitals, .. } => self.ask_here(address, vitals, ctx, request).await,
                BackendKind::Remote(remote) => remote.call(ctx, request).await,
                BackendKind::Moving | BackendKind::Off => Err(CommonError::Unavailable.into()),
            },
        })
    }

    /// Where the domain is, with leave to ask it there; while it moves, waits. The same for every message: compiled
    /// once for each domain.
    async fn admit(
        &self,
        mut side: Arc<Backend<A>>,
        name: &str,
        ctx: &RequestContext,
    ) -> Result<CallPermit<A>, CommonError> {
        loop {
            let permit = Arc::clone(&side.permits).try_acquire_owned();
            match permit {
                Ok(permit) if !matches!(side.to, BackendKind::Moving) => {
                    return Ok(CallPermit { side, _permit: permit });
                }
                // Certainly not done, unlike what is late at its place.
                Ok(_waiting) if self.moved(&side, ctx.deadline).await => {}
                Ok(_) => {
                    return Err(self.refused(CommonError::Overloaded, name, "waited in vain for its move", ctx.into()));
                }
                // It may have moved between the two looks.
                Err(_) if !self.is_at(&side) => {}
                Err(_) => {
                    return Err(self.refused(
                        CommonError::Overloaded,
                        name,
                        "refused, too many requests in hand",
                        ctx.into(),
                    ));
                }
            }
            side = self.seat.side();
        }
    }

    fn is_at(&self, side: &Arc<Backend<A>>) -> bool {
        Arc::ptr_eq(side, &self.seat.side())
    }

    /// Waits until the domain is no longer at this place; `false` when it still is at the deadline.
    async fn moved(&self, side: &Arc<Backend<A>>, deadline: Instant) -> bool {
        let mut moved = self.seat.moved.subscribe();
        while self.is_at(side) {
            if tokio::time::timeout_at(deadline, moved.changed()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Says why a request has no answer.
    fn refused(&self, failure: CommonError, name: &str, why: &str, of: LogFields) -> CommonError {
        let level = if failure == CommonError::Internal { log::Level::Error } else { log::Level::Warn };
        trace::during(of.trace, || log::log!(level, "{}: {name} {why} [{}]", self.domain, of.request_id));
        failure
    }

    /// Asks the actor in this process.
    async fn ask_here<R: Request>(
        &self,
        address: &Addr<A>,
        vitals: &ActorHealth,
        ctx: RequestContext,
        request: R,
    ) -> Result<R::Reply, R::Error>
    where
        A: Handler<Envelope<R>>,
    {
        if vitals.is_down() {
            return Err(CommonError::Unavailable.into());
        }
        let (deadline, asked) = (ctx.deadline, LogFields::from(&ctx));
        let failure = match tokio::time::timeout_at(deadline, hooks::deliver(address, Envelope { ctx, request })).await
        {
            Ok(Ok(answer)) => return answer,
            Ok(Err(MailboxError::Closed)) if vitals.is_down() => CommonError::Unavailable,
            Ok(Err(MailboxError::Closed)) => {
                self.refused(CommonError::Internal, R::NAME, "was not answered, its handler panicked", asked)
            }
            Ok(Err(MailboxError::Timeout)) | Err(_) => {
                self.refused(CommonError::DeadlineExceeded, R::NAME, "was not answered in time", asked)
            }
        };
        Err(failure.into())
    }

    /// How the domain is.
    #[must_use]
    pub fn health(&self) -> Health {
        let side = self.seat.side();
        let is_full = side.permits.available_permits() == 0;
        let plain = |status, place: &'static str| Health {
            status,
            place: place.into(),
            since: None,
            queue_depth: side.in_flight_max.saturating_sub(side.permits.available_permits()),
            restarts: 0,
            read_only: false,
            unreadable: false,
            addresses: Vec::new(),
            problem: None,
        };
        match &side.to {
            BackendKind::Remote(remote) => remote.health(plain(HealthStatus::Down, ""), is_full),
            BackendKind::Off => plain(HealthStatus::Off, "off"),
            BackendKind::Moving => plain(HealthStatus::Degraded, "moving"),
            BackendKind::Local { vitals, storage, .. } => {
                let status = if vitals.is_down() {
                    HealthStatus::Down
                } else if is_full || storage.is_in_trouble() {
                    HealthStatus::Degraded
                } else {
                    HealthStatus::Up
                };
                Health {
                    restarts: vitals.restarts(),
                    read_only: storage.read_only.load(Ordering::Relaxed),
                    unreadable: storage.unreadable.load(Ordering::Relaxed),
                    ..plain(status, "local")
                }
            }
        }
    }
}
