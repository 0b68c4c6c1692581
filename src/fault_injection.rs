//! Fault injection for simulations: a test decides at each durable step and each message of a shop that runs on one
//! thread and on a simulated clock. Compiled only with the feature `test-hooks`.
//!
//! Contains: the injection points, the faults and the injector of the current thread. Does not contain: decisions and
//! checks (`tests/simulation`), or another way of doing the work: jobs, commits, replies and handlers are those of a real
//! process (`crate::store`, `crate::messaging`). Imports nothing of this crate.
//!
//! On a thread with a [`FaultInjector`] all domains run on that thread: actors on its arbiter, one task per database
//! instead of the writer's thread, queries where they are made. So the order of all steps is given by one runtime and by
//! the delays of the injector, and equal decisions give equal runs.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// Step at which a [`FaultInjector`] decides. Each names its domain or its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectionPoint {
    /// A batch of jobs is about to run and to be committed.
    Commit(&'static str),
    /// A batch is durable and its callers have no reply yet.
    Committed(&'static str),
    /// A query is about to run.
    Read(&'static str),
    /// A request is about to be delivered to its actor; `true` if its caller may send it twice.
    Request(&'static str, bool),
    /// A reply is about to be delivered to its caller.
    Answer(&'static str),
}

/// Fault of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectedFault {
    /// The step succeeds.
    None,
    /// No file of this database can grow.
    DiskFull,
    /// The database cannot be written.
    ReadOnly,
    /// The database cannot be opened, or no reader is available.
    Unavailable,
    /// All statements succeed and the commit fails: nothing is written.
    CommitFails,
    /// The commit is durable and is reported as failed.
    CommitUnknown,
    /// A message is lost.
    MessageLost,
    /// A request is delivered twice.
    Duplicated,
}

/// Decisions of a test.
pub trait FaultInjector: Send + Sync + 'static {
    /// Returns the delay before this step and its fault.
    fn inject(&self, point: InjectionPoint) -> (Duration, InjectedFault);
    /// Whether the process is killed: no step of it has an effect any more.
    fn is_stopped(&self) -> bool;
    /// Returns a new id that is greater than all before.
    fn new_id(&self) -> Uuid;
}

thread_local! {
    static INJECTOR: RefCell<Option<Arc<dyn FaultInjector>>> = const { RefCell::new(None) };
}

/// Sets or removes the injector of the current thread.
pub fn install(injector: Option<Arc<dyn FaultInjector>>) {
    INJECTOR.with(|current| *current.borrow_mut() = injector);
}

/// Returns the injector of the current thread.
#[must_use]
pub fn current() -> Option<Arc<dyn FaultInjector>> {
    INJECTOR.with(|current| current.borrow().clone())
}

/// Waits for the delay of `point` and returns its fault. Never returns once the process is killed.
pub async fn inject(injector: &Arc<dyn FaultInjector>, point: InjectionPoint) -> InjectedFault {
    let (delay, fault) = injector.inject(point);
    if !injector.is_stopped() && !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if injector.is_stopped() {
        std::future::pending::<()>().await;
    }
    fault
}
