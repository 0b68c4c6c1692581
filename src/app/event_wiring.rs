//! How news gets from the domains of this process to those who hear it, and from other processes' domains to those this
//! one knows the way to. Domains come and go while the shop runs, and the joints with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{subscribers_of, wants};
use crate::events::{self, Consumer, EventPuller, RabbitMq, Relay, Subscriber};
use crate::messaging::CommonError;
use crate::messaging::grpc::Peer;
use crate::messaging::grpc::proto::{EventsReply, EventsRequest};
use crate::settings::{DomainLocation, Settings};
use crate::store::Store;

/// A domain's database, and who hears of its events.
pub type OutboxSubscribers = (Store, Vec<&'static str>);

/// The joints of one process.
pub struct EventRouter {
    settings: Arc<Settings>,
    /// Every domain that may be told anything.
    subscribers: Vec<Subscriber>,
    /// What carries the events instead of this process.
    broker: Option<RabbitMq>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The domains here.
    here: BTreeMap<&'static str, LocalDomain>,
    /// The domains in other processes.
    there: BTreeMap<&'static str, Arc<Peer>>,
    /// What is fetched from others, by source and subscriber; held for its drop.
    fetches: BTreeMap<(&'static str, &'static str), EventPuller>,
}

struct LocalDomain {
    relay: Relay,
    /// What it hears of the broker.
    hearing: Option<Arc<Consumer>>,
}

impl EventRouter {
    /// Nobody is here yet.
    pub fn new(settings: Arc<Settings>, subscribers: Vec<Subscriber>, broker: Option<RabbitMq>) -> Self {
        Self { settings, subscribers, broker, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriber(&self, name: &str) -> Option<Subscriber> {
        self.subscribers.iter().find(|subscriber| subscriber.name() == name).cloned()
    }

    /// A domain is here now. Must be called on an actix system's thread.
    pub fn arrive(&self, store: Store) {
        let name = store.domain();
        let mut state = self.state();
        state.there.remove(name);
        state.fetches.retain(|(source, _), _| *source != name);
        let Some(itself) = self.subscriber(name) else { return };
        if let Some(broker) = &self.broker {
            let hearing = Some(Arc::new(broker.consume(vec![itself])));
            state.here.insert(name, LocalDomain { relay: Relay::start(store, vec![broker.publisher()]), hearing });
            return;
        }
        tell(&state, &itself);
        let sources = state.there.clone();
        for (source, peer) in &sources {
            self.fetch(&mut state, source, peer, name);
        }
        let known = |to: &&'static str| *to == name || state.here.contains_key(to) || state.there.contains_key(to);
        let told = subscribers_of(name).into_iter().filter(known).filter_map(|to| self.subscriber(to)).collect();
        state.here.insert(name, LocalDomain { relay: Relay::start(store, told), hearing: None });
    }

    /// A domain is in another process now. Whatever this process knows the way to goes on to be told.
    pub fn is_there(&self, name: &'static str, peer: &Arc<Peer>) {
        let mut state = self.state();
        state.here.remove(name);
        state.there.insert(name, Arc::clone(peer));
        if self.broker.is_some() {
            return;
        }
        let known = |to: &&'static str| {
            // Who is in the same process is told there.
            state.here.contains_key(to) || state.there.get(to).is_some_and(|other| !Arc::ptr_eq(other, peer))
        };
        for to in subscribers_of(name).into_iter().filter(known).collect::<Vec<_>>() {
            self.fetch(&mut state, name, peer, to);
        }
        let sources = state.there.clone();
        for (source, other) in sources.iter().filter(|(_, other)| !Arc::ptr_eq(other, peer)) {
            self.fetch(&mut state, source, other, name);
        }
        if let Some(itself) = self.subscriber(name) {
            tell(&state, &itself);
        }
    }

    /// A domain's events are carried no further from here. With `for_good` it is not told any either. Gives its database.
    pub fn depart(&self, name: &str, for_good: bool) -> Option<Store> {
        let mut state = self.state();
        let store = state.here.remove(name).map(|here| here.relay.source());
        if for_good {
            state.there.remove(name);
            state.fetches.retain(|(_, to), _| *to != name);
            state.here.values().for_each(|here| here.relay.remove(name));
        }
        store
    }

    /// Carries nothing more.
    pub fn end(&self) {
        *self.state() = State::default();
    }

    fn fetch(&self, state: &mut State, source: &'static str, peer: &Arc<Peer>, to: &'static str) {
        if self.broker.is_none()
            && subscribers_of(source).contains(&to)
            && let Some(subscriber) = self.subscriber(to)
        {
            state
                .fetches
                .entry((source, to))
                .or_insert_with(|| EventPuller::start(source, Arc::clone(peer), subscriber));
        }
    }

    /// The domains here, and who is told of their events from here.
    pub fn told(&self) -> Vec<OutboxSubscribers> {
        self.state().here.values().map(|here| (here.relay.source(), here.relay.subscribers())).collect()
    }

    /// The domains here, and for whom each keeps its events until they were told: from here, or because they come and
    /// fetch them.
    pub fn kept(&self) -> Vec<OutboxSubscribers> {
        let mut all = self.told();
        if self.broker.is_none() {
            let hears = |name: &&'static str| self.settings.domain(name).place != DomainLocation::Off;
            for (source, names) in &mut all {
                let others = subscribers_of(source.domain()).into_iter().filter(hears);
                let new: Vec<&'static str> = others.filter(|name| !names.contains(name)).collect();
                names.extend(new);
            }
        }
        all
    }

    /// Waits until the domains here have heard of everything that has come to the broker for them by now.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn catch_up(&self) -> Result<(), CommonError> {
        let hearings: Vec<_> = self.state().here.values().filter_map(|here| here.hearing.clone()).collect();
        futures_util::future::try_join_all(hearings.iter().map(|hearing| hearing.flush())).await.map(drop)
    }

    /// Answers a process that fetches the events of `source` for `subscriber`.
    ///
    /// # Errors
    /// `Unavailable` when it is not known here where they are.
    pub async fn news(&self, source: &str, subscriber: &str, told: i64) -> Result<EventsReply, CommonError> {
        enum From {
            LocalDomain(Store, Vec<&'static str>),
            There(Arc<Peer>),
        }
        let from = {
            let state = self.state();
            let here =
                state.here.get(source).map(|here| From::LocalDomain(here.relay.source(), here.relay.subscribers()));
            here.or_else(|| state.there.get(source).map(|peer| From::There(Arc::clone(peer))))
        };
        let hearer =
            subscribers_of(source).into_iter().find(|hearer| *hearer == subscriber).ok_or(CommonError::Unavailable)?;
        match from.ok_or(CommonError::Unavailable)? {
            From::LocalDomain(_, told_here) if told_here.contains(&hearer) => {
                Ok(EventsReply { pushed_by_source: true, ..EventsReply::default() })
            }
            From::LocalDomain(store, _) => events::read_for_remote(store, hearer, wants(hearer), told).await,
            // It was moved away from here.
            From::There(peer) => {
                let request =
                    EventsRequest { source: source.to_owned(), subscriber: subscriber.to_owned(), cursor: told };
                peer.events(request).await.map_err(|_| CommonError::Unavailable)
            }
        }
    }
}

/// From now on every domain here that it hears tells it.
fn tell(state: &State, subscriber: &Subscriber) {
    let name = subscriber.name();
    for (source, here) in &state.here {
        if subscribers_of(source).contains(&name) && !here.relay.subscribers().contains(&name) {
            here.relay.add(subscriber.clone());
        }
    }
}
