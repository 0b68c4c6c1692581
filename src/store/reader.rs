//! The readers of a domain's SQLite database: a small pool, used on threads where waiting is allowed.
//!
//! Contains: the pool, and [`blocking`] for the PostgreSQL store as well. Does not contain: anything that writes.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;
use r2d2::{ManageConnection, Pool};
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;

use super::erased_job::{ErasedQuery, ErasedResult};
use super::{Conn, StoreConfig};
use crate::messaging::{CommonError, StorageHealth};

/// Longest time to open a reader.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Threads on which the pools of all domains open their connections. Shared by the whole process; by default each pool
/// would start three of its own.
#[derive(Clone)]
pub struct PoolThreads(Arc<ScheduledThreadPool>);

impl Default for PoolThreads {
    fn default() -> Self {
        Self(Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("pool-{}").build()))
    }
}

impl PoolThreads {
    /// Returns the threads for a pool's builder.
    pub(super) fn pool(&self) -> Arc<ScheduledThreadPool> {
        Arc::clone(&self.0)
    }
}

/// Runs `work` on a thread where waiting is allowed. Returns `None` after a panic, which is logged. The result is boxed
/// so that tokio's code for it is compiled once.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    type BoxedAny = Box<dyn Any + Send>;
    let work: Box<dyn FnOnce() -> BoxedAny + Send> = Box::new(move || Box::new(work()));
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.downcast().ok().map(|result| *result),
        Err(error) => {
            log::error!("database: query or job panicked: {error}");
            None
        }
    }
}

/// Pool of read-only connections to a database file.
pub struct ReaderPool {
    /// `None` once it is closed.
    pool: RwLock<Option<Pool<SqliteManager>>>,
    readers_max: u32,
    /// One permit per connection: more waiting threads would not read faster.
    permits: Arc<Semaphore>,
    file: Arc<Path>,
    storage: Arc<StorageHealth>,
    #[cfg(feature = "test-hooks")]
    injected: Option<super::fault_injection::Reader>,
}

/// Settings of a reader's connection.
pub(super) const READ_ONLY: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY;";

/// Opens readers of a database file.
struct SqliteManager {
    file: String,
}

/// Error of opening or checking a pooled connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectError(pub(super) String);

impl ManageConnection for SqliteManager {
    type Connection = Conn;
    type Error = ConnectError;

    fn connect(&self) -> Result<Conn, ConnectError> {
        let mut conn = Conn::establish(&self.file).map_err(|error| ConnectError(error.to_string()))?;
        conn.batch_execute(READ_ONLY).map_err(|error| ConnectError(error.to_string()))?;
        Ok(conn)
    }

    fn is_valid(&self, _: &mut Conn) -> Result<(), ConnectError> {
        Ok(())
    }

    fn has_broken(&self, conn: &mut Conn) -> bool {
        std::thread::panicking() || conn.is_broken()
    }
}

impl ReaderPool {
    #[cfg_attr(not(feature = "test-hooks"), allow(unused_variables, reason = "only fault injection needs the domain"))]
    pub fn open(domain: &'static str, config: &StoreConfig, threads: &PoolThreads) -> Result<Self, String> {
        let manager = SqliteManager { file: config.file.to_string_lossy().into_owned() };
        let pool = Pool::builder()
            .max_size(config.readers_max)
            // Opened on demand, for a fast start.
            .min_idle(Some(0))
            // The test is a query each time, and a file does not disconnect.
            .test_on_check_out(false)
            // Shorter than a request's deadline, so that the caller gets the error.
            .connection_timeout(OPEN_TIMEOUT)
            .thread_pool(Arc::clone(&threads.0))
            .build(manager)
            .map_err(|e| e.to_string())?;
        Ok(Self {
            pool: RwLock::new(Some(pool)),
            readers_max: config.readers_max,
            permits: Arc::new(Semaphore::new(config.readers_max as usize)),
            file: config.file.as_path().into(),
            storage: Arc::clone(&config.storage),
            #[cfg(feature = "test-hooks")]
            injected: super::fault_injection::Reader::new(domain, &config.file),
        })
    }

    /// Waits for the running queries, rejects all later ones, and closes the file.
    pub async fn close(&self) {
        if let Ok(_permits) = self.permits.acquire_many(self.readers_max).await {
            self.permits.close();
        }
        *self.pool.write() = None;
    }

    fn pool(&self) -> Result<Pool<SqliteManager>, CommonError> {
        self.pool.read().clone().ok_or(CommonError::Unavailable)
    }

    pub async fn run(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        #[cfg(feature = "test-hooks")]
        if let Some(reader) = &self.injected {
            return reader.run(query).await;
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        let (pool, storage, file) = (self.pool()?, Arc::clone(&self.storage), Arc::clone(&self.file));
        let outcome = blocking(move || {
            let _permit = permit;
            let connected = pool.get().map_err(|error| {
                log::error!("database: connect failed: {error}");
                CommonError::StorageUnavailable
            });
            let report = connected.map(|mut conn| query(&mut conn));
            let failed = report.as_ref().map_or(true, |report| report.is_storage_error);
            if storage.unreadable.swap(failed, Ordering::Relaxed) != failed {
                let file = file.display();
                if failed {
                    log::error!("database {file}: read failed; rejecting reads until it recovers");
                } else {
                    log::warn!("database {file}: reads recovered");
                }
            }
            report
        });
        outcome.await.unwrap_or(Err(CommonError::Internal))
    }
}
