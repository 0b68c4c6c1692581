//! Imports for a domain's `store.rs`: diesel's query builder, with this crate's own traits in place of those that are
//! bound to one backend.

pub use diesel::prelude::{
    AsChangeset, BoolExpressionMethods, CombineDsl, EscapeExpressionMethods, ExpressionMethods, Identifiable,
    Insertable, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable,
    QueryableByName, Selectable, Table, TextExpressionMethods,
};

pub(crate) use super::conn::for_backend;
pub use super::conn::{Columns, RunQuery};
