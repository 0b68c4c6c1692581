//! The writer and the readers of a store in the laboratory: the same batches, savepoints, commits and answers as in
//! the shop, on the one thread of a simulated process. Only who drives them is another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use tokio::sync::mpsc;

use super::conn::RunQuery as _;
use super::erased_job::{ErasedQuery, ErasedResult};
use super::reader::READ_ONLY;
use super::writer::{CommitLoop, Job, connect};
use super::{Conn, Tx};
use crate::fault_injection::{self, FaultInjector, InjectedFault, InjectionPoint};
use crate::messaging::CommonError;

/// A crash of a process loses nothing that the operating system has been given, so waiting for the disk would only cost
/// time here. That the disk is waited for is `connect`'s business and is seen by who pulls plugs.
const NO_FSYNC: &str = "PRAGMA synchronous = OFF;";

/// Two tables of a connection's own, the second of which may only say at the end of a transaction what the first has.
const COMMIT_FAILURE_TRIGGER: &str = "CREATE TEMP TABLE IF NOT EXISTS lab_ground (id INTEGER PRIMARY KEY);
    CREATE TEMP TABLE IF NOT EXISTS lab_trap (id INTEGER REFERENCES lab_ground DEFERRABLE INITIALLY DEFERRED);";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionRole {
    /// The writer's.
    Write,
    /// A reader's.
    Read,
}

thread_local! {
    /// The connections of processes that have ended, for the next ones on the same files: to parse a schema and all
    /// statements anew is most of what a short life would cost. Nothing but parsed SQL outlives a process in them.
    static CONNECTION_CACHE: RefCell<HashMap<(PathBuf, ConnectionRole), Conn>> = RefCell::default();
}

/// The connection to this file that a process before this one has left.
pub fn kept(file: &Path, of: ConnectionRole) -> Option<Conn> {
    fault_injection::current()?;
    CONNECTION_CACHE.with(|kept| kept.borrow_mut().remove(&(file.to_owned(), of)))
}

/// Closes all that were kept.
pub fn close_cached_connections() {
    let _ = CONNECTION_CACHE.try_with(|kept| kept.borrow_mut().clear());
}

fn keep(file: &Path, of: ConnectionRole, conn: Option<Conn>) {
    // A panic may have left anything open in it.
    if let Some(conn) = conn.filter(|_| !std::thread::panicking()) {
        let _ = CONNECTION_CACHE.try_with(|kept| kept.borrow_mut().insert((file.to_owned(), of), conn));
    }
}

/// A desk whose connection outlives its process.
struct Place(CommitLoop);

impl Drop for Place {
    fn drop(&mut self) {
        keep(&self.0.file, ConnectionRole::Write, self.0.conn.take());
    }
}

#[derive(QueryableByName)]
struct Pages {
    #[diesel(sql_type = BigInt)]
    page_count: i64,
}

/// The writer's life in the laboratory.
pub async fn work(
    domain: &'static str,
    desk: CommitLoop,
    mut jobs: mpsc::Receiver<Job>,
    world: Arc<dyn FaultInjector>,
) {
    let mut place = Place(desk);
    let desk = &mut place.0;
    if let Some(conn) = desk.conn.as_mut() {
        let _ = conn.batch_execute(NO_FSYNC);
    }
    while let Some(first) = jobs.recv().await {
        let fate = fault_injection::inject(&world, InjectionPoint::Commit(domain)).await;
        // Gathered after the pause: what has come meanwhile shares the commit, as under load.
        let mut batch = desk.gather(first, &mut jobs);
        let (finished, mut outcome) = match fate {
            InjectedFault::Unavailable => {
                // What is as if the database could not be opened: no job begins.
                desk.conn = None;
                let whole = std::mem::replace(&mut desk.file, PathBuf::from("/nowhere/to/be/found.db"));
                let refused = desk.commit(batch);
                desk.file = whole;
                refused
            }
            _ => {
                let _ = prepare(desk, fate);
                if fate == InjectedFault::CommitFails {
                    batch.push_front(trap());
                }
                let (finished, mut outcome) = desk.commit(batch);
                if fate == InjectedFault::CommitFails && outcome.is_err() {
                    outcome = Err(CommonError::StorageUnavailable);
                }
                if let Some(conn) = desk.conn.as_mut().filter(|_| fate != InjectedFault::None) {
                    let _ = conn.batch_execute("PRAGMA query_only = OFF; PRAGMA max_page_count = 1073741823;");
                }
                (finished, outcome)
            }
        };
        if outcome.is_ok() {
            fault_injection::inject(&world, InjectionPoint::Committed(domain)).await;
            if fate == InjectedFault::CommitUnknown {
                outcome = Err(CommonError::StorageUnavailable);
                desk.conn = None;
            }
        }
        desk.answer(finished, &outcome);
    }
}

/// Brings the connection into the state in which this batch finds it.
fn prepare(desk: &mut CommitLoop, fate: InjectedFault) -> Result<(), String> {
    let is_open = desk.conn.is_some();
    let conn = match desk.conn.as_mut() {
        Some(open) => open,
        None => desk.conn.insert(connect(&desk.file)?),
    };
    if !is_open {
        conn.batch_execute(NO_FSYNC).map_err(|e| e.to_string())?;
    }
    let wish = match fate {
        InjectedFault::DiskFull => {
            let pages: Pages = sql_query("PRAGMA page_count").get_result(conn).map_err(|e| e.to_string())?;
            format!("PRAGMA max_page_count = {};", pages.page_count)
        }
        InjectedFault::ReadOnly => "PRAGMA query_only = ON;".to_owned(),
        InjectedFault::CommitFails => COMMIT_FAILURE_TRIGGER.to_owned(),
        _ => return Ok(()),
    };
    conn.batch_execute(&wish).map_err(|e| e.to_string())
}

/// A job that nobody asked for: its transaction goes well until it is to be committed.
fn trap() -> Job {
    let set = |tx: &mut Tx<'_>| {
        let _ = tx.conn.batch_execute("INSERT INTO temp.lab_trap VALUES (1)");
        ErasedResult::erase(Ok::<_, CommonError>(()))
    };
    Job::new(Box::new(set)).0
}

/// The readers of a store: one connection, opened when it is first needed.
pub struct Reader {
    domain: &'static str,
    file: PathBuf,
    world: Arc<dyn FaultInjector>,
    conn: Arc<Mutex<Option<Conn>>>,
}

impl Reader {
    pub fn new(domain: &'static str, file: &Path) -> Option<Self> {
        let world = fault_injection::current()?;
        Some(Self { domain, file: file.to_owned(), world, conn: Arc::default() })
    }

    pub async fn run(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        if fault_injection::inject(&self.world, InjectionPoint::Read(self.domain)).await == InjectedFault::Unavailable {
            return Err(CommonError::StorageUnavailable);
        }
        let mut conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        if conn.is_none() {
            let open = || {
                let mut conn = Conn::establish(&self.file.to_string_lossy()).map_err(|e| e.to_string())?;
                conn.batch_execute(READ_ONLY).and_then(|()| conn.batch_execute(NO_FSYNC)).map_err(|e| e.to_string())?;
                Ok::<_, String>(conn)
            };
            let opened = kept(&self.file, ConnectionRole::Read).map_or_else(open, Ok);
            *conn = opened.map_err(|reason| log::error!("database: no reader: {reason}")).ok();
        }
        match conn.as_mut() {
            Some(conn) => Ok(query(conn)),
            None => Err(CommonError::StorageUnavailable),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner).take();
        keep(&self.file, ConnectionRole::Read, conn);
    }
}
