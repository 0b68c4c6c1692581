//! Durable storage of a domain: on SQLite one writer with group commit and a pool of readers, on PostgreSQL a pool and
//! advisory locks; migrations, idempotent responses, the outbox and the inbox.
//!
//! Contains: everything about databases that is the same for every domain. Does not contain: tables of a single domain,
//! business rules, HTTP, other processes. Only this module and the domains' stores contain SQL.

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
mod prepared;
pub mod query;
mod reader;
mod schema;
mod sqlite_to_postgres;
mod text_enum;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::messaging::{CommonError, DomainError, Event, EventEnvelope, Request, RequestContext, StorageHealth, trace};
use crate::settings::Postgres;
use crate::types::{Clock, Timestamp};

pub use conn::Conn;
pub use coordination::CacheLease;
use erased_job::{ErasedJob, ErasedQuery, ErasedResult, is_storage_error};
#[cfg(test)]
pub use explain::plans;
#[cfg(feature = "test-hooks")]
pub use fault_injection::close_cached_connections;
pub use idempotency::{Fingerprint, IdempotentRequest, IdempotentWrite, RESPONSE_TTL};
pub use invariants::{Invariant, Invariants, RESTORE, Sql};
pub use locks::LockSet;
pub use migrate::Migrations;
pub use online_backup::{BackupTarget, change, copy_all, is_in_use, lone, verify};
pub use outbox::BROKER_CURSOR;
pub use postgres::{AdvisoryMarker, schema_exists};
pub use prepared::{Prepare, Prepared};
pub use reader::PoolThreads;
pub use sqlite_to_postgres::{RowCounts, TableCopyJob, move_all};
pub(crate) use text_enum::text_enum;

/// Age after which unfinished work of another process counts as abandoned.
const ORPHAN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Location and limits of a domain's database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database file. Its folder must exist. Not used when there is a server.
    pub file: PathBuf,
    /// The server that has the database instead of a file.
    pub server: Option<Postgres>,
    /// Maximum number of connections to the server.
    pub connections: u32,
    /// Whether to bring the database to this version while opening it; otherwise an old one is refused.
    pub migrate: bool,
    /// The most jobs that share one commit. One is a commit each: for comparison only.
    pub batch_max: usize,
    /// Maximum number of jobs that wait for the writer; more are refused.
    pub queue_max: usize,
    /// Maximum number of concurrent readers.
    pub readers_max: u32,
    /// Whether this process only looks in beside the shop that runs on the same database, or will.
    pub auxiliary: bool,
    /// Health of the storage, updated by the store.
    pub storage: Arc<StorageHealth>,
}

impl StoreConfig {
    /// The usual store in `file`.
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
#[error("{} cannot be opened: {reason}", what(domain, file))]
pub struct OpenError {
    /// The domain.
    pub domain: &'static str,
    /// The database file; empty when it is not the database that is wrong.
    pub file: PathBuf,
    /// The cause.
    pub reason: String,
}

impl OpenError {
    /// Says that a domain cannot work with a setting. The reason must not show a secret.
    #[must_use]
    pub fn setting(domain: &'static str, key: &str, reason: &str) -> Self {
        Self { domain, file: PathBuf::new(), reason: format!("setting `{key}` {reason}") }
    }
}

fn what(domain: &str, file: &std::path::Path) -> String {
    if file.as_os_str().is_empty() {
        return domain.to_owned();
    }
    format!("the database of {domain} in {}", file.display())
}

/// A domain's database. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    domain: &'static str,
    auxiliary: bool,
    clock: Clock,
    kind: Kind,
    news: Arc<tokio::sync::Notify>,
}

/// Engine of a domain's database.
enum Kind {
    Sqlite { writer: writer::Writer, readers: reader::ReaderPool },
    Postgres(postgres::PostgresStore),
}

/// A write transaction: a job's view of the database. All of it becomes durable together, or none.
pub struct Tx<'a> {
    /// The connection, for the domain's `store.rs`.
    pub conn: &'a mut Conn,
    /// The time of this transaction.
    pub now: Timestamp,
    wrote_events: bool,
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
}

impl Store {
    /// Opens `domain`'s database, makes it if there is none, and brings it to this version.
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
        migrate::run_migrations(&mut connection, migrations, config.migrate).map_err(fail)?;
        let news = Arc::new(tokio::sync::Notify::new());
        let own_news = Arc::clone(&news);
        let writer = writer::Writer::start(domain, config, connection, clock.clone(), own_news);
        let writer = writer.map_err(fail)?;
        let readers = reader::ReaderPool::open(domain, config, threads).map_err(fail)?;
        let kind = Kind::Sqlite { writer, readers };
        Ok(Self(Arc::new(Inner { domain, auxiliary: config.auxiliary, clock: clock.clone(), kind, news })))
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
            // A server's words may be of several lines, and what is said at a start is one.
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            OpenError::setting(domain, "database", &format!("({}) cannot be used: {reason}", server.shown()))
        };
        let mut conn = postgres::connect(server, &schema).map_err(fail)?;
        if config.migrate {
            postgres::create_schema(&mut conn, &schema).map_err(fail)?;
        }
        postgres::with_migration_lock(&mut conn, &schema, |conn| {
            migrate::run_migrations(conn, migrations, config.migrate)
        })
        .map_err(fail)?;
        let news = Arc::new(tokio::sync::Notify::new());
        let own_news = Arc::clone(&news);
        let server =
            postgres::PostgresStore::open(domain, config, server, clock.clone(), own_news, threads).map_err(fail)?;
        let kind = Kind::Postgres(server);
        Ok(Self(Arc::new(Inner { domain, auxiliary: config.auxiliary, clock: clock.clone(), kind, news })))
    }

    /// Returns the domain's name.
    #[must_use]
    pub fn domain(&self) -> &'static str {
        self.0.domain
    }

    /// Whether another process runs the shop on this database, or will. Whoever looks for unfinished work, or works by
    /// a timer, leaves all of it to that one: two would ask after the same payment, or send the same mail.
    #[must_use]
    pub fn is_auxiliary(&self) -> bool {
        self.0.auxiliary
    }

    /// The time, as the domain must see it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Whether jobs that touch different things run at the same time.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        matches!(self.0.kind, Kind::Postgres(_))
    }

    /// Says whether this process may believe what it remembers of the database: only while no other has it open.
    #[must_use]
    pub fn cache_lease(&self) -> CacheLease {
        match &self.0.kind {
            Kind::Sqlite { .. } => CacheLease::default(),
            Kind::Postgres(server) => server.presence().cache_lease(),
        }
    }

    /// Whether work that was begun and not ended is certainly nobody's: no other process has the database open.
    #[must_use]
    pub fn is_sole_process(&self) -> bool {
        match &self.0.kind {
            Kind::Sqlite { .. } => true,
            Kind::Postgres(server) => server.presence().is_sole_process(),
        }
    }

    /// Whether nobody works any more on what was begun then and has not ended, so that it may be taken up. Whoever is
    /// alone knows what it works on itself; else a minute must have passed, which is longer than any request may take.
    #[must_use]
    pub fn is_orphaned(&self, begun: Timestamp) -> bool {
        self.is_sole_process() || self.now().duration_since(begun) > ORPHAN_TIMEOUT
    }

    /// Whether this process does what is done by a timer, of all that have the database open.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        match &self.0.kind {
            Kind::Sqlite { .. } => !self.0.auxiliary,
            Kind::Postgres(server) => !self.0.auxiliary && server.presence().is_leader(),
        }
    }

    /// Runs `job` in a transaction of its own and answers when its changes are durable. An error undoes them.
    ///
    /// Jobs run one after the other, in all processes, so what a job reads holds until it ends. It must be short:
    /// everybody waits.
    pub async fn write<T, E>(&self, job: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: DomainError + From<diesel::result::Error>,
    {
        self.write_locked(LockSet::domain(), job).await
    }

    /// [`Store::write`] for a job that touches only this, so that on a server others may run beside it.
    pub async fn write_locked<T, E>(
        &self,
        touch: LockSet,
        job: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: DomainError + From<diesel::result::Error>,
    {
        ErasedResult::downcast(self.work(touch, Box::new(|tx| ErasedResult::erase(job(tx)))).await)
    }

    async fn work(&self, touch: LockSet, work: ErasedJob) -> Result<ErasedResult, CommonError> {
        // It runs on another thread.
        let trace = trace::current();
        let work: ErasedJob = Box::new(|tx| trace::in_scope(trace, || work(tx)));
        match &self.0.kind {
            Kind::Sqlite { writer, .. } => writer.run(work).await,
            Kind::Postgres(server) => server.write(touch, work).await,
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

    /// Runs `query` on a reader, off the caller's thread. It sees everything that was durable when it began.
    pub async fn read<T, E>(&self, query: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: DomainError,
    {
        ErasedResult::downcast(self.query(Box::new(|conn| ErasedResult::erase(query(conn)))).await)
    }

    async fn query(&self, query: ErasedQuery) -> Result<ErasedResult, CommonError> {
        let trace = trace::current();
        let query: ErasedQuery = Box::new(|conn| trace::in_scope(trace, || query(conn)));
        match &self.0.kind {
            Kind::Sqlite { readers, .. } => readers.run(query).await,
            Kind::Postgres(server) => server.read(query).await,
        }
    }

    /// Has the effect of each event exactly once: an event seen before is passed over, and its being seen is
    /// recorded in the transaction of its effect. An effect that fails for a reason of its own is set aside with that
    /// reason, so that one bad event does not stop all that come after; a failing database fails the whole.
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

    /// Resolves when something new is in the outbox after this call.
    pub fn outbox_changed(&self) -> impl Future<Output = ()> + 'static {
        let mut news = Box::pin(Arc::clone(&self.0.news).notified_owned());
        news.as_mut().enable();
        news
    }

    /// The next events that `subscriber` has not heard of, with their sequence numbers.
    pub async fn outbox_read_after(
        &self,
        subscriber: &'static str,
        limit: i64,
    ) -> Result<Vec<(i64, EventEnvelope)>, CommonError> {
        let (rows, unnumbered) = self
            .read(move |conn| {
                let rows = outbox::read_after(conn, subscriber, limit)?;
                let is_all = i64::try_from(rows.len()).is_ok_and(|n| n < limit);
                let unnumbered = is_all && outbox::has_unnumbered(conn)?;
                Ok::<_, CommonError>((rows, unnumbered))
            })
            .await?;
        if !unnumbered {
            return Ok(rows);
        }
        self.write_locked(LockSet::key("outbox", ""), |tx| Ok::<_, CommonError>(outbox::number(tx.conn)?)).await?;
        self.read(move |conn| outbox::read_after(conn, subscriber, limit)).await
    }

    /// Notes that `subscriber` has heard of everything up to `seq`.
    pub async fn outbox_advance_cursor(&self, subscriber: &'static str, seq: i64) -> Result<(), CommonError> {
        self.write_locked(LockSet::none(), move |tx| outbox::advance_cursor(tx.conn, subscriber, seq)).await
    }

    /// Whether all of `subscribers` have heard of everything.
    pub async fn outbox_is_drained(&self, subscribers: Vec<&'static str>) -> Result<bool, CommonError> {
        self.outbox_drained_at(subscribers).await.map(|last| last.is_some())
    }

    /// The number of the last event, if all of `subscribers` have heard of everything: as long as it stays the same,
    /// nothing has happened that they would hear of.
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

    /// Deletes what has expired: responses older than a day, old events that all `subscribers` have received.
    pub async fn prune(&self, subscribers: Vec<&'static str>) -> Result<(), CommonError> {
        self.write(move |tx| {
            idempotency::delete_expired(tx.conn, tx.now)?;
            outbox::delete_consumed(tx.conn, &subscribers, tx.now)
        })
        .await
    }

    /// Ends it: what was asked before is done, everything after is refused as unavailable. A file is nobody's of this
    /// process then; on a server it is enough to drop the store.
    pub async fn close(&self) {
        if let Kind::Sqlite { writer, readers } = &self.0.kind {
            writer.close().await;
            readers.close().await;
        }
    }

    /// Returns the number of jobs that wait for the writer.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        match &self.0.kind {
            Kind::Sqlite { writer, .. } => writer.queue_depth(),
            Kind::Postgres(server) => server.queue_depth(),
        }
    }
}

/// Whether the databases of this test run are on a server: what only files can do is not tried there.
#[cfg(test)]
#[must_use]
pub fn tested_on_server() -> bool {
    std::env::var_os("MERCAT_TEST_DATABASE").is_some()
}

#[cfg(test)]
mod tests;
