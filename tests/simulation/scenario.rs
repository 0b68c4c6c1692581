//! One seed's history: processes that begin, get into trouble and die, one after the other on the same files, and a
//! last one in which everything comes to rest.

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
use mercat::messaging::{Caller, RequestContext};
use mercat::settings::Settings;
use mercat::types::{Clock, Timestamp};
use mercat::{consistency_check, fault_injection};
use tempfile::TempDir;

use super::admin_workload;
use super::customer_workload::{self, Buyer, Everybody, People};
use super::fault_injector::FaultInjector;
use super::invariants::Books;

/// When every history begins.
const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
/// How long an invoice can be paid.
const LIFETIME: Duration = Duration::from_secs(60);
/// Longer than any invoice can be paid and any stock be held.
const LONG: Duration = Duration::from_secs(8 * 60);

/// Pages so small that a full disk is met by nearly all that is written, and not by what happens to want a new page.
const SMALL_PAGES: &str = "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; PRAGMA user_version = 0;";

/// Databases that are brought to this version once, to be copied.
pub struct Template(TempDir);

impl Template {
    pub fn make() -> Self {
        let dir = TempDir::new().unwrap();
        for domain in &settings(dir.path()).domains {
            let file = dir.path().join(format!("{}.db", domain.name));
            let mut conn = SqliteConnection::establish(&file.to_string_lossy()).unwrap();
            conn.batch_execute(SMALL_PAGES).unwrap();
        }
        let world = FaultInjector::new(0, false);
        process(&world, dir.path(), BEGIN, async |_| ());
        // Closed, so that all is in the files themselves.
        fault_injection::close();
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

/// A running shop.
pub struct Shop {
    pub app: App,
    pub world: FaultInjector,
}

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::for_test(dir);
    settings.secret = Some("the laboratory's secret, which nobody needs to know".to_owned());
    settings.payments.invoice_lifetime = LIFETIME;
    settings
}

/// A process from its begin at an instant to its end, however it ends: everything in it that still waits is dropped, as
/// when it is killed. Gives what came of `life`, and when it was over.
fn process<T>(
    world: &FaultInjector,
    dir: &Path,
    at: Timestamp,
    life: impl AsyncFnOnce(Rc<Shop>) -> T,
) -> (T, Timestamp) {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let system = actix::System::with_tokio_rt(paused);
    fault_injection::enter(Some(Arc::new(world.clone())));
    let lived = system.block_on(async {
        let clock = Clock::simulated(at);
        world.begin(clock.clone());
        let app = App::open(settings(dir), clock).unwrap();
        let outcome = life(Rc::new(Shop { app, world: world.clone() })).await;
        (outcome, world.now())
    });
    drop(system);
    fault_injection::enter(None);
    lived
}

pub struct History {
    pub world: FaultInjector,
    dir: TempDir,
}

impl History {
    pub fn new(template: &Template, seed: u64, told: bool) -> Self {
        Self { world: FaultInjector::new(seed, told), dir: template.copy() }
    }

    /// Lives it to its end, or to the first promise that is broken.
    pub fn live(&mut self) -> Result<(), String> {
        let (world, dir) = (&self.world, self.dir.path());
        let books = &mut Books::open(dir)?;
        let mut known: Option<Everybody> = None;
        let mut at = BEGIN;
        for _ in 0..world.dice(|dice| dice.between(1, 3)) {
            let outcome;
            (outcome, at) = process(world, dir, at, async |shop| {
                let is_first = known.is_none();
                let people = match known.clone() {
                    None => Rc::new(RefCell::new(found(&shop).await)),
                    Some(people) => {
                        // A process that is left in peace has mended everything before the next one dies; another has not.
                        if world.dice(|dice| dice.chance(400)) {
                            agree(&shop, books, &people, world).await?;
                        }
                        people
                    }
                };
                trouble(shop, &people, is_first).await;
                Ok::<_, String>(people)
            });
            let people = outcome?;
            if let Some(broken) = people.borrow().broken.first() {
                return Err(broken.clone());
            }
            known = Some(people);
            // It is started again at once, or after so long that whatever was held for anybody has run out.
            at = at.plus(Duration::from_millis(world.dice(|dice| match dice.below(10) {
                0..2 => dice.between(60_000, 100_000),
                2..4 => dice.between(360_000, 400_000),
                _ => dice.below(5_000),
            })));
        }
        let people = known.ok_or("nobody came")?;
        let (outcome, _) = process(world, dir, at, async |shop| {
            agree(&shop, books, &people, world).await?;
            customer_workload::finish(&shop, &people).await?;
            agree(&shop, books, &people, world).await?;
            world.jump(LONG);
            // For the timers to come by.
            tokio::time::sleep(Duration::from_secs(4)).await;
            agree(&shop, books, &people, world).await?;
            books.check_end()?;
            customer_workload::ask_everything_again(&shop, &people).await?;
            agree(&shop, books, &people, world).await?;
            let report = consistency_check::run(&shop.app.clients).await.map_err(|e| format!("check: {e}"))?;
            if let Some(fault) = report.faults.first() {
                return Err(format!("check finds: {fault:?}"));
            }
            books.count(world)
        });
        outcome?;
        people.borrow().broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
    }
}

/// Opens the shop to a few people and few things.
async fn found(shop: &Shop) -> People {
    let clients = &shop.app.clients;
    let (buyers, things) = shop.world.dice(|dice| (dice.between(2, 5), dice.between(1, 3)));
    let (mut people, mut products) = (Vec::new(), Vec::new());
    for n in 0..buyers {
        let stranger = Caller::Anyone { address: format!("192.0.2.{n}").into(), internal: false };
        let guest = clients.users.call(RequestContext::new(stranger, "lab"), CreateGuest {}).await.unwrap();
        people.push(Buyer::new(guest.user.id));
    }
    for n in 0..things {
        let (price, stock) = shop.world.dice(|dice| (dice.between(1, 999), dice.between(1, 3)));
        let product = NewProduct {
            name: format!("Thing {n}"),
            sku: format!("T-{n}"),
            description: String::new(),
            price: i64::try_from(price).unwrap(),
            currency: shop.app.settings().shop.currency,
            stock: i64::try_from(stock).unwrap(),
            compare_at_price: None,
            category: None,
            tags: Vec::new(),
            attributes: Default::default(),
            group: None,
            options: Default::default(),
        };
        let made = clients.catalog.call(RequestContext::internal("lab"), CreateProduct { product }).await.unwrap();
        products.push(made.id);
    }
    People::new(people, products)
}

/// Everybody comes at once, things go wrong, and the process dies.
async fn trouble(shop: Rc<Shop>, people: &Everybody, is_first: bool) {
    let world = shop.world.clone();
    let life = world.dice(|dice| {
        // Some that find work left behind die before they have found their feet.
        let bits = if !is_first && dice.chance(400) { 5 } else { dice.between(7, 11) };
        dice.between(1, 1 << bits)
    });
    world.trouble(life);
    let buyers = people.borrow().buyers.len();
    let mut lives: Vec<_> =
        (0..buyers).map(|n| actix::spawn(customer_workload::buy(Rc::clone(&shop), Rc::clone(people), n))).collect();
    lives.push(actix::spawn(admin_workload::work(Rc::clone(&shop), Rc::clone(people))));
    actix::spawn(admin_workload::pass(Rc::clone(&shop)));
    let died = std::pin::pin!(world.died());
    select(died, join_all(lives)).await;
    world.stop();
}

/// Waits until nobody has anything left to do, and compares all books. What happens by the clock while the last news is
/// heard, such as an invoice that runs out, is news of the next round.
async fn agree(shop: &Shop, books: &mut Books, people: &RefCell<People>, world: &FaultInjector) -> Result<(), String> {
    let mut outcome = Ok(());
    for _ in 0..3 {
        rest(shop, books).await?;
        outcome = books.check(&people.borrow(), world);
        if outcome.is_ok() {
            world.count(|tally| tally.recoveries += 1);
            break;
        }
    }
    outcome
}

/// Waits until nobody has anything left to do.
async fn rest(shop: &Shop, books: &mut Books) -> Result<(), String> {
    // Who asks a bank that is silent asks ever more rarely, in the end every five minutes.
    for _ in 0..1_200 {
        if books.is_at_rest()? {
            let heard = tokio::time::timeout(Duration::from_secs(120), shop.app.settle()).await;
            heard
                .map_err(|_| "N2: events are not told in two minutes without any trouble".to_owned())?
                .map_err(|e| e.to_string())?;
            if books.is_at_rest()? {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(format!("P12: work is left undone in ten minutes without any trouble: {}", books.undone()?.join(", ")))
}
