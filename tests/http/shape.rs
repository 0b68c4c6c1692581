//! The shapes a shop can have: all domains in one process or each in its own, on files or on PostgreSQL, news told
//! directly or over RabbitMQ. The tests are the same on each.
//!
//! | variable | what it does |
//! |---|---|
//! | `MERCAT_TEST_DATABASE=postgres://…` | databases are schemas on that server, not files |
//! | `MERCAT_TEST_SHAPE=split` | a shop is nine apps that ask each other over gRPC: one a domain, and a gateway without any |
//! | `MERCAT_TEST_RABBITMQ=amqp://…` | with both of them: news goes over that broker (`scripts/rabbitmq-for-tests`) |

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use mercat::app::App;
use mercat::messaging::grpc;
use mercat::settings::{Address, DOMAINS, Database, Events, Place, Settings};
use mercat::types::Clock;

/// What the processes of a split shop know each other by.
const TOKEN: &str = "a-token-that-tests-share";
/// In which order the parts are opened. Who is opened later knows where the earlier ones are and not the other way
/// round, as in a shop whose settings name each place once: news to an earlier one is told, news to a later one is
/// fetched by it.
const ORDER: [&str; 8] = ["users", "catalog", "payments", "cart", "mailer", "stats", "comments", "notifications"];
/// How many virtual hosts `scripts/rabbitmq-for-tests` makes for these tests. Far more than are in use at once.
const HOSTS: usize = 24;
/// How long a broker may take to start.
const BROKER_STARTS: Duration = Duration::from_secs(60);

/// Whether each domain is in a process of its own.
pub fn is_split() -> bool {
    std::env::var("MERCAT_TEST_SHAPE").is_ok_and(|shape| shape == "split")
}

/// Whether databases are on a server.
pub fn is_on_server() -> bool {
    std::env::var_os("MERCAT_TEST_DATABASE").is_some()
}

/// The broker, when news goes over one.
fn broker() -> Option<String> {
    std::env::var("MERCAT_TEST_RABBITMQ").ok().filter(|_| is_split() && is_on_server())
}

/// Says, past the capturing of a test's output, that a test makes no sense on this shape.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped on this shape: {test}: {why}");
}

/// A domain in a process of its own, as far as one can be had here.
pub struct Part {
    pub app: App,
    door: grpc::Handle,
    ran: actix_web::rt::task::JoinHandle<()>,
}

impl Part {
    fn open(name: &'static str, of: &Settings, places: &[(&'static str, Address)], clock: &Clock) -> (Self, Address) {
        let mut settings = apart(name, of, places);
        settings.gateway = false;
        settings.grpc = Some(([127, 0, 0, 1], 0).into());
        let mut app = App::open(settings, clock.clone()).unwrap();
        let server = app.grpc().unwrap().unwrap();
        let (at, door) = (server.address(), server.handle());
        let ran = actix_web::rt::spawn(async move { server.run().await.unwrap() });
        (Self { app, door, ran }, Address { host: at.ip().to_string(), port: at.port() })
    }

    /// Ends it as an order to stop does.
    pub async fn close(self) {
        self.door.stop();
        self.ran.await.unwrap();
        self.app.close();
    }

    /// Ends it without a word to anybody.
    pub fn leave(self) {
        self.door.stop();
        self.ran.abort();
        self.app.close();
    }
}

/// The settings of one process of a split shop.
fn apart(name: &str, of: &Settings, places: &[(&'static str, Address)]) -> Settings {
    let mut settings = of.clone();
    settings.partial = true;
    settings.peers.token = Some(TOKEN.to_owned());
    settings.secret.get_or_insert_with(|| "the secret of all processes of one shop".to_owned());
    settings.data = of.data.join(name);
    std::fs::create_dir_all(&settings.data).unwrap();
    settings.database.clone_from(&settings.data);
    for domain in &mut settings.domains {
        if let Database::Folder(folder) = &mut domain.database {
            folder.clone_from(&settings.data);
        }
        if domain.place == Place::Local && domain.name != name {
            let known = places.iter().find(|(there, _)| *there == domain.name);
            domain.place = known.map_or(Place::Elsewhere, |(_, address)| Place::Remote(address.clone()));
        }
    }
    settings
}

/// Opens a shop of this run's shape: the app that the gateway is to stand on, and the other parts of a split shop.
pub async fn open(mut settings: Settings, clock: &Clock) -> (App, Vec<Part>) {
    if !is_split() {
        return (App::open(settings, clock.clone()).unwrap(), Vec::new());
    }
    let here = |name: &str| settings.domain(name).place == Place::Local;
    let names: Vec<&'static str> = ORDER.into_iter().filter(|name| here(name)).collect();
    if let Some(broker) = broker().filter(|_| !names.is_empty()) {
        settings.events = Events::RabbitMq(virtual_host(&broker, &settings.data).await.parse().unwrap());
    }
    let (mut parts, mut places) = (Vec::new(), Vec::new());
    for name in names {
        let (part, address) = Part::open(name, &settings, &places, clock);
        parts.push(part);
        places.push((name, address));
    }
    let gateway = App::open(apart("gateway", &settings, &places), clock.clone()).unwrap();
    (gateway, parts)
}

/// The virtual hosts of the broker: those that are free, the one that was used last at the end, and who has which.
static FREE: LazyLock<Mutex<VecDeque<String>>> =
    LazyLock::new(|| Mutex::new((1..=HOSTS).map(|n| format!("s{n}")).collect()));
static TAKEN: LazyLock<Mutex<HashMap<PathBuf, String>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the broker has room for the shop in this folder: a virtual host of its own, empty at first, the same again when
/// the shop is opened again.
async fn virtual_host(broker: &str, folder: &Path) -> String {
    if let Some(host) = lock(&TAKEN).get(folder) {
        return format!("{broker}/{host}");
    }
    let host = lock(&FREE).pop_front().expect("more shops are open at once than the broker has virtual hosts");
    let url = format!("{broker}/{host}");
    lock(&TAKEN).insert(folder.to_owned(), host);
    let begun = std::time::Instant::now();
    let connection = loop {
        match Connection::connect(&url, ConnectionProperties::default()).await {
            Ok(connection) => break connection,
            Err(error) => assert!(begun.elapsed() < BROKER_STARTS, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let channel = connection.create_channel().await.unwrap();
    // What another shop has left there is nothing to this one.
    let left = DOMAINS.into_iter().chain(["dead"]).map(|queue| format!("mercat.{queue}"));
    let gone = left.map(|queue| channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()));
    try_join_all(gone).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
    url
}

/// Gives the room of the shop in this folder, which is over, to others.
pub fn is_over(folder: &Path) {
    if let Some(host) = lock(&TAKEN).remove(folder) {
        lock(&FREE).push_back(host);
    }
}
