//! The shapes a shop can have: all domains in one process or each in its own, on files or on PostgreSQL, news told
//! directly or over RabbitMQ. The tests are the same on each.
//!
//! | variable | what it does |
//! |---|---|
//! | `MERCAT_TEST_DATABASE=postgres://…` | databases are schemas on that server, not files |
//! | `MERCAT_TEST_DEPLOYMENT=split` | a shop is nine that ask each other over gRPC, one a domain and a gateway without any: apps in `tests/http`, processes in `tests/shop` |
//! | `MERCAT_TEST_RABBITMQ=amqp://…` | with both of them: news goes over that broker (`scripts/dev/rabbitmq`) |

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use mercat::settings::DOMAINS;

/// How many virtual hosts `scripts/dev/rabbitmq` makes for these tests. Far more than are in use at once.
const HOSTS: usize = 24;
/// How long a broker may take to start.
const BROKER_STARTS: Duration = Duration::from_secs(60);

/// Whether each domain is in a process of its own.
pub fn is_split() -> bool {
    std::env::var("MERCAT_TEST_DEPLOYMENT").is_ok_and(|shape| shape == "split")
}

/// The server that the databases are on, if they are on one.
pub fn server() -> Option<String> {
    std::env::var("MERCAT_TEST_DATABASE").ok()
}

/// The broker, when news goes over one.
pub fn broker() -> Option<String> {
    std::env::var("MERCAT_TEST_RABBITMQ").ok().filter(|_| is_split() && server().is_some())
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
pub async fn virtual_host(broker: &str, folder: &Path) -> String {
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
