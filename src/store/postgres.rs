//! A domain's schema in a PostgreSQL database: a pool of writers, a pool of readers, and what is done when the server
//! is away.
//!
//! A write job is a transaction of its own on a connection of its own; the server shares one flush among those that end
//! together. Jobs keep each other out by advisory locks as [`LockSet`] says, in this process and in all others.
//!
//! **When the server is away** everybody is refused at once and told that nothing was done, except whoever was waiting
//! for the end of a commit: that one is told that the outcome is unknown. The first job or query after it has come back
//! finds that out.

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
use super::reader::{PoolThreads, blocking};
use super::{Conn, LockSet, StoreConfig, Tx, locks};
use crate::messaging::{CommonError, StorageHealth};
use crate::settings::Postgres;
use crate::types::Clock;

/// Time to wait for a connection while the server is known to be away, so that requests are refused soon.
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
/// Says why it cannot be asked.
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

/// Something that everybody on the same database sees, whatever its address is for them, and nobody elsewhere. It is
/// gone when this is dropped.
pub struct AdvisoryMarker(#[allow(dead_code, reason = "held for its lock")] PgConnection);

impl AdvisoryMarker {
    /// Sets one of this name.
    ///
    /// # Errors
    /// Says why the server cannot be asked.
    pub fn set(server: &Postgres, name: &str) -> Result<Self, String> {
        let mut conn = Self::connect(server)?;
        match Self::take(&mut conn, name) {
            Ok(true) => Ok(Self(conn)),
            Ok(false) => Err("the mark is there already".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether it is seen from here.
    ///
    /// # Errors
    /// Says why the server cannot be asked.
    pub fn is_seen(server: &Postgres, name: &str) -> Result<bool, String> {
        let mut conn = Self::connect(server)?;
        Self::take(&mut conn, name).map(|free| !free).map_err(|error| error.to_string())
    }

    fn connect(server: &Postgres) -> Result<PgConnection, String> {
        PgConnection::establish(&server.url("mercat-move")).map_err(|error| server.mask(&error.to_string()))
    }

    fn take(conn: &mut PgConnection, name: &str) -> Result<bool, DbError> {
        use diesel::RunQueryDsl as _;
        let lock = locks::lock_id(name, "mark");
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(&format!("pg_try_advisory_lock({lock})")))
            .get_result(conn)
    }
}

/// Makes a domain's schema, if it is not there. Of several processes that start at once, one does.
pub fn create_schema(conn: &mut Conn, schema: &str) -> Result<(), String> {
    let lock = locks::lock_id(schema, "schema");
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({lock})");
    conn.transaction_sql::<_, DbError>(&begin, |conn| {
        conn.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
    })
    .map_err(|error| error.to_string())
}

/// Runs `work` while no other process brings the same schema to a version.
pub fn with_migration_lock<T>(
    conn: &mut Conn,
    schema: &str,
    work: impl FnOnce(&mut Conn) -> Result<T, String>,
) -> Result<T, String> {
    let lock = locks::lock_id(schema, "migrating");
    let said = |error: DbError| error.to_string();
    conn.batch_execute(&format!("SET lock_timeout = 0; SELECT pg_advisory_lock({lock})")).map_err(said)?;
    let done = work(conn);
    conn.batch_execute(&format!("SELECT pg_advisory_unlock({lock}); SET lock_timeout = '10s'")).map_err(said)?;
    done
}

/// A connection in a pool.
struct PooledConn {
    conn: Conn,
    used: Instant,
    /// It must not be used again.
    is_unusable: bool,
}

struct Manager {
    server: Postgres,
    schema: String,
    readers: bool,
}

/// Error of opening a connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ConnectError(String);

impl ManageConnection for Manager {
    type Connection = PooledConn;
    type Error = ConnectError;

    fn connect(&self) -> Result<PooledConn, ConnectError> {
        let mut conn = connect(&self.server, &self.schema).map_err(ConnectError)?;
        if self.readers {
            conn.batch_execute(READ_ONLY_SESSION).map_err(|error| ConnectError(error.to_string()))?;
        }
        Ok(PooledConn { conn, used: Instant::now(), is_unusable: false })
    }

    fn is_valid(&self, kept: &mut PooledConn) -> Result<(), ConnectError> {
        // In use all the time it needs no trial; after a rest the server may have gone and come back.
        if kept.used.elapsed() < IDLE_CHECK_AFTER {
            return Ok(());
        }
        kept.conn.batch_execute("SELECT 1").map_err(|error| ConnectError(error.to_string()))
    }

    fn has_broken(&self, kept: &mut PooledConn) -> bool {
        kept.used = Instant::now();
        kept.is_unusable || std::thread::panicking() || kept.conn.is_broken()
    }
}

/// Says nothing: who needs the connection says what is wrong with it.
#[derive(Debug)]
struct SilentErrorHandler;

impl<E> r2d2::HandleError<E> for SilentErrorHandler {
    fn handle_error(&self, _: E) {}
}

struct ConnectionPool {
    pool: Pool<Manager>,
    permits: Arc<Semaphore>,
}

impl ConnectionPool {
    fn open(server: &Postgres, schema: &str, readers: bool, size: u32, threads: &PoolThreads) -> Result<Self, String> {
        let manager = Manager { server: server.clone(), schema: schema.to_owned(), readers };
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

/// A domain's schema, open.
pub struct PostgresStore {
    domain: &'static str,
    schema: String,
    writers: ConnectionPool,
    readers: ConnectionPool,
    /// Jobs that have the domain to themselves wait here for each other, without a connection each.
    door: Arc<RwLock<()>>,
    waiting: Arc<AtomicUsize>,
    queue_max: usize,
    clock: Clock,
    news: Arc<Notify>,
    storage: Arc<StorageHealth>,
    pool_timeout: Duration,
    presence: Membership,
}

/// One more in the queue, as long as it lives.
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
        news: Arc<Notify>,
        threads: &PoolThreads,
    ) -> Result<Self, String> {
        let schema = server.schema(domain);
        let readers = (config.connections / 3).max(1);
        let writers = config.connections.saturating_sub(readers).saturating_sub(1).max(1);
        Ok(Self {
            domain,
            writers: ConnectionPool::open(server, &schema, false, writers, threads)?,
            readers: ConnectionPool::open(server, &schema, true, readers, threads)?,
            presence: Membership::join(domain, server, &schema, !config.auxiliary)?,
            schema,
            door: Arc::default(),
            waiting: Arc::default(),
            queue_max: config.queue_max,
            clock,
            news,
            storage: Arc::clone(&config.storage),
            pool_timeout: server.connection_timeout(),
        })
    }

    /// Who else is there.
    pub fn presence(&self) -> &Membership {
        &self.presence
    }

    fn status(&self) -> StorageStatus {
        StorageStatus { domain: self.domain, storage: Arc::clone(&self.storage), pool_timeout: self.pool_timeout }
    }

    pub fn queue_depth(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub async fn write(&self, touch: LockSet, work: ErasedJob) -> Result<ErasedResult, CommonError> {
        if !self.presence.is_present() {
            // Somebody else may believe to be alone.
            self.storage.read_only.store(true, Ordering::Relaxed);
            return Err(CommonError::StorageUnavailable);
        }
        let place = QueueSlot(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue_max {
            return Err(CommonError::Overloaded);
        }
        let door = Arc::clone(&self.door);
        let (alone, among) = if touch.is_domain() {
            (Some(door.write_owned().await), None)
        } else {
            (None, Some(door.read_owned().await))
        };
        let permits = Arc::clone(&self.writers.permits);
        let permit = permits.acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        let (pool, clock, begin) = (self.writers.pool.clone(), self.clock.clone(), touch.begin(&self.schema));
        let (news, trouble) = (Arc::clone(&self.news), self.status());
        let done = blocking(move || {
            let _held = (place, alone, among, permit);
            let done = run_transaction(&pool, trouble.patience(), &begin, &clock, work);
            trouble.wrote(done.as_ref().is_err_and(|refused| refused.by_server));
            let (report, wrote_events) = done.map_err(|refused| refused.failure)?;
            if wrote_events {
                news.notify_waiters();
            }
            Ok(report)
        });
        done.await.unwrap_or(Err(CommonError::Internal))
    }

    pub async fn read(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        let permits = Arc::clone(&self.readers.permits);
        let permit = permits.acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        let (pool, trouble) = (self.readers.pool.clone(), self.status());
        let done = blocking(move || {
            let _permit = permit;
            let report = match pool.get_timeout(trouble.patience()) {
                Ok(mut kept) => Ok(query(&mut kept.conn)),
                Err(error) => Err(trouble.none(&error)),
            };
            trouble.read(report.as_ref().map_or(true, |report| report.is_storage_error));
            report
        });
        done.await.unwrap_or(Err(CommonError::Internal))
    }
}

/// Notes how the database is, and says so when that has changed.
struct StorageStatus {
    domain: &'static str,
    storage: Arc<StorageHealth>,
    pool_timeout: Duration,
}

impl StorageStatus {
    /// How long to wait for a connection: not long when it is known that there is none.
    fn patience(&self) -> Duration {
        if self.storage.is_degraded() { DEGRADED_POOL_TIMEOUT } else { self.pool_timeout }
    }

    fn none(&self, error: &r2d2::Error) -> CommonError {
        if !self.storage.is_degraded() {
            log::error!("database of {}: no connection: {error}", self.domain);
        }
        CommonError::StorageUnavailable
    }

    fn read(&self, failed: bool) {
        if self.storage.unreadable.swap(failed, Ordering::Relaxed) != failed {
            if failed {
                log::error!("database of {}: cannot be read; what needs it is refused until it can", self.domain);
            } else {
                log::warn!("database of {}: can be read again", self.domain);
            }
        }
        if !failed {
            // A server that is there is there for both.
            self.storage.read_only.store(false, Ordering::Relaxed);
        }
    }

    fn wrote(&self, failed: bool) {
        if self.storage.read_only.swap(failed, Ordering::Relaxed) != failed {
            if failed {
                log::error!("database of {}: cannot be written; writes are refused until it can", self.domain);
            } else {
                log::warn!("database of {}: can be written again", self.domain);
            }
        }
    }
}

/// Error of a write job: nothing was done, or the outcome is unknown.
struct WriteError {
    failure: CommonError,
    /// Because of the server, not of the job.
    by_server: bool,
}

impl WriteError {
    fn by_job(error: DbError) -> Self {
        Self { failure: error.into(), by_server: false }
    }

    const fn by_server(failure: CommonError) -> Self {
        Self { failure, by_server: true }
    }
}

fn is_disconnect(error: &DbError) -> bool {
    match error {
        // A commit that failed and could not even be undone has lost its connection.
        DbError::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
        | DbError::BrokenTransactionManager
        | DbError::RollbackErrorOnCommit { .. } => true,
        DbError::DatabaseError(_, about) => {
            let text = about.message();
            [
                "terminating connection",
                "server closed the connection",
                "no connection to the server",
                "could not receive data from server",
                "could not send data to server",
                "connection to server",
            ]
            .iter()
            .any(|sign| text.contains(sign))
        }
        _ => false,
    }
}

/// A connection on which a transaction has begun. What fails before has done nothing, so a connection that the server
/// has closed is replaced by another.
fn begin_transaction(
    pool: &Pool<Manager>,
    patience: Duration,
    begin: &str,
) -> Result<PooledConnection<Manager>, WriteError> {
    for _ in 0..=pool.max_size() {
        let mut kept = pool.get_timeout(patience).map_err(|error| {
            log::debug!("database: no writer: {error}");
            WriteError::by_server(CommonError::StorageUnavailable)
        })?;
        match kept.conn.begin(begin) {
            Ok(()) => return Ok(kept),
            Err(error) => {
                // The server may be within a transaction that this side knows nothing of.
                kept.is_unusable = true;
                if !is_disconnect(&error) {
                    return Err(WriteError::by_job(error));
                }
            }
        }
    }
    Err(WriteError::by_server(CommonError::StorageUnavailable))
}

/// Runs a job in a transaction of its own; what it came to, and whether there is news.
fn run_transaction(
    pool: &Pool<Manager>,
    patience: Duration,
    begin: &str,
    clock: &Clock,
    work: ErasedJob,
) -> Result<(ErasedResult, bool), WriteError> {
    let mut kept = begin_transaction(pool, patience, begin)?;
    let kept = &mut *kept;
    let mut tx = Tx { conn: &mut kept.conn, now: clock.now(), wrote_events: false };
    let report = catch_unwind(AssertUnwindSafe(|| work(&mut tx)));
    let wrote_events = tx.wrote_events;
    // What a panic left open within the job's own.
    while matches!(kept.conn.depth(), Ok(2..)) && kept.conn.rollback().is_ok() {}
    let report = match report {
        Ok(report) if report.is_ok => report,
        refused => {
            if kept.conn.rollback().is_err() {
                kept.is_unusable = true;
            }
            return refused.map(|report| (report, false)).map_err(|_| {
                log::error!("database: a job panicked; its changes are undone");
                WriteError { failure: CommonError::Internal, by_server: false }
            });
        }
    };
    match kept.conn.commit() {
        Ok(()) => Ok((report, wrote_events)),
        Err(error) => {
            kept.is_unusable = true;
            if is_disconnect(&error) {
                // It may have ended well without our hearing of it: nobody is told no.
                log::error!("database: the connection broke during a commit; its outcome is unknown: {error}");
                return Err(WriteError::by_server(CommonError::DeadlineExceeded));
            }
            Err(WriteError::by_job(error))
        }
    }
}
