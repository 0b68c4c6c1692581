//! Tasks that outlive the request that started them, and the set of those that run.
//!
//! Does not contain: what the workflows do (the domains), their schedule (`crate::runtime`).

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use crate::messaging::{CommonError, trace};

/// Ids of workflows running in this process; recovery of what a crash interrupted skips them.
#[derive(Debug)]
pub struct InFlightSet<T>(Arc<Mutex<HashSet<T>>>);

/// Membership of one id in an [`InFlightSet`]; ends when dropped, also by a panic.
#[derive(Debug)]
pub struct InFlightGuard<T: Eq + Hash> {
    id: T,
    all: Arc<Mutex<HashSet<T>>>,
}

impl<T> Default for InFlightSet<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Copy + Eq + Hash> InFlightSet<T> {
    /// Adds `id` until the guard is dropped; `None` if its workflow runs already.
    #[must_use]
    pub fn try_insert(&self, id: T) -> Option<InFlightGuard<T>> {
        let new = self.0.lock().insert(id);
        new.then(|| InFlightGuard { id, all: Arc::clone(&self.0) })
    }
}

impl<T: Eq + Hash> Drop for InFlightGuard<T> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// Runs `work` as a task of its own and waits for it; it runs to its end even if the caller stops waiting.
///
/// # Errors
/// Those of `work`; `Internal` if it panicked.
pub async fn spawn_detached<T, E>(work: impl Future<Output = Result<T, E>> + 'static) -> Result<T, E>
where
    T: 'static,
    E: From<CommonError> + 'static,
{
    // Boxed, so that there is one type of task per result type instead of one per call site.
    let work: LocalBoxFuture<'static, _> = Box::pin(work);
    actix::spawn(trace::instrument(trace::current(), work)).await.unwrap_or_else(|error| {
        log::error!("workflow aborted: {error}");
        Err(CommonError::Internal.into())
    })
}
