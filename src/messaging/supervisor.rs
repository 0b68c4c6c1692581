//! Supervisor that restarts an actor after a panic.
//!
//! A panic in a handler ends an actix actor for good, also under `actix::Supervisor`, which acts on a clean stop
//! only. This one polls the actor inside `catch_unwind` and restarts it in place: the same address, the queued
//! messages kept, the state reloaded by `Supervised::restarting`. An actor that panics too often stays down, because
//! a loop of crashes hides its cause.

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

/// Panics within [`PANIC_WINDOW`] after which an actor stays down.
const PANICS_MAX: usize = 5;
/// Window in which panics are counted.
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Health of an actor, readable from any thread.
#[derive(Debug, Default)]
pub struct ActorHealth {
    restarts: AtomicU64,
    down: AtomicBool,
}

impl ActorHealth {
    /// Returns the number of restarts after panics.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Whether it panicked too often and stays down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
}

/// Runs an actor and restarts it when a handler panics.
pub struct Supervisor<A: Actor<Context = Context<A>> + Supervised> {
    actor: ContextFut<A, Context<A>>,
    name: &'static str,
    health: Arc<ActorHealth>,
    panics: VecDeque<Instant>,
}

impl<A: Actor<Context = Context<A>> + Supervised> Supervisor<A> {
    /// Starts the actor returned by `make` on the thread of `arbiter`, with a mailbox of `capacity` messages.
    pub fn start(
        arbiter: &ArbiterHandle,
        name: &'static str,
        capacity: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> (Addr<A>, Arc<ActorHealth>) {
        let (tx, rx) = channel::channel(capacity);
        let health = Arc::new(ActorHealth::default());
        let shared = Arc::clone(&health);
        arbiter.spawn_fn(move || {
            let actor = Context::with_receiver(rx).into_future(make());
            actix::spawn(Self { actor, name, health, panics: VecDeque::new() });
        });
        (Addr::new(tx), shared)
    }

    /// Counts a panic and returns whether the actor may be restarted.
    fn may_restart(&mut self) -> bool {
        let now = Instant::now();
        self.panics.push_back(now);
        while self.panics.front().is_some_and(|panic| now.duration_since(*panic) > PANIC_WINDOW) {
            self.panics.pop_front();
        }
        self.health.restarts.fetch_add(1, Ordering::Relaxed);
        self.panics.len() < PANICS_MAX
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Future for Supervisor<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.actor).poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                // All addresses are dropped, or the actor stopped itself.
                Ok(Poll::Ready(())) => return Poll::Ready(()),
                Err(_) => {
                    log::error!("{}: a handler panicked; restarting the actor", self.name);
                    if !self.may_restart() || !self.actor.restart() {
                        log::error!("{}: actor panicked {PANICS_MAX} times within a minute; it stays down", self.name);
                        self.health.down.store(true, Ordering::Relaxed);
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

    struct PanickyActor;
    impl Actor for PanickyActor {
        type Context = Context<Self>;
    }
    impl Supervised for PanickyActor {}

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Number(u32);
    impl Handler<Number> for PanickyActor {
        type Result = u32;
        fn handle(&mut self, Number(n): Number, _: &mut Context<Self>) -> u32 {
            assert!(n != 13, "unlucky");
            n
        }
    }

    #[actix::test]
    async fn panic_fails_one_call_and_actor_restarts() {
        let (actor, health) = Supervisor::start(&actix::Arbiter::current(), "fragile", 16, || PanickyActor);
        let answers = futures_util::future::join_all([1, 13, 2, 3].map(|n| actor.send(Number(n)))).await;
        assert_eq!(answers.into_iter().map(Result::ok).collect::<Vec<_>>(), [Some(1), None, Some(2), Some(3)]);
        assert_eq!((health.restarts(), health.is_down()), (1, false));
    }

    #[actix::test]
    async fn actor_stays_down_after_too_many_panics() {
        let (actor, health) = Supervisor::start(&actix::Arbiter::current(), "fragile", 16, || PanickyActor);
        for _ in 0..PANICS_MAX {
            assert!(actor.send(Number(13)).await.is_err());
        }
        assert!(actor.send(Number(1)).await.is_err());
        assert!(health.is_down());
    }
}
