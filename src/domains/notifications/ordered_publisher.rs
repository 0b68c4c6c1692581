//! Lets pushes out in the order of the commits they belong to, each only after its commit.
//!
//! The jobs of a database run one after the other and are committed in that order, but whoever waits for two of them
//! may wake in either. So a job draws its place in the line while it runs, and nothing leaves the line before
//! everything ahead of it is known to be durable or undone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Feed, Push};

/// The one door through which all pushes go.
pub struct OrderedPublisher {
    feed: Feed,
    line: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// The number of the first place in `places`.
    first: u64,
    places: VecDeque<Slot>,
}

enum Slot {
    /// Its commit is not known yet.
    Open,
    /// Durable: these may go.
    Durable(Vec<Push>),
}

/// The pushes of one job. Dropped without [`PendingPushes::durable`], they are as if they had never been.
pub struct PendingPushes {
    outlet: Arc<OrderedPublisher>,
    content: Mutex<PendingState>,
}

#[derive(Default)]
struct PendingState {
    number: Option<u64>,
    pushes: Vec<Push>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OrderedPublisher {
    /// The door to `feed`.
    pub fn new(feed: Feed) -> Self {
        Self { feed, line: Mutex::default() }
    }

    /// The pushes of a job that is about to be asked for.
    pub fn batch(self: &Arc<Self>) -> Arc<PendingPushes> {
        Arc::new(PendingPushes { outlet: Arc::clone(self), content: Mutex::default() })
    }

    fn draw(&self) -> u64 {
        let mut line = lock(&self.line);
        line.places.push_back(Slot::Open);
        line.first + line.places.len() as u64 - 1
    }

    fn settle(&self, number: u64, pushes: Vec<Push>) {
        let mut line = lock(&self.line);
        let index = usize::try_from(number.saturating_sub(line.first)).unwrap_or(usize::MAX);
        if let Some(place) = line.places.get_mut(index) {
            *place = Slot::Durable(pushes);
        }
        // Sent while the line is held: that is what keeps the order. Sending never waits.
        while let Some(Slot::Durable(pushes)) = line.places.front_mut() {
            for push in pushes.drain(..) {
                self.feed.send(push);
            }
            line.places.pop_front();
            line.first += 1;
        }
    }
}

impl PendingPushes {
    /// Adds pushes; to be called inside the job alone, because the first call draws the place in the line.
    pub fn add(&self, pushes: impl IntoIterator<Item = Push>) {
        let mut content = lock(&self.content);
        content.pushes.extend(pushes);
        if content.number.is_none() && !content.pushes.is_empty() {
            content.number = Some(self.outlet.draw());
        }
    }

    /// The job's changes are durable: lets its pushes go when their turn has come.
    pub fn durable(&self) {
        self.settle(true);
    }

    fn settle(&self, keep: bool) {
        let PendingState { number, pushes } = std::mem::take(&mut *lock(&self.content));
        if let Some(number) = number {
            self.outlet.settle(number, if keep { pushes } else { Vec::new() });
        }
    }
}

impl Drop for PendingPushes {
    fn drop(&mut self) {
        self.settle(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: &str) -> Push {
        Push::Event { topic: "catalog".to_owned(), kind: kind.to_owned(), data: serde_json::Value::Null }
    }

    fn heard(listener: &mut tokio::sync::broadcast::Receiver<Arc<Push>>) -> Vec<String> {
        std::iter::from_fn(|| listener.try_recv().ok())
            .map(|push| match &*push {
                Push::Event { kind, .. } => kind.clone(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn whoever_wakes_first_the_order_is_that_of_the_jobs_and_undone_ones_are_never_seen() {
        let feed = Feed::default();
        let (mut listener, outlet) = (feed.listen(), Arc::new(OrderedPublisher::new(feed)));
        let [first, undone, empty, last] = [(); 4].map(|()| outlet.batch());
        first.add([push("1"), push("2")]);
        undone.add([push("never")]);
        last.add([push("3")]);
        last.durable();
        empty.durable();
        assert!(heard(&mut listener).is_empty(), "what is ahead is not durable yet");
        first.durable();
        assert_eq!(heard(&mut listener), ["1", "2"]);
        drop(undone);
        assert_eq!(heard(&mut listener), ["3"]);
    }
}
