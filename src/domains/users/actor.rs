//! The users actor: its state, one handler per message, and its background work.
//!
//! Contains: accounts. Sessions are in `sign_in.rs`, API keys in `api_keys.rs`, mailed links in `email_links.rs`. Does not
//! contain: SQL (`store.rs`), rules that need no database (`model.rs`). Invariant: a change that ends access removes the
//! token from the cache before it is answered.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::addresses::{create_address, delete_address, get_address, list_addresses, list_countries, replace_address};
use super::api_keys::{create_api_key, delete_api_key, flush_key_usage, list_api_keys};
use super::email_links::{forgot_password, issue_link_token, reset_password, send_verification, verify_email};
use super::guests::{self, on_events};
use super::model::{self, EmailLinkKind};
use super::password_hasher::{HashPermit, PasswordHashing};
use super::second_factor::{confirm_totp, disable_totp, enroll_totp};
use super::security_notices::{notify_owner, notify_staff_member};
use super::sign_in::{
    SessionRecord, authenticate, begin_session, create_guest, flush_session_usage, sign_in, sign_out,
};
use super::sign_in_throttle::SignInThrottle;
use super::store::{self, Account};
use super::token_cache::{KeyUsage, SessionUsage, TokenCache};
use super::tokens::{TokenCodec, TokenPurpose};
use super::*;
use crate::messaging::{
    CheckInvariants, CommonError, Credential, DeliverEvents, Identity, ListAuditEntries, Request, RequestContext, Role,
};
use crate::runtime::{spawn_interval, spawn_leader_interval};
use crate::settings;
use crate::store::{DomainState, Invariants, Store, Tx, check_invariants, list_audit_entries};
use crate::types::{EmailAddress, FieldError, Page, SessionId, UserId, Validator};

/// Interval in which idle hashing buffers are looked for and released.
const BUFFER_RELEASE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between writes of the usage of API keys and of sessions of staff.
const KEY_USAGE_FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// Interval between deletions of expired sessions and links.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// Sessions, and links, deleted per transaction.
const PURGE_BATCH: i64 = 500;
/// Transactions per purge at most.
const PURGE_ROUNDS: usize = 1_000;

/// State shared by all handlers.
pub struct UsersState {
    pub(super) store: Store,
    pub(super) key_usage: KeyUsage,
    /// Use of the sessions of staff, which end when they are idle.
    pub(super) session_usage: SessionUsage,
    pub(super) tokens: TokenCodec,
    pub(super) passwords: PasswordHashing,
    pub(super) token_cache: TokenCache,
    /// Failed sign-ins; none while limits are switched off.
    pub(super) throttle: Option<SignInThrottle>,
    /// Age at which guests that bought nothing are erased.
    pub(super) erase_guests_after: Duration,
    pub(super) settings: settings::UsersSettings,
    /// Name of the shop, as apps for second factors show it.
    pub(super) shop: String,
}

impl UsersState {
    pub fn new(store: Store, secret: &[u8], settings: &settings::Settings) -> Self {
        Self {
            key_usage: KeyUsage::default(),
            tokens: TokenCodec::new(secret),
            passwords: PasswordHashing::new(settings.users.hashers),
            token_cache: TokenCache::new(store.cache_lease()),
            store,
            erase_guests_after: guests::erase_after(&settings.users),
            session_usage: SessionUsage::new(settings.users.staff_idle),
            settings: settings.users.clone(),
            shop: settings.shop.name.clone(),
            throttle: settings.limits.enabled.then(SignInThrottle::new),
        }
    }

    /// The reply to a sign-in, with the token of the session.
    pub(super) fn to_signed_in(&self, record: SessionRecord) -> SignedIn {
        let token = self.tokens.encode(TokenPurpose::Session, record.session_id.uuid());
        SignedIn { token, expires_at: record.expires_at, user: record.user }
    }

    /// The key as its owner sees it, with usage that is not written yet.
    pub(super) fn to_api_key(&self, key: store::ApiKeyRow) -> ApiKey {
        let last_used_at = self.key_usage.pending(key.id).max(key.last_used_at);
        let prefix = self.tokens.display_prefix(key.id);
        let (scopes, expires_at) = (key.scopes(), key.expires_at);
        ApiKey { id: key.id, name: key.name, prefix, scopes, created_at: key.created_at, expires_at, last_used_at }
    }

    /// Checks that a repeated request has the password of the first one, which is the account's. The password cannot be
    /// part of the request's fingerprint: a fast hash of a password must not be in the database.
    ///
    /// # Errors
    /// `IdempotencyKeyReused` when it is another.
    pub(super) async fn verify_repeated_password(
        &self,
        ctx: &RequestContext,
        permit: &HashPermit<'_>,
        user: UserId,
        password: &str,
    ) -> Result<(), UsersError> {
        let account = self.store.read(move |conn| Ok::<_, UsersError>(store::find_by_id(conn, user)?)).await?;
        let hash = account.and_then(|account| account.password_hash);
        if permit.verify(ctx, password, hash.as_deref()).await? {
            Ok(())
        } else {
            Err(CommonError::IdempotencyKeyReused.into())
        }
    }
}

/// The actor of this domain.
pub struct UsersActor {
    pub(super) state: Arc<UsersState>,
}

impl Actor for UsersActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_leader_interval(ctx, &self.state.store, &self.state, PURGE_INTERVAL, purge);
        spawn_interval(ctx, &self.state.store, &self.state, KEY_USAGE_FLUSH_INTERVAL, flush_key_usage);
        spawn_interval(ctx, &self.state.store, &self.state, KEY_USAGE_FLUSH_INTERVAL, flush_session_usage);
        spawn_interval(ctx, &self.state.store, &self.state, BUFFER_RELEASE_INTERVAL, |state| async move {
            state.passwords.release_idle_buffers();
        });
    }
}

impl Supervised for UsersActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.state.token_cache.clear();
    }
}

crate::handlers! { UsersActor;
    Register => register,
    CreateGuest => create_guest,
    SignIn => sign_in,
    SignOut => sign_out,
    Authenticate => authenticate,
    GetUser => get_user,
    UpdateUser => update_user,
    DeleteUser => delete_user,
    ListUsers => list_users,
    ForgotPassword => forgot_password,
    ResetPassword => reset_password,
    VerifyEmail => verify_email,
    ListApiKeys => list_api_keys,
    CreateApiKey => create_api_key,
    DeleteApiKey => delete_api_key,
    ListCountries => list_countries,
    ListAddresses => list_addresses,
    CreateAddress => create_address,
    GetAddress => get_address,
    ReplaceAddress => replace_address,
    DeleteAddress => delete_address,
    EnrollTotp => enroll_totp,
    ConfirmTotp => confirm_totp,
    DisableTotp => disable_totp,
    CreateUser => create_user,
    IssueLinkToken => issue_link_token,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    FilterExistingUsers => filter_existing_users,
}

/// A copy of the context with a replay flag of its own, for a lookup after which the request may still fail.
pub(super) fn without_replay_flag(ctx: &RequestContext) -> RequestContext {
    let mut copy = RequestContext::new(ctx.caller.clone(), Arc::clone(&ctx.request_id));
    copy.key.clone_from(&ctx.key);
    copy.deadline = ctx.deadline;
    copy
}

/// The caller's identity.
///
/// # Errors
/// `Unauthenticated` for anonymous and internal callers.
pub(super) fn require_user(ctx: &RequestContext) -> Result<Identity, CommonError> {
    ctx.identity().copied().ok_or(CommonError::Unauthenticated)
}

fn emit_registered(tx: &mut Tx<'_>, account: &Account, email: &EmailAddress) -> Result<(), UsersError> {
    tx.emit(&UserRegistered {
        user_id: account.id,
        email: email.clone(),
        name: account.name.clone(),
        role: account.role,
        email_verified: account.email_verified,
        created_at: account.created_at,
    })?;
    Ok(())
}

/// A registration as stored under an idempotency key: ids, no token.
#[derive(Serialize, Deserialize)]
struct RegistrationRecord {
    user: User,
    session: Option<SessionRecord>,
}

async fn register(state: Arc<UsersState>, ctx: RequestContext, request: Register) -> Result<Registration, UsersError> {
    let (email, name) = model::validate_registration(&request.email, &request.password, &request.name)?;
    let without_secrets = Register { email: email.to_string(), password: String::new(), name: name.clone() };
    let guest = ctx.identity().filter(|who| who.role == Role::Guest).map(|who| who.user_id);
    let job_state = Arc::clone(&state);
    let record = create_account(&state, &ctx, without_secrets, &request.password, move |tx, hash| {
        let now = tx.now;
        let guest = match guest {
            // The account was deleted while its token was in use.
            Some(id) => Some(store::find_by_id(tx.conn, id)?.ok_or(UsersError::InvalidToken)?),
            None => None,
        };
        // A guest that has become a customer meanwhile creates one more account, as any customer.
        let guest = guest.filter(|account| account.role == Role::Guest);
        let (id, is_new) = guest.map_or_else(|| (UserId::new(), true), |guest| (guest.id, false));
        let account = Account {
            id,
            email: Some(email.clone()),
            pending_email: None,
            name,
            role: Role::Customer,
            email_verified: false,
            password_hash: Some(hash),
            totp_id: None,
            totp_step: None,
            created_at: now,
            updated_at: now,
        };
        if is_new {
            store::insert(tx.conn, &account)?;
        } else {
            store::update(tx.conn, &account)?;
            // The token of the guest may be known to another person, who would now have the account.
            store::end_sessions(tx.conn, id, None)?;
            tx.emit(&AccessChanged { user_id: id, session_id: None })?;
        }
        emit_registered(tx, &account, &email)?;
        send_verification(tx, &account, &email)?;
        let session = if is_new { None } else { Some(begin_session(tx, &account, &job_state.settings)?) };
        Ok(RegistrationRecord { user: account.user(), session })
    })
    .await;
    if let Some(guest) = guest {
        state.token_cache.invalidate_user(guest);
    }
    let RegistrationRecord { user, session } = record?;
    let session = session.map(|session| state.to_signed_in(session));
    Ok(Registration {
        user,
        expires_at: session.as_ref().map(|session| session.expires_at),
        token: session.map(|session| session.token),
    })
}

async fn create_user(state: Arc<UsersState>, ctx: RequestContext, request: CreateUser) -> Result<User, UsersError> {
    let (email, name) = model::validate_registration(&request.email, &request.password, &request.name)?;
    if request.role == Role::Guest {
        return Err(FieldError::new("role", "invalid", model::ROLE_EXPECTED).into());
    }
    let (role, created_at) = (request.role, request.created_at);
    let without_secrets =
        CreateUser { email: email.to_string(), password: String::new(), name: name.clone(), role, created_at };
    let record = create_account(&state, &ctx, without_secrets, &request.password, move |tx, hash| {
        let account = Account {
            id: UserId::new(),
            email: Some(email.clone()),
            pending_email: None,
            name,
            role,
            email_verified: true,
            password_hash: Some(hash),
            totp_id: None,
            totp_step: None,
            created_at: created_at.unwrap_or(tx.now),
            updated_at: tx.now,
        };
        store::insert(tx.conn, &account)?;
        emit_registered(tx, &account, &email)?;
        Ok(RegistrationRecord { user: account.user(), session: None })
    })
    .await?;
    Ok(record.user)
}

/// Creates an account by `job`, which gets the hash of the password. Idempotent by the context's key and
/// `without_secrets`, the request without its password.
async fn create_account<R: Request>(
    state: &UsersState,
    ctx: &RequestContext,
    without_secrets: R,
    password: &str,
    job: impl FnOnce(&mut Tx<'_>, String) -> Result<RegistrationRecord, UsersError> + Send + 'static,
) -> Result<RegistrationRecord, UsersError> {
    let permit = state.passwords.acquire(ctx)?;
    let write_ctx = without_replay_flag(ctx);
    let write = state.store.idempotent(&write_ctx, &without_secrets)?;
    let record = match write.find_response::<RegistrationRecord, UsersError>().await? {
        Some(record) => record,
        None => {
            let hash = permit.hash(ctx, password).await?;
            write.run(move |tx| job(tx, hash)).await?
        }
    };
    if write_ctx.is_replayed() {
        state.verify_repeated_password(ctx, &permit, record.user.id, password).await?;
        ctx.mark_replayed();
    }
    Ok(record)
}

async fn get_user(state: Arc<UsersState>, _: RequestContext, request: GetUser) -> Result<User, UsersError> {
    let found = state.store.read(move |conn| Ok::<_, UsersError>(store::find_by_id(conn, request.user_id)?)).await?;
    found.map(|account| account.user()).ok_or(UsersError::UserNotFound)
}

/// The error for a missing or wrong current password.
fn current_password_error(is_given: bool) -> UsersError {
    let error = if is_given {
        FieldError::new("current_password", "wrong", "is not the password of this account")
    } else {
        FieldError::new("current_password", "required", "must be given to change the e-mail address or the password")
    };
    error.into()
}

/// A validated [`UpdateUser`] with the outcome of password checks.
struct UserUpdate {
    user_id: UserId,
    name: Option<String>,
    email: Option<EmailAddress>,
    /// Hash of the new password.
    hash: Option<String>,
    role: Option<Role>,
    /// Whether the caller is an administrator or internal.
    by_admin: bool,
    /// Whether the caller is internal, or gave a password a moment ago.
    is_proved: bool,
    /// Whether the caller is the user, who must give the current password.
    by_owner: bool,
    /// Whether API keys survive a new password.
    keep_api_keys: bool,
    /// Whether the request has a current password.
    has_current_password: bool,
    /// Hash that the current password was verified against.
    verified_hash: Option<String>,
    /// Session of the caller, which a new password does not end.
    kept_session: Option<SessionId>,
    /// The caller, if it is a user.
    caller: Option<UserId>,
}

async fn update_user(state: Arc<UsersState>, ctx: RequestContext, request: UpdateUser) -> Result<User, UsersError> {
    let mut fields = Validator::new();
    let name = request.name.as_ref().map(|name| model::validate_name(&mut fields, name));
    let email = request.email.as_ref().and_then(|email| fields.email("email", email));
    if let Some(password) = &request.password {
        model::check_password(&mut fields, "password", password);
    }
    fields.finish()?;
    let user_id = request.user_id;
    let without_secrets = UpdateUser {
        user_id,
        name: name.clone(),
        email: email.as_ref().map(EmailAddress::to_string),
        password: request.password.as_ref().map(|_| String::new()),
        current_password: None,
        role: request.role,
        keep_api_keys: request.keep_api_keys,
    };
    let own = ctx.identity().filter(|who| who.user_id == user_id);
    let mut update = UserUpdate {
        user_id,
        name,
        email,
        hash: None,
        role: request.role,
        by_admin: ctx.has_role(Role::Admin),
        is_proved: ctx.require_recent_sign_in(state.store.now()).is_ok(),
        by_owner: own.is_some(),
        keep_api_keys: request.keep_api_keys,
        has_current_password: request.current_password.is_some(),
        verified_hash: None,
        kept_session: own.and_then(|who| match who.credential {
            Credential::Session(session) => Some(session),
            Credential::ApiKey(_) => None,
        }),
        caller: ctx.identity().map(|who| who.user_id),
    };
    // Required of owners only; administrators edit other users without it.
    let current = request.current_password.as_deref().filter(|_| update.by_owner);
    let changes_access = request.password.is_some() || request.role.is_some();
    let permit = match (&request.password, current) {
        (None, None) => None,
        _ => Some(state.passwords.acquire(&ctx)?),
    };
    let write_ctx = without_replay_flag(&ctx);
    let write = state.store.idempotent(&write_ctx, &without_secrets)?;
    let verify_and_write = || async {
        if let Some(permit) = &permit {
            update.verified_hash = verify_current_password(&state, &ctx, permit, user_id, current).await?;
            if let Some(password) = &request.password {
                update.hash = Some(permit.hash(&ctx, password).await?);
            }
        }
        let result = write.clone().run(move |tx| apply_update(tx, update)).await;
        if changes_access {
            state.token_cache.invalidate_user(user_id);
        }
        result
    };
    // The same request, sent twice, may have changed the current password a moment ago.
    let user = write.check_first(verify_and_write).await?;
    if write_ctx.is_replayed() {
        if let (Some(permit), Some(password)) = (&permit, &request.password) {
            state.verify_repeated_password(&ctx, permit, user_id, password).await?;
        }
        ctx.mark_replayed();
    }
    Ok(user)
}

/// Verifies the current password, if given, and returns the hash it matches.
///
/// # Errors
/// `current_password` is wrong, or was wrong too often; there is no such user.
async fn verify_current_password(
    state: &UsersState,
    ctx: &RequestContext,
    permit: &HashPermit<'_>,
    user_id: UserId,
    current: Option<&str>,
) -> Result<Option<String>, UsersError> {
    let Some(current) = current else { return Ok(None) };
    let account = state.store.read(move |conn| Ok::<_, UsersError>(store::find_by_id(conn, user_id)?)).await?;
    let Account { email, password_hash: hash, .. } = account.ok_or(UsersError::UserNotFound)?;
    // A stolen session must not be a way to guess the password without the limits of a sign-in.
    let name = email.as_ref().map_or("", EmailAddress::as_str);
    let throttle = state.throttle.as_ref().zip(ctx.network);
    let attempt = throttle.map(|(throttle, network)| throttle.admit(name, network, state.store.now())).transpose()?;
    let is_right = permit.verify(ctx, current, hash.as_deref()).await?;
    match (attempt, is_right) {
        (Some(attempt), true) => attempt.succeeded(state.store.now()),
        (Some(attempt), false) => attempt.failed(state.store.now()),
        (None, _) => {}
    }
    if is_right { Ok(hash) } else { Err(current_password_error(true)) }
}

/// Applies an update in a transaction.
///
/// # Errors
/// A guest cannot set address or password; roles are set by staff; the last administrator keeps theirs.
fn apply_update(tx: &mut Tx<'_>, update: UserUpdate) -> Result<User, UsersError> {
    let before = store::find_by_id(tx.conn, update.user_id)?.ok_or(UsersError::UserNotFound)?;
    if !update.by_owner && before.role.is_staff() && !update.by_admin {
        return Err(CommonError::Forbidden.into());
    }
    let mut after = before.clone();
    if let Some(name) = &update.name {
        after.name.clone_from(name);
    }
    if before.role == Role::Guest && (update.email.is_some() || update.hash.is_some()) {
        let field = if update.email.is_some() { "email" } else { "password" };
        return Err(FieldError::new(field, "guest", "cannot be set: a guest registers first").into());
    }
    if let Some(role) = update.role.filter(|role| *role != before.role) {
        if !update.by_admin {
            return Err(CommonError::Forbidden.into());
        }
        model::check_role(before.role, role)?;
        if !update.is_proved {
            return Err(CommonError::RecentSignInRequired.into());
        }
        if before.role == Role::Admin && !store::has_another_admin(tx.conn, before.id)? {
            return Err(UsersError::LastAdmin);
        }
        after.role = role;
    }
    let new_email = update.email.clone().filter(|email| Some(email) != before.email.as_ref());
    let password_changed = update.hash.is_some();
    update.check_proof(&before, new_email.is_some() || password_changed)?;
    if let Some(email) = &new_email
        && store::find_by_email(tx.conn, email)?.is_some()
    {
        return Err(UsersError::EmailTaken);
    }
    if update.email.is_some() {
        after.pending_email.clone_from(&new_email);
    }
    if let Some(hash) = &update.hash {
        after.password_hash = Some(hash.clone());
    }
    let is_new_request = new_email.is_some() && after.pending_email != before.pending_email;
    let profile_changed = after.name != before.name || after.role != before.role;
    if !profile_changed && !password_changed && after.pending_email == before.pending_email {
        return Ok(before.user());
    }
    after.updated_at = tx.now;
    store::update(tx.conn, &after)?;
    if profile_changed {
        emit_changed(tx, &after)?;
    }
    if is_new_request && let Some(email) = &new_email {
        send_verification(tx, &after, email)?;
    }
    end_access(tx, &before, &after, &update)?;
    // No address and no name: the audit log stays when the user is erased.
    let of = |account: &Account, has_password: bool, email: bool| json!({ "role": account.role, "password_set": has_password, "email_requested": email });
    tx.describe_change(of(&before, false, false), of(&after, password_changed, is_new_request));
    update.notify(tx, &before, &after, is_new_request)?;
    Ok(after.user())
}

/// Emits the state of an account after a change.
pub(super) fn emit_changed(tx: &mut Tx<'_>, after: &Account) -> Result<(), UsersError> {
    let Account { id: user_id, role, email_verified, .. } = *after;
    let (email, name) = (after.email.clone(), after.name.clone());
    Ok(tx.emit(&UserChanged { user_id, email, name, role, email_verified })?)
}

/// Ends what must not outlive a new password or a new role.
fn end_access(tx: &mut Tx<'_>, before: &Account, after: &Account, update: &UserUpdate) -> Result<(), UsersError> {
    let (password_changed, role_changed) = (update.hash.is_some(), after.role != before.role);
    if password_changed {
        // Reset links that were sent before must not work.
        store::consume_links(tx.conn, after.id, EmailLinkKind::Reset, tx.now)?;
    }
    if password_changed || role_changed {
        // With a new role all sign in again: a token that was taken earlier must not gain rights.
        store::end_sessions(tx.conn, after.id, update.kept_session.filter(|_| !role_changed))?;
    }
    if (password_changed && !update.keep_api_keys) || after.role > before.role {
        store::delete_keys(tx.conn, after.id)?;
    }
    if password_changed || role_changed {
        tx.emit(&AccessChanged { user_id: after.id, session_id: None })?;
    }
    Ok(())
}

impl UserUpdate {
    /// Checks the proof that a change of address or password, or of another member of staff, needs.
    ///
    /// # Errors
    /// The owner did not give the current password, or staff signed in long ago.
    fn check_proof(&self, before: &Account, changes_credentials: bool) -> Result<(), UsersError> {
        let is_verified = self.verified_hash.is_some() && self.verified_hash == before.password_hash;
        if changes_credentials && self.by_owner && !is_verified {
            return Err(current_password_error(self.has_current_password));
        }
        if changes_credentials && !self.by_owner && before.role.is_staff() && !self.is_proved {
            return Err(CommonError::RecentSignInRequired.into());
        }
        Ok(())
    }

    /// Has the owner told of each change, and the member of staff who changed the account of another one.
    fn notify(
        &self,
        tx: &mut Tx<'_>,
        before: &Account,
        after: &Account,
        email_requested: bool,
    ) -> Result<(), UsersError> {
        let changes = [
            (email_requested, CredentialChange::EmailRequested),
            (self.hash.is_some(), CredentialChange::Password),
            (after.role != before.role, CredentialChange::Role),
        ];
        for (_, change) in changes.iter().filter(|(is_made, _)| *is_made) {
            notify_owner(tx, before, *change, !self.by_owner)?;
        }
        let is_of_staff = before.role.is_staff() || after.role.is_staff();
        if let Some(caller) = self.caller.filter(|_| !self.by_owner && is_of_staff)
            && changes.iter().any(|(is_made, _)| *is_made)
        {
            notify_staff_member(tx, caller)?;
        }
        Ok(())
    }
}

async fn delete_user(state: Arc<UsersState>, ctx: RequestContext, request: DeleteUser) -> Result<(), UsersError> {
    let user_id = request.user_id;
    let is_own = ctx.identity().is_some_and(|who| who.user_id == user_id);
    let staff_right = match ctx.has_role(Role::Admin) {
        true => ctx.require_recent_sign_in(state.store.now()),
        false => Err(CommonError::Forbidden),
    };
    let result = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let account = store::find_by_id(tx.conn, user_id)?.ok_or(UsersError::UserNotFound)?;
            if account.role.is_staff() && !is_own {
                staff_right?;
            }
            if account.role == Role::Admin && !store::has_another_admin(tx.conn, user_id)? {
                return Err(UsersError::LastAdmin);
            }
            // Sessions, keys and links go with it.
            store::delete(tx.conn, user_id)?;
            tx.erase_responses(user_id, account.email.is_some())?;
            tx.emit(&UserErased { user_id, email: account.email })?;
            tx.emit(&AccessChanged { user_id, session_id: None })?;
            Ok(())
        })
        .await;
    state.token_cache.invalidate_user(user_id);
    result
}

async fn list_users(state: Arc<UsersState>, _: RequestContext, request: ListUsers) -> Result<Page<User>, UsersError> {
    let (limit, after) = (request.page.limit()?, request.page.after::<(i64, UserId)>()?);
    let pattern = request.q.as_deref().map(model::like_pattern).transpose()?.flatten();
    let rows = state
        .store
        .read(move |conn| Ok::<_, UsersError>(store::list(conn, pattern.as_deref(), after, limit + 1)?))
        .await?;
    Ok(Page::from_overfetch(rows, limit, |row| (row.created_at.micros(), row.id)).map(|row| row.user()))
}

/// Deletes expired sessions and links, and guests that bought nothing, in small transactions, so that other writes do not
/// wait.
pub async fn purge(state: Arc<UsersState>) {
    for _ in 0..PURGE_ROUNDS {
        match state.store.write(|tx| Ok::<_, CommonError>(store::purge(tx.conn, tx.now, PURGE_BATCH)?)).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return log::warn!("users: deleting expired sessions and links failed, will retry: {error}"),
        }
    }
    if let Err(error) = guests::erase_unbought(&state).await {
        log::warn!("users: erasing guests that bought nothing failed, will retry: {error}");
    }
}

impl DomainState for UsersState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn filter_existing_users(
    state: Arc<UsersState>,
    _: RequestContext,
    request: FilterExistingUsers,
) -> Result<Vec<UserId>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::filter_existing(conn, &request.users)?)).await
}
