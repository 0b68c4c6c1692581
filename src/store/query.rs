//! What a `store.rs` needs to speak SQL on either kind of database: diesel's own words, but for those that name one
//! kind of connection, which are ours.

pub use diesel::prelude::{
    AsChangeset, BoolExpressionMethods, CombineDsl, EscapeExpressionMethods, ExpressionMethods, Identifiable,
    Insertable, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable,
    QueryableByName, Selectable, Table, TextExpressionMethods,
};

pub(crate) use super::conn::on;
pub use super::conn::{Columns, RunQuery};
