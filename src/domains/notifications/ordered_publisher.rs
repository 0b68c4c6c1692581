//! Publishes pushes in the order of the commits they belong to, each after its commit.
//!
//! Write jobs run one after the other and are committed in that order, but the tasks that wait for them may resume in
//! any order. So a job reserves a slot in a queue while it runs, and a slot is published once all earlier ones are
//! committed or rolled back.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Feed, Push};

/// Publishes the pushes of all jobs on one feed.
pub struct OrderedPublisher {
    feed: Feed,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
}

enum Slot {
    /// The job has neither committed nor rolled back.
    Reserved,
    /// The job has ended; its pushes, none after a rollback, may be published.
    Resolved(Vec<Push>),
}

/// Pushes of one job. They are discarded if it is dropped without [`PendingPushes::commit`].
pub struct PendingPushes {
    publisher: Arc<OrderedPublisher>,
    state: Mutex<PendingState>,
}

#[derive(Default)]
struct PendingState {
    slot: Option<u64>,
    pushes: Vec<Push>,
}

impl OrderedPublisher {
    /// Creates a publisher on `feed`.
    pub fn new(feed: Feed) -> Self {
        Self { feed, queue: Mutex::default() }
    }

    /// Creates the collection for the pushes of one job.
    pub fn pending(self: &Arc<Self>) -> Arc<PendingPushes> {
        Arc::new(PendingPushes { publisher: Arc::clone(self), state: Mutex::default() })
    }

    fn reserve_slot(&self) -> u64 {
        let mut queue = self.queue.lock();
        queue.slots.push_back(Slot::Reserved);
        queue.first + queue.slots.len() as u64 - 1
    }

    fn resolve(&self, number: u64, pushes: Vec<Push>) {
        let mut queue = self.queue.lock();
        let index = usize::try_from(number.saturating_sub(queue.first)).unwrap_or(usize::MAX);
        if let Some(slot) = queue.slots.get_mut(index) {
            *slot = Slot::Resolved(pushes);
        }
        // Sent while the queue is locked, which keeps the order. Sending never waits.
        while let Some(Slot::Resolved(pushes)) = queue.slots.front_mut() {
            for push in pushes.drain(..) {
                self.feed.send(push);
            }
            queue.slots.pop_front();
            queue.first += 1;
        }
    }
}

impl PendingPushes {
    /// Adds pushes. Must be called inside the write job: the first call reserves the slot.
    pub fn add(&self, pushes: impl IntoIterator<Item = Push>) {
        let mut state = self.state.lock();
        state.pushes.extend(pushes);
        if state.slot.is_none() && !state.pushes.is_empty() {
            state.slot = Some(self.publisher.reserve_slot());
        }
    }

    /// Marks the job as committed. Its pushes are published once all earlier slots are resolved.
    pub fn commit(&self) {
        self.resolve(true);
    }

    fn resolve(&self, committed: bool) {
        let PendingState { slot, pushes } = std::mem::take(&mut *self.state.lock());
        if let Some(slot) = slot {
            self.publisher.resolve(slot, if committed { pushes } else { Vec::new() });
        }
    }
}

impl Drop for PendingPushes {
    fn drop(&mut self) {
        self.resolve(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: &str) -> Push {
        Push::Event { topic: "catalog".to_owned(), kind: kind.to_owned(), data: serde_json::Value::Null }
    }

    fn received(receiver: &mut tokio::sync::broadcast::Receiver<Arc<Push>>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|push| match &*push {
                Push::Event { kind, .. } => kind.clone(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn pushes_follow_commit_order_and_skip_rollbacks() {
        let feed = Feed::default();
        let (mut receiver, publisher) = (feed.subscribe(), Arc::new(OrderedPublisher::new(feed)));
        let [first, rolled_back, empty, last] = [(); 4].map(|()| publisher.pending());
        first.add([push("1"), push("2")]);
        rolled_back.add([push("never")]);
        last.add([push("3")]);
        last.commit();
        empty.commit();
        assert!(received(&mut receiver).is_empty(), "the first job has not committed");
        first.commit();
        assert_eq!(received(&mut receiver), ["1", "2"]);
        drop(rolled_back);
        assert_eq!(received(&mut receiver), ["3"]);
    }
}
