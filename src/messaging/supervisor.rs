//! Keeps a domain's actor alive across panics.
//!
//! A panic in a handler ends an actix actor for good, also under `actix::Supervisor`, which acts on a clean stop
//! only. This one polls the actor inside `catch_unwind` and restarts it in place: the same address, the queued
//! messages kept, the state reloaded by `Supervised::restarting`. An actor that dies too often stays down, because
//! a loop of crashes helps nobody and hides its cause.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::dev::{ContextFut, channel};
use actix::{Actor, Addr, ArbiterHandle, Context, Supervised};

/// Deaths within [`PANIC_WINDOW`] after which an actor stays down.
const PANICS_MAX: usize = 5;
/// How far back deaths are counted.
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// How an actor fares, readable from any thread.
#[derive(Debug, Default)]
pub struct ActorHealth {
    restarts: AtomicU64,
    down: AtomicBool,
}

impl ActorHealth {
    /// How often the actor was restarted after a panic.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Whether it died too often and stays down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
}

/// Runs an actor and restarts it when a handler panics.
pub struct Supervisor<A: Actor<Context = Context<A>> + Supervised> {
    actor: ContextFut<A, Context<A>>,
    name: &'static str,
    vitals: Arc<ActorHealth>,
    deaths: VecDeque<Instant>,
}

impl<A: Actor<Context = Context<A>> + Supervised> Supervisor<A> {
    /// Starts the actor that `make` makes on the thread of `arbiter`, with room for `capacity` waiting messages.
    pub fn start(
        arbiter: &ArbiterHandle,
        name: &'static str,
        capacity: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> (Addr<A>, Arc<ActorHealth>) {
        let (tx, rx) = channel::channel(capacity);
        let vitals = Arc::new(ActorHealth::default());
        let seen = Arc::clone(&vitals);
        arbiter.spawn_fn(move || {
            let actor = Context::with_receiver(rx).into_future(make());
            actix::spawn(Self { actor, name, vitals, deaths: VecDeque::new() });
        });
        (Addr::new(tx), seen)
    }

    /// Counts a death; says whether the actor may live on.
    fn may_restart(&mut self) -> bool {
        let now = Instant::now();
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|death| now.duration_since(*death) > PANIC_WINDOW) {
            self.deaths.pop_front();
        }
        self.vitals.restarts.fetch_add(1, Ordering::Relaxed);
        self.deaths.len() < PANICS_MAX
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Future for Supervisor<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.actor).poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                // Every address is gone, or the actor stopped itself: that is an end, not an accident.
                Ok(Poll::Ready(())) => return Poll::Ready(()),
                Err(_) => {
                    log::error!("{}: a handler panicked; restarting the actor", self.name);
                    if !self.may_restart() || !self.actor.restart() {
                        log::error!("{}: died {PANICS_MAX} times within a minute; it stays down", self.name);
                        self.vitals.down.store(true, Ordering::Relaxed);
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{Handler, Message};

    struct UnwindSafeFuture;
    impl Actor for UnwindSafeFuture {
        type Context = Context<Self>;
    }
    impl Supervised for UnwindSafeFuture {}

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Ask(u32);
    impl Handler<Ask> for UnwindSafeFuture {
        type Result = u32;
        fn handle(&mut self, Ask(n): Ask, _: &mut Context<Self>) -> u32 {
            assert!(n != 13, "unlucky");
            n
        }
    }

    #[actix::test]
    async fn a_panic_costs_one_call_and_the_next_is_answered() {
        let (actor, vitals) = Supervisor::start(&actix::Arbiter::current(), "fragile", 16, || UnwindSafeFuture);
        let answers = futures_util::future::join_all([1, 13, 2, 3].map(|n| actor.send(Ask(n)))).await;
        assert_eq!(answers.into_iter().map(Result::ok).collect::<Vec<_>>(), [Some(1), None, Some(2), Some(3)]);
        assert_eq!((vitals.restarts(), vitals.is_down()), (1, false));
    }

    #[actix::test]
    async fn an_actor_that_dies_too_often_stays_down_and_says_so() {
        let (actor, vitals) = Supervisor::start(&actix::Arbiter::current(), "fragile", 16, || UnwindSafeFuture);
        for _ in 0..PANICS_MAX {
            assert!(actor.send(Ask(13)).await.is_err());
        }
        assert!(actor.send(Ask(1)).await.is_err());
        assert!(vitals.is_down());
    }
}
