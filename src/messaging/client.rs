//! The only way from one part of the shop to a domain. A caller never learns on which side of it the domain is.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Addr, Context, Handler, MailboxError};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::grpc::{Remote, RemoteAddress};
use super::{Ctx, Envelope, Failure, Request, Vitals, hooks, trace};
use crate::types::{Clock, Timestamp};

/// Asks one domain.
///
/// It counts what is in flight, because an actor's mailbox is no limit (each sender may always add one more),
/// and it stops waiting at the caller's deadline.
pub struct Client<A: Actor> {
    domain: &'static str,
    side: Side<A>,
}

/// Where the domain is.
enum Side<A: Actor> {
    /// In this process.
    Local {
        address: Addr<A>,
        vitals: Arc<Vitals>,
        permits: Arc<Semaphore>,
        in_flight_max: usize,
        storage: Arc<Storage>,
    },
    /// In another process.
    Remote(Arc<Remote>),
    /// Switched off by configuration.
    Off,
}

/// How a domain is, for people and machines that watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Its state.
    pub status: HealthState,
    /// Where it runs: `local`, `off`, or the address of another process.
    pub place: Cow<'static, str>,
    /// Since when it has been in this state, as far as this process has looked.
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
pub struct Since(Mutex<Option<(HealthState, Timestamp)>>);

impl Since {
    /// Notes the state of now; gives since when it has been so.
    pub fn note(&self, state: HealthState, clock: &Clock) -> Timestamp {
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
pub struct Storage {
    /// Whether the last try to write failed.
    pub read_only: AtomicBool,
    /// Whether the last try to read failed.
    pub unreadable: AtomicBool,
}

impl Storage {
    /// Whether anything is wrong with it.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        self.read_only.load(Ordering::Relaxed) || self.unreadable.load(Ordering::Relaxed)
    }
}

/// Whether a domain answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
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
        let side = match &self.side {
            Side::Local { address, vitals, permits, in_flight_max, storage } => Side::Local {
                address: address.clone(),
                vitals: Arc::clone(vitals),
                permits: Arc::clone(permits),
                in_flight_max: *in_flight_max,
                storage: Arc::clone(storage),
            },
            Side::Remote(remote) => Side::Remote(Arc::clone(remote)),
            Side::Off => Side::Off,
        };
        Self { domain: self.domain, side }
    }
}

impl<A: Actor<Context = Context<A>>> Client<A> {
    /// A client of a domain in this process that may have `in_flight_max` requests in hand. `storage` says how the
    /// domain's database is.
    #[must_use]
    pub fn local(
        domain: &'static str,
        address: Addr<A>,
        vitals: Arc<Vitals>,
        in_flight_max: usize,
        storage: Arc<Storage>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(in_flight_max));
        Self { domain, side: Side::Local { address, vitals, permits, in_flight_max, storage } }
    }

    /// A client of a domain in another process.
    #[must_use]
    pub fn remote(domain: &'static str, remote: Remote) -> Self {
        Self { domain, side: Side::Remote(Arc::new(remote)) }
    }

    /// The other process the domain is in, if it is in one.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&Arc<Remote>> {
        match &self.side {
            Side::Remote(remote) => Some(remote),
            Side::Local { .. } | Side::Off => None,
        }
    }

    /// A client of a domain that is switched off: every call fails as unavailable.
    #[must_use]
    pub const fn off(domain: &'static str) -> Self {
        Self { domain, side: Side::Off }
    }

    /// Asks, and waits for the answer until the context's deadline.
    ///
    /// Besides the domain's own errors: `Overloaded` (certainly not done), `Unavailable`, `DeadlineExceeded` and
    /// `Internal` after a panic (nobody knows whether it was done; so it is not repeated here). A domain in another
    /// process is asked again where the contract allows it; see [`super::grpc`].
    pub async fn call<R: Request>(&self, ctx: Ctx, request: R) -> Result<R::Reply, R::Error>
    where
        A: Handler<Envelope<R>>,
    {
        let is_local = matches!(self.side, Side::Local { .. });
        let trace = ctx.trace.clone();
        R::meter().watch(is_local, trace::within(trace, self.ask(ctx, request))).await
    }

    async fn ask<R: Request>(&self, ctx: Ctx, request: R) -> Result<R::Reply, R::Error>
    where
        A: Handler<Envelope<R>>,
    {
        let (address, vitals, permits) = match &self.side {
            Side::Local { address, vitals, permits, .. } => (address, vitals, permits),
            Side::Remote(remote) => return remote.call(ctx, request).await,
            Side::Off => return Err(Failure::Unavailable.into()),
        };
        if vitals.is_down() {
            return Err(Failure::Unavailable.into());
        }
        let Ok(_permit) = permits.try_acquire() else {
            log::warn!("{}: {} refused, too many requests in hand [{}]", self.domain, R::NAME, ctx.request_id);
            return Err(Failure::Overloaded.into());
        };
        let (deadline, request_id) = (ctx.deadline, Arc::clone(&ctx.request_id));
        match tokio::time::timeout_at(deadline, hooks::carry(address, Envelope { ctx, request })).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(MailboxError::Closed)) if vitals.is_down() => Err(Failure::Unavailable.into()),
            Ok(Err(MailboxError::Closed)) => {
                log::error!("{}: {} was not answered, its handler panicked [{request_id}]", self.domain, R::NAME);
                Err(Failure::Internal.into())
            }
            Ok(Err(MailboxError::Timeout)) | Err(_) => {
                log::warn!("{}: {} was not answered in time [{request_id}]", self.domain, R::NAME);
                Err(Failure::DeadlineExceeded.into())
            }
        }
    }

    /// How the domain is.
    #[must_use]
    pub fn health(&self) -> Health {
        match &self.side {
            Side::Remote(remote) => remote.health(),
            Side::Off => Health {
                status: HealthState::Off,
                place: "off".into(),
                since: None,
                queue_depth: 0,
                restarts: 0,
                read_only: false,
                unreadable: false,
                addresses: Vec::new(),
                problem: None,
            },
            Side::Local { vitals, permits, in_flight_max, storage, .. } => {
                let status = if vitals.is_down() {
                    HealthState::Down
                } else if permits.available_permits() == 0 || storage.is_in_trouble() {
                    HealthState::Degraded
                } else {
                    HealthState::Up
                };
                Health {
                    status,
                    place: "local".into(),
                    since: None,
                    queue_depth: in_flight_max - permits.available_permits(),
                    restarts: vitals.restarts(),
                    read_only: storage.read_only.load(Ordering::Relaxed),
                    unreadable: storage.unreadable.load(Ordering::Relaxed),
                    addresses: Vec::new(),
                    problem: None,
                }
            }
        }
    }
}
