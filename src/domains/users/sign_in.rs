//! Sessions: guests, sign-in and sign-out, and the resolution of tokens for the gateway.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::actor::{UsersState, require_user};
use super::second_factor::use_code;
use super::store::{self, Account, KeyHolder, SessionRow};
use super::token_cache::TokenHolder;
use super::{
    AccessChanged, Authenticate, Authenticated, CreateGuest, SignIn, SignOut, SignedIn, User, UsersError, model,
};
use crate::messaging::{CommonError, Credential, Identity, RequestContext, Role};
use crate::settings::UsersSettings;
use crate::store::{LockSet, Tx};
use crate::types::{EmailAddress, SessionId, Timestamp, UserId};

/// A new session as stored under an idempotency key: ids, no token.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub(super) session_id: SessionId,
    pub(super) expires_at: Timestamp,
    pub(super) user: User,
    /// Older sessions of the user that ended because of [`model::SESSIONS_MAX`].
    #[serde(skip)]
    ended: Vec<SessionId>,
}

/// Sessions of staff whose use is written in one transaction.
const SESSION_USAGE_BATCH: usize = 500;

/// Creates a session and emits an event for each that ends because of it.
pub(super) fn begin_session(
    tx: &mut Tx<'_>,
    account: &Account,
    settings: &UsersSettings,
) -> Result<SessionRecord, UsersError> {
    let lifetime = if account.role.is_staff() { settings.staff_session } else { settings.session };
    let (session_id, expires_at) = (SessionId::new(), tx.now.saturating_add(lifetime));
    let ended = store::begin_session(tx.conn, session_id, account.id, tx.now, expires_at)?;
    for session in &ended {
        tx.emit(&AccessChanged { user_id: account.id, session_id: Some(*session) })?;
    }
    Ok(SessionRecord { session_id, expires_at, user: account.user(), ended })
}

pub(super) async fn create_guest(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: CreateGuest,
) -> Result<SignedIn, UsersError> {
    let job_state = Arc::clone(&state);
    let record = state
        .store
        .idempotent(&guest_context(&ctx), &request)?
        .locks(LockSet::none())
        .run(move |tx| {
            let guest = Account {
                id: UserId::new(),
                email: None,
                pending_email: None,
                name: String::new(),
                role: Role::Guest,
                email_verified: false,
                password_hash: None,
                totp_id: None,
                totp_step: None,
                created_at: tx.now,
                updated_at: tx.now,
            };
            store::insert(tx.conn, &guest)?;
            store::insert_unbought_guest(tx.conn, guest.id, tx.now)?;
            begin_session(tx, &guest, &job_state.settings)
        })
        .await?;
    Ok(state.to_signed_in(record))
}

/// The context of a request for a guest, without its idempotency key if another client could have the same one: the keys
/// of anonymous callers are distinguished by their address alone, which many share, and the reply is a token.
fn guest_context(ctx: &RequestContext) -> RequestContext {
    let is_anonymous = ctx.identity().is_none() && !ctx.is_domain();
    let mut ctx = ctx.clone();
    ctx.key = ctx.key.filter(|key| !is_anonymous || key.as_str().len() >= model::UNGUESSABLE_KEY_MIN);
    ctx
}

pub(super) async fn sign_in(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: SignIn,
) -> Result<SignedIn, UsersError> {
    // An invalid address counts as unknown, a password above the maximum length as wrong.
    let email: Option<EmailAddress> = request.email.parse().ok();
    let name = email.as_ref().map_or(&*request.email, EmailAddress::as_str);
    let throttle = state.throttle.as_ref().zip(ctx.network);
    let attempt = throttle.map(|(throttle, network)| throttle.admit(name, network, state.store.now())).transpose()?;
    let permit = state.passwords.acquire(&ctx)?;
    let password = if request.password.chars().count() > *model::PASSWORD_CHARS.end() { "" } else { &request.password };
    let account = match email.clone() {
        Some(email) => state.store.read(move |conn| Ok::<_, UsersError>(store::find_by_email(conn, &email)?)).await?,
        None => None,
    };
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let is_right = permit.verify(&ctx, password, hash.as_deref()).await?;
    drop(permit);
    let (Some(account), Some(email), true) = (account, email, is_right) else {
        if let Some(attempt) = attempt {
            attempt.failed(state.store.now());
        }
        return Err(UsersError::BadCredentials);
    };
    if account.totp_step.is_some() && request.code.is_none() {
        // Neither a success nor a failure: otherwise codes could be guessed without a limit.
        return Err(UsersError::SecondFactorRequired);
    }
    let (user_id, job_state) = (account.id, Arc::clone(&state));
    let without_secrets = SignIn { email: email.to_string(), password: String::new(), code: None };
    let code = request.code;
    let record = state
        .store
        .idempotent(&ctx, &without_secrets)?
        .locks(LockSet::key("user", user_id))
        .run(move |tx| {
            // The password may have changed since it was verified; this sign-in is then too late.
            let mut account = store::find_by_id(tx.conn, user_id)?
                .filter(|account| account.password_hash == hash)
                .ok_or(UsersError::BadCredentials)?;
            if account.totp_step.is_some() {
                let code = code.as_deref().ok_or(UsersError::SecondFactorRequired)?;
                use_code(tx, &job_state.tokens, &mut account, code)?;
            }
            begin_session(tx, &account, &job_state.settings)
        })
        .await;
    if let Some(attempt) = attempt {
        match &record {
            Ok(_) => attempt.succeeded(state.store.now()),
            Err(UsersError::WrongCode) => attempt.failed(state.store.now()),
            Err(_) => {}
        }
    }
    let record = record?;
    for session in &record.ended {
        state.token_cache.invalidate(&Credential::Session(*session));
    }
    Ok(state.to_signed_in(record))
}

pub(super) async fn sign_out(state: Arc<UsersState>, ctx: RequestContext, request: SignOut) -> Result<(), UsersError> {
    let who = require_user(&ctx)?;
    let Credential::Session(session_id) = who.credential else {
        // An API key has no session to end; its owner deletes it.
        return Err(CommonError::Forbidden.into());
    };
    let result = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            if store::end_session(tx.conn, session_id)? {
                tx.emit(&AccessChanged { user_id: who.user_id, session_id: Some(session_id) })?;
            }
            Ok(())
        })
        .await;
    state.token_cache.invalidate(&who.credential);
    result
}

pub(super) async fn authenticate(
    state: Arc<UsersState>,
    _: RequestContext,
    request: Authenticate,
) -> Result<Authenticated, UsersError> {
    let credential = state.tokens.credential(&request.token).ok_or(UsersError::InvalidToken)?;
    let answer = match state.token_cache.get(&credential) {
        Some(answer) => answer,
        None => find_authenticated(&state, credential).await?,
    };
    let now = state.store.now();
    let is_alive = |found: &TokenHolder| found.authenticated.expires_at.is_none_or(|end| end > now);
    let holder = answer.filter(is_alive).ok_or(UsersError::InvalidToken)?;
    match credential {
        Credential::ApiKey(key) => state.key_usage.record(key, now),
        Credential::Session(session) if holder.authenticated.identity.role.is_staff() => {
            if !state.session_usage.record(session, holder.last_used_at, now) {
                return Err(UsersError::InvalidToken);
            }
        }
        Credential::Session(_) => {}
    }
    Ok(holder.authenticated)
}

/// Reads the user behind a credential from the database and caches it.
async fn find_authenticated(state: &UsersState, credential: Credential) -> Result<Option<TokenHolder>, UsersError> {
    let (stamp, required) = (state.token_cache.stamp(), state.settings.staff_second_factor);
    let answer = state
        .store
        .read(move |conn| {
            Ok::<_, UsersError>(match credential {
                Credential::Session(id) => {
                    store::find_session(conn, id)?.map(|session| session_holder(credential, session, required))
                }
                Credential::ApiKey(id) => {
                    store::find_key_holder(conn, id)?.map(|key| key_holder(credential, &key, required))
                }
            })
        })
        .await?;
    state.token_cache.insert_if_current(stamp, credential, answer);
    Ok(answer)
}

/// The role of a user in requests: staff without a required second factor may do what customers may, such as to set it up.
const fn effective_role(role: Role, has_second_factor: bool, is_required: bool) -> Role {
    if role.is_staff() && is_required && !has_second_factor { Role::Customer } else { role }
}

fn session_holder(credential: Credential, session: SessionRow, requires_second_factor: bool) -> TokenHolder {
    let SessionRow { user_id, role, totp_step, created_at, expires_at, last_used_at } = session;
    let role = effective_role(role, totp_step.is_some(), requires_second_factor);
    let signed_in_at = (role != Role::Guest).then_some(created_at);
    let identity = Identity { signed_in_at, ..Identity::new(user_id, role, credential) };
    TokenHolder { authenticated: Authenticated { identity, expires_at: Some(expires_at) }, last_used_at }
}

fn key_holder(credential: Credential, key: &KeyHolder, requires_second_factor: bool) -> TokenHolder {
    let role = effective_role(key.role, key.has_second_factor, requires_second_factor);
    let identity = Identity { scopes: key.scopes, ..Identity::new(key.user_id, role, credential) };
    let authenticated = Authenticated { identity, expires_at: key.expires_at };
    TokenHolder { authenticated, last_used_at: Timestamp::from_micros(0) }
}

/// Writes when sessions of staff were last used, in batches, so that a restart does not end them.
pub(super) async fn flush_session_usage(state: Arc<UsersState>) {
    let begun = state.store.now();
    for batch in state.session_usage.unwritten(begun).chunks(SESSION_USAGE_BATCH) {
        let uses = batch.to_vec();
        let written = state
            .store
            .write(move |tx| {
                for (session, at) in uses {
                    store::record_session_use(tx.conn, session, at)?;
                }
                Ok::<_, CommonError>(())
            })
            .await;
        if let Err(error) = written {
            return log::warn!("users: writing the use of sessions failed, will retry: {error}");
        }
    }
    state.session_usage.written(begun);
}
