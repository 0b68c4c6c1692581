//! Buckets in a Redis server, shared between gateways: the same algorithm as a script, which Redis runs as one step.
//!
//! Redis is never needed: while it does not answer, each gateway counts in its own memory, tries again once a second, and
//! returns to Redis when that succeeds.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};

use super::gcra::{Gcra, Verdict};
use super::memory::BucketKey;

/// Longest wait for Redis; a request waits that long at most once a second while Redis is away.
const TIMEOUT: Duration = Duration::from_millis(100);
/// Pause between attempts while Redis is away, in microseconds.
const RETRY_INTERVAL: i64 = 1_000_000;
/// Prefix of all keys.
const PREFIX: &str = "mercat:limit";

/// The algorithm of [`Gcra::decide`], by the clock of Redis. Returns whether the request is allowed, and the time until
/// the bucket is full again, in microseconds.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local emission, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
full_at = math.min(math.max(full_at, now), now + window)
local after = full_at + emission
if after - now > window then return {0, full_at - now} end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, after - now}
";

/// Buckets in Redis.
pub struct RedisBuckets {
    connection: ConnectionManager,
    script: Script,
    /// Time of the next attempt while Redis is away, in microseconds since 1970; 0 while it answers.
    retry_at: AtomicI64,
}

impl RedisBuckets {
    /// Buckets on the server at `url`. Connects with the first request.
    ///
    /// # Errors
    /// When the address cannot be parsed.
    pub fn new(url: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { connection, script: Script::new(SCRIPT), retry_at: AtomicI64::new(0) })
    }

    /// Whether the last attempt was answered.
    pub fn is_up(&self) -> bool {
        self.retry_at.load(Relaxed) == 0
    }

    /// Takes one request out of a bucket; `None` while Redis is away.
    pub async fn check(&self, key: BucketKey, gcra: &Gcra, now: i64) -> Option<Verdict> {
        let retry_at = self.retry_at.load(Relaxed);
        if retry_at != 0 {
            // One request tries, the others do not wait.
            let is_early = now < retry_at && retry_at - now <= RETRY_INTERVAL;
            let next = now.saturating_add(RETRY_INTERVAL);
            if is_early || self.retry_at.compare_exchange(retry_at, next, Relaxed, Relaxed).is_err() {
                return None;
            }
        }
        let reason = match tokio::time::timeout(TIMEOUT, self.run(key, gcra)).await {
            Ok(Ok((is_allowed, backlog))) => {
                if self.retry_at.swap(0, Relaxed) != 0 {
                    log::info!("limits: redis answers again; rates are shared between gateways");
                }
                return Some(gcra.verdict(is_allowed == 1, backlog));
            }
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => format!("no answer within {} ms", TIMEOUT.as_millis()),
        };
        if self.retry_at.swap(now.saturating_add(RETRY_INTERVAL), Relaxed) == 0 {
            log::warn!("limits: redis is away, rates are counted in this process until it answers: {reason}");
        }
        None
    }

    async fn run(&self, key: BucketKey, gcra: &Gcra) -> Result<(i64, i64), RedisError> {
        let BucketKey { class, subject } = key;
        let mut connection = self.connection.clone();
        let name = format!("{PREFIX}:{}:{subject}", class.as_str());
        self.script.key(name).arg(gcra.emission).arg(gcra.window).invoke_async(&mut connection).await
    }
}
