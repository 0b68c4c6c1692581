//! Writer and readers of a store in the simulation: the same batches, savepoints and commits as in production, driven by
//! the single thread of a simulated process, with injected faults.
//!
//! Does not contain: the choice of faults, see [`crate::fault_injection`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::conn::RunQuery as _;
use super::erased_job::{ErasedQuery, ErasedResult};
use super::reader::READ_ONLY;
use super::writer::{CommitLoop, Job, connect};
use super::{Conn, Tx};
use crate::fault_injection::{self, FaultInjector, InjectedFault, InjectionPoint};
use crate::messaging::CommonError;

/// Setting of a simulated process: its crash loses nothing that was handed to the operating system, so fsync would only
/// cost time. Production connections fsync, see [`connect`].
const NO_FSYNC: &str = "PRAGMA synchronous = OFF;";

/// Two temporary tables with a deferred foreign key, by which a commit fails although its statements succeed.
const COMMIT_FAILURE_TRIGGER: &str = "CREATE TEMP TABLE IF NOT EXISTS fault_parent (id INTEGER PRIMARY KEY);
    CREATE TEMP TABLE IF NOT EXISTS fault_child (id INTEGER REFERENCES fault_parent DEFERRABLE INITIALLY DEFERRED);";

/// Access of a cached connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// Read and write, for the writer.
    Write,
    /// Read only.
    Read,
}

thread_local! {
    /// Connections of ended simulated processes, for the next ones on the same files: parsing the schema and all statements
    /// again is most of the cost of a short run. Only parsed SQL outlives a process in them.
    static CONNECTION_CACHE: RefCell<HashMap<(PathBuf, AccessMode), Conn>> = RefCell::default();
}

/// Takes the cached connection of an earlier process to this file. `None` outside of the simulation.
pub fn take_cached(file: &Path, mode: AccessMode) -> Option<Conn> {
    fault_injection::current()?;
    CONNECTION_CACHE.with(|cache| cache.borrow_mut().remove(&(file.to_owned(), mode)))
}

/// Closes all cached connections.
pub fn close_cached_connections() {
    let _ = CONNECTION_CACHE.try_with(|cache| cache.borrow_mut().clear());
}

fn cache(file: &Path, mode: AccessMode, conn: Option<Conn>) {
    // After a panic its state is unknown.
    if let Some(conn) = conn.filter(|_| !std::thread::panicking()) {
        let _ = CONNECTION_CACHE.try_with(|cache| cache.borrow_mut().insert((file.to_owned(), mode), conn));
    }
}

/// Commit loop that returns its connection to the cache when it ends.
struct CachedCommitLoop(CommitLoop);

impl Drop for CachedCommitLoop {
    fn drop(&mut self) {
        cache(&self.0.file, AccessMode::Write, self.0.conn.take());
    }
}

#[derive(QueryableByName)]
struct PageCount {
    #[diesel(sql_type = BigInt)]
    page_count: i64,
}

/// Runs the batches of a simulated writer until its store is dropped.
pub async fn run_loop(
    domain: &'static str,
    commit_loop: CommitLoop,
    mut jobs: mpsc::Receiver<Job>,
    injector: Arc<dyn FaultInjector>,
) {
    let mut cached = CachedCommitLoop(commit_loop);
    let commit_loop = &mut cached.0;
    if let Some(conn) = commit_loop.conn.as_mut() {
        let _ = conn.batch_execute(NO_FSYNC);
    }
    while let Some(first) = jobs.recv().await {
        let fault = fault_injection::inject(&injector, InjectionPoint::Commit(domain)).await;
        // Collected after the pause: jobs that came meanwhile share the commit, as under load.
        let mut batch = commit_loop.collect_batch(first, &mut jobs);
        let (finished, mut outcome) = match fault {
            InjectedFault::Unavailable => {
                // As if the database could not be opened: no job is started.
                commit_loop.conn = None;
                let file = std::mem::replace(&mut commit_loop.file, PathBuf::from("/nonexistent/test.db"));
                let rejected = commit_loop.commit(batch);
                commit_loop.file = file;
                rejected
            }
            _ => {
                let _ = prepare(commit_loop, fault);
                if fault == InjectedFault::CommitFails {
                    batch.push_front(commit_failing_job());
                }
                let (finished, mut outcome) = commit_loop.commit(batch);
                if fault == InjectedFault::CommitFails && outcome.is_err() {
                    outcome = Err(CommonError::StorageUnavailable);
                }
                if let Some(conn) = commit_loop.conn.as_mut().filter(|_| fault != InjectedFault::None) {
                    let _ = conn.batch_execute("PRAGMA query_only = OFF; PRAGMA max_page_count = 1073741823;");
                }
                (finished, outcome)
            }
        };
        if outcome.is_ok() {
            fault_injection::inject(&injector, InjectionPoint::Committed(domain)).await;
            if fault == InjectedFault::CommitUnknown {
                outcome = Err(CommonError::StorageUnavailable);
                commit_loop.conn = None;
            }
        }
        commit_loop.reply(finished, &outcome);
    }
}

/// Prepares the connection for a fault of the next batch.
fn prepare(commit_loop: &mut CommitLoop, fault: InjectedFault) -> Result<(), String> {
    let is_open = commit_loop.conn.is_some();
    let conn = match commit_loop.conn.as_mut() {
        Some(open) => open,
        None => commit_loop.conn.insert(connect(&commit_loop.file)?),
    };
    if !is_open {
        conn.batch_execute(NO_FSYNC).map_err(|e| e.to_string())?;
    }
    let sql = match fault {
        InjectedFault::DiskFull => {
            let pages: PageCount = sql_query("PRAGMA page_count").get_result(conn).map_err(|e| e.to_string())?;
            format!("PRAGMA max_page_count = {};", pages.page_count)
        }
        InjectedFault::ReadOnly => "PRAGMA query_only = ON;".to_owned(),
        InjectedFault::CommitFails => COMMIT_FAILURE_TRIGGER.to_owned(),
        _ => return Ok(()),
    };
    conn.batch_execute(&sql).map_err(|e| e.to_string())
}

/// Returns a job without a caller that makes the commit of its batch fail.
fn commit_failing_job() -> Job {
    let violate = |tx: &mut Tx<'_>| {
        let _ = tx.conn.batch_execute("INSERT INTO temp.fault_child VALUES (1)");
        ErasedResult::erase(Ok::<_, CommonError>(()))
    };
    Job::new(Box::new(violate)).0
}

/// Simulated readers of a store: a single connection, opened on first use.
pub struct Reader {
    domain: &'static str,
    file: PathBuf,
    injector: Arc<dyn FaultInjector>,
    conn: Arc<Mutex<Option<Conn>>>,
}

impl Reader {
    pub fn new(domain: &'static str, file: &Path) -> Option<Self> {
        let injector = fault_injection::current()?;
        Some(Self { domain, file: file.to_owned(), injector, conn: Arc::default() })
    }

    pub async fn run(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        if fault_injection::inject(&self.injector, InjectionPoint::Read(self.domain)).await
            == InjectedFault::Unavailable
        {
            return Err(CommonError::StorageUnavailable);
        }
        let mut conn = self.conn.lock();
        if conn.is_none() {
            let open = || {
                let mut conn = Conn::establish(&self.file.to_string_lossy()).map_err(|e| e.to_string())?;
                conn.batch_execute(READ_ONLY).and_then(|()| conn.batch_execute(NO_FSYNC)).map_err(|e| e.to_string())?;
                Ok::<_, String>(conn)
            };
            let opened = take_cached(&self.file, AccessMode::Read).map_or_else(open, Ok);
            *conn = opened.map_err(|reason| log::error!("database: connect failed: {reason}")).ok();
        }
        match conn.as_mut() {
            Some(conn) => Ok(query(conn)),
            None => Err(CommonError::StorageUnavailable),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let conn = self.conn.lock().take();
        cache(&self.file, AccessMode::Read, conn);
    }
}
