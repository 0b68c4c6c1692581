//! Client of a domain, whether it runs in this process or in another one; it can be redirected while calls are made.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, MailboxError};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::grpc::{Peer, Remote, RemoteAddress};
use super::{ActorHealth, CommonError, Envelope, Request, RequestContext, hooks, trace};
use crate::types::{Clock, Timestamp};

/// Client of one domain.
///
/// Limits the calls in flight, because an actor's mailbox is no limit (each sender may always add one more), and stops
/// waiting at the caller's deadline. Clones share the target: when the domain moves, all of them call it at its new place,
/// and calls made meanwhile wait.
pub struct Client<A: Actor> {
    domain: &'static str,
    target: Arc<Target<A>>,
}

/// Current backend, shared by all clones of a client.
struct Target<A: Actor> {
    backend: RwLock<Arc<Backend<A>>>,
    /// Notified of every change.
    changed: watch::Sender<()>,
}

/// One place of the domain, with its limit of calls.
struct Backend<A: Actor> {
    kind: BackendKind<A>,
    permits: Arc<Semaphore>,
    in_flight_max: usize,
}

impl<A: Actor> Backend<A> {
    fn new(kind: BackendKind<A>, in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self { kind, permits: Arc::new(Semaphore::new(in_flight_max)), in_flight_max })
    }

    const fn is_local(&self) -> bool {
        matches!(self.kind, BackendKind::Local { .. })
    }
}

/// Fields of a log line about a request.
struct LogFields {
    request_id: Arc<str>,
    trace: Option<Arc<str>>,
}

impl From<&RequestContext> for LogFields {
    fn from(ctx: &RequestContext) -> Self {
        Self { request_id: Arc::clone(&ctx.request_id), trace: ctx.trace.clone() }
    }
}

/// Permit to make one call to a backend.
struct CallPermit<A: Actor> {
    backend: Arc<Backend<A>>,
    _permit: OwnedSemaphorePermit,
}

enum BackendKind<A: Actor> {
    /// In this process.
    Local { address: Addr<A>, health: Arc<ActorHealth>, storage: Arc<StorageHealth> },
    /// In another process.
    Remote(Remote),
    /// Being moved. Its permits are for calls that wait.
    Moving,
    /// Switched off, or not yet moved to this process.
    Off,
}

/// Health of a domain, for `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Status of the domain.
    pub status: HealthStatus,
    /// Place of the domain: `local`, `off`, `moving`, or the address of another process.
    pub place: Cow<'static, str>,
    /// Time since which it has had this status, as observed by this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Number of requests in progress.
    pub queue_depth: usize,
    /// Number of restarts after panics.
    pub restarts: u64,
    /// Whether its database cannot be written; reads still succeed.
    pub read_only: bool,
    /// Whether the last read of its database failed.
    pub unreadable: bool,
    /// Addresses of a remote domain with its health at each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<RemoteAddress>,
    /// Problem with its place, if there is one.
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

/// Time since which a domain has had its status. Needs a record at regular intervals.
#[derive(Debug, Default)]
pub struct StatusTracker(Mutex<Option<(HealthStatus, Timestamp)>>);

impl StatusTracker {
    /// Records the present status and returns the time since which it has been the same.
    pub fn record(&self, status: HealthStatus, clock: &Clock) -> Timestamp {
        let mut recorded = self.0.lock();
        match *recorded {
            Some((before, since)) if before == status => since,
            _ => {
                let now = clock.now();
                *recorded = Some((status, now));
                now
            }
        }
    }
}

/// Health of a domain's database, recorded by its store.
#[derive(Debug, Default)]
pub struct StorageHealth {
    /// Whether the last write failed.
    pub read_only: AtomicBool,
    /// Whether the last read failed.
    pub unreadable: AtomicBool,
}

impl StorageHealth {
    /// Whether the last read or the last write failed.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.read_only.load(Ordering::Relaxed) || self.unreadable.load(Ordering::Relaxed)
    }
}

/// Status of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Available.
    Up,
    /// Available, but at its limit of calls, moving, or without a working database.
    Degraded,
    /// Not available.
    Down,
    /// Switched off.
    Off,
}

impl<A: Actor> Clone for Client<A> {
    fn clone(&self) -> Self {
        Self { domain: self.domain, target: Arc::clone(&self.target) }
    }
}

impl<A: Actor> Target<A> {
    fn backend(&self) -> Arc<Backend<A>> {
        Arc::clone(&self.backend.read())
    }

    /// Replaces the backend and returns the previous one.
    fn replace(&self, backend: Arc<Backend<A>>) -> Arc<Backend<A>> {
        let before = std::mem::replace(&mut *self.backend.write(), backend);
        self.changed.send_replace(());
        before
    }
}

/// Pause of a domain: new calls wait. When dropped before [`Pause::wait_drained`], the previous backend is restored.
pub struct Pause<A: Actor> {
    target: Arc<Target<A>>,
    before: Option<Arc<Backend<A>>>,
}

impl<A: Actor> Pause<A> {
    /// Waits until the calls in progress have ended; `false` if they have not within `timeout`. After `true` no call reaches
    /// the previous backend any more, and the client must be redirected.
    pub async fn wait_drained(&mut self, timeout: Duration) -> bool {
        let Some(before) = &self.before else { return true };
        let all = u32::try_from(before.in_flight_max).unwrap_or(u32::MAX);
        match tokio::time::timeout(timeout, before.permits.acquire_many(all)).await {
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
            self.target.replace(before);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Client<A> {
    fn new(domain: &'static str, kind: BackendKind<A>, in_flight_max: usize) -> Self {
        let backend = RwLock::new(Backend::new(kind, in_flight_max));
        Self { domain, target: Arc::new(Target { backend, changed: watch::Sender::new(()) }) }
    }

    /// Returns a client of a domain in this process, limited to `in_flight_max` calls at a time. `storage` is the health of
    /// its database.
    #[must_use]
    pub fn local(
        domain: &'static str,
        address: Addr<A>,
        health: Arc<ActorHealth>,
        in_flight_max: usize,
        storage: Arc<StorageHealth>,
    ) -> Self {
        Self::new(domain, BackendKind::Local { address, health, storage }, in_flight_max)
    }

    /// Returns a client of a domain in another process, limited to `in_flight_max` calls at a time.
    #[must_use]
    pub fn remote(domain: &'static str, remote: Remote, in_flight_max: usize) -> Self {
        Self::new(domain, BackendKind::Remote(remote), in_flight_max)
    }

    /// Returns a client of a domain that is switched off: every call fails as `Unavailable`.
    #[must_use]
    pub fn disabled(domain: &'static str) -> Self {
        Self::new(domain, BackendKind::Off, 1)
    }

    /// Returns the other process that the domain runs in, if it is remote.
    #[must_use]
    pub fn remote_peer(&self) -> Option<Arc<Peer>> {
        match &self.target.backend().kind {
            BackendKind::Remote(remote) => Some(Arc::clone(remote.peer())),
            BackendKind::Local { .. } | BackendKind::Moving | BackendKind::Off => None,
        }
    }

    /// Whether the domain is in this process.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.target.backend().is_local()
    }

    /// Makes new calls wait until the client is redirected or the pause is dropped.
    #[must_use]
    pub fn pause(&self) -> Pause<A> {
        let before = self.target.replace(Backend::new(BackendKind::Moving, self.target.backend().in_flight_max));
        Pause { target: Arc::clone(&self.target), before: Some(before) }
    }

    /// Redirects this client and all its clones to the backend of `other`. Waiting calls continue there.
    pub fn redirect_to(&self, other: &Self) {
        self.target.replace(other.target.backend());
    }

    /// Sends a request and waits for its reply until the context's deadline.
    ///
    /// # Errors
    /// The domain's own. Also `Overloaded` (not executed), and with an unknown outcome `Unavailable`, `DeadlineExceeded` and
    /// `Internal` (after a panic); those are not retried here. Retries to other processes: see [`super::grpc`].
    pub async fn call<R: Request>(&self, ctx: RequestContext, request: R) -> Result<R::Reply, R::Error>
    where
        A: Handler<Envelope<R>>,
    {
        let backend = self.target.backend();
        let timer = R::metrics().start(backend.is_local());
        timer.finish(match self.acquire(backend, R::NAME, &ctx).await {
            Err(rejection) => Err(rejection.into()),
            Ok(permit) => match &permit.backend.kind {
                BackendKind::Local { address, health, .. } => self.call_local(address, health, ctx, request).await,
                BackendKind::Remote(remote) => remote.call(ctx, request).await,
                BackendKind::Moving | BackendKind::Off => Err(CommonError::Unavailable.into()),
            },
        })
    }

    /// Acquires a permit of the current backend; waits while the domain moves. Not generic over the request, so that it is
    /// compiled once per domain.
    async fn acquire(
        &self,
        mut backend: Arc<Backend<A>>,
        name: &str,
        ctx: &RequestContext,
    ) -> Result<CallPermit<A>, CommonError> {
        loop {
            let permit = Arc::clone(&backend.permits).try_acquire_owned();
            match permit {
                Ok(permit) if !matches!(backend.kind, BackendKind::Moving) => {
                    return Ok(CallPermit { backend, _permit: permit });
                }
                // Not executed, unlike a call that times out at its backend.
                Ok(_waiting) if self.wait_for_move(&backend, ctx.deadline).await => {}
                Ok(_) => {
                    return Err(self.log_rejection(
                        CommonError::Overloaded,
                        name,
                        "timed out while the domain moved",
                        ctx.into(),
                    ));
                }
                // The domain has moved since the backend was read.
                Err(_) if !self.is_current(&backend) => {}
                Err(_) => {
                    return Err(self.log_rejection(
                        CommonError::Overloaded,
                        name,
                        "rejected: too many calls in flight",
                        ctx.into(),
                    ));
                }
            }
            backend = self.target.backend();
        }
    }

    fn is_current(&self, backend: &Arc<Backend<A>>) -> bool {
        Arc::ptr_eq(backend, &self.target.backend())
    }

    /// Waits until this backend is no longer current; `false` if it still is at the deadline.
    async fn wait_for_move(&self, backend: &Arc<Backend<A>>, deadline: Instant) -> bool {
        let mut changed = self.target.changed.subscribe();
        while self.is_current(backend) {
            if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Logs a call without a reply and returns its error.
    fn log_rejection(&self, error: CommonError, name: &str, reason: &str, fields: LogFields) -> CommonError {
        let level = if error == CommonError::Internal { log::Level::Error } else { log::Level::Warn };
        trace::in_scope(fields.trace, || log::log!(level, "{}: {name} {reason} [{}]", self.domain, fields.request_id));
        error
    }

    /// Calls the actor in this process.
    async fn call_local<R: Request>(
        &self,
        address: &Addr<A>,
        health: &ActorHealth,
        ctx: RequestContext,
        request: R,
    ) -> Result<R::Reply, R::Error>
    where
        A: Handler<Envelope<R>>,
    {
        if health.is_down() {
            return Err(CommonError::Unavailable.into());
        }
        let (deadline, fields) = (ctx.deadline, LogFields::from(&ctx));
        let error = match tokio::time::timeout_at(deadline, hooks::deliver(address, Envelope { ctx, request })).await {
            Ok(Ok(reply)) => return reply,
            Ok(Err(MailboxError::Closed)) if health.is_down() => CommonError::Unavailable,
            Ok(Err(MailboxError::Closed)) => {
                self.log_rejection(CommonError::Internal, R::NAME, "failed: handler panicked", fields)
            }
            Ok(Err(MailboxError::Timeout)) | Err(_) => {
                self.log_rejection(CommonError::DeadlineExceeded, R::NAME, "timed out", fields)
            }
        };
        Err(error.into())
    }

    /// Returns the health of the domain.
    #[must_use]
    pub fn health(&self) -> Health {
        let backend = self.target.backend();
        let is_full = backend.permits.available_permits() == 0;
        let plain = |status, place: &'static str| Health {
            status,
            place: place.into(),
            since: None,
            queue_depth: backend.in_flight_max.saturating_sub(backend.permits.available_permits()),
            restarts: 0,
            read_only: false,
            unreadable: false,
            addresses: Vec::new(),
            problem: None,
        };
        match &backend.kind {
            BackendKind::Remote(remote) => remote.health(plain(HealthStatus::Down, ""), is_full),
            BackendKind::Off => plain(HealthStatus::Off, "off"),
            BackendKind::Moving => plain(HealthStatus::Degraded, "moving"),
            BackendKind::Local { health, storage, .. } => {
                let status = if health.is_down() {
                    HealthStatus::Down
                } else if is_full || storage.is_degraded() {
                    HealthStatus::Degraded
                } else {
                    HealthStatus::Up
                };
                Health {
                    restarts: health.restarts(),
                    read_only: storage.read_only.load(Ordering::Relaxed),
                    unreadable: storage.unreadable.load(Ordering::Relaxed),
                    ..plain(status, "local")
                }
            }
        }
    }
}
