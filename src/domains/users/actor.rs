//! One function a message: check, ask or write the store, announce.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{self, EmailLinkKind};
use super::password_hasher::{HashPermit, Passwords};
use super::store::{self, Account};
use super::token_cache::{KeyUsage, TokenCache};
use super::tokens::{Purpose, Tokens};
use super::*;
use crate::messaging::{
    CheckInvariants, CommonError, Credential, DeliverEvents, Identity, InvariantReport, Request, RequestContext, Role,
};
use crate::runtime::{spawn_interval, spawn_leader_interval};
use crate::settings;
use crate::store::{Conn, LockSet, Store, Tx};
use crate::types::{ApiKeyId, EmailAddress, FieldError, Page, SessionId, Timestamp, UserId, Validator, fresh};

/// How often the uses of API keys are written.
const KEY_USE_FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// KeyUsage written in one transaction.
const KEY_USE_BATCH: usize = 500;
/// How often sessions and links that have ended are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// How many of each go in one transaction, and how many transactions one purge takes at most.
const PURGE_BATCH: i64 = 500;
const PURGE_ROUNDS: usize = 1_000;

/// What all handlers share.
pub struct UsersState {
    pub(super) store: Store,
    pub(super) uses: KeyUsage,
    tokens: Tokens,
    pub(super) passwords: Passwords,
    pub(super) known: TokenCache,
    /// How long a sign-in lasts.
    session: Duration,
}

impl UsersState {
    pub fn new(store: Store, secret: &[u8], settings: &settings::UsersSettings) -> Self {
        Self {
            uses: KeyUsage::default(),
            tokens: Tokens::new(secret),
            passwords: Passwords::new(settings.hashers),
            known: TokenCache::new(store.cache_lease()),
            store,
            session: settings.session,
        }
    }

    /// The sign-in as its holder sees it.
    fn signed_in(&self, begun: SessionRecord) -> SignedIn {
        let token = self.tokens.show(Purpose::Session, begun.session_id.uuid());
        SignedIn { token, expires_at: begun.expires_at, user: begun.user }
    }

    /// The key as its owner sees it.
    fn api_key(&self, key: store::ApiKeyRow) -> ApiKey {
        let last_used_at = self.uses.unwritten(key.id).max(key.last_used_at);
        let prefix = self.tokens.beginning(key.id);
        ApiKey { id: key.id, name: key.name, prefix, created_at: key.created_at, last_used_at }
    }

    /// Whether the password of a repeated request is the one it came with first, which is the account's. It cannot be
    /// part of the request's fingerprint: a fast hash of a password must not lie in the database.
    async fn check_repeated(
        &self,
        ctx: &RequestContext,
        turn: &HashPermit<'_>,
        user: UserId,
        password: &str,
    ) -> Result<(), UsersError> {
        let account = self.store.read(move |conn| Ok::<_, UsersError>(store::by_id(conn, user)?)).await?;
        let hash = account.and_then(|account| account.password_hash);
        if turn.verify(ctx, password, hash.as_deref()).await? {
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
        spawn_interval(ctx, &self.state.store, &self.state, KEY_USE_FLUSH_INTERVAL, write_uses);
    }
}

impl Supervised for UsersActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.state.known.forget_all();
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
    CreateUser => create_user,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    FilterExistingUsers => who_exists,
}

/// A session that was begun: what is kept of it under an idempotency key, so ids and no token.
#[derive(Serialize, Deserialize)]
struct SessionRecord {
    session_id: SessionId,
    expires_at: Timestamp,
    user: User,
    /// Older ones that had to end for it.
    #[serde(skip)]
    ended: Vec<SessionId>,
}

/// The same request without the mark of being replayed, for a look that may still end in a refusal.
fn aside(ctx: &RequestContext) -> RequestContext {
    let mut aside = RequestContext::new(ctx.caller.clone(), Arc::clone(&ctx.request_id));
    aside.key.clone_from(&ctx.key);
    aside.deadline = ctx.deadline;
    aside
}

/// The user who asks, where only users may.
fn asker(ctx: &RequestContext) -> Result<Identity, CommonError> {
    ctx.identity().copied().ok_or(CommonError::Unauthenticated)
}

fn begin_session(tx: &mut Tx<'_>, account: &Account, lifetime: Duration) -> Result<SessionRecord, UsersError> {
    let (session_id, expires_at) = (SessionId::new(), tx.now.plus(lifetime));
    let ended = store::begin_session(tx.conn, session_id, account.id, tx.now, expires_at)?;
    for session in &ended {
        tx.emit(&AccessChanged { user_id: account.id, session_id: Some(*session) })?;
    }
    Ok(SessionRecord { session_id, expires_at, user: account.user(), ended })
}

fn announce_registered(tx: &mut Tx<'_>, account: &Account, email: &EmailAddress) -> Result<(), UsersError> {
    tx.emit(&UserRegistered {
        user_id: account.id,
        email: email.clone(),
        name: account.name.clone(),
        role: account.role,
        created_at: account.created_at,
    })?;
    Ok(())
}

/// Has a mail sent that proves the address.
fn ask_to_verify(tx: &mut Tx<'_>, tokens: &Tokens, account: &Account, email: &EmailAddress) -> Result<(), UsersError> {
    let id = fresh();
    store::insert_link(tx.conn, id, EmailLinkKind::Verify, account.id, email, tx.now)?;
    tx.emit(&EmailVerificationRequested {
        user_id: account.id,
        email: email.clone(),
        name: account.name.clone(),
        token: tokens.show(Purpose::EmailLink(EmailLinkKind::Verify), id),
    })?;
    Ok(())
}

async fn register(state: Arc<UsersState>, ctx: RequestContext, request: Register) -> Result<User, UsersError> {
    let (email, name) = model::newcomer(&request.email, &request.password, &request.name)?;
    let bare = Register { email: email.to_string(), password: String::new(), name: name.clone() };
    let guest = ctx.identity().filter(|who| who.role == Role::Guest).map(|who| who.user_id);
    let desk = Arc::clone(&state);
    let user = enrol(&state, &ctx, bare, &request.password, move |tx, hash| {
        let now = tx.now;
        let guest = match guest {
            // Its token outlived it.
            Some(id) => Some(store::by_id(tx.conn, id)?.ok_or(UsersError::InvalidToken)?),
            None => None,
        };
        // One who has become a customer since asks like any customer: for one more account.
        let guest = guest.filter(|account| account.role == Role::Guest);
        let (id, is_new) = guest.map_or_else(|| (UserId::new(), true), |guest| (guest.id, false));
        let account = Account {
            id,
            email: Some(email.clone()),
            name,
            role: Role::Customer,
            email_verified: false,
            password_hash: Some(hash),
            created_at: now,
            updated_at: now,
        };
        if is_new {
            store::insert(tx.conn, &account)?;
        } else {
            store::update(tx.conn, &account)?;
            tx.emit(&AccessChanged { user_id: id, session_id: None })?;
        }
        announce_registered(tx, &account, &email)?;
        ask_to_verify(tx, &desk.tokens, &account, &email)?;
        Ok(account.user())
    })
    .await;
    if let Some(guest) = guest {
        state.known.forget_user(guest);
    }
    user
}

async fn create_user(state: Arc<UsersState>, ctx: RequestContext, request: CreateUser) -> Result<User, UsersError> {
    let (email, name) = model::newcomer(&request.email, &request.password, &request.name)?;
    if request.role == Role::Guest {
        return Err(FieldError::new("role", "invalid", "must be customer or admin").into());
    }
    let (role, created_at) = (request.role, request.created_at);
    let bare = CreateUser { email: email.to_string(), password: String::new(), name: name.clone(), role, created_at };
    enrol(&state, &ctx, bare, &request.password, move |tx, hash| {
        let account = Account {
            id: UserId::new(),
            email: Some(email.clone()),
            name,
            role,
            email_verified: true,
            password_hash: Some(hash),
            created_at: created_at.unwrap_or(tx.now),
            updated_at: tx.now,
        };
        store::insert(tx.conn, &account)?;
        announce_registered(tx, &account, &email)?;
        Ok(account.user())
    })
    .await
}

/// Makes an account by `job`, which gets the password's hash, once: `bare` is the request without its password.
async fn enrol<R: Request>(
    state: &UsersState,
    ctx: &RequestContext,
    bare: R,
    password: &str,
    job: impl FnOnce(&mut Tx<'_>, String) -> Result<User, UsersError> + Send + 'static,
) -> Result<User, UsersError> {
    let turn = state.passwords.enter()?;
    let aside = aside(ctx);
    let user = match state.store.find_response::<_, User, UsersError>(&aside, &bare).await? {
        Some(user) => user,
        None => {
            let hash = turn.hash(ctx, password).await?;
            state.store.write_idempotent(&aside, &bare, move |tx| job(tx, hash)).await?
        }
    };
    if aside.is_replayed() {
        state.check_repeated(ctx, &turn, user.id, password).await?;
        ctx.mark_replayed();
    }
    Ok(user)
}

async fn create_guest(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: CreateGuest,
) -> Result<SignedIn, UsersError> {
    let lifetime = state.session;
    let begun = state
        .store
        .write_idempotent_locked(LockSet::none(), &ctx, &request, move |tx| {
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
            begin_session(tx, &guest, lifetime)
        })
        .await?;
    Ok(state.signed_in(begun))
}

async fn sign_in(state: Arc<UsersState>, ctx: RequestContext, request: SignIn) -> Result<SignedIn, UsersError> {
    let turn = state.passwords.enter()?;
    // What cannot be an address is an unknown one; what is too long for a password is a wrong one.
    let email: Option<EmailAddress> = request.email.parse().ok();
    let password = if request.password.chars().count() > *model::PASSWORD.end() { "" } else { &request.password };
    let account = match email.clone() {
        Some(email) => state.store.read(move |conn| Ok::<_, UsersError>(store::by_email(conn, &email)?)).await?,
        None => None,
    };
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let is_right = turn.verify(&ctx, password, hash.as_deref()).await?;
    drop(turn);
    let (Some(account), Some(email), true) = (account, email, is_right) else {
        return Err(UsersError::BadCredentials);
    };
    let (user_id, lifetime) = (account.id, state.session);
    let bare = SignIn { email: email.to_string(), password: String::new() };
    let begun = state
        .store
        .write_idempotent_locked(LockSet::key("user", user_id), &ctx, &bare, move |tx| {
            // The password may have changed since it was looked at: then this sign-in comes too late.
            let account = store::by_id(tx.conn, user_id)?
                .filter(|account| account.password_hash == hash)
                .ok_or(UsersError::BadCredentials)?;
            begin_session(tx, &account, lifetime)
        })
        .await?;
    for session in &begun.ended {
        state.known.forget(&Credential::Session(*session));
    }
    Ok(state.signed_in(begun))
}

async fn sign_out(state: Arc<UsersState>, ctx: RequestContext, request: SignOut) -> Result<(), UsersError> {
    let who = asker(&ctx)?;
    let Credential::Session(session_id) = who.credential else {
        // A key is no sign-in; its owner deletes it.
        return Err(CommonError::Forbidden.into());
    };
    let done = state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
            if store::end_session(tx.conn, session_id)? {
                tx.emit(&AccessChanged { user_id: who.user_id, session_id: Some(session_id) })?;
            }
            Ok(())
        })
        .await;
    state.known.forget(&who.credential);
    done
}

async fn authenticate(
    state: Arc<UsersState>,
    _: RequestContext,
    request: Authenticate,
) -> Result<Authenticated, UsersError> {
    let credential = state.tokens.credential(&request.token).ok_or(UsersError::InvalidToken)?;
    let answer = match state.known.get(&credential) {
        Some(answer) => answer,
        None => look_up(&state, credential).await?,
    };
    let now = state.store.now();
    let found = answer.filter(|found| found.expires_at.is_none_or(|end| end > now)).ok_or(UsersError::InvalidToken)?;
    if let Credential::ApiKey(key) = credential {
        state.uses.note(key, now);
    }
    Ok(found)
}

async fn look_up(state: &UsersState, credential: Credential) -> Result<Option<Authenticated>, UsersError> {
    let mark = state.known.mark();
    let answer = state
        .store
        .read(move |conn| {
            let holder = match credential {
                Credential::Session(id) => {
                    store::holder_of_session(conn, id)?.map(|(user, role, end)| (user, role, Some(end)))
                }
                Credential::ApiKey(id) => store::holder_of_key(conn, id)?.map(|(user, role)| (user, role, None)),
            };
            let known = |(user_id, role, expires_at)| Authenticated {
                identity: Identity { user_id, role, credential },
                expires_at,
            };
            Ok::<_, UsersError>(holder.map(known))
        })
        .await?;
    state.known.learn(mark, credential, answer);
    Ok(answer)
}

async fn get_user(state: Arc<UsersState>, _: RequestContext, request: GetUser) -> Result<User, UsersError> {
    let found = state.store.read(move |conn| Ok::<_, UsersError>(store::by_id(conn, request.user_id)?)).await?;
    found.map(|account| account.user()).ok_or(UsersError::UserNotFound)
}

/// What is wrong with the password so far.
fn wrong_password_so_far(is_given: bool) -> UsersError {
    let error = if is_given {
        FieldError::new("current_password", "wrong", "is not the password of this account")
    } else {
        FieldError::new("current_password", "required", "must be given to change the e-mail address or the password")
    };
    error.into()
}

/// An update as the write needs it.
struct UserUpdate {
    user_id: UserId,
    name: Option<String>,
    email: Option<EmailAddress>,
    /// The hash of the new password.
    hash: Option<String>,
    role: Option<Role>,
    /// Whether a staff member or the shop itself asks.
    by_staff: bool,
    /// Whether the owner asks, who must show the password so far.
    by_owner: bool,
    /// Whether they gave one.
    gave_password: bool,
    /// The hash that the password so far was found to fit.
    proven: Option<String>,
    /// The session that outlives a new password.
    keeps: Option<SessionId>,
}

async fn update_user(state: Arc<UsersState>, ctx: RequestContext, request: UpdateUser) -> Result<User, UsersError> {
    let mut fields = Validator::new();
    let name = request.name.as_ref().map(|name| model::name(&mut fields, name));
    let email = request.email.as_ref().and_then(|email| fields.email("email", email));
    if let Some(password) = &request.password {
        model::check_password(&mut fields, "password", password);
    }
    fields.done()?;
    let user_id = request.user_id;
    let bare = UpdateUser {
        user_id,
        name: name.clone(),
        email: email.as_ref().map(EmailAddress::to_string),
        password: request.password.as_ref().map(|_| String::new()),
        current_password: None,
        role: request.role,
    };
    let own = ctx.identity().filter(|who| who.user_id == user_id);
    let mut change = UserUpdate {
        user_id,
        name,
        email,
        hash: None,
        role: request.role,
        by_staff: ctx.is_staff(),
        by_owner: own.is_some(),
        gave_password: request.current_password.is_some(),
        proven: None,
        keeps: own.and_then(|who| match who.credential {
            Credential::Session(session) => Some(session),
            Credential::ApiKey(_) => None,
        }),
    };
    // Only an owner's is looked at; administrators edit others without.
    let current = request.current_password.as_deref().filter(|_| change.by_owner);
    let changes_access = request.password.is_some() || request.role.is_some();
    let turn = match (&request.password, current) {
        (None, None) => None,
        _ => Some(state.passwords.enter()?),
    };
    let aside = aside(&ctx);
    let mut user = state.store.find_response::<_, User, UsersError>(&aside, &bare).await?;
    if let (None, Some(turn)) = (&user, &turn) {
        match prove(&state, &ctx, turn, user_id, current).await {
            Ok(proven) => change.proven = proven,
            // Perhaps it was, until the same request, sent twice, changed it a moment ago.
            Err(error) => match state.store.find_response::<_, User, UsersError>(&aside, &bare).await? {
                Some(before) => user = Some(before),
                None => return Err(error),
            },
        }
        if let (None, Some(password)) = (&user, &request.password) {
            change.hash = Some(turn.hash(&ctx, password).await?);
        }
    }
    let user = match user {
        Some(user) => user,
        None => {
            let desk = Arc::clone(&state);
            let done = state.store.write_idempotent(&aside, &bare, move |tx| apply(tx, &desk.tokens, change)).await;
            if changes_access {
                state.known.forget_user(user_id);
            }
            done?
        }
    };
    if aside.is_replayed() {
        if let (Some(turn), Some(password)) = (&turn, &request.password) {
            state.check_repeated(&ctx, turn, user_id, password).await?;
        }
        ctx.mark_replayed();
    }
    Ok(user)
}

/// The hash that the password so far fits, when one is given.
async fn prove(
    state: &UsersState,
    ctx: &RequestContext,
    turn: &HashPermit<'_>,
    user_id: UserId,
    current: Option<&str>,
) -> Result<Option<String>, UsersError> {
    let Some(current) = current else { return Ok(None) };
    let account = state.store.read(move |conn| Ok::<_, UsersError>(store::by_id(conn, user_id)?)).await?;
    let hash = account.ok_or(UsersError::UserNotFound)?.password_hash;
    if turn.verify(ctx, current, hash.as_deref()).await? { Ok(hash) } else { Err(wrong_password_so_far(true)) }
}

/// Writes an update, or says why it cannot be.
fn apply(tx: &mut Tx<'_>, tokens: &Tokens, change: UserUpdate) -> Result<User, UsersError> {
    let before = store::by_id(tx.conn, change.user_id)?.ok_or(UsersError::UserNotFound)?;
    let mut after = before.clone();
    if let Some(name) = change.name {
        after.name = name;
    }
    if before.role == Role::Guest && (change.email.is_some() || change.hash.is_some()) {
        let field = if change.email.is_some() { "email" } else { "password" };
        return Err(FieldError::new(field, "guest", "cannot be set: a guest registers first").into());
    }
    if let Some(role) = change.role.filter(|role| *role != before.role) {
        if !change.by_staff {
            return Err(CommonError::Forbidden.into());
        }
        model::check_role(before.role, role)?;
        if before.role == Role::Admin && !store::has_another_admin(tx.conn, before.id)? {
            return Err(UsersError::LastAdmin);
        }
        after.role = role;
    }
    let new_email = change.email.filter(|email| Some(email) != before.email.as_ref());
    let has_new_password = change.hash.is_some();
    let is_proven = change.proven.is_some() && change.proven == before.password_hash;
    if change.by_owner && (new_email.is_some() || has_new_password) && !is_proven {
        return Err(wrong_password_so_far(change.gave_password));
    }
    if let Some(email) = &new_email {
        after.email = Some(email.clone());
        after.email_verified = false;
    }
    if let Some(hash) = change.hash {
        after.password_hash = Some(hash);
    }
    let has_new_face = after.name != before.name || after.role != before.role || new_email.is_some();
    if !has_new_face && !has_new_password {
        return Ok(before.user());
    }
    after.updated_at = tx.now;
    store::update(tx.conn, &after)?;
    if has_new_face {
        let (email, name) = (after.email.clone(), after.name.clone());
        tx.emit(&UserChanged { user_id: after.id, email, name, role: after.role })?;
    }
    if let Some(email) = &new_email {
        ask_to_verify(tx, tokens, &after, email)?;
    }
    if new_email.is_some() || has_new_password {
        // Whoever reads the old mailbox, or asked before, must not be let in by it.
        store::use_links(tx.conn, after.id, EmailLinkKind::Reset, tx.now)?;
    }
    if has_new_password {
        store::end_sessions(tx.conn, after.id, change.keeps)?;
    }
    if has_new_password || after.role != before.role {
        tx.emit(&AccessChanged { user_id: after.id, session_id: None })?;
    }
    Ok(after.user())
}

async fn delete_user(state: Arc<UsersState>, ctx: RequestContext, request: DeleteUser) -> Result<(), UsersError> {
    let user_id = request.user_id;
    let done = state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
            let account = store::by_id(tx.conn, user_id)?.ok_or(UsersError::UserNotFound)?;
            if account.role == Role::Admin && !store::has_another_admin(tx.conn, user_id)? {
                return Err(UsersError::LastAdmin);
            }
            // Sessions, keys and links go with it.
            store::delete(tx.conn, user_id)?;
            tx.emit(&UserErased { user_id, email: account.email })?;
            tx.emit(&AccessChanged { user_id, session_id: None })?;
            Ok(())
        })
        .await;
    state.known.forget_user(user_id);
    done
}

async fn list_users(state: Arc<UsersState>, _: RequestContext, request: ListUsers) -> Result<Page<User>, UsersError> {
    let (limit, after) = (request.page.limit()?, request.page.after::<(i64, UserId)>()?);
    let pattern = request.q.as_deref().map(model::pattern).transpose()?.flatten();
    let rows = state
        .store
        .read(move |conn| Ok::<_, UsersError>(store::list(conn, pattern.as_deref(), after, limit + 1)?))
        .await?;
    Ok(Page::cut(rows, limit, |row| (row.created_at.micros(), row.id)).map(|row| row.user()))
}

async fn forgot_password(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: ForgotPassword,
) -> Result<(), UsersError> {
    // What cannot be an address is an unknown one, and about those nothing is said.
    let Ok(email) = request.email.parse::<EmailAddress>() else { return Ok(()) };
    let desk = Arc::clone(&state);
    state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
            let Some(account) = store::by_email(tx.conn, &email)? else { return Ok(()) };
            let since = tx.now.minus(EmailLinkKind::Reset.lifetime());
            if store::count_links(tx.conn, account.id, EmailLinkKind::Reset, since)? >= model::RESETS_MAX {
                return Ok(());
            }
            let id = fresh();
            store::insert_link(tx.conn, id, EmailLinkKind::Reset, account.id, &email, tx.now)?;
            let token = desk.tokens.show(Purpose::EmailLink(EmailLinkKind::Reset), id);
            tx.emit(&PasswordResetRequested { user_id: account.id, email, name: account.name, token })?;
            Ok(())
        })
        .await
}

/// The account that a link still opens: unused, not too old, and mailed to the address the account has.
fn opened_by(conn: &mut Conn, id: Uuid, purpose: EmailLinkKind, now: Timestamp) -> Result<Account, UsersError> {
    let link = store::find_link(conn, id, purpose)?.ok_or(UsersError::InvalidLink)?;
    let account = store::by_id(conn, link.user_id)?.ok_or(UsersError::InvalidLink)?;
    let is_good = link.used_at.is_none() && link.expires_at > now && account.email.as_ref() == Some(&link.email);
    if is_good { Ok(account) } else { Err(UsersError::InvalidLink) }
}

async fn reset_password(state: Arc<UsersState>, ctx: RequestContext, request: ResetPassword) -> Result<(), UsersError> {
    let mut fields = Validator::new();
    model::check_password(&mut fields, "password", &request.password);
    fields.done()?;
    let purpose = EmailLinkKind::Reset;
    let id = state.tokens.read(Purpose::EmailLink(purpose), &request.token).ok_or(UsersError::InvalidLink)?;
    let bare = ResetPassword { token: id.to_string(), password: String::new() };
    let turn = state.passwords.enter()?;
    let aside = aside(&ctx);
    let user_id = match state.store.find_response::<_, UserId, UsersError>(&aside, &bare).await? {
        Some(user_id) => user_id,
        None => {
            let now = state.store.now();
            // Without a key a spent link costs no hashing; with one, the same request may just have spent it, and the
            // write below knows.
            if ctx.key.is_none() {
                state.store.read(move |conn| opened_by(conn, id, purpose, now).map(drop)).await?;
            }
            let hash = turn.hash(&ctx, &request.password).await?;
            state
                .store
                .write_idempotent(&aside, &bare, move |tx| {
                    let mut account = opened_by(tx.conn, id, purpose, tx.now)?;
                    account.password_hash = Some(hash);
                    account.updated_at = tx.now;
                    store::update(tx.conn, &account)?;
                    store::use_links(tx.conn, account.id, purpose, tx.now)?;
                    store::end_sessions(tx.conn, account.id, None)?;
                    tx.emit(&AccessChanged { user_id: account.id, session_id: None })?;
                    Ok::<_, UsersError>(account.id)
                })
                .await?
        }
    };
    if aside.is_replayed() {
        state.check_repeated(&ctx, &turn, user_id, &request.password).await?;
        ctx.mark_replayed();
    }
    state.known.forget_user(user_id);
    Ok(())
}

async fn verify_email(state: Arc<UsersState>, ctx: RequestContext, request: VerifyEmail) -> Result<(), UsersError> {
    let purpose = EmailLinkKind::Verify;
    let id = state.tokens.read(Purpose::EmailLink(purpose), &request.token).ok_or(UsersError::InvalidLink)?;
    let bare = VerifyEmail { token: id.to_string() };
    state
        .store
        .write_idempotent(&ctx, &bare, move |tx| {
            let mailed = store::find_link(tx.conn, id, purpose)?.filter(|mailed| mailed.used_at.is_some());
            if let Some(mailed) = mailed {
                // Clicked twice, or fetched by a mail scanner first: said again, done once.
                let account = store::by_id(tx.conn, mailed.user_id)?;
                let holds = account.is_some_and(|a| a.email_verified && a.email == Some(mailed.email));
                return if holds { Ok(()) } else { Err(UsersError::InvalidLink) };
            }
            let mut account = opened_by(tx.conn, id, purpose, tx.now)?;
            account.email_verified = true;
            account.updated_at = tx.now;
            store::update(tx.conn, &account)?;
            store::use_link(tx.conn, id, tx.now)?;
            Ok(())
        })
        .await
}

async fn list_api_keys(
    state: Arc<UsersState>,
    ctx: RequestContext,
    _: ListApiKeys,
) -> Result<Page<ApiKey>, UsersError> {
    let user_id = asker(&ctx)?.user_id;
    let keys = state.store.read(move |conn| Ok::<_, UsersError>(store::keys(conn, user_id)?)).await?;
    Ok(Page { items: keys.into_iter().map(|key| state.api_key(key)).collect(), next: None })
}

async fn create_api_key(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: CreateApiKey,
) -> Result<NewApiKey, UsersError> {
    let who = asker(&ctx)?;
    if who.role == Role::Guest {
        // A guest ends with its session; a key would not.
        return Err(CommonError::Forbidden.into());
    }
    let mut fields = Validator::new();
    let name = model::name(&mut fields, &request.name);
    fields.done()?;
    let bare = CreateApiKey { name: name.clone() };
    let (id, created_at) = state
        .store
        .write_idempotent(&ctx, &bare, move |tx| {
            store::by_id(tx.conn, who.user_id)?.ok_or(UsersError::InvalidToken)?;
            if store::count_keys(tx.conn, who.user_id)? >= model::KEYS_MAX {
                return Err(UsersError::TooManyApiKeys);
            }
            let id = ApiKeyId::new();
            store::insert_key(tx.conn, id, who.user_id, &name, tx.now)?;
            Ok((id, tx.now))
        })
        .await?;
    let token = state.tokens.show(Purpose::ApiKey, id.uuid());
    let prefix = state.tokens.beginning(id);
    Ok(NewApiKey { api_key: ApiKey { id, name: bare.name, prefix, created_at, last_used_at: None }, token })
}

async fn delete_api_key(state: Arc<UsersState>, ctx: RequestContext, request: DeleteApiKey) -> Result<(), UsersError> {
    let (user_id, id) = (asker(&ctx)?.user_id, request.api_key_id);
    let done = state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
            if !store::delete_key(tx.conn, id, user_id)? {
                return Err(UsersError::ApiKeyNotFound);
            }
            // What the key opened must be looked at again.
            tx.emit(&AccessChanged { user_id, session_id: None })?;
            Ok(())
        })
        .await;
    state.known.forget(&Credential::ApiKey(id));
    done
}

/// This domain wants no events, so none comes.
async fn on_events(_: Arc<UsersState>, _: RequestContext, _: DeliverEvents) -> Result<(), CommonError> {
    Ok(())
}

/// Writes when API keys were last used.
pub async fn write_uses(state: Arc<UsersState>) {
    for batch in state.uses.all().chunks(KEY_USE_BATCH) {
        let uses = batch.to_vec();
        let written = state
            .store
            .write(move |tx| {
                for (key, at) in uses {
                    store::key_was_used(tx.conn, key, at)?;
                }
                Ok::<_, CommonError>(())
            })
            .await;
        match written {
            Ok(()) => state.uses.written(batch),
            Err(failure) => return log::warn!("users: the use of API keys is not written yet: {failure}"),
        }
    }
}

/// Deletes sessions and links that have ended, a few at a time, so that nobody waits for it.
pub async fn purge(state: Arc<UsersState>) {
    for _ in 0..PURGE_ROUNDS {
        match state.store.write(|tx| Ok::<_, CommonError>(store::purge(tx.conn, tx.now, PURGE_BATCH)?)).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(failure) => return log::warn!("users: what has ended is not deleted yet: {failure}"),
        }
    }
}

async fn audit(
    state: Arc<UsersState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn who_exists(
    state: Arc<UsersState>,
    _: RequestContext,
    request: FilterExistingUsers,
) -> Result<Vec<UserId>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::existing(conn, &request.users)?)).await
}
