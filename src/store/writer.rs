//! The one writer of a domain's database: a thread that runs each job in a savepoint, commits many at once, and
//! answers only then. One fsync serves everybody who was waiting; nobody waits for a batch to fill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use diesel::RunQueryDsl;
use diesel::connection::Connection as _;
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::result::Error as DbError;
use tokio::sync::{Notify, mpsc, oneshot};

use super::prepared::Statement;
use super::{Conn, StoreConfig, Tx};
use crate::messaging::Failure;
use crate::types::Clock;

type Manager = AnsiTransactionManager;

/// Called once the commit of the batch is known: hands the caller its answer. Says whether there is news.
type Finish = Box<dyn FnOnce(Result<(), Failure>) -> bool + Send>;
/// Runs in its savepoint; without a connection it is refused and certainly not done.
type Job = Box<dyn FnOnce(Option<&mut Conn>, &Clock) -> Finish + Send>;

pub struct Writer {
    queue: mpsc::Sender<Job>,
}

/// Opens a connection that may write.
pub fn connect(file: &Path) -> Result<Conn, String> {
    let mut conn = Conn::establish(&file.to_string_lossy()).map_err(|e| e.to_string())?;
    conn.batch_execute(
        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;",
    )
    .map_err(|e| e.to_string())?;
    Ok(conn)
}

impl Writer {
    pub fn start(
        domain: &'static str,
        config: &StoreConfig,
        conn: Conn,
        clock: Clock,
        news: Arc<Notify>,
    ) -> Result<Self, String> {
        let (queue, jobs) = mpsc::channel(config.queue_max);
        let (file, batch_max) = (config.file.clone(), config.batch_max);
        std::thread::Builder::new()
            .name(format!("{domain}-writer"))
            .spawn(move || work(&file, conn, jobs, batch_max, &clock, &news))
            .map_err(|e| e.to_string())?;
        Ok(Self { queue })
    }

    pub async fn run<T, E>(&self, job: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + From<DbError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |conn, clock| {
            let mut has_news = false;
            let result = match conn {
                None => Err(Failure::StorageUnavailable.into()),
                Some(conn) => savepoint(conn, |conn| {
                    let mut tx = Tx { conn, now: clock.now(), has_news: false };
                    let result = job(&mut tx);
                    has_news = tx.has_news;
                    result
                }),
            };
            has_news &= result.is_ok();
            Box::new(move |committed| {
                let durable = committed.is_ok();
                // Nobody listens when the caller gave up; the change is durable all the same.
                let _ = answer.send(committed.map_err(E::from).and(result));
                has_news && durable
            })
        });
        self.queue.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Failure::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Failure::Unavailable,
        })?;
        answered.await.unwrap_or_else(|_| Err(Failure::Internal.into()))
    }

    pub fn queue_depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// The writer's life: until every handle of the store is gone and the queue is empty.
fn work(file: &Path, conn: Conn, mut jobs: mpsc::Receiver<Job>, batch_max: usize, clock: &Clock, news: &Notify) {
    let mut conn = Some(conn);
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < batch_max {
            let Ok(next) = jobs.try_recv() else { break };
            batch.push(next);
        }
        if conn.is_none() {
            conn = connect(file).map_err(|reason| log::error!("database {}: {reason}", file.display())).ok();
        }
        let mut finishers = Vec::with_capacity(batch.len());
        let outcome = match conn.as_mut() {
            Some(open) => commit(open, &mut batch, clock, &mut finishers),
            None => Err(Failure::StorageUnavailable),
        };
        // Those that never began, because the transaction did not.
        finishers.extend(batch.drain(..).map(|job| job(None, clock)));
        if outcome.is_err() {
            // Whatever state it is in, a fresh connection is in a known one.
            conn = None;
        }
        let mut any_news = false;
        for finish in finishers {
            any_news |= finish(outcome.clone());
        }
        if any_news {
            news.notify_waiters();
        }
    }
}

fn commit(conn: &mut Conn, batch: &mut Vec<Job>, clock: &Clock, finishers: &mut Vec<Finish>) -> Result<(), Failure> {
    let outcome = conn.immediate_transaction(|conn| {
        for job in batch.drain(..) {
            finishers.push(job(Some(&mut *conn), clock));
        }
        Ok::<_, DbError>(())
    });
    // Belt and braces: a transaction left open here would mean that the commit was none.
    let depth = depth(conn);
    match (outcome, depth) {
        (Ok(()), Ok(0)) => Ok(()),
        (Ok(()), _) => {
            log::error!("database: a transaction was left open after its commit; the batch counts as failed");
            Err(Failure::Internal)
        }
        (Err(error), _) => Err(error.into()),
    }
}

fn depth(conn: &mut Conn) -> Result<u32, DbError> {
    let depth = Manager::transaction_manager_status_mut(conn).transaction_depth()?;
    Ok(depth.map_or(0, std::num::NonZeroU32::get))
}

/// Runs `job` so that its failure or panic undoes its own changes and nobody else's.
///
/// The savepoint is not diesel's: that one is parsed anew each time, and `catch_unwind(|| conn.transaction(job))`
/// would leave it on diesel's stack when the job panics, so that the outer commit only released a savepoint and
/// answered yes while nothing was committed. What a job leaves on that stack is unwound by hand.
fn savepoint<T, E>(conn: &mut Conn, job: impl FnOnce(&mut Conn) -> Result<T, E>) -> Result<T, E>
where
    E: From<Failure> + From<DbError>,
{
    let before = depth(conn)?;
    Statement("SAVEPOINT job").execute(conn)?;
    let result = catch_unwind(AssertUnwindSafe(|| job(conn))).unwrap_or_else(|_| {
        log::error!("database: a job panicked; its changes are undone");
        while depth(conn)? > before {
            Manager::rollback_transaction(conn)?;
        }
        Err(Failure::Internal.into())
    });
    if result.is_err() {
        Statement("ROLLBACK TO job").execute(conn)?;
    }
    Statement("RELEASE job").execute(conn)?;
    result
}
