//! The readers of a domain's database: a small pool, used off the actors' threads.

use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::r2d2::ConnectionManager;
use r2d2::{CustomizeConnection, Pool};
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;

use super::{Conn, StoreConfig};
use crate::messaging::Failure;

/// The threads on which the pools of all domains open their connections: one set for the whole process, where each
/// pool would otherwise keep three of its own.
#[derive(Clone)]
pub struct ReaderThreads(Arc<ScheduledThreadPool>);

impl Default for ReaderThreads {
    fn default() -> Self {
        Self(Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("pool-{}").build()))
    }
}

pub struct Readers {
    pool: Pool<ConnectionManager<Conn>>,
    /// As many as there are connections: more waiting threads would not read faster.
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct ReadOnly;

impl CustomizeConnection<Conn, diesel::r2d2::Error> for ReadOnly {
    fn on_acquire(&self, conn: &mut Conn) -> Result<(), diesel::r2d2::Error> {
        conn.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY;")
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

impl Readers {
    pub fn open(config: &StoreConfig, threads: &ReaderThreads) -> Result<Self, String> {
        let manager = ConnectionManager::new(config.file.to_string_lossy());
        let pool = Pool::builder()
            .max_size(config.readers_max)
            // None is opened before it is needed: a shop starts in a blink.
            .min_idle(Some(0))
            // The check is a query each time; a file does not hang up.
            .test_on_check_out(false)
            .connection_customizer(Box::new(ReadOnly))
            .thread_pool(Arc::clone(&threads.0))
            .build(manager)
            .map_err(|e| e.to_string())?;
        Ok(Self { pool, permits: Arc::new(Semaphore::new(config.readers_max as usize)) })
    }

    pub async fn run<T, E>(&self, query: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Failure::Unavailable)?;
        let pool = self.pool.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut conn = pool.get().map_err(|error| {
                log::error!("database: no reader: {error}");
                Failure::StorageUnavailable
            })?;
            query(&mut conn)
        });
        match outcome.await {
            Ok(result) => result,
            Err(panicked) => {
                log::error!("database: a query panicked: {panicked}");
                Err(Failure::Internal.into())
            }
        }
    }
}
