//! A queue for few, expensive resources that serves its origins in turn: one that asks for many cannot keep another that
//! asks for one waiting longer than one turn of each origin.
//!
//! Contains: places (who may work or wait at all) and leases (who works). Does not contain: what is done with a resource.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::messaging::CommonError;

/// A queue for resources of type `T`. Clones share it.
pub struct FairQueue<T>(Arc<Mutex<QueueInner<T>>>);

struct QueueInner<T> {
    idle: Vec<T>,
    origins: HashMap<Arc<str>, OriginQueue<T>>,
    /// Origins with waiters, in the order in which they are served next.
    turns: VecDeque<Arc<str>>,
    places: usize,
    places_max: usize,
    places_per_origin: usize,
}

struct OriginQueue<T> {
    places: usize,
    waiters: VecDeque<oneshot::Sender<Lease<T>>>,
}

impl<T> Clone for FairQueue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> FairQueue<T> {
    /// A queue for `resources`, in which at most `places_max` callers work or wait, `places_per_origin` of them of one origin.
    pub fn new(resources: Vec<T>, places_max: usize, places_per_origin: usize) -> Self {
        let (origins, turns) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(QueueInner {
            idle: resources,
            origins,
            turns,
            places: 0,
            places_max,
            places_per_origin,
        })))
    }

    /// Reserves a place in the queue.
    ///
    /// # Errors
    /// `Overloaded` if the queue is full, or the origin has as many places as it may have.
    pub fn enter(&self, origin: Arc<str>) -> Result<QueuePlace<T>, CommonError> {
        let mut inner = self.0.lock();
        if inner.places >= inner.places_max {
            return Err(CommonError::Overloaded);
        }
        let places = inner.origins.get(&origin).map_or(0, |known| known.places);
        if places >= inner.places_per_origin {
            return Err(CommonError::Overloaded);
        }
        inner.places += 1;
        inner.origins.entry(Arc::clone(&origin)).or_insert_with(OriginQueue::new).places += 1;
        Ok(QueuePlace { queue: self.clone(), origin })
    }

    /// Applies `change` to the resources that are idle.
    pub fn for_idle(&self, change: impl FnMut(&mut T)) {
        self.0.lock().idle.iter_mut().for_each(change);
    }

    /// The waiter whose turn it is.
    fn next_waiter(&self) -> Option<oneshot::Sender<Lease<T>>> {
        let mut inner = self.0.lock();
        let name = inner.turns.pop_front()?;
        let origin = inner.origins.get_mut(&name)?;
        let waiter = origin.waiters.pop_front();
        if !origin.waiters.is_empty() {
            inner.turns.push_back(name);
        }
        waiter
    }

    /// Passes a resource on to the waiter whose turn it is, or keeps it idle.
    fn release(&self, resource: T) {
        let mut lease = Lease { queue: self.clone(), resource: Some(resource) };
        loop {
            if let Some(waiter) = self.next_waiter() {
                match waiter.send(lease) {
                    Ok(()) => return,
                    // This one has given up.
                    Err(unsent) => lease = unsent,
                }
                continue;
            }
            let mut inner = self.0.lock();
            if inner.turns.is_empty() {
                inner.idle.extend(lease.resource.take());
                return;
            }
        }
    }
}

impl<T> OriginQueue<T> {
    const fn new() -> Self {
        Self { places: 0, waiters: VecDeque::new() }
    }
}

/// A place in the queue; dropping it frees the place.
pub struct QueuePlace<T> {
    queue: FairQueue<T>,
    origin: Arc<str>,
}

impl<T> QueuePlace<T> {
    /// Waits until it is this origin's turn and a resource is free.
    pub async fn lease(&self) -> Lease<T> {
        let waiter = {
            let mut inner = self.queue.0.lock();
            if let Some(resource) = inner.idle.pop() {
                return Lease { queue: self.queue.clone(), resource: Some(resource) };
            }
            let (sender, receiver) = oneshot::channel();
            let origin = inner.origins.entry(Arc::clone(&self.origin)).or_insert_with(OriginQueue::new);
            origin.waiters.push_back(sender);
            if origin.waiters.len() == 1 {
                inner.turns.push_back(Arc::clone(&self.origin));
            }
            receiver
        };
        waiter.await.expect("a waiter is only dropped when it is sent a lease or has given up")
    }
}

impl<T> Drop for QueuePlace<T> {
    fn drop(&mut self) {
        let mut inner = self.queue.0.lock();
        inner.places -= 1;
        let Some(origin) = inner.origins.get_mut(&self.origin) else { return };
        origin.places -= 1;
        origin.waiters.retain(|waiter| !waiter.is_closed());
        let (is_gone, is_waiting) = (origin.places == 0, !origin.waiters.is_empty());
        if !is_waiting {
            inner.turns.retain(|name| *name != self.origin);
        }
        if is_gone {
            inner.origins.remove(&self.origin);
        }
    }
}

/// The use of a resource; dropping it passes the resource on.
pub struct Lease<T> {
    queue: FairQueue<T>,
    resource: Option<T>,
}

impl<T> Lease<T> {
    /// The resource.
    pub fn resource(&mut self) -> &mut T {
        self.resource.as_mut().expect("taken only when the lease is dropped")
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if let Some(resource) = self.resource.take() {
            self.queue.clone().release(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn origins_are_served_in_turn() {
        let queue = FairQueue::new(vec![()], 100, 10);
        let enter = |origin: &str| queue.enter(origin.into()).unwrap();
        let (a, b): (Vec<_>, _) = ((0..4).map(|_| enter("a")).collect(), enter("b"));
        let first = a[0].lease().now_or_never().unwrap();
        let mut waiting: Vec<_> = a[1..].iter().map(|place| Box::pin(place.lease())).collect();
        assert!(waiting.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        let mut other = Box::pin(b.lease());
        assert!(other.as_mut().now_or_never().is_none());
        drop(first);
        let second = waiting[0].as_mut().now_or_never().expect("a came first");
        drop(second);
        let third = other.as_mut().now_or_never().expect("then it is b's turn, though a has more waiting");
        drop(third);
        assert!(waiting[1].as_mut().now_or_never().is_some());
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let queue = FairQueue::new(vec![()], 4, 3);
        let places: Vec<_> = (0..3).map(|_| queue.enter("a".into()).unwrap()).collect();
        assert_eq!(queue.enter("a".into()).map(drop), Err(CommonError::Overloaded));
        let other = queue.enter("b".into()).unwrap();
        assert_eq!(queue.enter("c".into()).map(drop), Err(CommonError::Overloaded));
        drop((places, other));
        assert!(queue.enter("c".into()).is_ok());
        assert!(queue.0.lock().origins.is_empty());
    }

    #[test]
    fn waiter_that_gave_up_is_skipped() {
        let queue = FairQueue::new(vec![()], 100, 10);
        let (a, b) = (queue.enter("a".into()).unwrap(), queue.enter("b".into()).unwrap());
        let first = queue.enter("c".into()).unwrap();
        let lease = first.lease().now_or_never().unwrap();
        let mut gone = Box::pin(a.lease());
        assert!(gone.as_mut().now_or_never().is_none());
        let mut staying = Box::pin(b.lease());
        assert!(staying.as_mut().now_or_never().is_none());
        drop(gone);
        drop(lease);
        drop(staying.as_mut().now_or_never().expect("its turn came"));
        assert_eq!(queue.0.lock().idle.len(), 1);
    }
}
