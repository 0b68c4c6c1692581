//! E-mails that tell the owner of an account that its credentials or rights changed, so that a change that was not theirs
//! is noticed. Sent by the mailer, by event.

use super::store::{self, Account};
use super::{CredentialChange, CredentialsChanged, UsersError};
use crate::store::Tx;
use crate::types::UserId;

/// Tells the owner, at the address that the account had before the change. A guest has none, and is not told.
pub fn notify_owner(
    tx: &mut Tx<'_>,
    before: &Account,
    change: CredentialChange,
    by_staff: bool,
) -> Result<(), UsersError> {
    let Some(email) = before.email.clone() else { return Ok(()) };
    Ok(tx.emit(&CredentialsChanged { user_id: before.id, email, change, by_staff })?)
}

/// Tells a member of staff that they changed the account of another one.
pub fn notify_staff_member(tx: &mut Tx<'_>, caller: UserId) -> Result<(), UsersError> {
    match store::find_by_id(tx.conn, caller)? {
        Some(account) => notify_owner(tx, &account, CredentialChange::OfStaff, false),
        None => Ok(()),
    }
}
