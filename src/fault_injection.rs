//! The laboratory's hand on a process: what a test decides at each durable step and each message of a shop that runs
//! on one thread and on a clock of its own. Compiled for tests alone (feature `test-hooks`).
//!
//! Lives here: the points at which a test may interfere, and in which ways. Never enters: what is decided there and
//! what is checked afterwards (that is `tests/lab`), another way of doing the work: jobs, commits, answers and handlers
//! are those of the real shop.
//!
//! A thread that has entered a [`FaultInjector`] opens domains on itself: actors on its own arbiter, one task a database in the
//! place of the writer's thread, reads where they are asked for. So the order of everything is that of one runtime
//! and of the delays that the world gives, and the same decisions make the same history.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, MailboxError};
use uuid::Uuid;

use crate::domains::payments::PaymentProvider;
use crate::messaging::{Envelope, Request};

/// A point at which the world decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectionPoint {
    /// A batch of jobs is about to run and to be committed.
    Commit(&'static str),
    /// A batch is durable and nobody has been told.
    Committed(&'static str),
    /// A query is about to run.
    Read(&'static str),
    /// A request is on its way to its actor; whether its caller might send it twice.
    Request(&'static str, bool),
    /// An answer is on its way back.
    Answer(&'static str),
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectedFault {
    /// What is meant to happen.
    None,
    /// The disk is as full as it can be: no file of this database may grow.
    DiskFull,
    /// The file system has become read-only.
    ReadOnly,
    /// The database cannot be opened, a reader not be had.
    Unavailable,
    /// All goes well until the commit, and that fails: nothing of it is there.
    CommitFails,
    /// A commit is durable, and the disk says that it failed.
    CommitUnknown,
    /// A message is lost.
    MessageLost,
    /// A request arrives twice.
    Duplicated,
}

/// What a test decides.
pub trait FaultInjector: Send + Sync + 'static {
    /// After which pause it goes on at this point, and how.
    fn meet(&self, step: InjectionPoint) -> (Duration, InjectedFault);
    /// Whether the process is dead: nothing in it has an effect any more.
    fn is_stopped(&self) -> bool;
    /// A new id, later in order than all before.
    fn id(&self) -> Uuid;
    /// Who takes the money.
    fn provider(&self) -> Box<dyn PaymentProvider>;
}

thread_local! {
    static INJECTOR: RefCell<Option<Arc<dyn FaultInjector>>> = const { RefCell::new(None) };
}

/// From now on this thread is in `world`, or in none.
pub fn enter(world: Option<Arc<dyn FaultInjector>>) {
    INJECTOR.with(|here| *here.borrow_mut() = world);
}

/// Closes what the processes of a history have left open, once no other will begin on its files.
pub fn close() {
    crate::store::close_kept();
}

/// The world this thread is in.
#[must_use]
pub fn world() -> Option<Arc<dyn FaultInjector>> {
    INJECTOR.with(|here| here.borrow().clone())
}

/// Waits until it goes on at `step` and says how; never goes on when the process dies meanwhile.
pub async fn meet(world: &Arc<dyn FaultInjector>, step: InjectionPoint) -> InjectedFault {
    let (pause, fate) = world.meet(step);
    if !world.is_stopped() && !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    if world.is_stopped() {
        std::future::pending::<()>().await;
    }
    fate
}

/// Brings a request to its actor and the answer back. A lost message is known by its silence, here without the wait.
pub async fn carry<A, R>(
    world: Arc<dyn FaultInjector>,
    address: &Addr<A>,
    envelope: Envelope<R>,
) -> Result<Result<R::Reply, R::Error>, MailboxError>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
    R: Request,
{
    let repeatable = R::RETRYABLE || envelope.ctx.key.is_some();
    match meet(&world, InjectionPoint::Request(R::NAME, repeatable)).await {
        InjectedFault::MessageLost => return Err(MailboxError::Timeout),
        InjectedFault::Duplicated => {
            let request = serde_json::to_value(&envelope.request).and_then(serde_json::from_value::<R>);
            let mut ctx = envelope.ctx.for_downstream_call("", envelope.ctx.key.clone());
            ctx.caller = envelope.ctx.caller.clone();
            if let Ok(request) = request {
                let _ = address.send(Envelope { ctx, request }).await;
            }
        }
        _ => {}
    }
    let answer = address.send(envelope).await;
    match meet(&world, InjectionPoint::Answer(R::NAME)).await {
        InjectedFault::MessageLost => Err(MailboxError::Timeout),
        _ => answer,
    }
}
