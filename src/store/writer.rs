//! The one writer of a domain's database: a thread that runs each job in a savepoint, commits many at once, and
//! answers only then. One fsync serves everybody who was waiting; nobody waits for a batch to fill.
//!
//! **When it cannot write** (disk full, folder read-only, file locked by somebody, file damaged) everybody who waits is
//! refused at once, and told that nothing was done. Each later job is a new try, and so is a probe every second, so
//! that the shop notices by itself when it is mended.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::result::Error as DbError;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::conn::RunQuery as _;
use super::erased_job::{ErasedJob, ErasedResult};
use super::prepared::Statement;
use super::{Conn, StoreConfig, Tx};
use crate::messaging::{CommonError, StorageHealth};
use crate::types::Clock;

/// How long the writer waits for somebody else's write to end.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits while it is known that it cannot write: who asks meanwhile hears no soon.
const DEGRADED_BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// How often it tries whether it can write again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it sleeps between two looks into an empty queue while it cannot write.
const IDLE_SLEEP: Duration = Duration::from_millis(20);

/// What is to be done, and who waits for it.
pub(super) struct Job {
    work: ErasedJob,
    asker: oneshot::Sender<Result<ErasedResult, CommonError>>,
}

/// A job that was run, or refused and certainly not done.
pub(super) struct FinishedJob {
    report: Result<ErasedResult, CommonError>,
    wrote_events: bool,
    asker: oneshot::Sender<Result<ErasedResult, CommonError>>,
}

impl Job {
    pub(super) fn new(work: ErasedJob) -> (Self, oneshot::Receiver<Result<ErasedResult, CommonError>>) {
        let (asker, answered) = oneshot::channel();
        (Self { work, asker }, answered)
    }

    /// Runs it in its savepoint. Says whether the transaction around it is still there: a database that meets a full
    /// disk may undo all of it.
    fn run(self, conn: &mut Conn, clock: &Clock) -> (FinishedJob, bool) {
        let Self { work, asker } = self;
        let mut wrote_events = false;
        let (report, is_whole) = savepoint(conn, |conn| {
            let mut tx = Tx { conn, now: clock.now(), wrote_events: false };
            let report = work(&mut tx);
            wrote_events = tx.wrote_events && report.is_ok;
            report
        });
        (FinishedJob { report, wrote_events, asker }, is_whole)
    }

    fn refuse(self) -> FinishedJob {
        FinishedJob { report: Err(CommonError::StorageUnavailable), wrote_events: false, asker: self.asker }
    }
}

impl FinishedJob {
    /// Hands the answer over, once it is known what became of the commit. Says whether there is news.
    fn answer(self, committed: Result<(), CommonError>) -> bool {
        let wrote_events = self.wrote_events && committed.is_ok();
        // Nobody listens when the caller gave up; the change is durable all the same.
        let _ = self.asker.send(committed.and(self.report));
        wrote_events
    }
}

pub struct Writer {
    queue: mpsc::Sender<Job>,
    /// Whether the next batch is the last.
    closing: Arc<AtomicBool>,
    /// Ends with the writer's life.
    ended: watch::Receiver<()>,
}

/// Opens a connection that may write.
pub fn connect(file: &Path) -> Result<Conn, String> {
    #[cfg(feature = "test-hooks")]
    if let Some(kept) = super::fault_injection::kept(file, super::fault_injection::ConnectionRole::Write) {
        return Ok(kept);
    }
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
        let closing = Arc::new(AtomicBool::new(false));
        let (life, ended) = watch::channel(());
        let storage = Arc::clone(&config.storage);
        let desk = CommitLoop {
            file: config.file.clone(),
            conn: Some(conn),
            batch_max: config.batch_max,
            clock,
            news,
            storage,
        };
        #[cfg(feature = "test-hooks")]
        if let Some(injector) = crate::fault_injection::current() {
            actix::spawn(super::fault_injection::work(domain, desk, jobs, injector));
            return Ok(Self { queue, closing, ended });
        }
        let is_last = Arc::clone(&closing);
        std::thread::Builder::new()
            .name(format!("{domain}-writer"))
            .spawn(move || {
                let _life = life;
                work(desk, jobs, &is_last);
            })
            .map_err(|e| e.to_string())?;
        Ok(Self { queue, closing, ended })
    }

    /// Does what was asked before, refuses everything after, and gives up the file.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes it. What becomes of this one says nothing.
        let _ = self.run(Box::new(|_| ErasedResult::erase(Ok::<_, CommonError>(())))).await;
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub async fn run(&self, work: ErasedJob) -> Result<ErasedResult, CommonError> {
        let (job, answered) = Job::new(work);
        self.queue.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => CommonError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => CommonError::Unavailable,
        })?;
        answered.await.unwrap_or(Err(CommonError::Internal))
    }

    pub fn queue_depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// The writer's life: until every handle of the store is gone or it is closed, and the queue is empty.
fn work(mut desk: CommitLoop, mut jobs: mpsc::Receiver<Job>, is_last: &AtomicBool) {
    while let Some(first) = desk.next(&mut jobs) {
        let batch = desk.gather(first, &mut jobs);
        let (mut finished, outcome) = desk.commit(batch);
        if outcome == Err(CommonError::StorageUnavailable) {
            // Who waits behind them would only wait to hear the same.
            finished.extend(std::iter::from_fn(|| jobs.try_recv().ok()).map(Job::refuse));
        }
        desk.answer(finished, &outcome);
        if is_last.load(Ordering::SeqCst) {
            jobs.close();
        }
    }
}

/// Where the writer works: its connection, and what it needs to open another one.
pub(super) struct CommitLoop {
    pub(super) file: PathBuf,
    pub(super) conn: Option<Conn>,
    batch_max: usize,
    clock: Clock,
    news: Arc<Notify>,
    /// Says whether the last try to write failed.
    storage: Arc<StorageHealth>,
}

impl CommitLoop {
    /// The next job. While nothing can be written, tries that too from time to time.
    fn next(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let mut tried = Instant::now();
        while self.storage.read_only.load(Ordering::Relaxed) {
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) if tried.elapsed() >= PROBE_INTERVAL => {
                    let outcome = match self.connection() {
                        Some(conn) => probe(conn).map_err(|_| CommonError::StorageUnavailable),
                        None => Err(CommonError::StorageUnavailable),
                    };
                    if outcome.is_err() {
                        self.conn = None;
                    }
                    self.note(&outcome);
                    tried = Instant::now();
                }
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(IDLE_SLEEP),
            }
        }
        jobs.blocking_recv()
    }

    /// `first` and what waits behind it, as far as it shares a commit.
    pub(super) fn gather(&self, first: Job, jobs: &mut mpsc::Receiver<Job>) -> VecDeque<Job> {
        let mut batch = VecDeque::from([first]);
        while batch.len() < self.batch_max {
            let Ok(next) = jobs.try_recv() else { break };
            batch.push_back(next);
        }
        batch
    }

    /// Runs a batch and commits it; whoever asked is yet to be told.
    pub(super) fn commit(&mut self, mut batch: VecDeque<Job>) -> (Vec<FinishedJob>, Result<(), CommonError>) {
        let mut finished = Vec::with_capacity(batch.len());
        let clock = self.clock.clone();
        let outcome = match self.connection() {
            Some(open) => commit(open, &mut batch, &clock, &mut finished),
            None => Err(CommonError::StorageUnavailable),
        };
        if outcome.is_err() {
            // Whatever state it is in, a fresh connection is in a known one.
            self.conn = None;
        }
        self.note(&outcome);
        // Those that never began.
        finished.extend(batch.drain(..).map(Job::refuse));
        (finished, outcome)
    }

    /// Tells whoever asked what has become of it.
    pub(super) fn answer(&self, finished: Vec<FinishedJob>, outcome: &Result<(), CommonError>) {
        let mut any_news = false;
        for job in finished {
            any_news |= job.answer(outcome.clone());
        }
        if any_news {
            self.news.notify_waiters();
        }
    }

    /// The connection, a new one if the last was given up.
    fn connection(&mut self) -> Option<&mut Conn> {
        if self.conn.is_none() {
            let in_trouble = self.storage.read_only.load(Ordering::Relaxed);
            let open = connect(&self.file).and_then(|mut conn| {
                let patience = if in_trouble { DEGRADED_BUSY_TIMEOUT } else { BUSY_TIMEOUT };
                wait_at_most(&mut conn, patience).map_err(|e| e.to_string())?;
                Ok(conn)
            });
            self.conn = open
                .map_err(|reason| {
                    if !in_trouble {
                        log::error!("database {}: {reason}", self.file.display());
                    }
                })
                .ok();
        }
        self.conn.as_mut()
    }

    /// Notes whether it can write, and says so when that has changed.
    fn note(&mut self, outcome: &Result<(), CommonError>) {
        let (was, file) = (self.storage.read_only.load(Ordering::Relaxed), self.file.display());
        match outcome {
            Ok(()) if was => {
                log::warn!("database {file}: can be written again");
                self.storage.read_only.store(false, Ordering::Relaxed);
                if self.conn.as_mut().is_some_and(|conn| wait_at_most(conn, BUSY_TIMEOUT).is_err()) {
                    self.conn = None;
                }
            }
            Err(CommonError::StorageUnavailable) if !was => {
                log::error!("database {file}: cannot be written; writes are refused until it can, reads go on");
                self.storage.read_only.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn wait_at_most(conn: &mut Conn, patience: Duration) -> Result<(), DbError> {
    conn.batch_execute(&format!("PRAGMA busy_timeout = {}", patience.as_millis()))
}

/// Writes something that changes nothing.
fn probe(conn: &mut Conn) -> Result<(), DbError> {
    conn.batch_execute("PRAGMA user_version = 0")
}

/// Runs the jobs of a batch and commits them. Those that did not run are left in it.
fn commit(
    conn: &mut Conn,
    batch: &mut VecDeque<Job>,
    clock: &Clock,
    finished: &mut Vec<FinishedJob>,
) -> Result<(), CommonError> {
    let mut is_whole = true;
    let outcome = conn.transaction_sql("BEGIN IMMEDIATE", |conn| {
        while let Some(job) = batch.pop_front() {
            let (done, is_still_whole) = job.run(conn, clock);
            finished.push(done);
            if !is_still_whole {
                // What ran before is undone, and what ran now would be committed by itself, each on its own.
                is_whole = false;
                return Err(DbError::RollbackTransaction);
            }
        }
        Ok::<_, DbError>(())
    });
    // Belt and braces: a transaction left open here would mean that the commit was none.
    let depth = conn.depth();
    match (outcome, depth) {
        (Ok(()), Ok(0)) => Ok(()),
        (Ok(()), _) => {
            log::error!("database: a transaction was left open after its commit; the batch counts as failed");
            Err(CommonError::Internal)
        }
        (Err(_), _) if !is_whole => {
            log::error!("database: it undid a transaction by itself; everybody in it is told");
            Err(CommonError::StorageUnavailable)
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Runs `job` so that its failure or panic undoes its own changes and nobody else's. Says too whether the transaction
/// around it is still there: SQLite undoes all of it by itself when the disk is full or fails, and without it the next
/// savepoint would be a transaction of its own, committed behind everybody's back.
///
/// The savepoint is not diesel's: that one is parsed anew each time, and `catch_unwind(|| conn.transaction(job))`
/// would leave it on diesel's stack when the job panics, so that the outer commit only released a savepoint and
/// answered yes while nothing was committed. What a job leaves on that stack is unwound by hand.
fn savepoint(
    conn: &mut Conn,
    job: impl FnOnce(&mut Conn) -> ErasedResult,
) -> (Result<ErasedResult, CommonError>, bool) {
    let before = match conn.depth() {
        Ok(depth) => depth,
        Err(error) => return (Err(error.into()), false),
    };
    if let Err(error) = Statement("SAVEPOINT job").execute(conn) {
        return (Err(error.into()), true);
    }
    let report = catch_unwind(AssertUnwindSafe(|| job(conn))).map_err(|_| {
        log::error!("database: a job panicked; its changes are undone");
        CommonError::Internal
    });
    let ended = unwind(conn, before).and_then(|()| {
        if !report.as_ref().is_ok_and(|report| report.is_ok) {
            Statement("ROLLBACK TO job").execute(conn)?;
        }
        Statement("RELEASE job").execute(conn).map(drop)
    });
    match ended {
        Ok(()) => (report, true),
        // There is no such savepoint any more: it went with its transaction.
        Err(_) => (Err(CommonError::StorageUnavailable), false),
    }
}

/// Ends the transactions within the job's own that a panic left open.
fn unwind(conn: &mut Conn, before: u32) -> Result<(), DbError> {
    while conn.depth()? > before {
        conn.rollback()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use diesel::sql_types::Integer;

    use super::super::query::RunQuery as _;
    use super::*;

    #[derive(diesel::QueryableByName)]
    struct BusyTimeout {
        #[diesel(sql_type = Integer)]
        timeout: i32,
    }

    #[test]
    fn degraded_writer_waits_less_for_a_lock() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut writer = CommitLoop {
            file: dir.path().join("test.db"),
            conn: None,
            batch_max: 1,
            clock: Clock::system(),
            news: Arc::default(),
            storage: Arc::default(),
        };
        let timeout = |writer: &mut CommitLoop| {
            let conn = writer.connection().unwrap();
            diesel::sql_query("PRAGMA busy_timeout").get_result::<BusyTimeout>(conn).unwrap().timeout
        };
        assert_eq!(timeout(&mut writer), 5_000);
        writer.note(&Err(CommonError::StorageUnavailable));
        writer.conn = None;
        assert_eq!(timeout(&mut writer), 250);
        writer.note(&Ok(()));
        assert_eq!(timeout(&mut writer), 5_000);
    }
}
