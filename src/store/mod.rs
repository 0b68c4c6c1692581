//! Durable storage of a domain: on SQLite one writer with group commit and a pool of readers, on PostgreSQL a pool and
//! advisory locks; migrations, idempotent responses, the outbox and the inbox.
//!
//! Contains: everything about databases that is the same for every domain. Does not contain: tables of a single domain,
//! business rules, HTTP, other processes. Only this module and the domains' stores contain SQL.

mod audit;
mod conn;
mod coordination;
mod erased_job;
mod error;
#[cfg(test)]
mod explain;
#[cfg(feature = "test-hooks")]
mod fault_injection;
pub mod files;
mod idempotency;
mod invariants;
mod locks;
mod migrate;
mod online_backup;
mod outbox;
mod postgres;
mod postgres_to_sqlite;
mod prepared;
pub mod query;
mod reader;
mod schema;
mod shared_handlers;
mod sqlite_to_postgres;
mod text_enum;
mod writer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::messaging::{CommonError, DomainError, Event, EventEnvelope, Request, RequestContext, StorageHealth, trace};
use crate::settings::Postgres;
use crate::types::{Clock, Timestamp, UserId, collapse_whitespace};

pub use audit::StaffAction;
pub use conn::Conn;
pub use coordination::CacheLease;
use erased_job::{ErasedJob, ErasedQuery, ErasedResult, is_storage_error};
#[cfg(test)]
pub use explain::explain;
#[cfg(feature = "test-hooks")]
pub use fault_injection::close_cached_connections;
pub use idempotency::{Fingerprint, IdempotentRequest, IdempotentWrite, RESPONSE_TTL};
pub use invariants::{Invariant, Invariants, RESTORE, Sql};
pub use locks::LockSet;
pub use migrate::Migrations;
pub use online_backup::{
    BackupTarget, backup_all, ensure_exclusive, is_in_use, mark_moved_away, modify_offline, verify,
};
pub use outbox::BROKER_CURSOR;
pub use postgres::{AdvisoryMarker, schema_exists};
pub use postgres_to_sqlite::copy_to_files;
pub use prepared::{Prepare, PreparedQuery};
pub use reader::PoolThreads;
pub use shared_handlers::{DomainState, check_invariants, list_audit_entries};
pub use sqlite_to_postgres::{AfterCopy, RowCounts, TableCopyJob, copy_all};
pub(crate) use text_enum::text_enum;

/// Age after which unfinished work of another process counts as abandoned.
const ORPHAN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Location and limits of a domain's database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The SQLite file, in a folder that exists. Not used with a server.
    pub file: PathBuf,
    /// The PostgreSQL server, instead of a file.
    pub server: Option<Postgres>,
    /// Maximum number of connections to the server.
    pub connections: u32,
    /// Whether to apply pending migrations while opening; otherwise an old database is refused.
    pub migrate: bool,
    /// Largest number of jobs per commit. 1 turns group commit off, for benchmarks.
    pub batch_max: usize,
    /// Maximum number of jobs that wait for the writer; more are rejected as overloaded.
    pub queue_max: usize,
    /// Maximum number of concurrent readers.
    pub readers_max: u32,
    /// Whether this process is a command beside the shop that serves from the same database: it does no background work.
    pub auxiliary: bool,
    /// Health of the storage, updated by the store.
    pub storage: Arc<StorageHealth>,
}

impl StoreConfig {
    /// Returns the defaults for a SQLite store in `file`.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            server: None,
            connections: 6,
            migrate: true,
            batch_max: 256,
            queue_max: 4_096,
            readers_max: 4,
            auxiliary: false,
            storage: Arc::default(),
        }
    }
}

/// Error of opening a domain: one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be opened: {reason}", subject(domain, file))]
pub struct OpenError {
    /// The domain.
    pub domain: &'static str,
    /// The database file; empty if the error is not about the file.
    pub file: PathBuf,
    /// The cause.
    pub reason: String,
}

impl OpenError {
    /// Builds the error of a setting that a domain cannot work with. The reason must not contain a secret.
    #[must_use]
    pub fn setting(domain: &'static str, key: &str, reason: &str) -> Self {
        Self { domain, file: PathBuf::new(), reason: format!("setting `{key}` {reason}") }
    }
}

fn subject(domain: &str, file: &std::path::Path) -> String {
    if file.as_os_str().is_empty() {
        return domain.to_owned();
    }
    format!("the database of {domain} in {}", file.display())
}

/// A domain's database. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<StoreInner>);

struct StoreInner {
    domain: &'static str,
    auxiliary: bool,
    clock: Clock,
    engine: Engine,
    outbox_notify: Arc<tokio::sync::Notify>,
}

/// Engine of a domain's database.
enum Engine {
    Sqlite { writer: writer::Writer, readers: reader::ReaderPool },
    Postgres(postgres::PostgresStore),
}

/// Write transaction of a job. Its changes become durable together, or not at all.
pub struct Tx<'a> {
    /// The connection, for the domain's `store.rs`.
    pub conn: &'a mut Conn,
    /// The time of this transaction.
    pub now: Timestamp,
    /// This process, where several may have the database open. Recorded with work that a crash may leave unfinished, for
    /// [`Store::takeover`].
    pub process: Option<i64>,
    wrote_events: bool,
    /// Change that the job described for the audit log.
    change: Option<serde_json::Value>,
}

/// Unfinished work that this process may take over.
///
/// A process knows what it works on itself, so it may resume what it began and does no more. What another process began,
/// the leader takes over when that one has ended, or after a minute if the work does not say whose it is: that is longer
/// than any request may take.
#[derive(Debug)]
pub struct Takeover {
    is_sole: bool,
    is_leader: bool,
    own: Option<i64>,
    ended: HashSet<i64>,
    now: Timestamp,
}

impl Takeover {
    /// Whether work that was started at this time by this process may be taken over.
    #[must_use]
    pub fn allows(&self, started_at: Timestamp, process: Option<i64>) -> bool {
        match process {
            _ if self.is_sole => true,
            Some(process) if Some(process) == self.own => true,
            Some(process) => self.is_leader && self.ended.contains(&process),
            None => self.is_leader && self.now.duration_since(started_at) > ORPHAN_TIMEOUT,
        }
    }
}

impl Tx<'_> {
    /// Writes an event to the outbox; it is delivered if and when this transaction becomes durable.
    pub fn emit<E: Event>(&mut self, event: &E) -> Result<(), diesel::result::Error> {
        self.wrote_events = true;
        outbox::insert(self.conn, self.now, event)
    }

    /// The stored response to this request, if there is one. For work of several steps; a single write uses
    /// [`Store::idempotent`].
    ///
    /// # Errors
    ///
    /// `IdempotencyKeyReused` when the key belongs to another request.
    pub fn find_response<T, E>(&mut self, request: &IdempotentRequest) -> Result<Option<T>, E>
    where
        T: DeserializeOwned,
        E: From<CommonError> + From<diesel::result::Error>,
    {
        idempotency::find_response(self.conn, request, self.now)
    }

    /// Stores the response to this request: a repetition gets it for [`RESPONSE_TTL`] once the transaction is durable.
    pub fn save_response<T, E>(&mut self, request: &IdempotentRequest, response: &T) -> Result<(), E>
    where
        T: Serialize,
        E: From<CommonError> + From<diesel::result::Error>,
    {
        idempotency::save_response(self.conn, request, response, self.now)
    }

    /// Blanks the stored responses to an erased user, and to others where they show the user; the keys stay taken.
    ///
    /// `had_address` is whether the user had an e-mail address. Guests without one are erased by the thousand, and
    /// no response to others shows them, so that only their own are looked for.
    pub fn erase_responses(&mut self, user: UserId, had_address: bool) -> diesel::QueryResult<()> {
        idempotency::erase_responses(self.conn, user, had_address).map(|_| ())
    }
}

impl Store {
    /// Opens the database of `domain`, creates it if it is missing, and applies pending migrations.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, belongs to a newer version, or must not be migrated.
    pub fn open(
        domain: &'static str,
        config: &StoreConfig,
        migrations: Migrations,
        clock: &Clock,
        threads: &PoolThreads,
    ) -> Result<Self, OpenError> {
        if let Some(server) = &config.server {
            return Self::open_server(domain, config, server, migrations, clock, threads);
        }
        let fail = |reason: String| OpenError { domain, file: config.file.clone(), reason };
        let mut connection = writer::connect(&config.file).map_err(fail)?;
        online_backup::refuse_moved_away(domain, &mut connection).map_err(fail)?;
        migrate::run_migrations(&mut connection, migrations, config.migrate).map_err(fail)?;
        let outbox_notify = Arc::new(tokio::sync::Notify::new());
        let writer = writer::Writer::start(domain, config, connection, clock.clone(), Arc::clone(&outbox_notify))
            .map_err(fail)?;
        let readers = reader::ReaderPool::open(domain, config, threads).map_err(fail)?;
        let engine = Engine::Sqlite { writer, readers };
        Ok(Self(Arc::new(StoreInner {
            domain,
            auxiliary: config.auxiliary,
            clock: clock.clone(),
            engine,
            outbox_notify,
        })))
    }

    fn open_server(
        domain: &'static str,
        config: &StoreConfig,
        server: &Postgres,
        migrations: Migrations,
        clock: &Clock,
        threads: &PoolThreads,
    ) -> Result<Self, OpenError> {
        let schema = server.schema(domain);
        let fail = |reason: String| {
            // A server's message may have several lines; an error of the start has one.
            let reason = collapse_whitespace(&reason);
            OpenError::setting(domain, "database", &format!("({}) cannot be used: {reason}", server.masked()))
        };
        let mut conn = postgres::connect(server, &schema).map_err(fail)?;
        if config.migrate {
            postgres::create_schema(&mut conn, &schema).map_err(fail)?;
        }
        postgres::with_migration_lock(&mut conn, &schema, |conn| {
            migrate::run_migrations(conn, migrations, config.migrate)
        })
        .map_err(fail)?;
        let outbox_notify = Arc::new(tokio::sync::Notify::new());
        let store =
            postgres::PostgresStore::open(domain, config, server, clock.clone(), Arc::clone(&outbox_notify), threads);
        let engine = Engine::Postgres(store.map_err(fail)?);
        Ok(Self(Arc::new(StoreInner {
            domain,
            auxiliary: config.auxiliary,
            clock: clock.clone(),
            engine,
            outbox_notify,
        })))
    }

    /// Returns the domain's name.
    #[must_use]
    pub fn domain(&self) -> &'static str {
        self.0.domain
    }

    /// Whether this process is a command beside the shop that serves from this database. Recovery of unfinished work and
    /// timers are off then: two processes would query the same payment, or send the same email.
    #[must_use]
    pub fn is_auxiliary(&self) -> bool {
        self.0.auxiliary
    }

    /// Returns the current time of the store's clock, which tests can set.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Whether jobs with different locks run at the same time.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        matches!(self.0.engine, Engine::Postgres(_))
    }

    /// Returns the lease of caches over this database: valid while no other process has it open.
    #[must_use]
    pub fn cache_lease(&self) -> CacheLease {
        match &self.0.engine {
            Engine::Sqlite { .. } => CacheLease::default(),
            Engine::Postgres(server) => server.membership().cache_lease(),
        }
    }

    /// Whether no other process has the database open, so that none works on what is unfinished in it.
    #[must_use]
    pub fn is_sole_process(&self) -> bool {
        match &self.0.engine {
            Engine::Sqlite { .. } => true,
            Engine::Postgres(server) => server.membership().is_sole_process(),
        }
    }

    /// Returns which unfinished work may be taken over that these processes have recorded as theirs.
    pub async fn takeover(&self, processes: impl IntoIterator<Item = Option<i64>>) -> Takeover {
        let mut takeover = Takeover {
            is_sole: self.is_sole_process(),
            is_leader: self.is_leader(),
            own: self.process(),
            ended: HashSet::new(),
            now: self.now(),
        };
        if takeover.is_sole || !takeover.is_leader {
            return takeover;
        }
        let others: HashSet<i64> =
            processes.into_iter().flatten().filter(|process| Some(*process) != takeover.own).collect();
        if !others.is_empty() {
            let ended = self.read(|conn| Ok::<_, CommonError>(coordination::ended_processes(conn, others)?)).await;
            // Without an answer nothing is taken over; the next round asks again.
            takeover.ended = ended.unwrap_or_default();
        }
        takeover
    }

    /// This process among those that have the database open; `None` where it is the only one that can.
    fn process(&self) -> Option<i64> {
        match &self.0.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres(server) => Some(server.membership().process()),
        }
    }

    /// Whether this process runs the timers, of all that have the database open.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        match &self.0.engine {
            Engine::Sqlite { .. } => !self.0.auxiliary,
            Engine::Postgres(server) => !self.0.auxiliary && server.membership().is_leader(),
        }
    }

    /// Runs `job` in a transaction of its own and returns when its changes are durable. An error rolls them back.
    ///
    /// Jobs run one after the other, in all processes, so what a job reads holds until it ends. It must be short: all
    /// other jobs of the domain wait.
    ///
    /// # Errors
    ///
    /// The job's own; `StorageUnavailable` while the database cannot be written; `Overloaded` with a full queue.
    pub async fn write<T, E>(&self, job: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: DomainError + From<diesel::result::Error>,
    {
        self.write_locked(LockSet::domain(), job).await
    }

    /// Runs `job` like [`Store::write`], but on PostgreSQL only excludes jobs that share a lock with it.
    ///
    /// # Errors
    ///
    /// See [`Store::write`].
    pub async fn write_locked<T, E>(
        &self,
        locks: LockSet,
        job: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: DomainError + From<diesel::result::Error>,
    {
        ErasedResult::downcast(self.run_job(locks, Box::new(|tx| ErasedResult::erase(job(tx)))).await)
    }

    async fn run_job(&self, locks: LockSet, job: ErasedJob) -> Result<ErasedResult, CommonError> {
        // The job runs on another thread.
        let trace = trace::current();
        let job: ErasedJob = Box::new(|tx| trace::in_scope(trace, || job(tx)));
        match &self.0.engine {
            Engine::Sqlite { writer, .. } => writer.run(job).await,
            Engine::Postgres(server) => server.write(locks, job).await,
        }
    }

    /// Builds a write that takes effect once per idempotency key of `ctx`, for this request: see [`IdempotentWrite`].
    ///
    /// # Errors
    ///
    /// `Internal` when the request has no JSON form.
    pub fn idempotent<'a, R: Request>(
        &'a self,
        ctx: &'a RequestContext,
        request: &R,
    ) -> Result<IdempotentWrite<'a>, CommonError> {
        IdempotentWrite::new(self, ctx, request)
    }

    /// Runs `query` on a reader, off the caller's thread. It sees all that was durable when it began.
    ///
    /// # Errors
    ///
    /// The query's own; `StorageUnavailable` while the database cannot be read.
    pub async fn read<T, E>(&self, query: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: DomainError,
    {
        ErasedResult::downcast(self.run_query(Box::new(|conn| ErasedResult::erase(query(conn)))).await)
    }

    async fn run_query(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        let trace = trace::current();
        let query: ErasedQuery = Box::new(|conn| trace::in_scope(trace, || query(conn)));
        match &self.0.engine {
            Engine::Sqlite { readers, .. } => readers.run(query).await,
            Engine::Postgres(server) => server.read(query).await,
        }
    }

    /// Applies the effect of each event exactly once: its id is recorded in the transaction of its effect, and an event
    /// with a recorded id is skipped. An event whose effect fails is moved to `dead_letter` with the error, so that it does
    /// not block the ones behind it.
    ///
    /// # Errors
    ///
    /// `StorageUnavailable` when the database fails; no event of the batch has an effect then.
    pub async fn consume<E>(
        &self,
        events: Vec<EventEnvelope>,
        effect: impl Fn(&mut Tx<'_>, &EventEnvelope) -> Result<(), E> + Send + 'static,
    ) -> Result<(), CommonError>
    where
        E: DomainError + From<diesel::result::Error>,
    {
        let domain = self.0.domain;
        self.write(move |tx| {
            for event in &events {
                outbox::consume(domain, tx, event, &effect)?;
            }
            Ok(())
        })
        .await
    }

    /// Resolves when an event is written to the outbox after this call.
    pub fn outbox_changed(&self) -> impl Future<Output = ()> + 'static {
        let mut notified = Box::pin(Arc::clone(&self.0.outbox_notify).notified_owned());
        notified.as_mut().enable();
        notified
    }

    /// Returns the next events after `subscriber`'s cursor, at most `limit`, with their sequence numbers.
    pub async fn outbox_read_after(
        &self,
        subscriber: &'static str,
        limit: i64,
    ) -> Result<Vec<(i64, EventEnvelope)>, CommonError> {
        let (rows, unnumbered) = self
            .read(move |conn| {
                let rows = outbox::read_after(conn, subscriber, limit)?;
                let is_last_page = i64::try_from(rows.len()).is_ok_and(|n| n < limit);
                let unnumbered = is_last_page && outbox::has_unnumbered(conn)?;
                Ok::<_, CommonError>((rows, unnumbered))
            })
            .await?;
        if !unnumbered {
            return Ok(rows);
        }
        self.write_locked(LockSet::key("outbox", ""), |tx| Ok::<_, CommonError>(outbox::number(tx.conn)?)).await?;
        self.read(move |conn| outbox::read_after(conn, subscriber, limit)).await
    }

    /// Records that `subscriber` has received all events up to `seq`.
    pub async fn outbox_advance_cursor(&self, subscriber: &'static str, seq: i64) -> Result<(), CommonError> {
        self.write_locked(LockSet::none(), move |tx| outbox::advance_cursor(tx.conn, subscriber, seq)).await
    }

    /// Whether all `subscribers` have received all events.
    pub async fn outbox_is_drained(&self, subscribers: Vec<&'static str>) -> Result<bool, CommonError> {
        self.outbox_drained_at(subscribers).await.map(|last| last.is_some())
    }

    /// Returns the number of the last event if all `subscribers` have received it, or else `None`. While the number stays
    /// the same there are no new events for them.
    pub async fn outbox_drained_at(&self, subscribers: Vec<&'static str>) -> Result<Option<i64>, CommonError> {
        self.read(move |conn| outbox::drained_at(conn, &subscribers)).await
    }

    /// Counts the events that each of `subscribers` has not received.
    pub async fn outbox_backlog(
        &self,
        subscribers: Vec<&'static str>,
    ) -> Result<Vec<(&'static str, i64)>, CommonError> {
        self.read(move |conn| outbox::backlog(conn, &subscribers)).await
    }

    /// Deletes expired responses, those to strangers beyond their budget, old events that all `subscribers` have received, and old ids of the inbox.
    pub async fn prune(&self, subscribers: Vec<&'static str>) -> Result<(), CommonError> {
        self.write(move |tx| {
            idempotency::delete_expired(tx.conn, tx.now)?;
            idempotency::delete_oldest_of_strangers(tx.conn, idempotency::STRANGERS_RESPONSES_MAX)?;
            outbox::delete_consumed(tx.conn, &subscribers, tx.now)
        })
        .await
    }

    /// Runs the queued jobs and queries, then rejects all later ones as `Unavailable`. A SQLite file is closed when this
    /// returns; on PostgreSQL dropping the store is enough.
    pub async fn close(&self) {
        if let Engine::Sqlite { writer, readers } = &self.0.engine {
            writer.close().await;
            readers.close().await;
        }
    }

    /// Returns the number of jobs that wait for the writer.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        match &self.0.engine {
            Engine::Sqlite { writer, .. } => writer.queue_depth(),
            Engine::Postgres(server) => server.queue_depth(),
        }
    }
}

/// Whether the databases of this test run are on PostgreSQL; tests that need a SQLite file are skipped then.
#[cfg(test)]
#[must_use]
pub fn tested_on_server() -> bool {
    std::env::var_os("MERCAT_TEST_DATABASE").is_some()
}

#[cfg(test)]
mod tests;
