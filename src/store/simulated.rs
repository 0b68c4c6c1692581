//! The writer and the readers of a store in the laboratory: the same batches, savepoints, commits and answers as in
//! the shop, on the one thread of a simulated process. Only who drives them is another.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use tokio::sync::mpsc;

use super::Conn;
use super::conn::Run as _;
use super::reader::READ_ONLY;
use super::writer::{Desk, Job, connect};
use crate::messaging::Failure;
use crate::simulation::{self, Fate, Step, World};

/// A crash of a process loses nothing that the operating system has been given, so waiting for the disk would only cost
/// time here. That the disk is waited for is `connect`'s business and is seen by who pulls plugs.
const UNSYNCED: &str = "PRAGMA synchronous = OFF;";

#[derive(QueryableByName)]
struct Pages {
    #[diesel(sql_type = BigInt)]
    page_count: i64,
}

/// The writer's life in the laboratory.
pub async fn work(domain: &'static str, mut desk: Desk, mut jobs: mpsc::Receiver<Job>, world: Arc<dyn World>) {
    if let Some(conn) = desk.conn.as_mut() {
        let _ = conn.batch_execute(UNSYNCED);
    }
    while let Some(first) = jobs.recv().await {
        let fate = simulation::meet(&world, Step::Commit(domain)).await;
        // Gathered after the pause: what has come meanwhile shares the commit, as under load.
        let batch = desk.gather(first, &mut jobs);
        let (finishers, mut outcome) = match fate {
            Fate::Gone => {
                // What is as if the database could not be opened: no job begins.
                desk.conn = None;
                let whole = std::mem::replace(&mut desk.file, PathBuf::from("/nowhere/to/be/found.db"));
                let refused = desk.commit(batch);
                desk.file = whole;
                refused
            }
            _ => {
                let _ = prepare(&mut desk, fate);
                let done = desk.commit(batch);
                if let Some(conn) = desk.conn.as_mut().filter(|_| fate != Fate::Go) {
                    let _ = conn.batch_execute("PRAGMA query_only = OFF; PRAGMA max_page_count = 1073741823;");
                }
                done
            }
        };
        if outcome.is_ok() {
            simulation::meet(&world, Step::Committed(domain)).await;
            if fate == Fate::Doubtful {
                outcome = Err(Failure::StorageUnavailable);
                desk.conn = None;
            }
        }
        desk.answer(finishers, &outcome);
    }
}

/// Brings the connection into the state in which this batch finds it.
fn prepare(desk: &mut Desk, fate: Fate) -> Result<(), String> {
    let is_open = desk.conn.is_some();
    let conn = match desk.conn.as_mut() {
        Some(open) => open,
        None => desk.conn.insert(connect(&desk.file)?),
    };
    if !is_open {
        conn.batch_execute(UNSYNCED).map_err(|e| e.to_string())?;
    }
    let wish = match fate {
        Fate::Full => {
            let pages: Pages = sql_query("PRAGMA page_count").get_result(conn).map_err(|e| e.to_string())?;
            format!("PRAGMA max_page_count = {};", pages.page_count)
        }
        Fate::ReadOnly => "PRAGMA query_only = ON;".to_owned(),
        _ => return Ok(()),
    };
    conn.batch_execute(&wish).map_err(|e| e.to_string())
}

/// The readers of a store: one connection, opened when it is first needed.
pub struct Reader {
    domain: &'static str,
    file: PathBuf,
    world: Arc<dyn World>,
    conn: Arc<Mutex<Option<Conn>>>,
}

impl Reader {
    pub fn new(domain: &'static str, file: &Path) -> Option<Self> {
        let world = simulation::world()?;
        Some(Self { domain, file: file.to_owned(), world, conn: Arc::default() })
    }

    pub async fn run<T, E>(&self, query: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        E: From<Failure>,
    {
        if simulation::meet(&self.world, Step::Read(self.domain)).await == Fate::Gone {
            return Err(Failure::StorageUnavailable.into());
        }
        let mut conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        if conn.is_none() {
            let opened = Conn::establish(&self.file.to_string_lossy()).map_err(|e| e.to_string());
            let opened = opened.and_then(|mut conn| {
                conn.batch_execute(READ_ONLY).and_then(|()| conn.batch_execute(UNSYNCED)).map_err(|e| e.to_string())?;
                Ok(conn)
            });
            *conn = opened.map_err(|reason| log::error!("database: no reader: {reason}")).ok();
        }
        match conn.as_mut() {
            Some(conn) => query(conn),
            None => Err(Failure::StorageUnavailable.into()),
        }
    }
}
