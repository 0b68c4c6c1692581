//! Runtime of the domains of one process: settings, clock, databases and threads.
//!
//! Does not contain: the list of domains and their places (`crate::app`), rules of any domain.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Arbiter, ArbiterHandle, AsyncContext, Context, Supervised};
use parking_lot::Mutex;

use crate::messaging::{Client, StorageHealth, Supervisor};
use crate::settings::{Database, Settings};
use crate::store::{Migrations, OpenError, PoolThreads, Store, StoreConfig};
use crate::types::Clock;

/// Capacity of an actor's mailbox; the client's limit of calls is reached before.
const MAILBOX_CAPACITY: usize = 1_024;

/// Everything that a domain needs to be opened.
pub struct DomainRuntime {
    /// Settings of this process.
    pub settings: Arc<Settings>,
    /// Clock of this process.
    pub clock: Clock,
    auxiliary: bool,
    threads: PoolThreads,
    /// Health of the domains' databases.
    storages: Mutex<HashMap<&'static str, Arc<StorageHealth>>>,
    arbiters: Mutex<Vec<(&'static str, Arbiter)>>,
}

/// Domain that runs in this process.
pub struct RunningDomain<A: Actor> {
    /// Client of the domain.
    pub client: Client<A>,
    /// Its database, only for the relay of its events, pruning and backups.
    pub store: Store,
}

impl DomainRuntime {
    /// Returns the runtime of a serving process.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let (settings, threads) = (Arc::new(settings), PoolThreads::default());
        Self { settings, clock, auxiliary: false, threads, storages: Mutex::default(), arbiters: Mutex::default() }
    }

    /// Returns the runtime of a one-off command that uses the same databases as a serving process: its domains handle
    /// requests and do no periodic work.
    #[must_use]
    pub fn for_command(settings: Settings, clock: Clock) -> Self {
        Self { auxiliary: true, ..Self::new(settings, clock) }
    }

    /// Opens a domain's database.
    ///
    /// # Errors
    /// When it cannot be opened or migrated.
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
        config.auxiliary = self.auxiliary;
        config.storage = self.storage(domain);
        Store::open(domain, &config, migrations, &self.clock, &self.threads)
    }

    /// Starts a domain's actor on a thread of its own.
    pub fn start<A>(&self, domain: &'static str, make: impl FnOnce() -> A + Send + 'static) -> Client<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        self.start_with(domain, self.settings.domain(domain).in_flight_max, make)
    }

    /// Starts an actor that is no domain, limited to `in_flight_max` calls at a time.
    pub fn start_with<A>(
        &self,
        name: &'static str,
        in_flight_max: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Client<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let (address, health) = Supervisor::start(&self.arbiter(name), name, MAILBOX_CAPACITY, make);
        Client::local(name, address, health, in_flight_max, self.storage(name))
    }

    fn storage(&self, domain: &'static str) -> Arc<StorageHealth> {
        let mut storages = self.storages.lock();
        Arc::clone(storages.entry(domain).or_default())
    }

    /// Starts a thread for a domain. In a simulation all domains share the current one, so that runs are reproducible.
    fn arbiter(&self, name: &'static str) -> ArbiterHandle {
        #[cfg(feature = "test-hooks")]
        if crate::fault_injection::current().is_some() {
            return Arbiter::current();
        }
        let arbiter = Arbiter::new();
        let handle = arbiter.handle();
        self.arbiters.lock().push((name, arbiter));
        handle
    }

    /// Stops all threads. Every acknowledged write is durable, so nothing has to be saved.
    pub fn stop(&self) {
        self.stop_matching(|_| true);
    }

    /// Stops one domain's thread and its periodic work. Blocks until it has ended; must not be called on that thread.
    pub fn stop_one(&self, domain: &str) {
        self.stop_matching(|name| name == domain);
    }

    fn stop_matching(&self, matches: impl Fn(&str) -> bool) {
        let mut all = self.arbiters.lock();
        let (stopped, running) = std::mem::take(&mut *all).into_iter().partition(|(name, _)| matches(name));
        *all = running;
        drop(all);
        let stopped: Vec<(&str, Arbiter)> = stopped;
        for (_, arbiter) in stopped {
            arbiter.stop();
            let _ = arbiter.join();
        }
    }
}

/// Runs `work` now, because a crash may have left it undone, and then every `period`. Of several processes on one
/// database only the leader runs it.
pub fn spawn_leader_interval<A, R, F>(
    ctx: &mut Context<A>,
    store: &Store,
    state: &Arc<R>,
    period: Duration,
    work: impl Fn(Arc<R>) -> F + 'static,
) where
    A: Actor<Context = Context<A>>,
    R: 'static,
    F: Future<Output = ()> + 'static,
{
    let leader = store.clone();
    spawn_interval(ctx, store, state, period, move |state| {
        let work = leader.is_leader().then(|| work(state));
        async move {
            if let Some(work) = work {
                work.await;
            }
        }
    });
}

/// Runs `work` now and then every `period`, in every process except one-off commands.
pub fn spawn_interval<A, R, F>(
    ctx: &mut Context<A>,
    store: &Store,
    state: &Arc<R>,
    period: Duration,
    work: impl Fn(Arc<R>) -> F + 'static,
) where
    A: Actor<Context = Context<A>>,
    R: 'static,
    F: Future<Output = ()> + 'static,
{
    if store.is_auxiliary() {
        return;
    }
    let state = Arc::clone(state);
    actix::spawn(work(Arc::clone(&state)));
    ctx.run_interval(period, move |_, _| {
        actix::spawn(work(Arc::clone(&state)));
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use diesel_migrations::embed_migrations;

    use super::*;

    const MIGRATIONS: Migrations = Migrations {
        sqlite: embed_migrations!("src/store/tests_migrations"),
        postgres: embed_migrations!("src/store/tests_migrations_postgres"),
    };
    const INTERVAL: Duration = Duration::from_millis(1);

    struct CountingActor {
        state: Arc<AtomicU32>,
        store: Store,
    }
    impl Actor for CountingActor {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            spawn_leader_interval(ctx, &self.store, &self.state, INTERVAL, |count| async move {
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    }
    impl Supervised for CountingActor {}

    #[actix::test]
    async fn auxiliary_process_runs_no_periodic_work() {
        let dir = tempfile::tempdir().unwrap();
        let count = |runtime: DomainRuntime| {
            let store = runtime.store("stats", MIGRATIONS).unwrap();
            let state = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&state);
            let client = runtime.start("stats", move || CountingActor { state, store });
            (runtime, client, count)
        };
        let settings = || Settings::for_test(dir.path());
        let (beside, _idle, nothing) = count(DomainRuntime::for_command(settings(), Clock::system()));
        let (shop, _busy, work) = count(DomainRuntime::new(settings(), Clock::system()));
        while work.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(INTERVAL).await;
        }
        assert_eq!(nothing.load(Ordering::SeqCst), 0);
        shop.stop();
        beside.stop();
    }
}
