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
    fn prepared(self) -> PreparedQuery<Self> {
        PreparedQuery(self)
    }
}

impl<Q> Prepare for Q {}

/// A statement that is prepared once per connection.
#[derive(Debug, Clone, Copy)]
pub struct PreparedQuery<Q>(Q);

/// Cached under its text.
impl<Q> QueryId for PreparedQuery<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for PreparedQuery<Q> {
    type SqlType = Q::SqlType;
}

impl<Q, C> RunQueryDsl<C> for PreparedQuery<Q> {}

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for PreparedQuery<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> PreparedQuery<Q> {
    /// Runs the statement and returns the number of affected rows.
    ///
    /// Adds `RETURNING 1` and counts the rows: for a plain `execute` diesel takes the query by reference, and a reference
    /// takes the answer of `is_safe_to_cache_prepared` from the inner query.
    pub fn execute<'q>(self, conn: &mut Conn) -> QueryResult<usize>
    where
        CountedQuery<Q>: LoadQuery<'q, SqliteConnection, i32> + LoadQuery<'q, PgConnection, i32>,
    {
        RunQuery::load::<i32>(CountedQuery(self.0), conn).map(|rows| rows.len())
    }
}

/// A prepared statement that returns a 1 per affected row.
#[derive(Debug, Clone, Copy)]
pub struct CountedQuery<Q>(Q);

/// Cached under its text.
impl<Q> QueryId for CountedQuery<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q> Query for CountedQuery<Q> {
    type SqlType = Integer;
}

impl<Q, C> RunQueryDsl<C> for CountedQuery<Q> {}

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for CountedQuery<Q> {
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
