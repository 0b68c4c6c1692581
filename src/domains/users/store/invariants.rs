//! What must hold of accounts, and who there is.

use crate::domains::users::schema::account;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::UserId;

/// What must always hold here.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("accounts", "account")],
    rules: &[Invariant {
        what: "an account has no address, or a guest has one",
        remedy: RESTORE,
        sql: Sql::Shared("SELECT id || ' is ' || role AS found FROM account WHERE (email IS NULL) <> (role = 'guest')"),
    }],
};

/// Those of `users` that there are.
pub fn existing(conn: &mut Conn, users: &[UserId]) -> QueryResult<Vec<UserId>> {
    account::table.filter(account::id.eq_any(users)).select(account::id).load(conn)
}
