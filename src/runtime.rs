//! What every domain stands on when it is opened: settings, time, threads. The same for each, so that opening one is
//! a few lines.
//!
//! Never enters: which domains there are or where they run (that is `app`), a rule of any domain.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Arbiter, ArbiterHandle, AsyncContext, Context, Supervised};
use parking_lot::Mutex;

use crate::messaging::{Client, StorageHealth, Supervisor};
use crate::settings::{Database, Settings};
use crate::store::{Migrations, OpenError, PoolThreads, Store, StoreConfig};
use crate::types::Clock;

/// Messages that may wait in an actor's mailbox; the client's own limit is reached before.
const MAILBOX_CAPACITY: usize = 1_024;

/// What domains are opened on.
pub struct DomainRuntime {
    /// The settings of this process.
    pub settings: Arc<Settings>,
    /// The one source of time.
    pub clock: Clock,
    auxiliary: bool,
    threads: PoolThreads,
    /// How the domains' databases are.
    storages: Mutex<HashMap<&'static str, Arc<StorageHealth>>>,
    arbiters: Mutex<Vec<(&'static str, Arbiter)>>,
}

/// A domain that is open in this process.
pub struct RunningDomain<A: Actor> {
    /// How it is asked.
    pub client: Client<A>,
    /// Its database: for the relay of its events, the tidying, the backup. Nobody else may look in.
    pub store: Store,
}

impl DomainRuntime {
    /// The ground of one process.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let (settings, threads) = (Arc::new(settings), PoolThreads::default());
        Self { settings, clock, auxiliary: false, threads, storages: Mutex::default(), arbiters: Mutex::default() }
    }

    /// The ground of a process that looks in beside the one that runs the shop: its domains do what they are asked and
    /// nothing by themselves.
    #[must_use]
    pub fn for_command(settings: Settings, clock: Clock) -> Self {
        Self { auxiliary: true, ..Self::new(settings, clock) }
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

    /// Starts an actor that is no domain of the shop, of which so many requests may be in hand.
    pub fn start_with<A>(
        &self,
        name: &'static str,
        in_flight_max: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Client<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let (address, vitals) = Supervisor::start(&self.arbiter(name), name, MAILBOX_CAPACITY, make);
        Client::local(name, address, vitals, in_flight_max, self.storage(name))
    }

    fn storage(&self, domain: &'static str) -> Arc<StorageHealth> {
        let mut storages = self.storages.lock();
        Arc::clone(storages.entry(domain).or_default())
    }

    /// A thread for one more domain. In the laboratory all live on one, so that a history can be had again.
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

    /// Ends the domains' threads. Everything that was answered is durable; there is nothing to save.
    pub fn stop(&self) {
        self.stop_those(|_| true);
    }

    /// Ends one domain's thread, and with it whatever the domain does by itself. Blocks until it has ended; not to be
    /// called on that thread.
    pub fn stop_one(&self, domain: &str) {
        self.stop_those(|name| name == domain);
    }

    fn stop_those(&self, which: impl Fn(&str) -> bool) {
        let mut all = self.arbiters.lock();
        let (ending, staying) = std::mem::take(&mut *all).into_iter().partition(|(name, _)| which(name));
        *all = staying;
        drop(all);
        let ending: Vec<(&str, Arbiter)> = ending;
        for (_, arbiter) in ending {
            arbiter.stop();
            let _ = arbiter.join();
        }
    }
}

/// Has a domain do something by itself: now, because a crash may have left it undone, and every `period` from then on.
/// Of several processes on one database the one that leads does it: two would ask after the same payment.
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

/// The same for what every process has to do that runs the domain. One that looks in beside the shop does none of it.
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
    const EVERY: Duration = Duration::from_millis(1);

    struct Counting {
        state: Arc<AtomicU32>,
        store: Store,
    }
    impl Actor for Counting {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            spawn_leader_interval(ctx, &self.store, &self.state, EVERY, |count| async move {
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    }
    impl Supervised for Counting {}

    #[actix::test]
    async fn a_process_beside_the_shop_does_nothing_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let count = |ground: DomainRuntime| {
            let store = ground.store("stats", MIGRATIONS).unwrap();
            let state = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&state);
            let client = ground.start("stats", move || Counting { state, store });
            (ground, client, count)
        };
        let settings = || Settings::for_test(dir.path());
        let (beside, _idle, nothing) = count(DomainRuntime::for_command(settings(), Clock::system()));
        let (shop, _busy, work) = count(DomainRuntime::new(settings(), Clock::system()));
        while work.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(EVERY).await;
        }
        assert_eq!(nothing.load(Ordering::SeqCst), 0);
        shop.stop();
        beside.stop();
    }
}
