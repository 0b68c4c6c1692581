//! Invariants of accounts for `mercat check`, and the facts that other domains are checked against.

use crate::domains::users::schema::account;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::UserId;

/// Invariants of this domain.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("accounts", "account")],
    rules: &[Invariant {
        violation: "account without an e-mail address, or guest with one",
        remedy: RESTORE,
        sql: Sql::Shared("SELECT id || ' is ' || role AS found FROM account WHERE (email IS NULL) <> (role = 'guest')"),
    }],
};

/// Returns those of `users` that exist.
pub fn filter_existing(conn: &mut Conn, users: &[UserId]) -> QueryResult<Vec<UserId>> {
    account::table.filter(account::id.eq_any(users)).select(account::id).load(conn)
}
