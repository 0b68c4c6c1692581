//! Rates that gateways share through a real Redis, also while it is away. Skipped, with a message, where no `redis-server`
//! is installed.

use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::settings::{Settings, Values};

/// Limit for every wait.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A Redis server of this test. Ends when dropped.
struct RedisServer {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl RedisServer {
    /// Starts a server on a free port; `None` where there is none to start.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        match Self::spawn(port, &folder) {
            Ok(process) => Some(Self { process, folder, port }),
            Err(error) => {
                // Not through `eprintln!`, which the test harness captures.
                let _ = writeln!(std::io::stderr(), "skipped: redis-server cannot be started: {error}");
                None
            }
        }
    }

    fn spawn(port: u16, folder: &tempfile::TempDir) -> std::io::Result<Child> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn restart(&mut self) {
        self.stop();
        self.process = Self::spawn(self.port, &self.folder).unwrap();
    }

    /// Limits of a gateway that counts on this server.
    fn limits(&self, clock: &Clock, guests: u32) -> RateLimits {
        let mut settings = limits_settings(guests);
        settings.store = LimitStore::Redis(format!("redis://127.0.0.1:{}/1", self.port));
        RateLimits::new(&settings, clock)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn limits_settings(guests: u32) -> LimitsSettings {
    let mut settings = Settings::from_values(&Values::defaults()).unwrap().limits;
    settings.guest = Quota { requests: guests, window: Duration::from_secs(3_600) };
    settings
}

fn network(last: u8) -> Subject {
    Subject::Network(IpAddr::from([203, 0, 113, last]).into())
}

async fn is_allowed(limits: &RateLimits, last: u8) -> bool {
    limits.check(LimitClass::Guest, network(last)).await.is_ok()
}

/// Sends requests until one is counted by Redis, or no longer.
async fn until_store_is(limits: &RateLimits, clock: &Clock, up: bool) {
    let begun = Instant::now();
    loop {
        let _ = limits.check(LimitClass::Log, network(250)).await;
        if limits.is_shared_store_up() == Some(up) {
            return;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "redis is never seen as up={up}");
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_web::test]
async fn s02_gateways_share_rates_through_redis() {
    let Some(mut server) = RedisServer::start() else { return };
    let clock = Clock::system();
    let (one, other) = (server.limits(&clock, 4), server.limits(&clock, 4));
    // The server may still be starting.
    for gateway in [&one, &other] {
        until_store_is(gateway, &clock, true).await;
    }
    let mut allowed = Vec::new();
    for gateway in [&one, &other, &one, &other, &one, &other] {
        allowed.push(is_allowed(gateway, 1).await);
    }
    assert_eq!(allowed, [true, true, true, true, false, false]);
    assert!(is_allowed(&one, 2).await, "another network");

    server.stop();
    until_store_is(&one, &clock, false).await;
    let mut allowed = Vec::new();
    for _ in 0..5 {
        allowed.push(is_allowed(&one, 1).await);
    }
    assert_eq!(allowed, [true, true, true, true, false], "counted in memory while redis is away");

    server.restart();
    until_store_is(&one, &clock, true).await;
    until_store_is(&other, &clock, true).await;
    let shared = [is_allowed(&one, 3).await, is_allowed(&other, 3).await, is_allowed(&one, 3).await];
    assert_eq!(shared, [true; 3]);
    assert_eq!([is_allowed(&other, 3).await, is_allowed(&one, 3).await], [true, false], "shared again");
}

#[actix_web::test]
async fn redis_and_memory_decide_alike() {
    let Some(server) = RedisServer::start() else { return };
    let clock = Clock::system();
    let (shared, own) = (server.limits(&clock, 7), RateLimits::new(&limits_settings(7), &clock));
    until_store_is(&shared, &clock, true).await;
    for number in 0..10 {
        let status = |checked: Result<Option<LimitStatus>, LimitStatus>| match checked {
            Ok(status) => (true, status.unwrap().verdict.remaining),
            Err(status) => (false, status.verdict.remaining),
        };
        let by_redis = status(shared.check(LimitClass::Guest, network(1)).await);
        assert_eq!(by_redis, status(own.check(LimitClass::Guest, network(1)).await), "request {number}");
    }
}

#[actix_web::test]
async fn switched_off_limits_count_nothing() {
    let mut settings = limits_settings(1);
    settings.enabled = false;
    let limits = RateLimits::new(&settings, &Clock::system());
    for _ in 0..3 {
        assert_eq!(limits.check(LimitClass::Guest, network(1)).await, Ok(None));
    }
}
