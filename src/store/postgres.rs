//! A domain's schema in a PostgreSQL database: a pool of writers, a pool of readers, and the errors of a server that is
//! unreachable.
//!
//! A write job is a transaction of its own on a connection of its own; the server shares one flush among commits at the
//! same time. Jobs exclude each other by the advisory locks of their [`LockSet`], in this process and in all others.
//!
//! **While the server is unreachable** all requests are rejected at once, and certainly not done, except those that were
//! queued for a commit: their outcome is unknown. The first job or query after the server is back detects that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::result::{DatabaseErrorKind, Error as DbError};
use diesel::{Connection as _, PgConnection};
use r2d2::{ManageConnection, Pool, PooledConnection};
use tokio::sync::{Notify, RwLock, Semaphore};

use super::coordination::Membership;
use super::erased_job::{ErasedJob, ErasedQuery, ErasedResult};
use super::reader::{ConnectError, PoolThreads, blocking};
use super::{Conn, LockSet, StoreConfig, Tx, locks};
use crate::messaging::{CommonError, StorageHealth};
use crate::settings::Postgres;
use crate::types::Clock;

/// Time to wait for a connection while the server is known to be unreachable, so that requests are rejected soon.
const DEGRADED_POOL_TIMEOUT: Duration = Duration::from_millis(300);
/// Idle time after which a connection is tested before use.
const IDLE_CHECK_AFTER: Duration = Duration::from_secs(1);
/// Settings of every session: bounded lock waits, and detection of peers that have vanished.
const SESSION_SETTINGS: &str =
    "SET lock_timeout = '10s'; SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3; SET client_min_messages = 'warning'; SET idle_in_transaction_session_timeout = '60s'";
/// Settings of a reader's session: transactions see one snapshot and change nothing.
const READ_ONLY_SESSION: &str = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Opens a connection to a domain's schema.
pub fn connect(server: &Postgres, schema: &str) -> Result<Conn, String> {
    let mut conn = PgConnection::establish(&server.url(&format!("mercat-{schema}")))
        .map_err(|error| server.mask(&error.to_string()))?;
    diesel::connection::SimpleConnection::batch_execute(
        &mut conn,
        &format!("SET search_path TO \"{schema}\"; {SESSION_SETTINGS}"),
    )
    .map_err(|error| error.to_string())?;
    Ok(Conn::Postgres(conn))
}

/// Whether the server has a schema of this domain.
///
/// # Errors
///
/// Names the reason when the server cannot be queried.
pub fn schema_exists(server: &Postgres, domain: &str) -> Result<bool, String> {
    use diesel::prelude::*;
    let schema = server.schema(domain);
    let Conn::Postgres(mut conn) = connect(server, &schema)? else { return Ok(false) };
    diesel::select(
        diesel::dsl::sql::<diesel::sql_types::Bool>("EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = ")
            .bind::<diesel::sql_types::Text, _>(schema)
            .sql(")"),
    )
    .get_result(&mut conn)
    .map_err(|error| error.to_string())
}

/// Named advisory lock by which two processes find out that they use the same database, whatever its address is for
/// each. Released when it is dropped.
pub struct AdvisoryMarker(#[allow(dead_code, reason = "held for its lock")] PgConnection);

impl AdvisoryMarker {
    /// Places a marker of this name.
    ///
    /// # Errors
    ///
    /// Names the reason when the server cannot be queried.
    pub fn place(server: &Postgres, name: &str) -> Result<Self, String> {
        let mut conn = Self::connect(server)?;
        match Self::try_lock(&mut conn, name) {
            Ok(true) => Ok(Self(conn)),
            Ok(false) => Err("a marker of this name is already placed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the database of `server` has a marker of this name.
    ///
    /// # Errors
    ///
    /// Names the reason when the server cannot be queried.
    pub fn is_visible(server: &Postgres, name: &str) -> Result<bool, String> {
        let mut conn = Self::connect(server)?;
        Self::try_lock(&mut conn, name).map(|free| !free).map_err(|error| error.to_string())
    }

    fn connect(server: &Postgres) -> Result<PgConnection, String> {
        PgConnection::establish(&server.url("mercat-move")).map_err(|error| server.mask(&error.to_string()))
    }

    fn try_lock(conn: &mut PgConnection, name: &str) -> Result<bool, DbError> {
        use diesel::RunQueryDsl as _;
        let lock = locks::lock_id(name, "mark");
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(&format!("pg_try_advisory_lock({lock})")))
            .get_result(conn)
    }
}

/// Creates a domain's schema if it is missing. Of several processes that start at once, one creates it.
pub fn create_schema(conn: &mut Conn, schema: &str) -> Result<(), String> {
    let lock = locks::lock_id(schema, "schema");
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({lock})");
    conn.transaction_sql::<_, DbError>(&begin, |conn| {
        conn.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
    })
    .map_err(|error| error.to_string())
}

/// Runs `work` while no other process migrates the same schema.
pub fn with_migration_lock<T>(
    conn: &mut Conn,
    schema: &str,
    work: impl FnOnce(&mut Conn) -> Result<T, String>,
) -> Result<T, String> {
    let lock = locks::lock_id(schema, "migrating");
    let to_reason = |error: DbError| error.to_string();
    conn.batch_execute(&format!("SET lock_timeout = 0; SELECT pg_advisory_lock({lock})")).map_err(to_reason)?;
    let result = work(conn);
    conn.batch_execute(&format!("SELECT pg_advisory_unlock({lock}); SET lock_timeout = '10s'")).map_err(to_reason)?;
    result
}

/// A connection in a pool.
struct PooledConn {
    conn: Conn,
    last_used: Instant,
    /// Whether it must not be used again.
    is_unusable: bool,
}

/// Opens and checks the connections of a pool.
struct PostgresManager {
    server: Postgres,
    schema: String,
    is_read_only: bool,
}

impl ManageConnection for PostgresManager {
    type Connection = PooledConn;
    type Error = ConnectError;

    fn connect(&self) -> Result<PooledConn, ConnectError> {
        let mut conn = connect(&self.server, &self.schema).map_err(ConnectError)?;
        if self.is_read_only {
            conn.batch_execute(READ_ONLY_SESSION).map_err(|error| ConnectError(error.to_string()))?;
        }
        Ok(PooledConn { conn, last_used: Instant::now(), is_unusable: false })
    }

    fn is_valid(&self, pooled: &mut PooledConn) -> Result<(), ConnectError> {
        // A connection in steady use needs no test; while one is idle the server may have been restarted.
        if pooled.last_used.elapsed() < IDLE_CHECK_AFTER {
            return Ok(());
        }
        pooled.conn.batch_execute("SELECT 1").map_err(|error| ConnectError(error.to_string()))
    }

    fn has_broken(&self, pooled: &mut PooledConn) -> bool {
        pooled.last_used = Instant::now();
        pooled.is_unusable || std::thread::panicking() || pooled.conn.is_broken()
    }
}

/// Logs nothing: the job or query that needs the connection logs the error.
#[derive(Debug)]
struct SilentErrorHandler;

impl<E> r2d2::HandleError<E> for SilentErrorHandler {
    fn handle_error(&self, _: E) {}
}

/// A pool with one permit per connection, so that jobs wait without a thread each.
struct ConnectionPool {
    pool: Pool<PostgresManager>,
    permits: Arc<Semaphore>,
}

impl ConnectionPool {
    fn open(
        server: &Postgres,
        schema: &str,
        is_read_only: bool,
        size: u32,
        threads: &PoolThreads,
    ) -> Result<Self, String> {
        let manager = PostgresManager { server: server.clone(), schema: schema.to_owned(), is_read_only };
        let pool = Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .test_on_check_out(true)
            .connection_timeout(server.connection_timeout())
            .error_handler(Box::new(SilentErrorHandler))
            .thread_pool(threads.pool())
            .build(manager)
            .map_err(|error| error.to_string())?;
        Ok(Self { pool, permits: Arc::new(Semaphore::new(size as usize)) })
    }
}

/// Open store of a domain on a PostgreSQL server.
pub struct PostgresStore {
    domain: &'static str,
    schema: String,
    writers: ConnectionPool,
    readers: ConnectionPool,
    /// Lock of the whole domain within this process: jobs wait for it without holding a connection.
    domain_lock: Arc<RwLock<()>>,
    queued: Arc<AtomicUsize>,
    queue_max: usize,
    clock: Clock,
    outbox_notify: Arc<Notify>,
    storage: Arc<StorageHealth>,
    pool_timeout: Duration,
    membership: Membership,
}

/// Guard that counts one queued job until it is dropped.
struct QueueSlot(Arc<AtomicUsize>);

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PostgresStore {
    pub fn open(
        domain: &'static str,
        config: &StoreConfig,
        server: &Postgres,
        clock: Clock,
        outbox_notify: Arc<Notify>,
        threads: &PoolThreads,
    ) -> Result<Self, String> {
        let schema = server.schema(domain);
        let readers = (config.connections / 3).max(1);
        let writers = config.connections.saturating_sub(readers).saturating_sub(1).max(1);
        Ok(Self {
            domain,
            writers: ConnectionPool::open(server, &schema, false, writers, threads)?,
            readers: ConnectionPool::open(server, &schema, true, readers, threads)?,
            membership: Membership::join(domain, server, &schema, !config.auxiliary)?,
            schema,
            domain_lock: Arc::default(),
            queued: Arc::default(),
            queue_max: config.queue_max,
            clock,
            outbox_notify,
            storage: Arc::clone(&config.storage),
            pool_timeout: server.connection_timeout(),
        })
    }

    /// Returns the membership among the processes on this schema.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    fn status(&self) -> StorageStatus {
        StorageStatus { domain: self.domain, storage: Arc::clone(&self.storage), pool_timeout: self.pool_timeout }
    }

    pub fn queue_depth(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub async fn write(&self, lock_set: LockSet, work: ErasedJob) -> Result<ErasedResult, CommonError> {
        if !self.membership.is_connected() {
            // Another process may have become the sole one, which serves from its caches.
            self.storage.read_only.store(true, Ordering::Relaxed);
            return Err(CommonError::StorageUnavailable);
        }
        let slot = QueueSlot(Arc::clone(&self.queued));
        if self.queued.fetch_add(1, Ordering::Relaxed) >= self.queue_max {
            return Err(CommonError::Overloaded);
        }
        let domain_lock = Arc::clone(&self.domain_lock);
        let (exclusive, shared) = if lock_set.is_domain() {
            (Some(domain_lock.write_owned().await), None)
        } else {
            (None, Some(domain_lock.read_owned().await))
        };
        let permits = Arc::clone(&self.writers.permits);
        let permit = permits.acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        let (pool, clock) = (self.writers.pool.clone(), self.clock.clone());
        let (outbox_notify, status) = (Arc::clone(&self.outbox_notify), self.status());
        let process = self.membership.process();
        let begin = lock_set.begin(&self.schema);
        let result = blocking(move || {
            let _guards = (slot, exclusive, shared, permit);
            let outcome = run_transaction(&pool, status.pool_timeout(), &begin, &clock, process, work);
            status.record_write(outcome.as_ref().is_err_and(|failed| failed.is_by_server));
            let (report, wrote_events) = outcome.map_err(|failed| failed.error)?;
            if wrote_events {
                outbox_notify.notify_waiters();
            }
            Ok(report)
        });
        result.await.unwrap_or(Err(CommonError::Internal))
    }

    pub async fn read(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        let permits = Arc::clone(&self.readers.permits);
        let permit = permits.acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        let (pool, status) = (self.readers.pool.clone(), self.status());
        let result = blocking(move || {
            let _permit = permit;
            let report = match pool.get_timeout(status.pool_timeout()) {
                Ok(mut pooled) => Ok(query(&mut pooled.conn)),
                Err(error) => Err(status.connect_failed(&error)),
            };
            status.record_read(report.as_ref().map_or(true, |report| report.is_storage_error));
            report
        });
        result.await.unwrap_or(Err(CommonError::Internal))
    }
}

/// Updates the health of the storage, and logs its changes.
struct StorageStatus {
    domain: &'static str,
    storage: Arc<StorageHealth>,
    pool_timeout: Duration,
}

impl StorageStatus {
    /// Returns the time to wait for a connection: short while the server is known to be unreachable.
    fn pool_timeout(&self) -> Duration {
        if self.storage.is_degraded() { DEGRADED_POOL_TIMEOUT } else { self.pool_timeout }
    }

    fn connect_failed(&self, error: &r2d2::Error) -> CommonError {
        if !self.storage.is_degraded() {
            log::error!("database of {}: connect failed: {error}", self.domain);
        }
        CommonError::StorageUnavailable
    }

    fn record_read(&self, failed: bool) {
        if self.storage.unreadable.swap(failed, Ordering::Relaxed) != failed {
            if failed {
                log::error!("database of {}: read failed; rejecting reads until it recovers", self.domain);
            } else {
                log::warn!("database of {}: reads recovered", self.domain);
            }
        }
        if !failed {
            // A server that can be read can be written.
            self.storage.read_only.store(false, Ordering::Relaxed);
        }
    }

    fn record_write(&self, failed: bool) {
        if self.storage.read_only.swap(failed, Ordering::Relaxed) != failed {
            if failed {
                log::error!("database of {}: write failed; rejecting writes until it recovers", self.domain);
            } else {
                log::warn!("database of {}: writes recovered", self.domain);
            }
        }
    }
}

/// Error of a write job: nothing was done, or the outcome is unknown.
struct WriteError {
    error: CommonError,
    /// Whether the server failed, and not the job.
    is_by_server: bool,
}

impl WriteError {
    fn from_job(error: DbError) -> Self {
        Self { error: error.into(), is_by_server: false }
    }

    const fn from_server(error: CommonError) -> Self {
        Self { error, is_by_server: true }
    }
}

fn is_disconnect(error: &DbError) -> bool {
    match error {
        // A commit that failed and could not be rolled back has lost its connection.
        DbError::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
        | DbError::BrokenTransactionManager
        | DbError::RollbackErrorOnCommit { .. } => true,
        DbError::DatabaseError(_, info) => {
            let text = info.message();
            [
                "terminating connection",
                "server closed the connection",
                "no connection to the server",
                "could not receive data from server",
                "could not send data to server",
                "connection to server",
            ]
            .iter()
            .any(|part| text.contains(part))
        }
        _ => false,
    }
}

/// Begins a transaction on a connection of the pool. A failure before that has changed nothing, so a connection that the
/// server has closed is replaced by another one.
fn begin_transaction(
    pool: &Pool<PostgresManager>,
    timeout: Duration,
    begin: &str,
) -> Result<PooledConnection<PostgresManager>, WriteError> {
    for _ in 0..=pool.max_size() {
        let mut pooled = pool.get_timeout(timeout).map_err(|error| {
            log::debug!("database: connect failed: {error}");
            WriteError::from_server(CommonError::StorageUnavailable)
        })?;
        match pooled.conn.begin(begin) {
            Ok(()) => return Ok(pooled),
            Err(error) => {
                // The server may have begun a transaction although the reply was lost.
                pooled.is_unusable = true;
                if !is_disconnect(&error) {
                    return Err(WriteError::from_job(error));
                }
            }
        }
    }
    Err(WriteError::from_server(CommonError::StorageUnavailable))
}

/// Runs a job in a transaction of its own. Returns its result, and `true` if it wrote events.
fn run_transaction(
    pool: &Pool<PostgresManager>,
    timeout: Duration,
    begin: &str,
    clock: &Clock,
    process: i64,
    work: ErasedJob,
) -> Result<(ErasedResult, bool), WriteError> {
    let mut pooled = begin_transaction(pool, timeout, begin)?;
    let pooled = &mut *pooled;
    let (now, process) = (clock.now(), Some(process));
    let mut tx = Tx { conn: &mut pooled.conn, now, process, wrote_events: false, change: None };
    let report = catch_unwind(AssertUnwindSafe(|| work(&mut tx)));
    let wrote_events = tx.wrote_events;
    // Inner transactions that a panic left open.
    while matches!(pooled.conn.depth(), Ok(2..)) && pooled.conn.rollback().is_ok() {}
    let report = match report {
        Ok(report) if report.is_ok => report,
        failed => {
            if pooled.conn.rollback().is_err() {
                pooled.is_unusable = true;
            }
            return failed.map(|report| (report, false)).map_err(|_| {
                log::error!("database: job panicked; rolling back its changes");
                WriteError { error: CommonError::Internal, is_by_server: false }
            });
        }
    };
    match pooled.conn.commit() {
        Ok(()) => Ok((report, wrote_events)),
        Err(error) => {
            pooled.is_unusable = true;
            if is_disconnect(&error) {
                // The commit may have succeeded, so it must not be reported as a failure.
                log::error!("database: connection lost during a commit; outcome unknown: {error}");
                return Err(WriteError::from_server(CommonError::DeadlineExceeded));
            }
            Err(WriteError::from_job(error))
        }
    }
}
