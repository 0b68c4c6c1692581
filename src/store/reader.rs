//! The readers of a domain's database: a small pool, used off the actors' threads.

use std::any::Any;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use r2d2::{ManageConnection, Pool};
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;

use super::erased_job::{ErasedQuery, ErasedResult};
use super::{Conn, StoreConfig};
use crate::messaging::{CommonError, StorageHealth};

/// How long a reader may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// The threads on which the pools of all domains open their connections: one set for the whole process, where each
/// pool would otherwise keep three of its own.
#[derive(Clone)]
pub struct PoolThreads(Arc<ScheduledThreadPool>);

impl Default for PoolThreads {
    fn default() -> Self {
        Self(Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("pool-{}").build()))
    }
}

impl PoolThreads {
    /// The threads themselves, for a pool.
    pub(super) fn pool(&self) -> Arc<ScheduledThreadPool> {
        Arc::clone(&self.0)
    }
}

/// Runs `work` where waiting is allowed; nothing when it panicked, which is logged. What tokio makes of it has one type
/// for all.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    type Anything = Box<dyn Any + Send>;
    let work: Box<dyn FnOnce() -> Anything + Send> = Box::new(move || Box::new(work()));
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.downcast().ok().map(|done| *done),
        Err(panicked) => {
            log::error!("database: a query or a job panicked: {panicked}");
            None
        }
    }
}

pub struct ReaderPool {
    /// None once it is closed.
    pool: RwLock<Option<Pool<SqliteManager>>>,
    readers_max: u32,
    /// As many as there are connections: more waiting threads would not read faster.
    permits: Arc<Semaphore>,
    file: Arc<Path>,
    storage: Arc<StorageHealth>,
    #[cfg(feature = "test-hooks")]
    simulated: Option<super::fault_injection::Reader>,
}

/// What makes a connection a reader's.
pub(super) const READ_ONLY: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY;";

/// Opens readers of a database file.
struct SqliteManager {
    file: String,
}

/// Why a connection could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ConnectError(String);

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
    #[cfg_attr(
        not(feature = "test-hooks"),
        allow(unused_variables, reason = "only the laboratory asks whose they are")
    )]
    pub fn open(domain: &'static str, config: &StoreConfig, threads: &PoolThreads) -> Result<Self, String> {
        let manager = SqliteManager { file: config.file.to_string_lossy().into_owned() };
        let pool = Pool::builder()
            .max_size(config.readers_max)
            // None is opened before it is needed: a shop starts in a blink.
            .min_idle(Some(0))
            // The check is a query each time; a file does not hang up.
            .test_on_check_out(false)
            // A file that cannot be opened now is said so while somebody still listens.
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
            simulated: super::fault_injection::Reader::new(domain, &config.file),
        })
    }

    /// Lets the queries under way end, refuses all others, and gives up the file.
    pub async fn close(&self) {
        if let Ok(_all) = self.permits.acquire_many(self.readers_max).await {
            self.permits.close();
        }
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn pool(&self) -> Result<Pool<SqliteManager>, CommonError> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(CommonError::Unavailable)
    }

    pub async fn run(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        #[cfg(feature = "test-hooks")]
        if let Some(reader) = &self.simulated {
            return reader.run(query).await;
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        let (pool, storage, file) = (self.pool()?, Arc::clone(&self.storage), Arc::clone(&self.file));
        let outcome = blocking(move || {
            let _permit = permit;
            let connected = pool.get().map_err(|error| {
                log::error!("database: no reader: {error}");
                CommonError::StorageUnavailable
            });
            let report = connected.map(|mut conn| query(&mut conn));
            let failed = report.as_ref().map_or(true, |report| report.is_storage_error);
            if storage.unreadable.swap(failed, Ordering::Relaxed) != failed {
                let file = file.display();
                if failed {
                    log::error!("database {file}: cannot be read; what needs it is refused until it can");
                } else {
                    log::warn!("database {file}: can be read again");
                }
            }
            report
        });
        outcome.await.unwrap_or(Err(CommonError::Internal))
    }
}
