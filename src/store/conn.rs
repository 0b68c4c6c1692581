//! A connection to a domain's database, of either kind, and how the same query is asked on both.
//!
//! A query is one text of Rust for both kinds: [`RunQuery`] sends it to whichever the connection is. The types stay those of
//! the concrete connection, so statements are prepared once and kept, as if there were one kind only.

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

type Manager = AnsiTransactionManager;

/// A connection to a domain's database.
#[allow(clippy::large_enum_variant, reason = "there are a handful, each lives long, and a box would cost every query")]
pub enum Conn {
    /// To a file.
    Sqlite(SqliteConnection),
    /// To a server.
    Postgres(PgConnection),
}

/// Asks the same of either kind where one query type cannot serve both, as with boxed queries. Inside, name the
/// functions of diesel's `RunQueryDsl` in full.
macro_rules! on {
    ($conn:expr, $c:ident => $body:expr) => {
        match $conn {
            $crate::store::Conn::Sqlite($c) => $body,
            $crate::store::Conn::Postgres($c) => $body,
        }
    };
}
pub(crate) use on;

impl Conn {
    /// Opens a database file.
    pub fn establish(file: &str) -> ConnectionResult<Self> {
        SqliteConnection::establish(file).map(Self::Sqlite)
    }

    /// Whether it is to a server.
    #[must_use]
    pub const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs statements that give nothing back.
    pub fn batch_execute(&mut self, sql: &str) -> QueryResult<()> {
        on!(self, c => c.batch_execute(sql))
    }

    /// Runs `job` in a transaction, or in a savepoint when there is one already; an error undoes it.
    pub fn transaction<T, E: From<DbError>>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        if !self.is_postgres() && self.depth()? > 0 {
            return self.savepoint(job);
        }
        on!(&mut *self, c => Manager::begin_transaction(c))?;
        self.end_after(job)
    }

    /// [`Conn::transaction`] within another one, on a file: by statements that stay prepared, as diesel's do not. Should
    /// the job panic, what is around it undoes this too.
    fn savepoint<T, E: From<DbError>>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        RunQuery::execute(Statement("SAVEPOINT part"), self)?;
        let result = job(self);
        if result.is_err() {
            RunQuery::execute(Statement("ROLLBACK TO part"), self)?;
        }
        RunQuery::execute(Statement("RELEASE part"), self)?;
        result
    }

    /// Runs `job` in a transaction that begins with these statements; an error undoes it.
    pub fn transaction_sql<T, E: From<DbError>>(
        &mut self,
        begin: &str,
        job: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        on!(&mut *self, c => Manager::begin_transaction_sql(c, begin))?;
        self.end_after(job)
    }

    fn end_after<T, E: From<DbError>>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        match job(self) {
            Ok(value) => self.commit().map(|()| value).map_err(E::from),
            Err(error) => match self.rollback() {
                // What broke it is worth more than that it is broken.
                Ok(()) | Err(DbError::BrokenTransactionManager) => Err(error),
                Err(worse) => Err(worse.into()),
            },
        }
    }

    /// Has somebody listen to what is asked of it.
    #[cfg(test)]
    pub fn set_instrumentation(&mut self, listener: impl diesel::connection::Instrumentation) {
        on!(self, c => c.set_instrumentation(listener));
    }

    /// Begins a transaction by these statements.
    pub(super) fn begin(&mut self, sql: &str) -> QueryResult<()> {
        on!(self, c => Manager::begin_transaction_sql(c, sql))
    }

    /// Ends the innermost transaction or savepoint well.
    pub(super) fn commit(&mut self) -> QueryResult<()> {
        if self.depth()? == 1
            && let Self::Postgres(c) = self
        {
            // A bare COMMIT of a transaction that an error has ended says yes and keeps nothing. The question before it
            // is refused then, and the rest with it.
            let committed = c.batch_execute("SELECT 1; COMMIT");
            if committed.is_err() {
                let _ = Manager::rollback_transaction(c);
            }
            return committed;
        }
        on!(self, c => Manager::commit_transaction(c))
    }

    /// How many transactions and savepoints are open.
    pub(super) fn depth(&mut self) -> QueryResult<u32> {
        let depth = on!(self, c => Manager::transaction_manager_status_mut(c).transaction_depth())?;
        Ok(depth.map_or(0, NonZeroU32::get))
    }

    /// Undoes the innermost of them.
    pub(super) fn rollback(&mut self) -> QueryResult<()> {
        on!(self, c => Manager::rollback_transaction(c))
    }

    /// Whether it can no longer be used.
    pub(super) fn is_broken(&mut self) -> bool {
        !matches!(self.depth(), Ok(0))
    }
}

/// Asks a query of a connection of either kind.
pub trait RunQuery: Sized {
    /// Runs it; says how many rows it concerned.
    fn execute(self, conn: &mut Conn) -> QueryResult<usize>
    where
        Self: RunQueryDsl<SqliteConnection>
            + RunQueryDsl<PgConnection>
            + ExecuteDsl<SqliteConnection>
            + ExecuteDsl<PgConnection>,
    {
        on!(conn, c => RunQueryDsl::execute(self, c))
    }

    /// All rows.
    fn load<'q, U>(self, conn: &mut Conn) -> QueryResult<Vec<U>>
    where
        Self: LoadQuery<'q, SqliteConnection, U> + LoadQuery<'q, PgConnection, U>,
    {
        on!(conn, c => RunQueryDsl::load(self, c))
    }

    /// The one row there is, or the first of those that come anyway.
    fn get_result<'q, U>(self, conn: &mut Conn) -> QueryResult<U>
    where
        Self: LoadQuery<'q, SqliteConnection, U> + LoadQuery<'q, PgConnection, U>,
    {
        on!(conn, c => RunQueryDsl::get_result(self, c))
    }

    /// The first row.
    fn first<'q, U>(self, conn: &mut Conn) -> QueryResult<U>
    where
        Self: LimitDsl + RunQueryDsl<SqliteConnection> + RunQueryDsl<PgConnection>,
        Limit<Self>: LoadQuery<'q, SqliteConnection, U> + LoadQuery<'q, PgConnection, U>,
    {
        on!(conn, c => RunQueryDsl::first(self, c))
    }
}

// Not for everything: a `Vec` has a `first` of its own.
impl<Q: RunQueryDsl<SqliteConnection>> RunQuery for Q {}

/// The columns of a struct, for a select that is the same on either kind.
pub trait Columns: Selectable<Sqlite> {
    /// They, in the order of its fields.
    fn as_select() -> Self::SelectExpression {
        Self::construct_selection()
    }
}

impl<T: Selectable<Sqlite>> Columns for T {}
