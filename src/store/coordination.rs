//! Coordination of processes that have the same PostgreSQL schema open, by advisory locks that the server releases when
//! a process ends, however it ends.
//!
//! - **Sole process.** A sole process may serve from its caches. A second one asks the first to step down and waits
//!   until it has: then neither uses its caches, until one of them is alone again.
//! - **Alive.** Each process holds a lock of its own, so that others notice its end and finish what it began.
//! - **Leader.** One of several processes runs what a timer starts.
//!
//! Contains: the thread and the connection that hold the locks. Does not contain: the locks of write jobs, see
//! [`locks`]. While that connection is lost the other processes are unknown: no cache is used and nothing is written.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::{Conn, locks, postgres};
use crate::settings::Postgres;
use crate::types::new_uuid;

/// Interval of reading the notifications of joining processes. Needs no round trip to the server.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of trying to become the sole process or the leader, and of testing the connection.
const ELECTION_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time that a joining process waits for the first one to step down.
const STEP_DOWN_MAX: Duration = Duration::from_secs(15);
/// Time for cache reads that began before the lease ended.
const CACHE_READ_GRACE: Duration = Duration::from_millis(20);
/// Stack of the thread in bytes: enough for a few short statements.
const STACK_BYTES: usize = 512 * 1024;

/// Last known state of the locks.
#[derive(Debug, Default)]
struct MembershipState {
    /// Number of changes to and from being the sole process: odd while it is.
    sole_epoch: AtomicU64,
    is_leader: AtomicBool,
    is_connected: AtomicBool,
}

impl MembershipState {
    fn is_sole_process(&self) -> bool {
        self.sole_epoch.load(Ordering::SeqCst) % 2 == 1
    }

    fn set_sole(&self, is_sole: bool) {
        if self.is_sole_process() != is_sole {
            self.sole_epoch.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn is_leader(&self) -> bool {
        self.is_leader.load(Ordering::SeqCst)
    }

    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::SeqCst)
    }

    fn reset(&self) {
        self.set_sole(false);
        self.is_leader.store(false, Ordering::SeqCst);
        self.is_connected.store(false, Ordering::SeqCst);
    }
}

/// Permission to serve from caches of a database: valid while no other process has the schema open. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CacheLease(Option<Arc<MembershipState>>);

impl CacheLease {
    /// Returns the number of the current lease, `None` while there is none. An entry is valid only under the number that
    /// it was cached under.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        match &self.0 {
            None => Some(1),
            Some(state) => Some(state.sole_epoch.load(Ordering::SeqCst)).filter(|epoch| epoch % 2 == 1),
        }
    }
}

/// Membership of this process among those that have one schema open. Ends when it is dropped.
pub struct Membership {
    state: Arc<MembershipState>,
    process: i64,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Membership {
    /// Joins the processes on `schema`. Blocks until none of them uses a cache that it may not use. With `may_lead` it
    /// may become the leader.
    ///
    /// # Errors
    ///
    /// Names the reason when the server cannot be reached or another process does not step down in time.
    pub fn join(domain: &str, server: &Postgres, schema: &str, may_lead: bool) -> Result<Self, String> {
        let state = Arc::new(MembershipState::default());
        let process = random_process();
        let mut worker = MembershipThread {
            process,
            server: server.clone(),
            schema: schema.to_owned(),
            state: Arc::clone(&state),
            conn: None,
            last_election: Instant::now(),
            may_lead,
        };
        worker.acquire(STEP_DOWN_MAX)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("{domain}-presence"))
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run(&stopped))
            .map_err(|error| error.to_string())?;
        Ok(Self { state, process, stop: Some(stop), thread: Some(thread) })
    }

    pub fn cache_lease(&self) -> CacheLease {
        CacheLease(Some(Arc::clone(&self.state)))
    }

    /// This process among all that have the schema open, until it ends.
    pub fn process(&self) -> i64 {
        self.process
    }

    pub fn is_sole_process(&self) -> bool {
        self.state.is_sole_process()
    }

    pub fn is_leader(&self) -> bool {
        self.state.is_leader()
    }

    pub fn is_connected(&self) -> bool {
        self.state.is_connected()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Joined, so that the next store on the same schema in this process finds the locks free.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct MembershipThread {
    /// Advisory lock that is held as long as the process lives.
    process: i64,
    server: Postgres,
    schema: String,
    state: Arc<MembershipState>,
    conn: Option<PgConnection>,
    last_election: Instant,
    /// Whether it may become the leader.
    may_lead: bool,
}

/// A number that no other process has: the random half of a new id (RFC 9562).
fn random_process() -> i64 {
    let (_, random) = new_uuid().as_u64_pair();
    random.cast_signed()
}

/// Returns those of `processes` that have ended: the server has released their locks.
pub fn ended_processes(conn: &mut Conn, processes: HashSet<i64>) -> QueryResult<HashSet<i64>> {
    let mut ended = HashSet::new();
    let Conn::Postgres(conn) = conn else { return Ok(ended) };
    for process in processes {
        let free = sql::<Bool>(&format!("pg_try_advisory_xact_lock_shared({process})"));
        if diesel::select(free).get_result(conn)? {
            ended.insert(process);
        }
    }
    Ok(ended)
}

fn select_bool(conn: &mut PgConnection, expression: &str) -> Result<bool, String> {
    diesel::select(sql::<Bool>(expression)).get_result(conn).map_err(|error| error.to_string())
}

fn execute(conn: &mut PgConnection, sql: &str) -> Result<(), String> {
    conn.batch_execute(sql).map_err(|error| error.to_string())
}

impl MembershipThread {
    fn presence_lock(&self) -> i64 {
        locks::lock_id(&self.schema, "presence")
    }

    fn leader_lock(&self) -> i64 {
        locks::lock_id(&self.schema, "lead")
    }

    /// Connects and takes the locks: the presence lock exclusively if it is free, or else shared once the other
    /// processes have stepped down.
    fn acquire(&mut self, timeout: Duration) -> Result<(), String> {
        let (presence, leader) = (self.presence_lock(), self.leader_lock());
        let channel = format!("\"{}:room\"", self.schema);
        let Conn::Postgres(mut conn) = postgres::connect(&self.server, &self.schema)? else {
            return Err("the database is not on a server".to_owned());
        };
        // Listens before it takes the lock, so that it misses no process that joins later.
        execute(&mut conn, &format!("LISTEN {channel}"))?;
        let is_sole = select_bool(&mut conn, &format!("pg_try_advisory_lock({presence})"))?;
        if !is_sole {
            let started = Instant::now();
            execute(&mut conn, "SET lock_timeout = '1s'")?;
            // Notified again while it lasts: the first process may have ended and another one have started.
            while let Err(error) = execute(&mut conn, &format!("NOTIFY {channel}"))
                .and_then(|()| execute(&mut conn, &format!("SELECT pg_advisory_lock_shared({presence})")))
            {
                if started.elapsed() > timeout || !error.contains("lock timeout") {
                    return Err(format!("another mercat has exclusive use of it and does not step down: {error}"));
                }
            }
        }
        if !select_bool(&mut conn, &format!("pg_try_advisory_lock({})", self.process))? {
            return Err("the server has not noticed yet that the connection before has ended".to_owned());
        }
        let is_leader = self.may_lead && select_bool(&mut conn, &format!("pg_try_advisory_lock({leader})"))?;
        // Its own notification was for the others.
        conn.notifications_iter().for_each(drop);
        self.state.set_sole(is_sole);
        self.state.is_leader.store(is_leader, Ordering::SeqCst);
        self.state.is_connected.store(true, Ordering::SeqCst);
        self.conn = Some(conn);
        self.last_election = Instant::now();
        Ok(())
    }

    /// Polls until the other end of `stopped` is dropped.
    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if let Err(reason) = self.poll() {
                if self.state.is_connected() {
                    log::error!("schema {}: coordination connection lost: {reason}", self.schema);
                }
                self.state.reset();
                self.conn = None;
            }
        }
        self.state.reset();
    }

    /// Steps down for a joining process; once per [`ELECTION_INTERVAL`] tries to get what it does not hold.
    fn poll(&mut self) -> Result<(), String> {
        let (presence, leader) = (self.presence_lock(), self.leader_lock());
        let Some(conn) = self.conn.as_mut() else {
            if self.last_election.elapsed() >= ELECTION_INTERVAL {
                self.last_election = Instant::now();
                self.acquire(ELECTION_INTERVAL)?;
                log::warn!("schema {}: coordination connection restored", self.schema);
            }
            return Ok(());
        };
        let mut is_notified = false;
        for notification in conn.notifications_iter() {
            notification.map_err(|error| error.to_string())?;
            is_notified = true;
        }
        if is_notified && self.state.is_sole_process() {
            self.state.set_sole(false);
            std::thread::sleep(CACHE_READ_GRACE);
            let share = format!("SELECT pg_advisory_lock_shared({presence}); SELECT pg_advisory_unlock({presence})");
            execute(conn, &share)?;
            log::info!("schema {}: another process has joined; caches are off", self.schema);
        }
        if self.last_election.elapsed() < ELECTION_INTERVAL {
            return Ok(());
        }
        self.last_election = Instant::now();
        if self.may_lead && !self.state.is_leader() {
            let is_leader = select_bool(conn, &format!("pg_try_advisory_lock({leader})"))?;
            self.state.is_leader.store(is_leader, Ordering::SeqCst);
        }
        if self.state.is_sole_process() {
            // The locks are held as long as the connection stands.
            return execute(conn, "SELECT 1");
        }
        if !is_notified && select_bool(conn, &format!("pg_try_advisory_lock({presence})"))? {
            execute(conn, &format!("SELECT pg_advisory_unlock_shared({presence})"))?;
            self.state.set_sole(true);
        }
        Ok(())
    }
}
