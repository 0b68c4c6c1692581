//! Tests of the users domain through its messages, on a real database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::actor::purge;
use super::api_keys::flush_key_usage;
use super::model::EmailLinkKind;
use super::sign_in::flush_session_usage;
use super::tokens::TokenPurpose;
use super::*;
use crate::messaging::{
    Caller, Client, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, RequestContext, Role,
};
use crate::settings::Settings;
use crate::store::Store;
use crate::types::{
    ClientNetwork, Clock, EmailAddress, EventId, InvoiceId, Page, PageRequest, SessionId, Timestamp, UserId,
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const PASSWORD: &str = "correct horse battery";

/// The running domain on a temporary folder.
struct TestUsers {
    users: Client<UsersActor>,
    state: Arc<UsersState>,
    store: Store,
    clock: Clock,
    runtime: DomainRuntime,
    dir: TempDir,
}

impl TestUsers {
    fn open() -> Self {
        Self::open_in(TempDir::new().unwrap(), Clock::system(), |_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::open_in(TempDir::new().unwrap(), Clock::system(), change)
    }

    fn open_in(dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::for_test(dir.path());
        change(&mut settings);
        let runtime = DomainRuntime::new(settings, clock.clone());
        let state = open_state(&runtime).unwrap();
        let actor = Arc::clone(&state);
        let users = runtime.start("users", move || UsersActor { state: actor });
        Self { users, store: state.store.clone(), state, clock, runtime, dir }
    }

    /// Closes the domain and opens it again on the same folder.
    fn restart(self) -> Self {
        let Self { users, state, store, clock, runtime, dir } = self;
        drop((users, state, store));
        runtime.stop();
        Self::open_in(dir, clock, |_| {})
    }

    async fn register(&self, email: &str) -> User {
        self.users.call(anyone(), registration(email)).await.unwrap().user
    }

    async fn sign_in(&self, email: &str, password: &str) -> Result<SignedIn, UsersError> {
        let request = SignIn { email: email.to_owned(), password: password.to_owned(), code: None };
        self.users.call(anyone(), request).await
    }

    /// Registers an account and signs in to it.
    async fn member(&self, email: &str) -> (User, SignedIn) {
        let user = self.register(email).await;
        (user, self.sign_in(email, PASSWORD).await.unwrap())
    }

    async fn admin(&self, email: &str) -> User {
        let request = CreateUser {
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
            name: "Admin".to_owned(),
            role: Role::Admin,
            created_at: None,
        };
        self.users.call(RequestContext::internal("cli"), request).await.unwrap()
    }

    async fn guest(&self) -> SignedIn {
        self.users.call(anyone(), CreateGuest {}).await.unwrap()
    }

    async fn authenticate(&self, token: &str) -> Result<Authenticated, UsersError> {
        self.users.call(RequestContext::internal("web"), Authenticate { token: token.to_owned() }).await
    }

    /// The context of the holder of a token, as the gateway builds it.
    async fn context_of(&self, token: &str) -> RequestContext {
        let identity = self.authenticate(token).await.unwrap().identity;
        RequestContext::new(Caller::User { identity, internal: false }, "test")
    }

    async fn api_key(&self, ctx: &RequestContext, name: &str) -> NewApiKey {
        self.users.call(ctx.clone(), key_request(name)).await.unwrap()
    }

    /// The token of a mailed link.
    fn reset_token(&self, mail: &PasswordResetRequested) -> String {
        self.state.tokens.encode(TokenPurpose::EmailLink(EmailLinkKind::Reset), mail.link_id)
    }

    fn verify_token(&self, mail: &EmailVerificationRequested) -> String {
        self.state.tokens.encode(TokenPurpose::EmailLink(EmailLinkKind::Verify), mail.link_id)
    }

    fn staff(role: Role) -> CreateUser {
        CreateUser {
            email: format!("{}@example.com", role.as_str()),
            password: PASSWORD.to_owned(),
            name: "Staff".to_owned(),
            role,
            created_at: None,
        }
    }

    async fn update(
        &self,
        ctx: RequestContext,
        id: UserId,
        change: impl FnOnce(&mut UpdateUser),
    ) -> Result<User, UsersError> {
        self.users.call(ctx, updating(id, change)).await
    }

    async fn get(&self, id: UserId) -> Result<User, UsersError> {
        self.users.call(RequestContext::internal("cart"), GetUser { user_id: id }).await
    }

    async fn forgot(&self, email: &str) {
        self.users.call(anyone(), ForgotPassword { email: email.to_owned() }).await.unwrap();
    }

    async fn reset(&self, token: &str, password: &str) -> Result<(), UsersError> {
        let request = ResetPassword { token: token.to_owned(), password: password.to_owned(), keep_api_keys: false };
        self.users.call(anyone(), request).await
    }

    async fn verify(&self, token: &str) -> Result<(), UsersError> {
        self.users.call(anyone(), VerifyEmail { token: token.to_owned() }).await
    }

    /// All events of a type so far, oldest first.
    async fn emitted<E: Event>(&self) -> Vec<E> {
        let all: Vec<(i64, EventEnvelope)> = self.store.outbox_read_after("test", 1_000).await.unwrap();
        all.iter().filter_map(|(_, event)| event.decode().unwrap()).collect()
    }

    /// Runs `work` and returns the names of the events it emitted.
    async fn event_names_of<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        let before = self.store.outbox_read_after("test", 1_000).await.unwrap().len();
        let done = work.await;
        let all = self.store.outbox_read_after("test", 1_000).await.unwrap();
        (done, all.into_iter().skip(before).map(|(_, event)| event.name).collect())
    }
}

fn anyone() -> RequestContext {
    RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "test")
        .with_timeout(Duration::from_secs(60))
}

fn keyed(ctx: RequestContext, key: &str) -> RequestContext {
    ctx.with_key(IdempotencyKey::parse(key).unwrap())
}

fn key_request(name: &str) -> CreateApiKey {
    CreateApiKey { name: name.to_owned(), scopes: None, expires_at: None }
}

fn registration(email: &str) -> Register {
    Register { email: email.to_owned(), password: PASSWORD.to_owned(), name: "Ada Lovelace".to_owned() }
}

fn updating(user_id: UserId, change: impl FnOnce(&mut UpdateUser)) -> UpdateUser {
    let mut request = UpdateUser::of(user_id);
    change(&mut request);
    request
}

/// Fields and codes of a validation error.
fn field_errors<T: std::fmt::Debug>(refused: Result<T, UsersError>) -> Vec<(String, String)> {
    match refused.unwrap_err() {
        UsersError::Common(CommonError::ValidationFailed { errors }) => {
            errors.into_iter().map(|e| (e.field.into_owned(), e.code.into_owned())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn assert_field_error<T: std::fmt::Debug>(refused: Result<T, UsersError>, field: &str, code: &str) {
    assert_eq!(field_errors(refused), [(field.to_owned(), code.to_owned())]);
}

// --- registration ---------------------------------------------------------------------------------------------------

#[actix::test]
async fn registered_email_signs_in_in_any_case() {
    let fixture = TestUsers::open();
    let (user, event_names) = fixture.event_names_of(fixture.register(" Ada@Example.COM ")).await;
    assert_eq!(user.email.as_ref().unwrap().as_str(), "ada@example.com");
    assert_eq!((user.role, user.email_verified, &*user.name), (Role::Customer, false, "Ada Lovelace"));
    assert_eq!(event_names, ["users.user_registered", "users.email_verification_requested"]);
    let signed_in = fixture.sign_in("ADA@example.com", PASSWORD).await.unwrap();
    assert_eq!(signed_in.user, user);
    let authenticated = fixture.authenticate(&signed_in.token).await.unwrap();
    assert_eq!((authenticated.identity.user_id, authenticated.identity.role), (user.id, Role::Customer));
    assert_eq!(authenticated.expires_at, Some(signed_in.expires_at));
    assert_eq!(fixture.get(user.id).await, Ok(user));
}

#[actix::test]
async fn concurrent_registrations_create_one_account() {
    let fixture = TestUsers::open();
    let spellings = (0..20).map(|n| if n % 2 == 0 { "ada@example.com" } else { "ADA@example.com" });
    let replies = join_all(spellings.map(|email| fixture.users.call(anyone(), registration(email)))).await;
    assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), 1);
    assert_eq!(replies.iter().filter(|reply| **reply == Err(UsersError::EmailTaken)).count(), 19);
    assert_eq!(fixture.emitted::<UserRegistered>().await.len(), 1);
}

#[actix::test]
async fn registration_is_idempotent_by_key_and_body() {
    let fixture = TestUsers::open();
    let at_once =
        join_all((0..10).map(|_| fixture.users.call(keyed(anyone(), "k"), registration("ada@example.com")))).await;
    let first = at_once[0].clone().unwrap();
    assert!(at_once.iter().all(|reply| reply.as_ref() == Ok(&first)), "{at_once:?}");
    let again = keyed(anyone(), "k");
    assert_eq!(fixture.users.call(again.clone(), registration("ada@example.com")).await, Ok(first));
    assert!(again.is_replayed());
    let reused = Err(UsersError::Common(CommonError::IdempotencyKeyReused));
    let other_password = Register { password: "another password".to_owned(), ..registration("ada@example.com") };
    for other in [registration("eve@example.com"), other_password] {
        let ctx = keyed(anyone(), "k");
        assert_eq!(fixture.users.call(ctx.clone(), other).await, reused);
        assert!(!ctx.is_replayed());
    }
    assert_eq!(fixture.emitted::<UserRegistered>().await.len(), 1);
    assert_eq!(fixture.emitted::<EmailVerificationRequested>().await.len(), 1);
}

#[actix::test]
async fn s04_guest_registration_keeps_id_and_changes_token() {
    let fixture = TestUsers::open();
    let guest = fixture.guest().await;
    assert_eq!((guest.user.role, &guest.user.email, &*guest.user.name), (Role::Guest, &None, ""));
    let ctx = keyed(fixture.context_of(&guest.token).await, "k");
    let (registration_reply, event_names) =
        fixture.event_names_of(fixture.users.call(ctx.clone(), registration("ada@example.com"))).await;
    let reply = registration_reply.unwrap();
    let user = reply.user.clone();
    assert_eq!((user.id, user.role), (guest.user.id, Role::Customer));
    assert!(event_names.contains(&"users.user_registered".to_owned()));
    assert!(event_names.contains(&"users.access_changed".to_owned()), "their role changed: {event_names:?}");
    // The guest's token may be known to another person, so it ends; a new one replaces it.
    assert_eq!(fixture.authenticate(&guest.token).await, Err(UsersError::InvalidToken));
    let token = reply.token.clone().unwrap();
    assert_eq!(fixture.authenticate(&token).await.unwrap().identity.role, Role::Customer);
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await.unwrap().user.id, user.id);
    // A repetition gets the same reply.
    assert_eq!(fixture.users.call(ctx, registration("ada@example.com")).await, Ok(reply));
    // A customer who registers creates one more account.
    let ctx = fixture.context_of(&token).await;
    let second = fixture.users.call(ctx, registration("grace@example.com")).await.unwrap();
    assert_ne!(second.user.id, user.id);
    assert_eq!(second.token, None);
    // An address that is taken leaves a guest a guest.
    let other = fixture.guest().await;
    let ctx = fixture.context_of(&other.token).await;
    assert_eq!(fixture.users.call(ctx, registration("ada@example.com")).await, Err(UsersError::EmailTaken));
    assert_eq!(fixture.authenticate(&other.token).await.unwrap().identity.role, Role::Guest);
}

#[actix::test]
async fn repeated_create_guest_returns_same_token() {
    let fixture = TestUsers::open();
    let send = || fixture.users.call(keyed(anyone(), "0f3b1c9e-6b3e-4c53-9a34"), CreateGuest {});
    let (one, two) = (send().await.unwrap(), send().await.unwrap());
    assert_eq!(one, two);
    assert_ne!(fixture.guest().await.token, one.token);
    assert!(fixture.authenticate(&one.token).await.is_ok());
}

#[actix::test]
async fn invalid_registration_names_every_field() {
    let fixture = TestUsers::open();
    let request = Register { email: "not-an-address".into(), password: "short".into(), name: "\n".into() };
    let fields: Vec<String> =
        field_errors(fixture.users.call(anyone(), request).await).into_iter().map(|f| f.0).collect();
    assert!(["email", "password", "name"].iter().all(|field| fields.contains(&(*field).to_owned())), "{fields:?}");
}

#[actix::test]
async fn create_user_sets_role_and_date_internally_only() {
    let fixture = TestUsers::open();
    let date = Timestamp::parse("2024-02-29T12:00:00Z").unwrap();
    let request = || CreateUser {
        email: "boss@example.com".into(),
        password: PASSWORD.into(),
        name: "Boss".into(),
        role: Role::Admin,
        created_at: Some(date),
    };
    let ctx = || keyed(RequestContext::internal("cli"), "k");
    let (made, event_names) = fixture.event_names_of(fixture.users.call(ctx(), request())).await;
    let made = made.unwrap();
    assert_eq!((made.role, made.email_verified, made.created_at), (Role::Admin, true, date));
    assert_eq!(event_names, ["users.user_registered"]);
    assert_eq!(fixture.emitted::<UserRegistered>().await[0].created_at, date);
    assert_eq!(fixture.users.call(ctx(), request()).await, Ok(made), "repeated");
    let guest = CreateUser { role: Role::Guest, ..request() };
    assert_field_error(fixture.users.call(RequestContext::internal("cli"), guest).await, "role", "invalid");
    let outsider = fixture.users.call(anyone(), request()).await;
    assert_eq!(outsider, Err(CommonError::Forbidden.into()), "external callers are rejected");
}

// --- sessions -----------------------------------------------------------------------------------------------------

#[actix::test]
async fn failed_sign_ins_look_alike_and_hash_exactly_once() {
    let fixture = TestUsers::open();
    fixture.register("ada@example.com").await;
    for (email, password) in [
        ("ada@example.com", "wrong password"),
        ("eve@example.com", PASSWORD),
        ("nonsense", PASSWORD),
        ("ada@example.com", ""),
    ] {
        let before = fixture.state.passwords.computed();
        assert_eq!(fixture.sign_in(email, password).await, Err(UsersError::BadCredentials));
        // The same work for all, so that the time it takes says nothing about who has an account.
        assert_eq!(fixture.state.passwords.computed() - before, 1, "{email}");
    }
    let endless: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    assert_eq!(fixture.sign_in("ada@example.com", endless).await, Err(UsersError::BadCredentials));
}

#[actix::test]
async fn repeated_sign_in_requires_password_again() {
    let fixture = TestUsers::open();
    fixture.register("ada@example.com").await;
    let send = |password: &str| {
        let request = SignIn { email: "ada@example.com".into(), password: password.into(), code: None };
        fixture.users.call(keyed(anyone(), "k"), request)
    };
    let first = send(PASSWORD).await.unwrap();
    assert_eq!(send(PASSWORD).await, Ok(first.clone()));
    assert_eq!(send("wrong password").await, Err(UsersError::BadCredentials));
    assert_ne!(fixture.sign_in("ada@example.com", PASSWORD).await.unwrap().token, first.token, "without the key");
}

#[actix::test]
async fn sign_out_ends_only_its_session() {
    let fixture = TestUsers::open();
    let (user, one) = fixture.member("ada@example.com").await;
    let two = fixture.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let ctx = fixture.context_of(&one.token).await;
    let Some(Credential::Session(session)) = ctx.identity().map(|who| who.credential) else { panic!() };
    fixture.users.call(ctx.clone(), SignOut {}).await.unwrap();
    assert_eq!(fixture.authenticate(&one.token).await, Err(UsersError::InvalidToken));
    assert!(fixture.authenticate(&two.token).await.is_ok());
    let emitted: Vec<_> =
        fixture.emitted::<AccessChanged>().await.into_iter().map(|event| (event.user_id, event.session_id)).collect();
    assert_eq!(emitted, [(user.id, Some(session))]);
    // Repeated by a caller that missed the response.
    let (again, event_names) = fixture.event_names_of(fixture.users.call(ctx, SignOut {})).await;
    assert_eq!((again, event_names.len()), (Ok(()), 0));
    let anonymous = fixture.users.call(anyone(), SignOut {}).await;
    assert_eq!(anonymous, Err(CommonError::Unauthenticated.into()));
}

#[actix::test]
async fn session_expires_despite_cache_and_is_purged() {
    let fixture = TestUsers::with(|settings| settings.users.session = DAY);
    let (_, member) = fixture.member("ada@example.com").await;
    let guest = fixture.guest().await;
    assert_eq!(member.expires_at.duration_since(fixture.clock.now()).as_secs() / 60, 24 * 60 - 1);
    fixture.clock.advance(DAY - Duration::from_secs(60));
    for token in [&member.token, &guest.token] {
        assert!(fixture.authenticate(token).await.is_ok());
    }
    fixture.clock.advance(Duration::from_secs(120));
    for token in [&member.token, &guest.token] {
        assert_eq!(fixture.authenticate(token).await, Err(UsersError::InvalidToken));
    }
    let purged = fixture.store.read(count_sessions).await.unwrap();
    assert_eq!(purged, 2);
    purge(Arc::clone(&fixture.state)).await;
    assert_eq!(fixture.store.read(count_sessions).await, Ok(0));
    assert_eq!(fixture.authenticate(&member.token).await, Err(UsersError::InvalidToken));
    assert!(fixture.sign_in("ada@example.com", PASSWORD).await.is_ok(), "the account stays");
}

fn count_sessions(conn: &mut crate::store::Conn) -> Result<i64, CommonError> {
    use crate::store::query::*;
    Ok(schema::session::table.count().get_result(conn)?)
}

#[actix::test]
async fn sessions_and_keys_survive_restart() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    let guest = fixture.guest().await;
    let key = fixture.api_key(&fixture.context_of(&member.token).await, "script").await;
    let fixture = fixture.restart();
    for token in [&member.token, &key.token] {
        assert_eq!(fixture.authenticate(token).await.unwrap().identity.user_id, user.id);
    }
    assert_eq!(fixture.authenticate(&guest.token).await.unwrap().identity.user_id, guest.user.id);
    assert!(fixture.sign_in("ada@example.com", PASSWORD).await.is_ok());
}

#[actix::test]
async fn panic_keeps_sessions() {
    let fixture = TestUsers::open();
    let (_, member) = fixture.member("ada@example.com").await;
    let mut ctx = RequestContext::internal("web");
    ctx.panic_at = Some("users.Authenticate".into());
    let refused = fixture.users.call(ctx, Authenticate { token: member.token.clone() }).await;
    assert_eq!(refused, Err(CommonError::Internal.into()));
    assert!(fixture.authenticate(&member.token).await.is_ok());
}

#[actix::test]
async fn sign_in_flood_is_rejected_and_blocks_nobody() {
    let fixture = TestUsers::with(|settings| settings.users.hashers = 1);
    let (_, member) = fixture.member("ada@example.com").await;
    let suspended = fixture.state.passwords.suspend_hasher().await;
    let rejected = std::cell::Cell::new(0);
    let flood = join_all((0..300).map(|_| async {
        let reply = fixture.sign_in("eve@example.com", PASSWORD).await;
        rejected.set(rejected.get() + usize::from(reply == Err(CommonError::Overloaded.into())));
        reply
    }));
    let others = async {
        // One place at the hasher and 32 waiting; the rest are rejected although nothing is hashed.
        while rejected.get() < 300 - 33 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..50 {
            fixture.authenticate(&member.token).await.unwrap();
            fixture.get(member.user.id).await.unwrap();
        }
        drop(suspended);
    };
    let (replies, ()) = futures_util::future::join(flood, others).await;
    let answered = replies.iter().filter(|reply| **reply == Err(UsersError::BadCredentials)).count();
    assert_eq!((rejected.get(), answered), (300 - 33, 33), "{replies:?}");
    assert!(fixture.sign_in("ada@example.com", PASSWORD).await.is_ok(), "and then there is room again");
}

#[actix::test]
async fn sign_in_fails_if_password_changes_meanwhile() {
    use crate::store::query::*;
    use argon2::password_hash::PasswordHasher as _;
    let fixture = TestUsers::with(|settings| settings.users.hashers = 1);
    let user = fixture.register("ada@example.com").await;
    // A true hash, so that on a slow machine, where the change may come before the reading, the verdict is the same.
    let another = argon2::Argon2::default().hash_password(b"another password").unwrap().to_string();
    // Ten before it at the one hasher, so that the change falls between the reading of the hash and its verdict.
    let queue = join_all((0..10).map(|_| fixture.sign_in("eve@example.com", PASSWORD)));
    let late = fixture.sign_in("ada@example.com", PASSWORD);
    let change = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let reset = fixture.store.write(move |tx| {
            let row = schema::account::table.find(user.id);
            let hash = schema::account::password_hash.eq(another);
            Ok::<_, CommonError>(diesel::update(row).set(hash).execute(tx.conn)?)
        });
        reset.await.unwrap();
    };
    let (_, late, ()) = futures_util::future::join3(queue, late, change).await;
    assert_eq!(late, Err(UsersError::BadCredentials));
    assert_eq!(fixture.store.read(count_sessions).await, Ok(0));
}

#[actix::test]
async fn session_limit_ends_oldest() {
    use crate::store::query::*;
    let fixture = TestUsers::open();
    let (user, oldest) = fixture.member("ada@example.com").await;
    assert!(fixture.authenticate(&oldest.token).await.is_ok());
    // As many as there may be, without hashing a thousand times.
    let full = fixture.store.write(move |tx| {
        let row = |_| {
            (
                schema::session::id.eq(SessionId::new()),
                schema::session::user_id.eq(user.id),
                schema::session::created_at.eq(tx.now),
                schema::session::expires_at.eq(tx.now.saturating_add(DAY)),
                schema::session::last_used_at.eq(tx.now),
            )
        };
        let rows: Vec<_> = (1..model::SESSIONS_MAX).map(row).collect();
        Ok::<_, CommonError>(diesel::insert_into(schema::session::table).values(rows).execute(tx.conn)?)
    });
    full.await.unwrap();
    assert!(fixture.authenticate(&oldest.token).await.is_ok());
    let newest = fixture.sign_in("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(fixture.authenticate(&oldest.token).await, Err(UsersError::InvalidToken));
    assert!(fixture.authenticate(&newest.token).await.is_ok());
    assert_eq!(fixture.store.read(count_sessions).await, Ok(model::SESSIONS_MAX));
}

// --- tokens --------------------------------------------------------------------------------------------------------

#[actix::test]
async fn forged_or_foreign_token_is_rejected() {
    let (fixture, stranger) = (TestUsers::open(), TestUsers::open());
    let (user, member) = fixture.member("ada@example.com").await;
    let key = fixture.api_key(&fixture.context_of(&member.token).await, "script").await;
    let link = fixture.verify_token(&fixture.emitted::<EmailVerificationRequested>().await[0]);
    for token in [&member.token, &key.token] {
        assert!(fixture.authenticate(token).await.is_ok());
        assert_eq!(stranger.authenticate(token).await, Err(UsersError::InvalidToken), "another shop's secret");
        for at in [0, 4, 20, 30, token.len() - 1] {
            let mut forged = token.clone();
            let other = if &forged[at..=at] == "A" { "B" } else { "A" };
            forged.replace_range(at..=at, other);
            assert_eq!(fixture.authenticate(&forged).await, Err(UsersError::InvalidToken), "{at}");
        }
    }
    // A valid id without a signature, as a reader of the database could build.
    let bare = format!("mct_{}", "A".repeat(64));
    for other in [&link, &bare, "", "mct_", &member.token[4..], &format!("{} ", member.token)] {
        assert_eq!(fixture.authenticate(other).await, Err(UsersError::InvalidToken), "{other}");
    }
    // One purpose is not another, under its own prefix or a borrowed one.
    for (from, to) in [(&member.token, "mck_"), (&key.token, "mct_"), (&link, "mct_"), (&link, "mck_")] {
        let disguised = format!("{to}{}", &from[4..]);
        assert_eq!(fixture.authenticate(&disguised).await, Err(UsersError::InvalidToken));
    }
    for token in [&member.token, &key.token, &link] {
        assert_eq!(fixture.reset(token, "a new password").await, Err(UsersError::InvalidLink));
        let disguised = format!("mcr_{}", &token[4..]);
        assert_eq!(fixture.reset(&disguised, "a new password").await, Err(UsersError::InvalidLink));
    }
    fixture.forgot("ada@example.com").await;
    let reset = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    for token in [&member.token, &key.token, &reset, &format!("mcv_{}", &reset[4..])] {
        assert_eq!(fixture.verify(token).await, Err(UsersError::InvalidLink));
    }
    assert!(!fixture.get(user.id).await.unwrap().email_verified);
}

#[actix::test]
async fn s03_files_hold_no_password_or_token() {
    if crate::store::tested_on_server() {
        return;
    }
    let fixture = TestUsers::open();
    let mut secrets = vec![PASSWORD.to_owned(), "second password".to_owned(), "third password".to_owned()];
    let created = CreateUser {
        email: "boss@example.com".into(),
        password: "fourth password".into(),
        name: "Boss".into(),
        role: Role::Admin,
        created_at: None,
    };
    secrets.push(created.password.clone());
    fixture.users.call(keyed(RequestContext::internal("cli"), "0"), created).await.unwrap();
    let guest = fixture.users.call(keyed(anyone(), "1"), CreateGuest {}).await.unwrap();
    let ctx = keyed(fixture.context_of(&guest.token).await, "2");
    let user = fixture.users.call(ctx, registration("ada@example.com")).await.unwrap().user;
    let signed_in = SignIn { email: "ada@example.com".into(), password: PASSWORD.into(), code: None };
    let member = fixture.users.call(keyed(anyone(), "3"), signed_in).await.unwrap();
    let ctx = keyed(fixture.context_of(&member.token).await, "4");
    let key = fixture.api_key(&ctx, "script").await;
    let change = |request: &mut UpdateUser| {
        request.password = Some("second password".into());
        request.current_password = Some(PASSWORD.into());
        request.keep_api_keys = true;
    };
    fixture.update(keyed(ctx, "5"), user.id, change).await.unwrap();
    fixture.forgot("ada@example.com").await;
    let reset = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    let request = ResetPassword { token: reset.clone(), password: "third password".into(), keep_api_keys: true };
    fixture.users.call(keyed(anyone(), "6"), request).await.unwrap();
    let verify = fixture.verify_token(&fixture.emitted::<EmailVerificationRequested>().await[0]);
    fixture.users.call(keyed(anyone(), "7"), VerifyEmail { token: verify.clone() }).await.unwrap();
    assert!(fixture.authenticate(&key.token).await.is_ok());
    flush_key_usage(Arc::clone(&fixture.state)).await;

    secrets.extend([guest.token, member.token, key.token, reset, verify]);
    // Not under another prefix either, nor the signature alone.
    let signatures: Vec<String> = secrets.iter().filter(|s| s.starts_with("mc")).map(|s| s[32..].to_owned()).collect();
    secrets.extend(signatures);
    let (mut searched, mut found_public) = (0, false);
    for file in std::fs::read_dir(fixture.dir.path()).unwrap() {
        let file = file.unwrap().path();
        let bytes = std::fs::read(&file).unwrap();
        searched += bytes.len();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
        // Finding a public value proves that the search works.
        found_public |= bytes.windows(15).any(|window| window == b"ada@example.com");
    }
    assert!(found_public);
    assert!(searched > 100_000, "the database and its log were searched");
}

// --- API keys ------------------------------------------------------------------------------------------------------

#[actix::test]
async fn api_key_works_until_deleted() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    let (_, other) = fixture.member("eve@example.com").await;
    let (ctx, stranger) = (fixture.context_of(&member.token).await, fixture.context_of(&other.token).await);
    let create = || fixture.users.call(keyed(ctx.clone(), "k"), key_request("  till   script "));
    let key = create().await.unwrap();
    assert_eq!(create().await, Ok(key.clone()), "a repetition shows it again");
    assert_eq!(key.api_key.name, "till script");
    assert!(key.token.starts_with(&key.api_key.prefix) && key.api_key.prefix.len() == 16, "{}", key.api_key.prefix);
    let authenticated = fixture.authenticate(&key.token).await.unwrap();
    assert_eq!((authenticated.identity.user_id, authenticated.identity.role), (user.id, Role::Customer));
    assert_eq!(authenticated.identity.credential, Credential::ApiKey(key.api_key.id));
    assert_eq!(authenticated.expires_at, None);

    let list = |ctx: &RequestContext| fixture.users.call(ctx.clone(), ListApiKeys {});
    let shown = list(&ctx).await.unwrap();
    assert_eq!(shown.items.iter().map(|k| k.id).collect::<Vec<_>>(), [key.api_key.id]);
    assert!(list(&stranger).await.unwrap().items.is_empty());
    let delete = |ctx: &RequestContext| fixture.users.call(ctx.clone(), DeleteApiKey { api_key_id: key.api_key.id });
    assert_eq!(delete(&stranger).await, Err(UsersError::ApiKeyNotFound), "not theirs");
    assert!(fixture.authenticate(&key.token).await.is_ok());
    let (deleted, event_names) = fixture.event_names_of(delete(&ctx)).await;
    assert_eq!((deleted, &*event_names), (Ok(()), &["users.access_changed".to_owned()][..]));
    assert_eq!(fixture.authenticate(&key.token).await, Err(UsersError::InvalidToken));
    assert_eq!(delete(&ctx).await, Err(UsersError::ApiKeyNotFound));
}

#[actix::test]
async fn api_key_usage_is_flushed_by_the_minute() {
    let fixture = TestUsers::open();
    let (_, member) = fixture.member("ada@example.com").await;
    let ctx = fixture.context_of(&member.token).await;
    let key = fixture.api_key(&ctx, "script").await;
    let last = || async { fixture.users.call(ctx.clone(), ListApiKeys {}).await.unwrap().items[0].last_used_at };
    assert_eq!(last().await, None);
    let before = fixture.clock.now();
    for _ in 0..100 {
        fixture.authenticate(&key.token).await.unwrap();
    }
    let used = last().await.unwrap();
    assert_eq!(used.micros() % 60_000_000, 0);
    assert!(before.duration_since(used) < Duration::from_secs(61));
    flush_key_usage(Arc::clone(&fixture.state)).await;
    assert!(fixture.state.key_usage.all().is_empty());
    let fixture = fixture.restart();
    let ctx = fixture.context_of(&member.token).await;
    let shown: Page<ApiKey> = fixture.users.call(ctx, ListApiKeys {}).await.unwrap();
    assert_eq!(shown.items[0].last_used_at, Some(used));
}

#[actix::test]
async fn api_keys_are_limited_and_denied_to_guests() {
    let fixture = TestUsers::open();
    let (_, member) = fixture.member("ada@example.com").await;
    let ctx = fixture.context_of(&member.token).await;
    let made = join_all((0..60).map(|n| fixture.users.call(ctx.clone(), key_request(&format!("key {n}"))))).await;
    assert_eq!(made.iter().filter(|key| key.is_ok()).count(), 50);
    assert_eq!(made.iter().filter(|key| **key == Err(UsersError::TooManyApiKeys)).count(), 10);
    assert_eq!(fixture.users.call(ctx.clone(), ListApiKeys {}).await.unwrap().items.len(), 50);
    assert_field_error(fixture.users.call(ctx, key_request("")).await, "name", "required");
    let guest = fixture.context_of(&fixture.guest().await.token).await;
    let refused = fixture.users.call(guest, key_request("script")).await;
    assert_eq!(refused, Err(CommonError::Forbidden.into()));
}

#[actix::test]
async fn api_key_has_scopes_of_its_creator_at_most() {
    let fixture = TestUsers::open();
    let (_, member) = fixture.member("ada@example.com").await;
    let ctx = fixture.context_of(&member.token).await;
    let request = |scopes: &[&str]| CreateApiKey {
        scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
        ..key_request("script")
    };
    for wrong in [&["shop:read"][..], &[]] {
        assert_field_error(fixture.users.call(ctx.clone(), request(wrong)).await, "scopes", "invalid");
    }
    let key = fixture.users.call(ctx, request(&["catalog:read", "users:write"])).await.unwrap();
    assert_eq!(key.api_key.scopes.names(), ["users:write", "catalog:read"]);
    let key_ctx = fixture.context_of(&key.token).await;
    assert_eq!(
        fixture.users.call(key_ctx.clone(), key_request("like me")).await.unwrap().api_key.scopes,
        key.api_key.scopes
    );
    assert_field_error(fixture.users.call(key_ctx, request(&["payments:read"])).await, "scopes", "invalid");
    // A key without the scope of a request cannot send it.
    let reader = fixture.users.call(fixture.context_of(&member.token).await, request(&["users:read"])).await.unwrap();
    let refused = fixture.users.call(fixture.context_of(&reader.token).await, key_request("more")).await;
    assert_eq!(refused, Err(CommonError::ScopeMissing { scope: "users:write".to_owned() }.into()));
}

#[actix::test]
async fn api_key_ends_at_its_time() {
    let fixture = TestUsers::open();
    let (_, member) = fixture.member("ada@example.com").await;
    let ctx = fixture.context_of(&member.token).await;
    let until = |end| CreateApiKey { expires_at: Some(end), ..key_request("script") };
    let past = fixture.users.call(ctx.clone(), until(fixture.clock.now())).await;
    assert_field_error(past, "expires_at", "past");
    let end = fixture.clock.now().saturating_add(HOUR);
    let key = fixture.users.call(ctx, until(end)).await.unwrap();
    assert_eq!(fixture.authenticate(&key.token).await.unwrap().expires_at, Some(end));
    fixture.clock.advance(HOUR);
    assert_eq!(fixture.authenticate(&key.token).await, Err(UsersError::InvalidToken));
}

#[actix::test]
async fn session_of_staff_ends_when_idle_or_after_a_day() {
    let fixture = TestUsers::open();
    fixture.admin("boss@example.com").await;
    let (_, member) = fixture.member("ada@example.com").await;
    let sign_in = async || fixture.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let (idle, used) = (sign_in().await, sign_in().await);
    for _ in 0..3 {
        fixture.clock.advance(HOUR);
        assert!(fixture.authenticate(&used).await.is_ok());
    }
    assert_eq!(fixture.authenticate(&idle).await, Err(UsersError::InvalidToken));
    // A restart does not forget that it was used.
    flush_session_usage(Arc::clone(&fixture.state)).await;
    let fixture = fixture.restart();
    assert!(fixture.authenticate(&used).await.is_ok());
    for _ in 0..9 {
        fixture.clock.advance(HOUR);
        let _ = fixture.authenticate(&used).await;
    }
    assert_eq!(fixture.authenticate(&used).await, Err(UsersError::InvalidToken));
    assert!(fixture.authenticate(&member.token).await.is_ok(), "customers stay signed in");
}

#[actix::test]
async fn guests_of_one_address_share_no_token_by_a_common_key() {
    let fixture = TestUsers::open();
    let with_key = async |key: &str| fixture.users.call(keyed(anyone(), key), CreateGuest {}).await.unwrap();
    assert_ne!(with_key("1").await.token, with_key("1").await.token, "a key that every client may use");
    let unguessable = "0f3b1c9e-6b3e-4c53-9a34-2f8f4cf5f7a1";
    assert_eq!(with_key(unguessable).await.token, with_key(unguessable).await.token, "a retry");
}

// --- updates -------------------------------------------------------------------------------------------------------

#[actix::test]
async fn owner_needs_password_to_change_credentials() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    let ctx = || fixture.context_of(&member.token);
    let renamed = fixture.update(ctx().await, user.id, |r| r.name = Some("Countess".into())).await.unwrap();
    assert_eq!(renamed.name, "Countess", "a name needs none");
    let to_email = |r: &mut UpdateUser| r.email = Some("new@example.com".into());
    let to_password = |r: &mut UpdateUser| r.password = Some("another password".into());
    assert_field_error(fixture.update(ctx().await, user.id, to_email).await, "current_password", "required");
    assert_field_error(fixture.update(ctx().await, user.id, to_password).await, "current_password", "required");
    for change in [to_email as fn(&mut UpdateUser), to_password] {
        let with_wrong = |r: &mut UpdateUser| {
            change(r);
            r.current_password = Some("wrong password".into());
        };
        assert_field_error(fixture.update(ctx().await, user.id, with_wrong).await, "current_password", "wrong");
    }
    // The whole user sent back as it is changes nothing and needs nothing.
    let (same, event_names) = fixture
        .event_names_of(fixture.update(ctx().await, user.id, |r| {
            r.name = Some("Countess".into());
            r.email = Some("ADA@example.com".into());
            r.role = Some(Role::Customer);
        }))
        .await;
    assert_eq!((same, event_names.len()), (Ok(renamed), 0));
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await.unwrap().user.id, user.id);
}

#[actix::test]
async fn new_email_takes_effect_once_confirmed() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    let old_link = fixture.verify_token(&fixture.emitted::<EmailVerificationRequested>().await[0]);
    fixture.forgot("ada@example.com").await;
    let old_reset = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    fixture.verify(&old_link).await.unwrap();
    assert!(fixture.get(user.id).await.unwrap().email_verified);
    fixture.register("taken@example.com").await;
    let ctx = fixture.context_of(&member.token).await;
    let to = |email: &'static str| {
        move |r: &mut UpdateUser| {
            r.email = Some(email.into());
            r.current_password = Some(PASSWORD.into());
        }
    };
    assert_eq!(fixture.update(ctx.clone(), user.id, to("taken@example.com")).await, Err(UsersError::EmailTaken));
    let (changed, event_names) = fixture.event_names_of(fixture.update(ctx, user.id, to("new@example.com"))).await;
    let changed = changed.unwrap();
    let (old, new): (EmailAddress, EmailAddress) =
        ("ada@example.com".parse().unwrap(), "new@example.com".parse().unwrap());
    assert_eq!((&changed.email, &changed.pending_email), (&Some(old.clone()), &Some(new.clone())));
    assert!(changed.updated_at > user.updated_at);
    assert_eq!(event_names, ["users.email_verification_requested", "users.credentials_changed"]);
    assert_eq!(
        fixture.emitted::<CredentialsChanged>().await.pop().unwrap().email,
        old,
        "the present owner gets a mail"
    );
    assert!(fixture.authenticate(&member.token).await.is_ok(), "a new address ends no sign-in");
    // Until it is confirmed, the account has the old address.
    assert!(fixture.sign_in("ada@example.com", PASSWORD).await.is_ok());
    assert_eq!(fixture.sign_in("new@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    let mail = fixture.emitted::<EmailVerificationRequested>().await.pop().unwrap();
    assert_eq!(mail.email, new);
    fixture.verify(&fixture.verify_token(&mail)).await.unwrap();
    let confirmed = fixture.get(user.id).await.unwrap();
    assert_eq!((confirmed.email, confirmed.pending_email, confirmed.email_verified), (Some(new), None, true));
    assert_eq!(fixture.emitted::<CredentialsChanged>().await.pop().unwrap().email, old);
    // Links sent to the old address are invalid.
    assert_eq!(fixture.verify(&old_link).await, Err(UsersError::InvalidLink));
    assert_eq!(fixture.reset(&old_reset, "a new password").await, Err(UsersError::InvalidLink));
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
}

#[actix::test]
async fn a_new_password_ends_all_other_sign_ins() {
    let fixture = TestUsers::open();
    let (user, mine) = fixture.member("ada@example.com").await;
    let thief = fixture.sign_in("ada@example.com", PASSWORD).await.unwrap();
    for token in [&mine.token, &thief.token] {
        assert!(fixture.authenticate(token).await.is_ok());
    }
    fixture.forgot("ada@example.com").await;
    let reset = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    let change = |r: &mut UpdateUser| {
        r.password = Some("another password".into());
        r.current_password = Some(PASSWORD.into());
    };
    let ctx = keyed(fixture.context_of(&mine.token).await, "k");
    let at_once = join_all((0..5).map(|_| fixture.update(ctx.clone(), user.id, change))).await;
    let changed = at_once[0].clone().unwrap();
    assert!(at_once.iter().all(|reply| reply.as_ref() == Ok(&changed)), "sent five times, done once: {at_once:?}");
    assert_eq!(fixture.emitted::<AccessChanged>().await.len(), 1);
    assert!(fixture.authenticate(&mine.token).await.is_ok());
    assert_eq!(fixture.authenticate(&thief.token).await, Err(UsersError::InvalidToken));
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    assert!(fixture.sign_in("ada@example.com", "another password").await.is_ok());
    assert_eq!(fixture.reset(&reset, "a thiefs password").await, Err(UsersError::InvalidLink));
    // Under the same key with another new password it is another request.
    let other = |r: &mut UpdateUser| {
        r.password = Some("a third password".into());
        r.current_password = Some("another password".into());
    };
    assert_eq!(fixture.update(ctx, user.id, other).await, Err(CommonError::IdempotencyKeyReused.into()));
}

#[actix::test]
async fn s02_current_password_cannot_be_guessed_without_limit() {
    let fixture =
        TestUsers::open_in(TempDir::new().unwrap(), Clock::system(), |settings| settings.limits.enabled = true);
    let (user, member) = fixture.member("ada@example.com").await;
    let mut ctx = fixture.context_of(&member.token).await;
    ctx.network = Some(ClientNetwork::from("192.0.2.1".parse::<std::net::IpAddr>().unwrap()));
    let guess = |r: &mut UpdateUser| {
        r.password = Some("taken over by me".into());
        r.current_password = Some("a wrong guess".into());
    };
    let mut refused = Vec::new();
    for _ in 0..15 {
        refused.push(fixture.update(ctx.clone(), user.id, guess).await.unwrap_err());
    }
    assert!(matches!(refused[0], UsersError::Common(CommonError::ValidationFailed { .. })), "{refused:?}");
    assert!(matches!(refused[14], UsersError::Common(CommonError::RateLimited { .. })), "{refused:?}");
}

#[actix::test]
async fn only_admins_set_roles_and_last_admin_stays() {
    let fixture = TestUsers::open();
    let boss = fixture.admin("boss@example.com").await;
    let (user, member) = fixture.member("ada@example.com").await;
    let boss_token = fixture.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let (boss_ctx, ctx) = (fixture.context_of(&boss_token).await, fixture.context_of(&member.token).await);
    let to = |role| move |r: &mut UpdateUser| r.role = Some(role);
    // Not one's own role, not that of others, not to guest, not of the last administrator.
    assert_eq!(fixture.update(ctx.clone(), user.id, to(Role::Admin)).await, Err(CommonError::Forbidden.into()));
    assert_eq!(fixture.update(ctx.clone(), boss.id, to(Role::Customer)).await, Err(CommonError::Forbidden.into()));
    assert_field_error(fixture.update(boss_ctx.clone(), user.id, to(Role::Guest)).await, "role", "invalid");
    for ctx in [boss_ctx.clone(), RequestContext::internal("cli")] {
        assert_eq!(fixture.update(ctx.clone(), boss.id, to(Role::Customer)).await, Err(UsersError::LastAdmin));
        let erased = fixture.users.call(ctx, DeleteUser { user_id: boss.id }).await;
        assert_eq!(erased, Err(UsersError::LastAdmin));
    }
    let (promoted, event_names) =
        fixture.event_names_of(fixture.update(boss_ctx.clone(), user.id, to(Role::Admin))).await;
    assert_eq!(promoted.unwrap().role, Role::Admin);
    let told = ["users.credentials_changed", "users.credentials_changed"];
    assert_eq!(event_names, [&["users.user_changed", "users.access_changed"][..], &told].concat());
    assert_eq!(fixture.authenticate(&member.token).await, Err(UsersError::InvalidToken), "a token gains no rights");
    // Of two concurrent demotions one succeeds.
    let member = fixture.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let ctx = fixture.context_of(&member.token).await;
    let resigned = futures_util::future::join(
        fixture.update(ctx, user.id, to(Role::Customer)),
        fixture.update(boss_ctx, boss.id, to(Role::Customer)),
    )
    .await;
    let (one, two) = (resigned.0, resigned.1);
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(one.and(two), Err(UsersError::LastAdmin));
}

#[actix::test]
async fn admin_edits_others_without_password_but_not_self() {
    let fixture = TestUsers::open();
    let boss = fixture.admin("boss@example.com").await;
    let (user, member) = fixture.member("ada@example.com").await;
    let token = fixture.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let ctx = fixture.context_of(&token).await;
    let change = |r: &mut UpdateUser| r.password = Some("given by staff".into());
    fixture.update(ctx.clone(), user.id, change).await.unwrap();
    assert_eq!(fixture.authenticate(&member.token).await, Err(UsersError::InvalidToken), "all of theirs end");
    assert!(fixture.sign_in("ada@example.com", "given by staff").await.is_ok());
    assert_field_error(fixture.update(ctx.clone(), boss.id, change).await, "current_password", "required");
    assert_eq!(fixture.update(ctx, UserId::new(), change).await, Err(UsersError::UserNotFound));
}

#[actix::test]
async fn staff_change_accounts_below_theirs_with_recent_proof() {
    let fixture = TestUsers::open();
    fixture.admin("boss@example.com").await;
    let (user, _) = fixture.member("ada@example.com").await;
    let cli = || RequestContext::internal("cli");
    let support = fixture.users.call(cli(), TestUsers::staff(Role::Support)).await.unwrap();
    fixture.users.call(cli(), TestUsers::staff(Role::Manager)).await.unwrap();
    let context = async |email: &str| {
        let token = fixture.sign_in(email, PASSWORD).await.unwrap().token;
        fixture.context_of(&token).await
    };
    let (helper, manager) = (context("support@example.com").await, context("manager@example.com").await);
    let rename = |r: &mut UpdateUser| r.name = Some("Renamed".into());
    let forbidden = Err(CommonError::Forbidden.into());
    assert_eq!(fixture.update(helper, user.id, rename).await, forbidden);
    assert!(fixture.update(manager.clone(), user.id, rename).await.is_ok());
    assert_eq!(fixture.update(manager.clone(), support.id, rename).await, forbidden, "staff are the owner's to change");
    let erased = fixture.users.call(manager, DeleteUser { user_id: support.id }).await;
    assert_eq!(erased, Err(CommonError::Forbidden.into()));
    // A session of an administrator that is not recent, and an API key, are not enough.
    let boss = context("boss@example.com").await;
    let key = fixture.api_key(&boss, "script").await;
    let set_password = |r: &mut UpdateUser| r.password = Some("taken over by me".into());
    fixture.clock.advance(Duration::from_secs(16 * 60));
    for ctx in [boss, fixture.context_of(&key.token).await] {
        let stale = CommonError::RecentSignInRequired;
        assert_eq!(fixture.update(ctx.clone(), support.id, set_password).await, Err(stale.clone().into()));
        let demoted = fixture.update(ctx.clone(), support.id, |r| r.role = Some(Role::Customer)).await;
        assert_eq!(demoted, Err(stale.clone().into()));
        assert_eq!(fixture.users.call(ctx, DeleteUser { user_id: support.id }).await, Err(stale.into()));
    }
    let told = fixture.emitted::<CredentialsChanged>().await.len();
    fixture.update(context("boss@example.com").await, support.id, set_password).await.unwrap();
    let notices = fixture.emitted::<CredentialsChanged>().await.split_off(told);
    let recipients: Vec<&str> = notices.iter().map(|notice| notice.email.as_str()).collect();
    assert_eq!(recipients, ["support@example.com", "boss@example.com"], "both get a mail");
}

#[actix::test]
async fn guest_cannot_set_email_password_or_role() {
    let fixture = TestUsers::open();
    let boss = fixture.admin("boss@example.com").await;
    let guest = fixture.guest().await;
    let ctx = fixture.context_of(&guest.token).await;
    let id = guest.user.id;
    assert_field_error(
        fixture.update(ctx.clone(), id, |r| r.email = Some("a@example.com".into())).await,
        "email",
        "guest",
    );
    let password = |r: &mut UpdateUser| r.password = Some("long enough".into());
    assert_field_error(fixture.update(ctx, id, password).await, "password", "guest");
    let token = fixture.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let staff = fixture.context_of(&token).await;
    assert_field_error(fixture.update(staff, id, |r| r.role = Some(Role::Admin)).await, "role", "guest");
    assert_eq!(fixture.get(boss.id).await.unwrap().role, Role::Admin);
}

// --- mailed links --------------------------------------------------------------------------------------------------

#[actix::test]
async fn new_password_ends_api_keys_unless_they_are_kept() {
    let fixture = TestUsers::open();
    let (user, session) = fixture.member("ada@example.com").await;
    let ctx = fixture.context_of(&session.token).await;
    let change = |password: &'static str, current: &'static str, keep: bool| {
        fixture.update(ctx.clone(), user.id, move |update| {
            update.password = Some(password.to_owned());
            update.current_password = Some(current.to_owned());
            update.keep_api_keys = keep;
        })
    };
    let kept = fixture.api_key(&ctx, "till").await;
    assert!(fixture.authenticate(&kept.token).await.is_ok());
    change("a second password", PASSWORD, true).await.unwrap();
    assert!(fixture.authenticate(&kept.token).await.is_ok());
    change("a third password", "a second password", false).await.unwrap();
    assert_eq!(fixture.authenticate(&kept.token).await, Err(UsersError::InvalidToken));
    assert!(fixture.authenticate(&session.token).await.is_ok(), "the session that changed it stays");
    // A reset, by an owner who may have lost control of the account, ends them too.
    let other = fixture.api_key(&ctx, "till").await;
    fixture.users.call(anyone(), ForgotPassword { email: "ada@example.com".into() }).await.unwrap();
    let token = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    fixture.reset(&token, "a fourth password").await.unwrap();
    assert_eq!(fixture.authenticate(&other.token).await, Err(UsersError::InvalidToken));
}

#[actix::test]
async fn guessable_passwords_are_rejected() {
    let fixture = TestUsers::open();
    for password in [
        "password",
        "PassWord",
        "12345678",
        "qwertyuiop",
        "        ",
        "aaaaaaaaaa",
        "\u{200b}\u{200b}\u{200b}\u{200b}\u{200b}\u{200b}\u{200b}\u{200b}",
    ] {
        let request = Register { password: password.to_owned(), ..registration("ada@example.com") };
        assert_field_error(fixture.users.call(anyone(), request).await, "password", "too_common");
    }
    let request = Register { password: "12345678 horses".to_owned(), ..registration("ada@example.com") };
    assert!(fixture.users.call(anyone(), request).await.is_ok());
}

#[actix::test]
async fn password_is_the_same_in_all_unicode_forms() {
    let fixture = TestUsers::open();
    let request = Register { password: "cafe\u{301} \u{ff21}bcdef".to_owned(), ..registration("ada@example.com") };
    fixture.users.call(anyone(), request).await.unwrap();
    for spelling in ["cafe\u{301} \u{ff21}bcdef", "caf\u{e9} Abcdef"] {
        assert!(fixture.sign_in("ada@example.com", spelling).await.is_ok(), "{spelling}");
    }
    assert_eq!(fixture.sign_in("ada@example.com", "cafe Abcdef").await, Err(UsersError::BadCredentials));
}

#[actix::test]
async fn reset_link_works_once_and_ends_sessions() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    assert!(fixture.authenticate(&member.token).await.is_ok());
    // The reply does not reveal whether the account exists.
    for unknown in ["eve@example.com", "nonsense"] {
        fixture.forgot(unknown).await;
    }
    assert!(fixture.emitted::<PasswordResetRequested>().await.is_empty());
    fixture.forgot("ADA@example.com").await;
    fixture.forgot("ada@example.com").await;
    let mails = fixture.emitted::<PasswordResetRequested>().await;
    assert_eq!((mails.len(), mails[0].user_id, mails[0].email.as_str()), (2, user.id, "ada@example.com"));
    assert_field_error(fixture.reset(&fixture.reset_token(&mails[0]), "short").await, "password", "too_short");
    let (done, event_names) =
        fixture.event_names_of(fixture.reset(&fixture.reset_token(&mails[0]), "a new password")).await;
    assert_eq!(
        (done, &*event_names),
        (Ok(()), &["users.access_changed".to_owned(), "users.credentials_changed".to_owned()][..])
    );
    assert_eq!(fixture.authenticate(&member.token).await, Err(UsersError::InvalidToken));
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    assert!(fixture.sign_in("ada@example.com", "a new password").await.is_ok());
    for mail in &mails {
        assert_eq!(
            fixture.reset(&fixture.reset_token(mail), "a third password").await,
            Err(UsersError::InvalidLink),
            "used or void"
        );
    }
    fixture.forgot("ada@example.com").await;
    let late = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await.pop().unwrap());
    fixture.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(fixture.reset(&late, "a third password").await, Err(UsersError::InvalidLink));
}

#[actix::test]
async fn concurrent_resets_set_one_password() {
    let fixture = TestUsers::open();
    fixture.register("ada@example.com").await;
    fixture.forgot("ada@example.com").await;
    let token = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    let passwords: Vec<String> = (0..6).map(|n| format!("new password {n}")).collect();
    let replies = join_all(passwords.iter().map(|password| fixture.reset(&token, password))).await;
    assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), 1);
    let winner = replies.iter().position(Result::is_ok).unwrap();
    assert!(fixture.sign_in("ada@example.com", &passwords[winner]).await.is_ok());
    // The same request under one key is the same create.
    fixture.forgot("ada@example.com").await;
    let token = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await.pop().unwrap());
    let send = |password: &str| {
        let request = ResetPassword { token: token.clone(), password: password.to_owned(), keep_api_keys: false };
        fixture.users.call(keyed(anyone(), "k"), request)
    };
    let at_once = join_all((0..4).map(|_| send("a last password"))).await;
    assert!(at_once.iter().all(Result::is_ok), "{at_once:?}");
    assert_eq!(send("another password").await, Err(CommonError::IdempotencyKeyReused.into()));
}

#[actix::test]
async fn reset_emails_are_limited_per_hour() {
    let fixture = TestUsers::open();
    fixture.register("ada@example.com").await;
    join_all((0..20).map(|_| fixture.forgot("ada@example.com"))).await;
    assert_eq!(fixture.emitted::<PasswordResetRequested>().await.len(), 3);
    // Using one does not buy another.
    let token = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    fixture.reset(&token, "a new password").await.unwrap();
    purge(Arc::clone(&fixture.state)).await;
    fixture.forgot("ada@example.com").await;
    assert_eq!(fixture.emitted::<PasswordResetRequested>().await.len(), 3);
    fixture.clock.advance(HOUR + Duration::from_secs(1));
    fixture.forgot("ada@example.com").await;
    assert_eq!(fixture.emitted::<PasswordResetRequested>().await.len(), 4);
}

#[actix::test]
async fn verification_link_is_repeatable_and_expires() {
    let fixture = TestUsers::open();
    let user = fixture.register("ada@example.com").await;
    let other = fixture.register("eve@example.com").await;
    let mails = fixture.emitted::<EmailVerificationRequested>().await;
    assert_eq!((mails[0].user_id, mails[1].user_id), (user.id, other.id));
    fixture.clock.advance(2 * DAY);
    for _ in 0..2 {
        assert_eq!(fixture.verify(&fixture.verify_token(&mails[0])).await, Ok(()));
    }
    assert!(fixture.get(user.id).await.unwrap().email_verified);
    assert!(!fixture.get(other.id).await.unwrap().email_verified);
    fixture.clock.advance(2 * DAY);
    assert_eq!(fixture.verify(&fixture.verify_token(&mails[1])).await, Err(UsersError::InvalidLink), "too old");
}

// --- second factor -----------------------------------------------------------------------------------------------

impl TestUsers {
    /// The code that an app with this secret shows.
    fn code(&self, secret: &str) -> String {
        let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
        let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
        totp.generate(u64::try_from(self.clock.now().micros() / 1_000_000).unwrap()).to_string()
    }

    /// Switches the second factor of an account on; returns the secret and the recovery codes.
    async fn second_factor(&self, user_id: UserId, token: &str) -> (String, Vec<String>) {
        let ctx = self.context_of(token).await;
        let enrolment = self.users.call(ctx.clone(), EnrollTotp { user_id }).await.unwrap();
        assert!(enrolment.otpauth_url.starts_with("otpauth://totp/") && enrolment.qr_svg.contains("<svg"));
        let code = self.code(&enrolment.secret);
        let codes = self.users.call(ctx, ConfirmTotp { user_id, code }).await.unwrap().recovery_codes;
        (enrolment.secret, codes)
    }

    async fn sign_in_with(&self, email: &str, code: &str) -> Result<SignedIn, UsersError> {
        let request = SignIn { email: email.to_owned(), password: PASSWORD.to_owned(), code: Some(code.to_owned()) };
        self.users.call(anyone(), request).await
    }
}

#[actix::test]
async fn second_factor_is_asked_for_and_each_code_works_once() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    let other = fixture.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let (secret, recovery_codes) = fixture.second_factor(user.id, &member.token).await;
    assert_eq!(recovery_codes.len(), 10);
    assert!(fixture.get(user.id).await.unwrap().second_factor);
    assert_eq!(fixture.authenticate(&other.token).await, Err(UsersError::InvalidToken), "other sessions end");
    assert!(fixture.authenticate(&member.token).await.is_ok());
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::SecondFactorRequired));
    assert_eq!(fixture.sign_in("ada@example.com", "wrong password").await, Err(UsersError::BadCredentials));
    let wrong = fixture.sign_in_with("ada@example.com", "000000").await;
    assert_eq!(wrong, Err(UsersError::WrongCode));
    let confirmed = fixture.code(&secret);
    assert_eq!(fixture.sign_in_with("ada@example.com", &confirmed).await, Err(UsersError::WrongCode), "used before");
    fixture.clock.advance(Duration::from_secs(60));
    let code = fixture.code(&secret);
    let at_once = join_all((0..4).map(|_| fixture.sign_in_with("ada@example.com", &code))).await;
    assert_eq!(at_once.iter().filter(|reply| reply.is_ok()).count(), 1, "{at_once:?}");
    // A recovery code works once, and is in no file.
    let spare = format!(" {} ", recovery_codes[0].to_uppercase());
    assert!(fixture.sign_in_with("ada@example.com", &spare).await.is_ok());
    assert_eq!(fixture.sign_in_with("ada@example.com", &spare).await, Err(UsersError::WrongCode));
    if !crate::store::tested_on_server() {
        for file in std::fs::read_dir(fixture.dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for text in [&secret, &recovery_codes[1]] {
                assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
            }
        }
    }
}

#[actix::test]
async fn second_factor_is_switched_off_with_proof_only() {
    let fixture = TestUsers::open();
    fixture.admin("boss@example.com").await;
    let (user, member) = fixture.member("ada@example.com").await;
    let user_id = user.id;
    let ctx = fixture.context_of(&member.token).await;
    let off = |ctx: &RequestContext, code: Option<&str>| {
        let request = DisableTotp { user_id, code: code.map(str::to_owned) };
        fixture.users.call(ctx.clone(), request)
    };
    assert_eq!(off(&ctx, None).await, Err(UsersError::SecondFactorOff));
    let confirm = fixture.users.call(ctx.clone(), ConfirmTotp { user_id, code: "123456".into() }).await;
    assert_eq!(confirm, Err(UsersError::SecondFactorOff), "not begun");
    let (_, recovery_codes) = fixture.second_factor(user_id, &member.token).await;
    assert_eq!(fixture.users.call(ctx.clone(), EnrollTotp { user_id }).await, Err(UsersError::SecondFactorOn));
    assert_eq!(off(&ctx, None).await, Err(UsersError::WrongCode));
    assert_eq!(off(&ctx, Some("000000")).await, Err(UsersError::WrongCode));
    off(&ctx, Some(&recovery_codes[3])).await.unwrap();
    assert!(fixture.sign_in("ada@example.com", PASSWORD).await.is_ok());
    // An administrator helps who has lost app and codes, after a recent sign-in.
    fixture.second_factor(user_id, &member.token).await;
    let boss = fixture.context_of(&fixture.sign_in("boss@example.com", PASSWORD).await.unwrap().token).await;
    off(&boss, None).await.unwrap();
    fixture.clock.advance(Duration::from_secs(16 * 60));
    assert_eq!(off(&boss, None).await, Err(CommonError::RecentSignInRequired.into()));
    let late = fixture.users.call(ctx, EnrollTotp { user_id }).await;
    assert_eq!(late, Err(CommonError::RecentSignInRequired.into()));
}

#[actix::test]
async fn required_second_factor_limits_staff_until_set_up() {
    let fixture = TestUsers::open_in(TempDir::new().unwrap(), Clock::system(), |settings| {
        settings.users.staff_second_factor = true;
    });
    let boss = fixture.admin("boss@example.com").await;
    let token = fixture.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    assert_eq!(fixture.authenticate(&token).await.unwrap().identity.role, Role::Customer);
    fixture.second_factor(boss.id, &token).await;
    assert_eq!(fixture.authenticate(&token).await.unwrap().identity.role, Role::Admin);
}

// --- erasure and lists -------------------------------------------------------------------------------------------

#[actix::test]
async fn s04_kept_response_does_not_bring_an_erased_user_back() {
    let fixture = TestUsers::open();
    let register = || fixture.users.call(keyed(anyone(), "k"), registration("ada@example.com"));
    let user = register().await.unwrap().user;
    let member = fixture.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let ctx = fixture.context_of(&member.token).await;
    fixture.users.call(ctx, DeleteUser { user_id: user.id }).await.unwrap();
    assert_eq!(register().await.err(), Some(CommonError::IdempotencyKeyReused.into()));
    let left = fixture.users.call(RequestContext::internal("cli"), ListUsers::default()).await.unwrap();
    assert_eq!(left.items, []);
}

#[actix::test]
async fn erased_user_loses_tokens_and_frees_email() {
    let fixture = TestUsers::open();
    let (user, member) = fixture.member("ada@example.com").await;
    let ctx = fixture.context_of(&member.token).await;
    let key = fixture.api_key(&ctx, "script").await;
    fixture.forgot("ada@example.com").await;
    let reset = fixture.reset_token(&fixture.emitted::<PasswordResetRequested>().await[0]);
    let verify = fixture.verify_token(&fixture.emitted::<EmailVerificationRequested>().await[0]);
    for token in [&member.token, &key.token] {
        assert!(fixture.authenticate(token).await.is_ok());
    }
    let (_, eve) = fixture.member("eve@example.com").await;
    let stranger = fixture.context_of(&eve.token).await;
    let erase = |ctx: RequestContext| fixture.users.call(ctx, DeleteUser { user_id: user.id });
    assert_eq!(erase(stranger).await, Err(CommonError::Forbidden.into()));
    let (erased, event_names) = fixture.event_names_of(erase(ctx.clone())).await;
    assert_eq!(erased, Ok(()));
    assert_eq!(event_names, ["users.user_erased", "users.access_changed"]);
    let emitted = fixture.emitted::<UserErased>().await;
    assert_eq!((emitted[0].user_id, emitted[0].email.clone()), (user.id, user.email.clone()));
    for token in [&member.token, &key.token] {
        assert_eq!(fixture.authenticate(token).await, Err(UsersError::InvalidToken));
    }
    assert_eq!(fixture.get(user.id).await, Err(UsersError::UserNotFound));
    assert_eq!(fixture.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    assert_eq!(fixture.reset(&reset, "a new password").await, Err(UsersError::InvalidLink));
    assert_eq!(fixture.verify(&verify).await, Err(UsersError::InvalidLink));
    // A context that still has the old identity is rejected.
    let key = fixture.users.call(ctx.clone(), key_request("late")).await;
    assert_eq!(key, Err(UsersError::InvalidToken));
    assert_eq!(erase(ctx).await, Err(UsersError::UserNotFound));
    assert_ne!(fixture.register("ada@example.com").await.id, user.id);
}

#[actix::test]
async fn erasure_leaves_no_cached_session() {
    let fixture = TestUsers::open();
    for round in 0..20 {
        let guest = fixture.guest().await;
        let ctx = fixture.context_of(&guest.token).await;
        fixture.state.token_cache.clear();
        // Queries that reach the database before, during and after the deletion.
        let asks = join_all((0..8).map(|_| fixture.authenticate(&guest.token)));
        let erased = fixture.users.call(ctx, DeleteUser { user_id: guest.user.id });
        let (_, erased) = futures_util::future::join(asks, erased).await;
        erased.unwrap();
        assert_eq!(fixture.authenticate(&guest.token).await, Err(UsersError::InvalidToken), "{round}");
    }
}

#[actix::test]
async fn list_pages_accounts_newest_first_without_guests() {
    let fixture = TestUsers::open();
    let day = |n: u64| Timestamp::parse("2025-01-01").unwrap().saturating_add(DAY * u32::try_from(n).unwrap());
    for (n, (name, email)) in
        [("Ådne 100%", "a@one.example"), ("Bob", "b@two.example"), ("Cleo", "c@one.example"), ("Dan", "d@two.example")]
            .into_iter()
            .enumerate()
    {
        let request = CreateUser {
            email: email.into(),
            password: PASSWORD.into(),
            name: name.into(),
            role: if n == 0 { Role::Admin } else { Role::Customer },
            // Two on one day: the cursor must tell them apart.
            created_at: Some(day(n as u64 / 2)),
        };
        fixture.users.call(RequestContext::internal("cli"), request).await.unwrap();
    }
    fixture.guest().await;
    let list = |q: Option<&str>, limit: u32, cursor: Option<crate::types::Cursor>| {
        let page = PageRequest { limit: Some(limit), cursor };
        fixture.users.call(RequestContext::internal("web"), ListUsers { q: q.map(str::to_owned), page })
    };
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let page = list(None, 1, cursor).await.unwrap();
        assert_eq!(page.items.len(), 1);
        names.extend(page.items.into_iter().map(|user| user.name));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, ["Dan", "Cleo", "Bob", "Ådne 100%"]);
    for (q, found) in [
        ("ONE.example", &["Cleo", "Ådne 100%"][..]),
        ("åDNE", &["Ådne 100%"]),
        ("100%", &["Ådne 100%"]),
        ("%", &["Ådne 100%"]),
        ("_", &[]),
        ("bob\nb@", &[]),
        ("unknown", &[]),
    ] {
        let page = list(Some(q), 10, None).await.unwrap();
        assert_eq!(page.items.iter().map(|user| &*user.name).collect::<Vec<_>>(), found, "{q}");
        assert_eq!(page.next, None);
    }
    assert_field_error(list(None, 101, None).await, "limit", "out_of_range");
    assert_field_error(list(None, 1, Some(crate::types::Cursor::encode(&"other"))).await, "cursor", "invalid");
    assert_field_error(list(Some(&"x".repeat(101)), 1, None).await, "q", "too_long");
    let (_, member) = fixture.member("e@three.example").await;
    let customer = fixture.context_of(&member.token).await;
    let refused = fixture.users.call(customer, ListUsers::default()).await;
    assert_eq!(refused, Err(CommonError::Forbidden.into()), "administrators only");
}

#[actix::test]
async fn list_and_admin_queries_use_indexes() {
    if crate::store::tested_on_server() {
        return;
    }
    use crate::store::query::*;
    use diesel::sql_types::Text;
    #[derive(QueryableByName)]
    struct AccountPlanRow {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    let fixture = TestUsers::open();
    let plan = |sql: &'static str| {
        let store = fixture.store.clone();
        async move {
            let steps = store.read(move |conn| {
                Ok::<_, CommonError>(
                    diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load::<AccountPlanRow>(conn)?,
                )
            });
            steps.await.unwrap().into_iter().map(|step| step.detail).collect::<Vec<_>>().join("; ")
        }
    };
    let list = plan(
        "SELECT * FROM account WHERE email IS NOT NULL AND created_at <= 5 AND (created_at < 5 OR id < 'x') \
         ORDER BY created_at DESC, id DESC LIMIT 21",
    );
    let list = list.await;
    assert!(list.contains("USING INDEX account_by_age (created_at<?)") && !list.contains("TEMP B-TREE"), "{list}");
    let admins = plan("SELECT id FROM account WHERE role = 'admin' AND id <> 'x' LIMIT 1").await;
    assert!(admins.contains("account_admins"), "{admins}");
}

// --- migrations ----------------------------------------------------------------------------------------------------

#[actix::test]
async fn accounts_of_older_database_are_found_by_search() {
    use diesel::Connection as _;
    use diesel_migrations::MigrationHarness as _;
    if crate::store::tested_on_server() {
        return;
    }
    let fixture = TestUsers::open();
    fixture.register("ada@example.com").await;
    let file = fixture.dir.path().join("users.db");
    let mut conn = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    // Back to the schema before `search_text`.
    conn.revert_last_migration(MIGRATIONS.sqlite).unwrap();
    drop(conn);
    let fixture = fixture.restart();
    let query = ListUsers { q: Some("ADA@".into()), page: PageRequest::default() };
    let found = fixture.users.call(RequestContext::internal("web"), query).await.unwrap();
    assert_eq!(found.items.len(), 1);
}

fn invoice_paid(user_id: UserId, at: Timestamp) -> EventEnvelope {
    use crate::contract::payments::{Invoice, InvoicePaid, InvoiceStatus};
    let invoice = Invoice {
        id: InvoiceId::new(),
        number: "INV-000001".to_owned(),
        user_id,
        status: InvoiceStatus::Paid,
        total: 0,
        lines: Vec::new(),
        refunded: 0,
        refunding: 0,
        returned_late: 0,
        dispute: None,
        currency: "EUR".parse().unwrap(),
        shipping: None,
        tax: 0,
        tax_included: true,
        taxes: Vec::new(),
        shipping_address: None,
        billing_address: None,
        note: None,
        email: None,
        processing: false,
        created_at: at,
        expires_at: at,
        paid_at: Some(at),
    };
    let event = InvoicePaid { invoice, hold: None, checkout: None, imported: false };
    let data = serde_json::to_value(&event).unwrap();
    EventEnvelope { id: EventId::new(), name: InvoicePaid::NAME.to_owned(), at, data, trace: None }
}

#[actix::test]
async fn s01_guests_that_bought_nothing_are_erased() {
    let fixture = TestUsers::open();
    let (idle, buyer, member) = (fixture.guest().await, fixture.guest().await, fixture.guest().await);
    let event = invoice_paid(buyer.user.id, fixture.clock.now());
    fixture.users.call(RequestContext::internal("events"), DeliverEvents { events: vec![event] }).await.unwrap();
    let ctx = fixture.context_of(&member.token).await;
    fixture.users.call(ctx, registration("ada@example.com")).await.unwrap();
    let users = &fixture.users;
    let exists =
        |user_id| async move { users.call(RequestContext::internal("test"), GetUser { user_id }).await.is_ok() };
    // As long as the session may be used, the guest stays.
    fixture.clock.advance(Duration::from_secs(31 * 86_400));
    purge(Arc::clone(&fixture.state)).await;
    assert!(exists(idle.user.id).await);
    fixture.clock.advance(Duration::from_secs(2 * 86_400));
    let ((), names) = fixture.event_names_of(purge(Arc::clone(&fixture.state))).await;
    assert_eq!(names, ["users.user_erased", "users.access_changed"]);
    let left = [exists(idle.user.id).await, exists(buyer.user.id).await, exists(member.user.id).await];
    assert_eq!(left, [false, true, true]);
}
