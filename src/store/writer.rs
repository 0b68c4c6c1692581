//! The only writer of a domain's SQLite database: a thread that runs each job in a savepoint, commits several at once,
//! and replies after the commit. One fsync serves all jobs that were waiting; no job waits for a batch to fill.
//!
//! **While it cannot write** (disk full, folder read-only, file locked by another process, file damaged) all waiting
//! jobs are rejected at once, and certainly not done. Each later job is a new attempt, and so is a probe every
//! second, so that recovery needs no restart.

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

/// Time to wait for the write lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to wait for the write lock while the last write has failed, so that requests are rejected soon.
const DEGRADED_BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Interval of trying to write again after a failure.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time to sleep between two polls of an empty queue after a failure.
const IDLE_SLEEP: Duration = Duration::from_millis(20);

/// A queued job with the channel for its result.
pub(super) struct Job {
    work: ErasedJob,
    reply_to: oneshot::Sender<Result<ErasedResult, CommonError>>,
}

/// A job that was run but not yet committed, or one that was rejected and certainly not done.
pub(super) struct FinishedJob {
    report: Result<ErasedResult, CommonError>,
    wrote_events: bool,
    reply_to: oneshot::Sender<Result<ErasedResult, CommonError>>,
}

impl Job {
    pub(super) fn new(work: ErasedJob) -> (Self, oneshot::Receiver<Result<ErasedResult, CommonError>>) {
        let (reply_to, reply) = oneshot::channel();
        (Self { work, reply_to }, reply)
    }

    /// Runs it in its savepoint. Returns `false` as well if the transaction around it is gone: SQLite may roll back all
    /// of it when the disk is full.
    fn run(self, conn: &mut Conn, clock: &Clock) -> (FinishedJob, bool) {
        let Self { work, reply_to } = self;
        let mut wrote_events = false;
        let (report, is_open) = savepoint(conn, |conn| {
            let mut tx = Tx { conn, now: clock.now(), process: None, wrote_events: false, change: None };
            let report = work(&mut tx);
            wrote_events = tx.wrote_events && report.is_ok;
            report
        });
        (FinishedJob { report, wrote_events, reply_to }, is_open)
    }

    /// Ends the job without running it.
    fn reject(self) -> FinishedJob {
        FinishedJob { report: Err(CommonError::StorageUnavailable), wrote_events: false, reply_to: self.reply_to }
    }
}

impl FinishedJob {
    /// Sends the result, or the error of the commit. Returns `true` if the outbox has new events.
    fn reply(self, committed: Result<(), CommonError>) -> bool {
        let wrote_events = self.wrote_events && committed.is_ok();
        // The receiver is gone if the caller has given up; the change is durable all the same.
        let _ = self.reply_to.send(committed.and(self.report));
        wrote_events
    }
}

/// Handle of the writer's thread.
pub struct Writer {
    queue: mpsc::Sender<Job>,
    /// Set to end the thread after the next batch.
    closing: Arc<AtomicBool>,
    /// Closed when the thread has exited.
    exited: watch::Receiver<()>,
}

/// Opens a connection that may write.
pub fn connect(file: &Path) -> Result<Conn, String> {
    #[cfg(feature = "test-hooks")]
    if let Some(cached) = super::fault_injection::take_cached(file, super::fault_injection::AccessMode::Write) {
        return Ok(cached);
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
        outbox_notify: Arc<Notify>,
    ) -> Result<Self, String> {
        let (queue, jobs) = mpsc::channel(config.queue_max);
        let closing = Arc::new(AtomicBool::new(false));
        let (exit_guard, exited) = watch::channel(());
        let storage = Arc::clone(&config.storage);
        let commit_loop = CommitLoop {
            file: config.file.clone(),
            conn: Some(conn),
            batch_max: config.batch_max,
            clock,
            outbox_notify,
            storage,
        };
        #[cfg(feature = "test-hooks")]
        if let Some(injector) = crate::fault_injection::current() {
            actix::spawn(super::fault_injection::run_loop(domain, commit_loop, jobs, injector));
            return Ok(Self { queue, closing, exited });
        }
        let is_last = Arc::clone(&closing);
        std::thread::Builder::new()
            .name(format!("{domain}-writer"))
            .spawn(move || {
                let _exit_guard = exit_guard;
                run_loop(commit_loop, jobs, &is_last);
            })
            .map_err(|e| e.to_string())?;
        Ok(Self { queue, closing, exited })
    }

    /// Runs the jobs that are queued, rejects all later ones, and closes the file.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the thread; the result of this job does not matter.
        let _ = self.run(Box::new(|_| ErasedResult::erase(Ok::<_, CommonError>(())))).await;
        let mut exited = self.exited.clone();
        while exited.changed().await.is_ok() {}
    }

    pub async fn run(&self, work: ErasedJob) -> Result<ErasedResult, CommonError> {
        let (job, reply) = Job::new(work);
        self.queue.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => CommonError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => CommonError::Unavailable,
        })?;
        reply.await.unwrap_or(Err(CommonError::Internal))
    }

    pub fn queue_depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Runs batches until all handles of the store are dropped or it is closed, and the queue is empty.
fn run_loop(mut commit_loop: CommitLoop, mut jobs: mpsc::Receiver<Job>, is_last: &AtomicBool) {
    while let Some(first) = commit_loop.next_job(&mut jobs) {
        let batch = commit_loop.collect_batch(first, &mut jobs);
        let (mut finished, outcome) = commit_loop.commit(batch);
        if outcome == Err(CommonError::StorageUnavailable) {
            // The jobs behind them would meet the same error.
            finished.extend(std::iter::from_fn(|| jobs.try_recv().ok()).map(Job::reject));
        }
        commit_loop.reply(finished, &outcome);
        if is_last.load(Ordering::SeqCst) {
            jobs.close();
        }
    }
}

/// State of the writer's thread: the connection, and what it takes to open another one.
pub(super) struct CommitLoop {
    pub(super) file: PathBuf,
    pub(super) conn: Option<Conn>,
    batch_max: usize,
    clock: Clock,
    outbox_notify: Arc<Notify>,
    /// Health flag of the last attempt to write.
    storage: Arc<StorageHealth>,
}

impl CommitLoop {
    /// Waits for the next job. After a failure also probes once per [`PROBE_INTERVAL`] whether writing works again.
    fn next_job(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let mut last_probe = Instant::now();
        while self.storage.read_only.load(Ordering::Relaxed) {
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) if last_probe.elapsed() >= PROBE_INTERVAL => {
                    let outcome = match self.connection() {
                        Some(conn) => probe_writable(conn).map_err(|_| CommonError::StorageUnavailable),
                        None => Err(CommonError::StorageUnavailable),
                    };
                    if outcome.is_err() {
                        self.conn = None;
                    }
                    self.record_outcome(&outcome);
                    last_probe = Instant::now();
                }
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(IDLE_SLEEP),
            }
        }
        jobs.blocking_recv()
    }

    /// Returns `first` and the jobs behind it that share its commit, at most `batch_max`.
    pub(super) fn collect_batch(&self, first: Job, jobs: &mut mpsc::Receiver<Job>) -> VecDeque<Job> {
        let mut batch = VecDeque::from([first]);
        while batch.len() < self.batch_max {
            let Ok(job) = jobs.try_recv() else { break };
            batch.push_back(job);
        }
        batch
    }

    /// Runs a batch and commits it. Replies to no caller yet.
    pub(super) fn commit(&mut self, mut batch: VecDeque<Job>) -> (Vec<FinishedJob>, Result<(), CommonError>) {
        let mut finished = Vec::with_capacity(batch.len());
        let clock = self.clock.clone();
        let outcome = match self.connection() {
            Some(open) => commit(open, &mut batch, &clock, &mut finished),
            None => Err(CommonError::StorageUnavailable),
        };
        if outcome.is_err() {
            // A new connection is in a known state.
            self.conn = None;
        }
        self.record_outcome(&outcome);
        // The jobs that were not started.
        finished.extend(batch.drain(..).map(Job::reject));
        (finished, outcome)
    }

    /// Replies to the callers of a batch, and wakes the event delivery if there are new events.
    pub(super) fn reply(&self, finished: Vec<FinishedJob>, outcome: &Result<(), CommonError>) {
        let mut any_events = false;
        for job in finished {
            any_events |= job.reply(outcome.clone());
        }
        if any_events {
            self.outbox_notify.notify_waiters();
        }
    }

    /// Returns the connection; opens one if there is none.
    fn connection(&mut self) -> Option<&mut Conn> {
        if self.conn.is_none() {
            let is_degraded = self.storage.read_only.load(Ordering::Relaxed);
            let open = connect(&self.file).and_then(|mut conn| {
                let timeout = if is_degraded { DEGRADED_BUSY_TIMEOUT } else { BUSY_TIMEOUT };
                set_busy_timeout(&mut conn, timeout).map_err(|e| e.to_string())?;
                Ok(conn)
            });
            self.conn = open
                .map_err(|reason| {
                    if !is_degraded {
                        log::error!("database {}: {reason}", self.file.display());
                    }
                })
                .ok();
        }
        self.conn.as_mut()
    }

    /// Updates the health of the storage, and logs a change of it.
    fn record_outcome(&mut self, outcome: &Result<(), CommonError>) {
        let was_degraded = self.storage.read_only.load(Ordering::Relaxed);
        let file = self.file.display();
        match outcome {
            Ok(()) if was_degraded => {
                log::warn!("database {file}: writes recovered");
                self.storage.read_only.store(false, Ordering::Relaxed);
                if self.conn.as_mut().is_some_and(|conn| set_busy_timeout(conn, BUSY_TIMEOUT).is_err()) {
                    self.conn = None;
                }
            }
            Err(CommonError::StorageUnavailable) if !was_degraded => {
                log::error!("database {file}: write failed; rejecting writes until it recovers, reads go on");
                self.storage.read_only.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn set_busy_timeout(conn: &mut Conn, timeout: Duration) -> Result<(), DbError> {
    conn.batch_execute(&format!("PRAGMA busy_timeout = {}", timeout.as_millis()))
}

/// Makes a write that changes nothing.
fn probe_writable(conn: &mut Conn) -> Result<(), DbError> {
    conn.batch_execute("PRAGMA user_version = 0")
}

/// Runs the jobs of a batch and commits them. Jobs that did not run stay in the batch.
fn commit(
    conn: &mut Conn,
    batch: &mut VecDeque<Job>,
    clock: &Clock,
    finished: &mut Vec<FinishedJob>,
) -> Result<(), CommonError> {
    let mut is_rolled_back = false;
    let outcome = conn.transaction_sql("BEGIN IMMEDIATE", |conn| {
        while let Some(job) = batch.pop_front() {
            let (job, is_open) = job.run(conn, clock);
            finished.push(job);
            if !is_open {
                // The jobs before are rolled back; each later one would be a transaction of its own.
                is_rolled_back = true;
                return Err(DbError::RollbackTransaction);
            }
        }
        Ok::<_, DbError>(())
    });
    // An open transaction here would mean that nothing was committed.
    let depth = conn.depth();
    match (outcome, depth) {
        (Ok(()), Ok(0)) => Ok(()),
        (Ok(()), _) => {
            log::error!("database: transaction still open after commit; failing the batch");
            Err(CommonError::Internal)
        }
        (Err(_), _) if is_rolled_back => {
            log::error!("database: SQLite rolled back a transaction; failing all its jobs");
            Err(CommonError::StorageUnavailable)
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Runs `job` so that its failure or panic undoes its own changes and no others. Returns `false` as well if the
/// transaction around it is gone: SQLite rolls back all of it when the disk is full or fails, and then the next savepoint
/// would be a transaction of its own, committed although its batch has failed.
///
/// The savepoint is not diesel's: that one is parsed anew each time, and `catch_unwind(|| conn.transaction(job))`
/// would leave it on diesel's stack when the job panics, so that the outer commit only released a savepoint and
/// reported success while nothing was committed. [`unwind`] removes what a job leaves on that stack.
fn savepoint(
    conn: &mut Conn,
    job: impl FnOnce(&mut Conn) -> ErasedResult,
) -> (Result<ErasedResult, CommonError>, bool) {
    let depth_before = match conn.depth() {
        Ok(depth) => depth,
        Err(error) => return (Err(error.into()), false),
    };
    if let Err(error) = Statement("SAVEPOINT job").execute(conn) {
        return (Err(error.into()), true);
    }
    let report = catch_unwind(AssertUnwindSafe(|| job(conn))).map_err(|_| {
        log::error!("database: job panicked; rolling back its changes");
        CommonError::Internal
    });
    let outcome = unwind(conn, depth_before).and_then(|()| {
        if !report.as_ref().is_ok_and(|report| report.is_ok) {
            Statement("ROLLBACK TO job").execute(conn)?;
        }
        Statement("RELEASE job").execute(conn).map(drop)
    });
    match outcome {
        Ok(()) => (report, true),
        // The savepoint is gone with its transaction.
        Err(_) => (Err(CommonError::StorageUnavailable), false),
    }
}

/// Rolls back the inner transactions that a panic left open.
fn unwind(conn: &mut Conn, depth_before: u32) -> Result<(), DbError> {
    while conn.depth()? > depth_before {
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
            outbox_notify: Arc::default(),
            storage: Arc::default(),
        };
        let timeout = |writer: &mut CommitLoop| {
            let conn = writer.connection().unwrap();
            diesel::sql_query("PRAGMA busy_timeout").get_result::<BusyTimeout>(conn).unwrap().timeout
        };
        assert_eq!(timeout(&mut writer), 5_000);
        writer.record_outcome(&Err(CommonError::StorageUnavailable));
        writer.conn = None;
        assert_eq!(timeout(&mut writer), 250);
        writer.record_outcome(&Ok(()));
        assert_eq!(timeout(&mut writer), 5_000);
    }
}
