//! One seed's history: processes that begin, get into trouble and die, one after the other on the same files, and a
//! last one in which everything comes to rest.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select};
use mercat::app::App;
use mercat::catalog::{CreateProduct, NewProduct};
use mercat::messaging::{Caller, Ctx};
use mercat::settings::{Place, Settings};
use mercat::simulation;
use mercat::types::{Clock, Timestamp};
use mercat::users::CreateGuest;
use tempfile::TempDir;

use super::books::Books;
use super::buyers::{self, Buyer, Everybody, People};
use super::staff;
use super::world::World;

/// When every history begins.
const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
/// How long an invoice can be paid.
const LIFETIME: Duration = Duration::from_secs(60);
/// Longer than any invoice can be paid and any stock be held.
const LONG: Duration = Duration::from_secs(8 * 60);

/// Databases that are brought to this version once, to be copied.
pub struct Template(TempDir);

impl Template {
    pub fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let world = World::new(0, false);
        process(&world, dir.path(), BEGIN, async |_| ());
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
    pub world: World,
}

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::for_test(dir);
    settings.secret = Some("the laboratory's secret, which nobody needs to know".to_owned());
    settings.payments.invoice_lifetime = LIFETIME;
    for domain in &mut settings.domains {
        // No review is written here.
        if domain.name == "comments" {
            domain.place = Place::Off;
        }
    }
    settings
}

/// A process from its begin at an instant to its end, however it ends: everything in it that still waits is dropped, as
/// when it is killed. Gives what came of `life`, and when it was over.
fn process<T>(world: &World, dir: &Path, at: Timestamp, life: impl AsyncFnOnce(Rc<Shop>) -> T) -> (T, Timestamp) {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let system = actix::System::with_tokio_rt(paused);
    simulation::enter(Some(Arc::new(world.clone())));
    let lived = system.block_on(async {
        let clock = Clock::simulated(at);
        world.begin(clock.clone());
        let app = App::open(settings(dir), clock).unwrap();
        let outcome = life(Rc::new(Shop { app, world: world.clone() })).await;
        (outcome, world.now())
    });
    drop(system);
    simulation::enter(None);
    lived
}

pub struct History {
    pub world: World,
    dir: TempDir,
}

impl History {
    pub fn new(template: &Template, seed: u64, told: bool) -> Self {
        Self { world: World::new(seed, told), dir: template.copy() }
    }

    /// Lives it to its end, or to the first promise that is broken.
    pub fn live(&mut self) -> Result<(), String> {
        let (world, dir) = (&self.world, self.dir.path());
        let (people, mut at) = process(world, dir, BEGIN, async |shop| found(&shop).await);
        let people = Rc::new(RefCell::new(people));
        for _ in 0..world.dice(|dice| dice.between(1, 3)) {
            at = at.plus(Duration::from_millis(world.dice(|dice| dice.below(5_000))));
            let outcome;
            (outcome, at) = process(world, dir, at, async |shop| {
                // A process that is left in peace has mended everything before the next one dies; another has not.
                if world.dice(|dice| dice.chance(400)) {
                    let books = &mut Books::open(dir)?;
                    agree(&shop, books, &people, world).await?;
                }
                trouble(shop, &people).await;
                Ok::<_, String>(())
            });
            outcome?;
            if let Some(broken) = people.borrow().broken.first() {
                return Err(broken.clone());
            }
        }
        let (outcome, _) = process(world, dir, at, async |shop| {
            let books = &mut Books::open(dir)?;
            agree(&shop, books, &people, world).await?;
            buyers::finish(&shop, &people).await?;
            agree(&shop, books, &people, world).await?;
            world.jump(LONG);
            // For the timers to come by.
            tokio::time::sleep(Duration::from_secs(4)).await;
            agree(&shop, books, &people, world).await?;
            books.check_end()?;
            buyers::ask_everything_again(&shop, &people).await?;
            agree(&shop, books, &people, world).await?;
            books.count(world)
        });
        outcome?;
        people.borrow().broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
    }
}

/// Opens the shop to a few people and few things.
async fn found(shop: &Shop) -> People {
    let clients = &shop.app.clients;
    let (buyers, things) = shop.world.dice(|dice| (dice.between(2, 4), dice.between(1, 3)));
    let (mut people, mut products) = (Vec::new(), Vec::new());
    for n in 0..buyers {
        let stranger = Caller::Anyone { address: format!("192.0.2.{n}").into(), internal: false };
        let guest = clients.users.call(Ctx::new(stranger, "lab"), CreateGuest {}).await.unwrap();
        people.push(Buyer::new(guest.user.id));
    }
    for n in 0..things {
        let (price, stock) = shop.world.dice(|dice| (dice.between(1, 999), dice.between(1, 6)));
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
        let made = clients.catalog.call(Ctx::domain("lab"), CreateProduct { product }).await.unwrap();
        products.push(made.id);
    }
    People::new(people, products)
}

/// Everybody comes at once, things go wrong, and the process dies.
async fn trouble(shop: Rc<Shop>, people: &Everybody) {
    let world = shop.world.clone();
    let life = world.dice(|dice| {
        let bits = dice.between(3, 11);
        dice.between(1, 1 << bits)
    });
    world.trouble(life);
    let buyers = people.borrow().buyers.len();
    let mut lives: Vec<_> =
        (0..buyers).map(|n| actix::spawn(buyers::buy(Rc::clone(&shop), Rc::clone(people), n))).collect();
    lives.push(actix::spawn(staff::work(Rc::clone(&shop), Rc::clone(people))));
    actix::spawn(staff::pass(Rc::clone(&shop)));
    let died = std::pin::pin!(world.died());
    select(died, join_all(lives)).await;
    world.stop();
}

/// Waits until nobody has anything left to do, and compares all books. What happens by the clock while the last news is
/// heard, such as an invoice that runs out, is news of the next round.
async fn agree(shop: &Shop, books: &mut Books, people: &RefCell<People>, world: &World) -> Result<(), String> {
    let mut outcome = Ok(());
    for _ in 0..3 {
        rest(shop, books).await?;
        outcome = books.check(&people.borrow(), world);
        if outcome.is_ok() {
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
