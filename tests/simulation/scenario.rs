//! One seed's scenario: processes that start, meet faults and crash, one after the other on the same files, and a last
//! one without faults in which all work is completed.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use futures_util::future::{join_all, select};
use mercat::app::App;
use mercat::contract::catalog::{CreateProduct, NewProduct};
use mercat::contract::users::CreateGuest;
use mercat::domains::payments;
use mercat::messaging::{Caller, RequestContext};
use mercat::settings::Settings;
use mercat::types::{Clock, Timestamp};
use mercat::{consistency_check, fault_injection};
use tempfile::TempDir;

use super::admin_workload;
use super::customer_workload::{self, Customer, Population, SharedPopulation};
use super::fake_provider::ProviderConnection;
use super::fault_injector::SimFaults;
use super::invariants::CrossDomainInvariants;

/// Start time of every scenario.
const START_TIME: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
/// Payment period of an invoice.
const INVOICE_LIFETIME: Duration = Duration::from_secs(60);
/// Longer than the payment period of an invoice and any stock hold.
const PAST_ALL_EXPIRIES: Duration = Duration::from_secs(8 * 60);

/// Pages so small that nearly every write needs a new one, and so meets a full disk.
const SMALL_PAGES: &str = "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; PRAGMA user_version = 0;";

/// Migrated databases, copied for each scenario.
pub struct DatabaseTemplate(TempDir);

impl DatabaseTemplate {
    pub fn create() -> Self {
        let dir = TempDir::new().unwrap();
        for domain in &settings(dir.path()).domains {
            let file = dir.path().join(format!("{}.db", domain.name));
            let mut conn = SqliteConnection::establish(&file.to_string_lossy()).unwrap();
            conn.batch_execute(SMALL_PAGES).unwrap();
        }
        let faults = SimFaults::new(0, false);
        run_process(&faults, dir.path(), START_TIME, async |_| ());
        // Closed, so that nothing is left in the write-ahead logs.
        mercat::store::close_cached_connections();
        Self(dir)
    }

    fn copy(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        for file in std::fs::read_dir(self.0.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        dir
    }
}

/// The domains of a running process, with the scenario's faults.
pub struct Shop {
    pub app: App,
    pub faults: SimFaults,
}

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::for_test(dir);
    settings.secret = Some("a signing secret for the simulation alone".to_owned());
    settings.payments.invoice_lifetime = INVOICE_LIFETIME;
    settings
}

/// Runs `workload` in a process that starts at `at`. At the end every task that still waits is dropped, as when a process
/// is killed. Returns the workload's result and the time at the end.
fn run_process<T>(
    faults: &SimFaults,
    dir: &Path,
    at: Timestamp,
    workload: impl AsyncFnOnce(Rc<Shop>) -> T,
) -> (T, Timestamp) {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let system = actix::System::with_tokio_rt(paused);
    fault_injection::install(Some(Arc::new(faults.clone())));
    let provider = faults.clone();
    payments::set_test_provider(Some(Arc::new(move || Box::new(ProviderConnection::new(provider.clone())))));
    let result = system.block_on(async {
        let clock = Clock::simulated(at);
        faults.start_process(clock.clone());
        let app = App::open(settings(dir), clock).unwrap();
        let outcome = workload(Rc::new(Shop { app, faults: faults.clone() })).await;
        (outcome, faults.now())
    });
    drop(system);
    fault_injection::install(None);
    payments::set_test_provider(None);
    result
}

pub struct Scenario {
    /// Fault injector of all its processes.
    pub faults: SimFaults,
    dir: TempDir,
}

impl Scenario {
    pub fn new(template: &DatabaseTemplate, seed: u64, traced: bool) -> Self {
        Self { faults: SimFaults::new(seed, traced), dir: template.copy() }
    }

    /// Runs the scenario to its end, or to the first violation.
    ///
    /// # Errors
    /// Describes the violation.
    pub fn run(&mut self) -> Result<(), String> {
        let (faults, dir) = (&self.faults, self.dir.path());
        let invariants = &mut CrossDomainInvariants::open(dir)?;
        let mut shared: Option<SharedPopulation> = None;
        let mut at = START_TIME;
        for _ in 0..faults.rng(|rng| rng.between(1, 3)) {
            let outcome;
            (outcome, at) = run_process(faults, dir, at, async |shop| {
                let is_first = shared.is_none();
                let population = match shared.clone() {
                    None => Rc::new(RefCell::new(seed_shop(&shop).await)),
                    Some(population) => {
                        // Some recoveries complete before the next crash, others do not.
                        if faults.rng(|rng| rng.chance(400)) {
                            check_invariants(&shop, invariants, &population, faults).await?;
                        }
                        population
                    }
                };
                inject_faults(shop, &population, is_first).await;
                Ok::<_, String>(population)
            });
            let population = outcome?;
            if let Some(violation) = population.borrow().violations.first() {
                return Err(violation.clone());
            }
            shared = Some(population);
            // The process restarts at once, or after all invoices and holds have expired.
            at = at.saturating_add(Duration::from_millis(faults.rng(|rng| match rng.below(10) {
                0..2 => rng.between(60_000, 100_000),
                2..4 => rng.between(360_000, 400_000),
                _ => rng.below(5_000),
            })));
        }
        let population = shared.ok_or("no process ran")?;
        let (outcome, _) = run_process(faults, dir, at, async |shop| {
            check_invariants(&shop, invariants, &population, faults).await?;
            customer_workload::complete_pending(&shop, &population).await?;
            check_invariants(&shop, invariants, &population, faults).await?;
            faults.advance_clock(PAST_ALL_EXPIRIES);
            // Lets the timers fire.
            tokio::time::sleep(Duration::from_secs(4)).await;
            check_invariants(&shop, invariants, &population, faults).await?;
            invariants.check_end()?;
            customer_workload::replay_all(&shop, &population).await?;
            check_invariants(&shop, invariants, &population, faults).await?;
            let report = consistency_check::run(&shop.app.clients).await.map_err(|e| format!("check: {e}"))?;
            if let Some(fault) = report.violations.first() {
                return Err(format!("mercat check reports: {fault:?}"));
            }
            invariants.count(faults)
        });
        outcome?;
        population.borrow().violations.first().map_or(Ok(()), |violation| Err(violation.clone()))
    }
}

/// Creates a few customers and products.
async fn seed_shop(shop: &Shop) -> Population {
    let clients = &shop.app.clients;
    let (customer_count, product_count) = shop.faults.rng(|rng| (rng.between(2, 5), rng.between(1, 3)));
    let (mut customers, mut products) = (Vec::new(), Vec::new());
    for n in 0..customer_count {
        let anonymous = Caller::Anyone { address: format!("192.0.2.{n}").into(), internal: false };
        let guest = clients.users.call(RequestContext::new(anonymous, "simulation"), CreateGuest {}).await.unwrap();
        customers.push(Customer::new(guest.user.id));
    }
    for n in 0..product_count {
        let (price, stock) = shop.faults.rng(|rng| (rng.between(1, 999), rng.between(1, 3)));
        let product = NewProduct {
            name: format!("Thing {n}"),
            sku: format!("T-{n}"),
            description: String::new(),
            price: i64::try_from(price).unwrap(),
            currency: shop.app.settings().shop.currency,
            stock: i64::try_from(stock).unwrap(),
            track_stock: true,
            compare_at_price: None,
            category: None,
            tags: Vec::new(),
            attributes: Default::default(),
            group: None,
            options: Default::default(),
        };
        let created =
            clients.catalog.call(RequestContext::internal("simulation"), CreateProduct { product }).await.unwrap();
        products.push(created.id);
    }
    Population::new(customers, products)
}

/// Runs all workloads with faults until the process crashes.
async fn inject_faults(shop: Rc<Shop>, population: &SharedPopulation, is_first: bool) {
    let faults = shop.faults.clone();
    let steps_left = faults.rng(|rng| {
        // Some crash during recovery.
        let bits = if !is_first && rng.chance(400) { 5 } else { rng.between(7, 11) };
        rng.between(1, 1 << bits)
    });
    faults.enable_faults(steps_left);
    let customers = population.borrow().customers.len();
    let mut workloads: Vec<_> = (0..customers)
        .map(|n| actix::spawn(customer_workload::run_customer(Rc::clone(&shop), Rc::clone(population), n)))
        .collect();
    workloads.push(actix::spawn(admin_workload::run_admin(Rc::clone(&shop), Rc::clone(population))));
    actix::spawn(admin_workload::advance_time(Rc::clone(&shop)));
    let crashed = std::pin::pin!(faults.crashed());
    select(crashed, join_all(workloads)).await;
    faults.crash();
}

/// Waits until all work is done and checks the invariants, up to three times: a timer that fires meanwhile, such as an
/// invoice's expiry, makes new work.
async fn check_invariants(
    shop: &Shop,
    invariants: &mut CrossDomainInvariants,
    population: &RefCell<Population>,
    faults: &SimFaults,
) -> Result<(), String> {
    let mut outcome = Ok(());
    for _ in 0..3 {
        quiesce(shop, invariants).await?;
        outcome = invariants.check(&population.borrow(), faults);
        if outcome.is_ok() {
            faults.count(|counters| counters.recoveries += 1);
            break;
        }
    }
    outcome
}

/// Waits until no workflow is unfinished and all events are delivered.
async fn quiesce(shop: &Shop, invariants: &mut CrossDomainInvariants) -> Result<(), String> {
    // The payments domain polls a silent provider at growing intervals, up to five minutes.
    for _ in 0..1_200 {
        if invariants.is_quiescent()? {
            let settled = tokio::time::timeout(Duration::from_secs(120), shop.app.settle()).await;
            settled
                .map_err(|_| "N2: events are not delivered within two minutes without faults".to_owned())?
                .map_err(|e| e.to_string())?;
            if invariants.is_quiescent()? {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(format!("P12: work is unfinished after ten minutes without faults: {}", invariants.unfinished()?.join(", ")))
}
