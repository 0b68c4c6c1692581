//! What every domain stands on when it is opened: settings, time, threads. The same for each, so that opening one is
//! a few lines.
//!
//! Never enters: which domains there are or where they run (that is `app`), a rule of any domain.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Arbiter, ArbiterHandle, Context, Supervised};

use crate::messaging::{Client, Failure, Storage, Supervisor};
use crate::settings::{Database, Settings};
use crate::store::{Migrations, OpenError, ReaderThreads, Store, StoreConfig};
use crate::types::Clock;

/// Messages that may wait in an actor's mailbox; the client's own limit is reached before.
const MAILBOX: usize = 1_024;

/// What domains are opened on.
pub struct Ground {
    /// The settings of this process.
    pub settings: Arc<Settings>,
    /// The one source of time.
    pub clock: Clock,
    beside: bool,
    threads: ReaderThreads,
    /// How the domains' databases are.
    storages: Mutex<HashMap<&'static str, Arc<Storage>>>,
    arbiters: Mutex<Vec<Arbiter>>,
}

/// A domain that is open in this process.
pub struct Opened<A: Actor> {
    /// How it is asked.
    pub client: Client<A>,
    /// Its database: for the relay of its events, the tidying, the backup. Nobody else may look in.
    pub store: Store,
}

impl Ground {
    /// The ground of one process.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let (settings, threads) = (Arc::new(settings), ReaderThreads::default());
        Self { settings, clock, beside: false, threads, storages: Mutex::default(), arbiters: Mutex::default() }
    }

    /// The ground of a process that looks in beside the one that runs the shop: its domains do what they are asked and
    /// nothing by themselves.
    #[must_use]
    pub fn beside(settings: Settings, clock: Clock) -> Self {
        Self { beside: true, ..Self::new(settings, clock) }
    }

    /// Opens a domain's database.
    pub fn store(&self, domain: &'static str, migrations: Migrations) -> Result<Store, OpenError> {
        let mut config = match &self.settings.domain(domain).database {
            Database::Folder(folder) => StoreConfig::new(folder.join(format!("{domain}.db"))),
            Database::Postgres(server) => {
                StoreConfig { server: Some(server.clone()), ..StoreConfig::new(std::path::PathBuf::new()) }
            }
        };
        config.connections = self.settings.store.connections;
        config.migrate = self.settings.migrate;
        config.batch_max = self.settings.store.batch_max;
        config.beside = self.beside;
        config.storage = self.storage(domain);
        Store::open(domain, &config, migrations, &self.clock, &self.threads)
    }

    /// Starts a domain's actor on a thread of its own.
    pub fn start<A>(&self, domain: &'static str, make: impl FnOnce() -> A + Send + 'static) -> Client<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let (address, vitals) = Supervisor::start(&self.arbiter(), domain, MAILBOX, make);
        Client::local(domain, address, vitals, self.settings.domain(domain).in_flight_max, self.storage(domain))
    }

    fn storage(&self, domain: &'static str) -> Arc<Storage> {
        let mut storages = self.storages.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(storages.entry(domain).or_default())
    }

    /// A thread for one more domain. In the laboratory all live on one, so that a history can be had again.
    fn arbiter(&self) -> ArbiterHandle {
        #[cfg(feature = "test-hooks")]
        if crate::simulation::world().is_some() {
            return Arbiter::current();
        }
        let arbiter = Arbiter::new();
        let handle = arbiter.handle();
        self.arbiters.lock().unwrap_or_else(PoisonError::into_inner).push(arbiter);
        handle
    }

    /// Ends the domains' threads. Everything that was answered is durable; there is nothing to save.
    pub fn stop(&self) {
        for arbiter in self.arbiters.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            arbiter.stop();
            let _ = arbiter.join();
        }
    }
}

/// Which pieces of work run in this process, so that whoever looks for what a crash left behind lets those alone.
#[derive(Debug)]
pub struct UnderWay<T>(Arc<Mutex<HashSet<T>>>);

/// A piece of work that runs; it ends when this is dropped, by a panic too.
#[derive(Debug)]
pub struct Running<T: Eq + Hash> {
    id: T,
    all: Arc<Mutex<HashSet<T>>>,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Copy + Eq + Hash> UnderWay<T> {
    /// Notes that the work on `id` begins, or says nothing when it runs already.
    #[must_use]
    pub fn begin(&self, id: T) -> Option<Running<T>> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        new.then(|| Running { id, all: Arc::clone(&self.0) })
    }
}

impl<T: Eq + Hash> Drop for Running<T> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Runs `work` to its end as a task of its own, even if the caller goes away meanwhile, and waits for it.
pub async fn to_its_end<T, E>(work: impl Future<Output = Result<T, E>> + 'static) -> Result<T, E>
where
    T: 'static,
    E: From<Failure> + 'static,
{
    actix::spawn(work).await.unwrap_or_else(|lost| {
        log::error!("work of several steps was cut short: {lost}");
        Err(Failure::Internal.into())
    })
}
