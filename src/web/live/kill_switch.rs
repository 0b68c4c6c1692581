//! Kill switch of a connection.
//!
//! A session's actor is polled as the body of its response: while its socket is full it is not polled at all, so none of
//! its timers and messages can end it. The hub ends it from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// Ends a connection from outside. Clones end the same one.
#[derive(Debug, Clone, Default)]
pub struct KillSwitch(Arc<KillState>);

#[derive(Debug, Default)]
struct KillState {
    is_killed: AtomicBool,
    is_finished: AtomicBool,
    /// The task that reads and writes the connection.
    task: AtomicWaker,
}

impl KillSwitch {
    /// Makes the next read or write of the connection fail, and wakes its task for it.
    pub fn kill(&self) {
        self.0.is_killed.store(true, Ordering::SeqCst);
        self.0.task.wake();
    }

    /// Tells the peer that nothing more is sent, after what is prepared already, and wakes the connection's task for it.
    pub fn finish(&self) {
        self.0.is_finished.store(true, Ordering::SeqCst);
        self.0.task.wake();
    }

    /// Returns `true` once after [`Self::finish`].
    pub fn take_finished(&self) -> bool {
        self.0.is_finished.swap(false, Ordering::SeqCst)
    }

    /// Whether the connection was killed; if not, the task of `context` is woken when it is.
    pub fn is_killed(&self, context: &Context<'_>) -> bool {
        self.0.task.register(context.waker());
        self.0.is_killed.load(Ordering::SeqCst)
    }
}
