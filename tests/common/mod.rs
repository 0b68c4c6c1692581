//! Deployments of a shop: all domains in one process or each in its own, on SQLite or PostgreSQL, events pushed
//! directly or over RabbitMQ. The tests are the same on each.
//!
//! | variable | effect |
//! |---|---|
//! | `MERCAT_TEST_DATABASE=postgres://…` | databases are schemas on that server, not files |
//! | `MERCAT_TEST_DEPLOYMENT=split` | one process per domain and a gateway without any, connected over gRPC: apps in `tests/api`, processes in `tests/e2e` |
//! | `MERCAT_TEST_RABBITMQ=amqp://…` | with both of the above: events go over that broker (`scripts/dev/rabbitmq`) |

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use mercat::settings::DOMAIN_NAMES;
use parking_lot::Mutex;

/// Virtual hosts that `scripts/dev/rabbitmq` creates for these tests: far more than are in use at once.
const VIRTUAL_HOSTS: usize = 24;
/// Limit for a broker to start.
const BROKER_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether each domain runs in a process of its own.
pub fn is_split() -> bool {
    std::env::var("MERCAT_TEST_DEPLOYMENT").is_ok_and(|deployment| deployment == "split")
}

/// Address of the PostgreSQL server, if the databases are on one.
pub fn postgres_url() -> Option<String> {
    std::env::var("MERCAT_TEST_DATABASE").ok()
}

/// Address of the RabbitMQ broker, if events go over one.
pub fn rabbitmq_url() -> Option<String> {
    std::env::var("MERCAT_TEST_RABBITMQ").ok().filter(|_| is_split() && postgres_url().is_some())
}

/// Free virtual hosts of the broker, the most recently used last, and those in use by data folder.
static FREE_HOSTS: LazyLock<Mutex<VecDeque<String>>> =
    LazyLock::new(|| Mutex::new((1..=VIRTUAL_HOSTS).map(|n| format!("s{n}")).collect()));
static USED_HOSTS: LazyLock<Mutex<HashMap<PathBuf, String>>> = LazyLock::new(Mutex::default);

/// Address of a virtual host for the shop in this folder: empty at first, the same when the shop is reopened.
pub async fn virtual_host(broker: &str, folder: &Path) -> String {
    if let Some(host) = USED_HOSTS.lock().get(folder) {
        return format!("{broker}/{host}");
    }
    let host = FREE_HOSTS.lock().pop_front().expect("more shops are open at once than the broker has virtual hosts");
    let url = format!("{broker}/{host}");
    USED_HOSTS.lock().insert(folder.to_owned(), host);
    let begun = std::time::Instant::now();
    let connection = loop {
        match Connection::connect(&url, ConnectionProperties::default()).await {
            Ok(connection) => break connection,
            Err(error) => assert!(begun.elapsed() < BROKER_TIMEOUT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let channel = connection.create_channel().await.unwrap();
    // Queues of an earlier shop.
    let queues = DOMAIN_NAMES.into_iter().chain(["dead"]).map(|queue| format!("mercat.{queue}"));
    let deleted = queues.map(|queue| channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()));
    try_join_all(deleted).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
    url
}

/// Returns the virtual host of a shop that has ended.
pub fn release_virtual_host(folder: &Path) {
    if let Some(host) = USED_HOSTS.lock().remove(folder) {
        FREE_HOSTS.lock().push_back(host);
    }
}
