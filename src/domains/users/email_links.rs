//! Mailed links: verification of addresses and reset of passwords. The e-mails are sent by the mailer, by event.

use std::sync::Arc;

use uuid::Uuid;

use super::actor::{UsersState, emit_changed, without_replay_flag};
use super::model::{self, EmailLinkKind};
use super::security_notices::notify_owner;
use super::store::{self, Account};
use super::tokens::TokenPurpose;
use super::{
    AccessChanged, CredentialChange, EmailVerificationRequested, ForgotPassword, IssueLinkToken, LinkToken,
    PasswordResetRequested, ResetPassword, UsersError, VerifyEmail,
};
use crate::messaging::RequestContext;
use crate::store::{Conn, Tx};
use crate::types::{EmailAddress, Timestamp, UserId, Validator, new_uuid};

/// Emits the event that has a verification link sent.
pub(super) fn send_verification(tx: &mut Tx<'_>, account: &Account, email: &EmailAddress) -> Result<(), UsersError> {
    let link_id = new_uuid();
    // Of two requested addresses the later one counts.
    store::consume_links(tx.conn, account.id, EmailLinkKind::Verify, tx.now)?;
    store::insert_link(tx.conn, link_id, EmailLinkKind::Verify, account.id, email, tx.now)?;
    Ok(tx.emit(&EmailVerificationRequested { user_id: account.id, email: email.clone(), link_id })?)
}

pub(super) async fn issue_link_token(
    state: Arc<UsersState>,
    _: RequestContext,
    request: IssueLinkToken,
) -> Result<LinkToken, UsersError> {
    let (id, now) = (request.link_id, state.store.now());
    let kind = state.store.read(move |conn| Ok::<_, UsersError>(store::find_open_link(conn, id, now)?)).await?;
    let kind = kind.ok_or(UsersError::InvalidLink)?;
    Ok(LinkToken { token: state.tokens.encode(TokenPurpose::EmailLink(kind), id) })
}

pub(super) async fn forgot_password(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: ForgotPassword,
) -> Result<(), UsersError> {
    // An invalid address is answered like an unknown one.
    let Ok(email) = request.email.parse::<EmailAddress>() else { return Ok(()) };
    state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let Some(account) = store::find_by_email(tx.conn, &email)? else { return Ok(()) };
            let since = tx.now.saturating_sub(EmailLinkKind::Reset.lifetime());
            if store::count_links(tx.conn, account.id, EmailLinkKind::Reset, since)? >= model::RESET_EMAILS_MAX {
                return Ok(());
            }
            let link_id = new_uuid();
            store::insert_link(tx.conn, link_id, EmailLinkKind::Reset, account.id, &email, tx.now)?;
            Ok(tx.emit(&PasswordResetRequested { user_id: account.id, email, link_id })?)
        })
        .await
}

/// The account of a link that is unused, not expired, and was sent to the account's present address, or to the one that is
/// to be confirmed.
///
/// # Errors
/// [`UsersError::InvalidLink`] otherwise.
fn account_for_link(
    conn: &mut Conn,
    id: Uuid,
    purpose: EmailLinkKind,
    now: Timestamp,
) -> Result<(Account, EmailAddress), UsersError> {
    let link = store::find_link(conn, id, purpose)?.ok_or(UsersError::InvalidLink)?;
    let account = store::find_by_id(conn, link.user_id)?.ok_or(UsersError::InvalidLink)?;
    let address = Some(&link.email);
    let is_own = account.email.as_ref() == address
        || (purpose == EmailLinkKind::Verify && account.pending_email.as_ref() == address);
    let is_good = link.used_at.is_none() && link.expires_at > now && is_own;
    if is_good { Ok((account, link.email)) } else { Err(UsersError::InvalidLink) }
}

pub(super) async fn reset_password(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: ResetPassword,
) -> Result<(), UsersError> {
    let mut fields = Validator::new();
    model::check_password(&mut fields, "password", &request.password);
    fields.finish()?;
    let purpose = EmailLinkKind::Reset;
    let id = state.tokens.decode(TokenPurpose::EmailLink(purpose), &request.token).ok_or(UsersError::InvalidLink)?;
    let without_secrets =
        ResetPassword { token: id.to_string(), password: String::new(), keep_api_keys: request.keep_api_keys };
    let permit = state.passwords.acquire(&ctx)?;
    let write_ctx = without_replay_flag(&ctx);
    let write = state.store.idempotent(&write_ctx, &without_secrets)?;
    let user_id = match write.find_response::<UserId, UsersError>().await? {
        Some(user_id) => user_id,
        None => {
            let now = state.store.now();
            // Without a key, a used link costs no hashing. With one, the same request may just have used it: the write
            // below decides.
            if ctx.key.is_none() {
                state.store.read(move |conn| account_for_link(conn, id, purpose, now).map(drop)).await?;
            }
            let hash = permit.hash(&ctx, &request.password).await?;
            let keep_api_keys = request.keep_api_keys;
            write
                .run(move |tx| {
                    let (mut account, _) = account_for_link(tx.conn, id, purpose, tx.now)?;
                    account.password_hash = Some(hash);
                    account.updated_at = tx.now;
                    store::update(tx.conn, &account)?;
                    store::consume_links(tx.conn, account.id, purpose, tx.now)?;
                    store::end_sessions(tx.conn, account.id, None)?;
                    if !keep_api_keys {
                        store::delete_keys(tx.conn, account.id)?;
                    }
                    tx.emit(&AccessChanged { user_id: account.id, session_id: None })?;
                    notify_owner(tx, &account, CredentialChange::Password, false)?;
                    Ok::<_, UsersError>(account.id)
                })
                .await?
        }
    };
    if write_ctx.is_replayed() {
        state.verify_repeated_password(&ctx, &permit, user_id, &request.password).await?;
        ctx.mark_replayed();
    }
    state.token_cache.invalidate_user(user_id);
    Ok(())
}

pub(super) async fn verify_email(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: VerifyEmail,
) -> Result<(), UsersError> {
    let purpose = EmailLinkKind::Verify;
    let id = state.tokens.decode(TokenPurpose::EmailLink(purpose), &request.token).ok_or(UsersError::InvalidLink)?;
    let without_secrets = VerifyEmail { token: id.to_string() };
    state
        .store
        .idempotent(&ctx, &without_secrets)?
        .run(move |tx| {
            let link = store::find_link(tx.conn, id, purpose)?.filter(|link| link.used_at.is_some());
            if let Some(link) = link {
                // Opened twice, or first by a mail scanner: a repetition succeeds and changes nothing.
                let account = store::find_by_id(tx.conn, link.user_id)?;
                let holds = account.is_some_and(|a| a.email_verified && a.email == Some(link.email));
                return if holds { Ok(()) } else { Err(UsersError::InvalidLink) };
            }
            let (before, address) = account_for_link(tx.conn, id, purpose, tx.now)?;
            let mut after = before.clone();
            if before.pending_email.as_ref() == Some(&address) {
                after.email = after.pending_email.take();
                // Reset links sent to the old address must not work.
                store::consume_links(tx.conn, after.id, EmailLinkKind::Reset, tx.now)?;
                notify_owner(tx, &before, CredentialChange::Email, false)?;
            }
            after.email_verified = true;
            after.updated_at = tx.now;
            store::update(tx.conn, &after)?;
            store::consume_link(tx.conn, id, tx.now)?;
            emit_changed(tx, &after)
        })
        .await
}
