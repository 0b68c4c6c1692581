//! Connections to a domain's database on SQLite or PostgreSQL, and queries that run on both.
//!
//! Contains: [`Conn`] and [`RunQuery`], which runs one diesel query on either backend. The types stay those of the
//! concrete connection, so diesel caches prepared statements as usual. Does not contain: pools and the settings of a
//! session.

use std::num::NonZeroU32;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::expression::Selectable;
use diesel::helper_types::Limit;
use diesel::pg::PgConnection;
use diesel::query_dsl::methods::{ExecuteDsl, LimitDsl, LoadQuery};
use diesel::result::Error as DbError;
use diesel::sqlite::{Sqlite, SqliteConnection};
use diesel::{Connection as _, ConnectionResult, QueryResult, RunQueryDsl};

use super::prepared::Statement;

/// A connection to a domain's database.
#[allow(clippy::large_enum_variant, reason = "a process has few, all long-lived, and a box would cost every query")]
pub enum Conn {
    /// A SQLite file.
    Sqlite(SqliteConnection),
    /// A PostgreSQL server.
    Postgres(PgConnection),
}

/// Expands an expression for both backends where one query type cannot serve both, as with boxed queries. Functions of
/// diesel's `RunQueryDsl` must be called by their full path in it.
macro_rules! for_backend {
    ($conn:expr, $c:ident => $body:expr) => {
        match $conn {
            $crate::store::Conn::Sqlite($c) => $body,
            $crate::store::Conn::Postgres($c) => $body,
        }
    };
}
pub(crate) use for_backend;

impl Conn {
    /// Opens a database file.
    pub fn establish(file: &str) -> ConnectionResult<Self> {
        SqliteConnection::establish(file).map(Self::Sqlite)
    }

    /// Whether the database is PostgreSQL.
    #[must_use]
    pub const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs statements without results, separated by semicolons.
    pub fn batch_execute(&mut self, sql: &str) -> QueryResult<()> {
        for_backend!(self, c => c.batch_execute(sql))
    }

    /// Runs `job` in a transaction, or in a savepoint of the one that is open; an error rolls it back.
    pub fn transaction<T, E: From<DbError>>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        if !self.is_postgres() && self.depth()? > 0 {
            return self.savepoint(job);
        }
        for_backend!(&mut *self, c => AnsiTransactionManager::begin_transaction(c))?;
        self.finish(job)
    }

    /// Runs `job` in a savepoint on SQLite, by statements that stay prepared, unlike diesel's. If the job panics, the
    /// transaction around it is rolled back with it.
    fn savepoint<T, E: From<DbError>>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        RunQuery::execute(Statement("SAVEPOINT part"), self)?;
        let result = job(self);
        if result.is_err() {
            RunQuery::execute(Statement("ROLLBACK TO part"), self)?;
        }
        RunQuery::execute(Statement("RELEASE part"), self)?;
        result
    }

    /// Runs `job` in a transaction that begins with these statements; an error rolls it back.
    pub fn transaction_sql<T, E: From<DbError>>(
        &mut self,
        begin: &str,
        job: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        for_backend!(&mut *self, c => AnsiTransactionManager::begin_transaction_sql(c, begin))?;
        self.finish(job)
    }

    /// Runs `job`, then commits or rolls back.
    fn finish<T, E: From<DbError>>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        match job(self) {
            Ok(value) => self.commit().map(|()| value).map_err(E::from),
            Err(error) => match self.rollback() {
                // The first error says more than that the transaction is broken.
                Ok(()) | Err(DbError::BrokenTransactionManager) => Err(error),
                Err(rollback_error) => Err(rollback_error.into()),
            },
        }
    }

    /// Sets the listener of diesel's instrumentation events.
    #[cfg(test)]
    pub fn set_instrumentation(&mut self, listener: impl diesel::connection::Instrumentation) {
        for_backend!(self, c => c.set_instrumentation(listener));
    }

    /// Begins a transaction with these statements.
    pub(super) fn begin(&mut self, sql: &str) -> QueryResult<()> {
        for_backend!(self, c => AnsiTransactionManager::begin_transaction_sql(c, sql))
    }

    /// Commits the innermost transaction or savepoint.
    pub(super) fn commit(&mut self) -> QueryResult<()> {
        if self.depth()? == 1
            && let Self::Postgres(c) = self
        {
            // A bare COMMIT of a transaction that an error has aborted succeeds and keeps nothing. The statement before it
            // fails then, and the COMMIT with it.
            let committed = c.batch_execute("SELECT 1; COMMIT");
            if committed.is_err() {
                let _ = AnsiTransactionManager::rollback_transaction(c);
            }
            return committed;
        }
        for_backend!(self, c => AnsiTransactionManager::commit_transaction(c))
    }

    /// Returns the number of open transactions and savepoints.
    pub(super) fn depth(&mut self) -> QueryResult<u32> {
        let depth =
            for_backend!(self, c => AnsiTransactionManager::transaction_manager_status_mut(c).transaction_depth())?;
        Ok(depth.map_or(0, NonZeroU32::get))
    }

    /// Rolls back the innermost transaction or savepoint.
    pub(super) fn rollback(&mut self) -> QueryResult<()> {
        for_backend!(self, c => AnsiTransactionManager::rollback_transaction(c))
    }

    /// Whether the connection must not be used again.
    pub(super) fn is_broken(&mut self) -> bool {
        !matches!(self.depth(), Ok(0))
    }
}

/// Runs a diesel query on a connection of either backend.
pub trait RunQuery: Sized {
    /// Runs the statement and returns the number of affected rows.
    fn execute(self, conn: &mut Conn) -> QueryResult<usize>
    where
        Self: RunQueryDsl<SqliteConnection>
            + RunQueryDsl<PgConnection>
            + ExecuteDsl<SqliteConnection>
            + ExecuteDsl<PgConnection>,
    {
        for_backend!(conn, c => RunQueryDsl::execute(self, c))
    }

    /// Returns all rows.
    fn load<'q, U>(self, conn: &mut Conn) -> QueryResult<Vec<U>>
    where
        Self: LoadQuery<'q, SqliteConnection, U> + LoadQuery<'q, PgConnection, U>,
    {
        for_backend!(conn, c => RunQueryDsl::load(self, c))
    }

    /// Returns the first row of a query that is expected to have one; sets no `LIMIT`.
    fn get_result<'q, U>(self, conn: &mut Conn) -> QueryResult<U>
    where
        Self: LoadQuery<'q, SqliteConnection, U> + LoadQuery<'q, PgConnection, U>,
    {
        for_backend!(conn, c => RunQueryDsl::get_result(self, c))
    }

    /// Returns the first row; sets `LIMIT 1`.
    fn first<'q, U>(self, conn: &mut Conn) -> QueryResult<U>
    where
        Self: LimitDsl + RunQueryDsl<SqliteConnection> + RunQueryDsl<PgConnection>,
        Limit<Self>: LoadQuery<'q, SqliteConnection, U> + LoadQuery<'q, PgConnection, U>,
    {
        for_backend!(conn, c => RunQueryDsl::first(self, c))
    }
}

// Not for all types: `Vec` has a `first` of its own.
impl<Q: RunQueryDsl<SqliteConnection>> RunQuery for Q {}

/// Columns of a row struct, for a select that is the same on both backends.
pub trait Columns: Selectable<Sqlite> {
    /// Returns the columns in the order of the fields.
    fn as_select() -> Self::SelectExpression {
        Self::construct_selection()
    }
}

impl<T: Selectable<Sqlite>> Columns for T {}
