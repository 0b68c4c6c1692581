//! Prepared statements for updates and upserts. Diesel parses them on every execution, because their text may depend on
//! the data; the frequent ones of the domains have a fixed text, and parsing them costs more than running them.

use diesel::backend::Backend;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::methods::LoadQuery;
use diesel::sql_types::Integer;

use super::conn::{Conn, RunQuery};

/// Extension for statements with few different texts, such as an update that always sets the same columns.
pub trait Prepare: Sized {
    /// Wraps the statement so that it is prepared once per connection.
    fn prepared(self) -> Prepared<Self> {
        Prepared(self)
    }
}

impl<Q> Prepare for Q {}

/// A statement that is prepared once per connection.
#[derive(Debug, Clone, Copy)]
pub struct Prepared<Q>(Q);

/// Cached under its text.
impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Prepared<Q> {
    type SqlType = Q::SqlType;
}

impl<Q, C> RunQueryDsl<C> for Prepared<Q> {}

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for Prepared<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> Prepared<Q> {
    /// Runs the statement and returns the number of affected rows.
    ///
    /// Adds `RETURNING 1` and counts the rows: for a plain `execute` diesel takes the query by reference, and a reference
    /// takes the answer of `is_safe_to_cache_prepared` from the inner query.
    pub fn execute<'q>(self, conn: &mut Conn) -> QueryResult<usize>
    where
        Counted<Q>: LoadQuery<'q, SqliteConnection, i32> + LoadQuery<'q, PgConnection, i32>,
    {
        RunQuery::load::<i32>(Counted(self.0), conn).map(|rows| rows.len())
    }
}

/// A prepared statement that returns a 1 per affected row.
#[derive(Debug, Clone, Copy)]
pub struct Counted<Q>(Q);

/// Cached under its text.
impl<Q> QueryId for Counted<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q> Query for Counted<Q> {
    type SqlType = Integer;
}

impl<Q, C> RunQueryDsl<C> for Counted<Q> {}

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for Counted<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(" RETURNING 1");
        Ok(())
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

/// A statement without parameters.
#[derive(Debug, Clone, Copy)]
pub struct Statement(pub &'static str);

impl QueryId for Statement {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<C> RunQueryDsl<C> for Statement {}

impl<DB: Backend> QueryFragment<DB> for Statement {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(self.0);
        Ok(())
    }
}
