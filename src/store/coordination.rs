//! Who else is there: which processes have the same schema open, told apart by locks that a process loses when it ends,
//! however it ends.
//!
//! - **Alone.** Who is alone on a database may believe what it remembers of it. Who comes second asks the first to step
//!   down and waits until it has: then neither believes its memory, until one of them is alone again.
//! - **The lead.** One of several does what is done by a timer.
//!
//! A thread of its own keeps the connection that holds the locks. When that connection is lost nobody knows who else is
//! there: nothing is believed and nothing is written until it is back.

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

/// How often somebody who asks for room is looked for. Costs no question to the server.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is tried to be alone or to lead, and whether the connection still stands.
const ELECTION_INTERVAL: Duration = Duration::from_secs(1);
/// How long whoever comes second waits for the first to step down.
const STEP_DOWN_MAX: Duration = Duration::from_secs(15);
/// How long a look into memory that began before may take to end.
const CACHE_READ_GRACE: Duration = Duration::from_millis(20);
/// What a process may need of stack to ask a few questions.
const STACK: usize = 512 * 1024;

/// What is known of the others.
#[derive(Debug, Default)]
struct MembershipState {
    /// Counts the times of being alone; even while it is not.
    alone: AtomicU64,
    leads: AtomicBool,
    present: AtomicBool,
}

impl MembershipState {
    fn is_sole_process(&self) -> bool {
        self.alone.load(Ordering::SeqCst) % 2 == 1
    }

    fn set_alone(&self, alone: bool) {
        if self.is_sole_process() != alone {
            self.alone.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn lost(&self) {
        self.set_alone(false);
        self.leads.store(false, Ordering::SeqCst);
        self.present.store(false, Ordering::SeqCst);
    }
}

/// Whether a process may believe what it remembers of a database. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CacheLease(Option<Arc<MembershipState>>);

impl CacheLease {
    /// What is remembered may be believed if it was remembered since this was last another number; nothing may be
    /// when there is none.
    #[must_use]
    pub fn era(&self) -> Option<u64> {
        match &self.0 {
            None => Some(1),
            Some(known) => Some(known.alone.load(Ordering::SeqCst)).filter(|era| era % 2 == 1),
        }
    }
}

/// A process among others on one schema.
pub struct Membership {
    known: Arc<MembershipState>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Membership {
    /// Joins whoever is there, or is the first. One that may not lead does nothing by a timer. Blocks until nobody believes more than it may.
    pub fn join(domain: &str, server: &Postgres, schema: &str, may_lead: bool) -> Result<Self, String> {
        let known = Arc::new(MembershipState::default());
        let mut watch = MembershipThread {
            server: server.clone(),
            schema: schema.to_owned(),
            known: Arc::clone(&known),
            conn: None,
            asked: Instant::now(),
            may_lead,
        };
        watch.enter(STEP_DOWN_MAX)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("{domain}-presence"))
            .stack_size(STACK)
            .spawn(move || watch.keep(&stopped))
            .map_err(|error| error.to_string())?;
        Ok(Self { known, stop: Some(stop), thread: Some(thread) })
    }

    pub fn cache_lease(&self) -> CacheLease {
        CacheLease(Some(Arc::clone(&self.known)))
    }

    pub fn is_sole_process(&self) -> bool {
        self.known.is_sole_process()
    }

    pub fn is_leader(&self) -> bool {
        self.known.leads.load(Ordering::SeqCst)
    }

    pub fn is_present(&self) -> bool {
        self.known.present.load(Ordering::SeqCst)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Waited for, so that whoever opens the same schema next in this process finds the locks free.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct MembershipThread {
    server: Postgres,
    schema: String,
    known: Arc<MembershipState>,
    conn: Option<PgConnection>,
    asked: Instant,
    /// Whether it would do what is done by a timer.
    may_lead: bool,
}

fn ask(conn: &mut PgConnection, question: String) -> Result<bool, String> {
    diesel::select(sql::<Bool>(&question)).get_result(conn).map_err(|error| error.to_string())
}

fn tell(conn: &mut PgConnection, sql: String) -> Result<(), String> {
    conn.batch_execute(&sql).map_err(|error| error.to_string())
}

impl MembershipThread {
    fn presence(&self) -> i64 {
        locks::lock_id(&self.schema, "presence")
    }

    fn lead(&self) -> i64 {
        locks::lock_id(&self.schema, "lead")
    }

    /// Connects and takes a place: alone if nobody else is there, else beside them once they know.
    fn enter(&mut self, patience: Duration) -> Result<(), String> {
        let (presence, lead, channel) = (self.presence(), self.lead(), format!("\"{}:room\"", self.schema));
        let Conn::Postgres(mut conn) = postgres::connect(&self.server, &self.schema)? else {
            return Err("it is no server".to_owned());
        };
        // Listened to before the lock is taken, so that nobody who comes after is missed.
        tell(&mut conn, format!("LISTEN {channel}"))?;
        let alone = ask(&mut conn, format!("pg_try_advisory_lock({presence})"))?;
        if !alone {
            let begun = Instant::now();
            tell(&mut conn, "SET lock_timeout = '1s'".to_owned())?;
            // Asked for again when it takes long: the first may have gone and another have come.
            while let Err(error) = tell(&mut conn, format!("NOTIFY {channel}"))
                .and_then(|()| tell(&mut conn, format!("SELECT pg_advisory_lock_shared({presence})")))
            {
                if begun.elapsed() > patience || !error.contains("lock timeout") {
                    return Err(format!("another mercat has it to itself and does not make room: {error}"));
                }
            }
        }
        let leads = self.may_lead && ask(&mut conn, format!("pg_try_advisory_lock({lead})"))?;
        // Its own call was not meant for itself.
        conn.notifications_iter().for_each(drop);
        self.known.set_alone(alone);
        self.known.leads.store(leads, Ordering::SeqCst);
        self.known.present.store(true, Ordering::SeqCst);
        self.conn = Some(conn);
        self.asked = Instant::now();
        Ok(())
    }

    /// Keeps its place until it is told to stop.
    fn keep(mut self, stopped: &mpsc::Receiver<()>) {
        while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if let Err(reason) = self.look() {
                if self.known.present.load(Ordering::SeqCst) {
                    log::error!("database schema {}: it is not known who else is there: {reason}", self.schema);
                }
                self.known.lost();
                self.conn = None;
            }
        }
        self.known.lost();
    }

    fn look(&mut self) -> Result<(), String> {
        let (presence, lead) = (self.presence(), self.lead());
        let Some(conn) = self.conn.as_mut() else {
            if self.asked.elapsed() >= ELECTION_INTERVAL {
                self.asked = Instant::now();
                self.enter(ELECTION_INTERVAL)?;
                log::warn!("database schema {}: it is known again who else is there", self.schema);
            }
            return Ok(());
        };
        let mut called = false;
        for notification in conn.notifications_iter() {
            notification.map_err(|error| error.to_string())?;
            called = true;
        }
        if called && self.known.is_sole_process() {
            self.known.set_alone(false);
            std::thread::sleep(CACHE_READ_GRACE);
            tell(conn, format!("SELECT pg_advisory_lock_shared({presence}); SELECT pg_advisory_unlock({presence})"))?;
            log::info!("database schema {}: another mercat is there; nothing is remembered any more", self.schema);
        }
        if self.asked.elapsed() < ELECTION_INTERVAL {
            return Ok(());
        }
        self.asked = Instant::now();
        if self.may_lead && !self.known.leads.load(Ordering::SeqCst) {
            let leads = ask(conn, format!("pg_try_advisory_lock({lead})"))?;
            self.known.leads.store(leads, Ordering::SeqCst);
        }
        if self.known.is_sole_process() {
            // Whether the locks are still held is whether the connection still stands.
            return tell(conn, "SELECT 1".to_owned());
        }
        if !called && ask(conn, format!("pg_try_advisory_lock({presence})"))? {
            tell(conn, format!("SELECT pg_advisory_unlock_shared({presence})"))?;
            self.known.set_alone(true);
        }
        Ok(())
    }
}
