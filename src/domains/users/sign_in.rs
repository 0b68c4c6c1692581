//! Sessions: guests, sign-in and sign-out, and the resolution of tokens for the gateway.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::actor::{UsersState, require_user};
use super::store::{self, Account};
use super::{
    AccessChanged, Authenticate, Authenticated, CreateGuest, SignIn, SignOut, SignedIn, User, UsersError, model,
};
use crate::messaging::{CommonError, Credential, Identity, RequestContext, Role};
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

/// Creates a session and emits an event for each that ends because of it.
fn begin_session(tx: &mut Tx<'_>, account: &Account, lifetime: Duration) -> Result<SessionRecord, UsersError> {
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
    let lifetime = state.session_lifetime;
    let record = state
        .store
        .idempotent(&ctx, &request)?
        .locks(LockSet::none())
        .run(move |tx| {
            let guest = Account {
                id: UserId::new(),
                email: None,
                name: String::new(),
                role: Role::Guest,
                email_verified: false,
                password_hash: None,
                created_at: tx.now,
                updated_at: tx.now,
            };
            store::insert(tx.conn, &guest)?;
            store::insert_unbought_guest(tx.conn, guest.id, tx.now)?;
            begin_session(tx, &guest, lifetime)
        })
        .await?;
    Ok(state.to_signed_in(record))
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
    if let Some(attempt) = attempt {
        attempt.succeeded(state.store.now());
    }
    let (user_id, lifetime) = (account.id, state.session_lifetime);
    let without_secrets = SignIn { email: email.to_string(), password: String::new() };
    let record = state
        .store
        .idempotent(&ctx, &without_secrets)?
        .locks(LockSet::key("user", user_id))
        .run(move |tx| {
            // The password may have changed since it was verified; this sign-in is then too late.
            let account = store::find_by_id(tx.conn, user_id)?
                .filter(|account| account.password_hash == hash)
                .ok_or(UsersError::BadCredentials)?;
            begin_session(tx, &account, lifetime)
        })
        .await?;
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
    let found = answer.filter(|found| found.expires_at.is_none_or(|end| end > now)).ok_or(UsersError::InvalidToken)?;
    if let Credential::ApiKey(key) = credential {
        state.key_usage.record(key, now);
    }
    Ok(found)
}

/// Reads the user behind a credential from the database and caches it.
async fn find_authenticated(state: &UsersState, credential: Credential) -> Result<Option<Authenticated>, UsersError> {
    let stamp = state.token_cache.stamp();
    let answer = state
        .store
        .read(move |conn| {
            let holder = match credential {
                Credential::Session(id) => {
                    store::user_for_session(conn, id)?.map(|(user, role, end)| (user, role, Some(end)))
                }
                Credential::ApiKey(id) => store::user_for_key(conn, id)?.map(|(user, role)| (user, role, None)),
            };
            let known = |(user_id, role, expires_at)| Authenticated {
                identity: Identity { user_id, role, credential },
                expires_at,
            };
            Ok::<_, UsersError>(holder.map(known))
        })
        .await?;
    state.token_cache.insert_if_current(stamp, credential, answer);
    Ok(answer)
}
