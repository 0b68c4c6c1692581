//! The users domain's promises, asked through its messages on a real database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::actor::{purge, write_uses};
use super::*;
use crate::messaging::{
    Caller, Client, CommonError, Credential, Event, EventEnvelope, IdempotencyKey, RequestContext, Role,
};
use crate::settings::Settings;
use crate::store::Store;
use crate::types::{Clock, EmailAddress, Page, PageRequest, SessionId, Timestamp, UserId};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const PASSWORD: &str = "correct horse battery";

/// The domain, open on a folder of its own.
struct TestUsers {
    users: Client<UsersActor>,
    state: Arc<UsersState>,
    store: Store,
    clock: Clock,
    ground: DomainRuntime,
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
        let ground = DomainRuntime::new(settings, clock.clone());
        let state = open_room(&ground).unwrap();
        let actor = Arc::clone(&state);
        let users = ground.start("users", move || UsersActor { state: actor });
        Self { users, store: state.store.clone(), state, clock, ground, dir }
    }

    /// Closes the domain and opens it again on the same folder, as after a restart.
    fn restart(self) -> Self {
        let Self { users, state, store, clock, ground, dir } = self;
        drop((users, state, store));
        ground.stop();
        Self::open_in(dir, clock, |_| {})
    }

    async fn register(&self, email: &str) -> User {
        self.users.call(anyone(), registration(email)).await.unwrap()
    }

    async fn sign_in(&self, email: &str, password: &str) -> Result<SignedIn, UsersError> {
        let request = SignIn { email: email.to_owned(), password: password.to_owned() };
        self.users.call(anyone(), request).await
    }

    /// An account and a sign-in to it.
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

    async fn whose(&self, token: &str) -> Result<Authenticated, UsersError> {
        self.users.call(RequestContext::internal("web"), Authenticate { token: token.to_owned() }).await
    }

    /// The context of whoever shows this token, as the gateway makes it.
    async fn as_holder(&self, token: &str) -> RequestContext {
        let identity = self.whose(token).await.unwrap().identity;
        RequestContext::new(Caller::User { identity, internal: false }, "test")
    }

    async fn api_key(&self, ctx: &RequestContext, name: &str) -> NewApiKey {
        self.users.call(ctx.clone(), CreateApiKey { name: name.to_owned() }).await.unwrap()
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
        let request = ResetPassword { token: token.to_owned(), password: password.to_owned() };
        self.users.call(anyone(), request).await
    }

    async fn verify(&self, token: &str) -> Result<(), UsersError> {
        self.users.call(anyone(), VerifyEmail { token: token.to_owned() }).await
    }

    /// All events of a kind so far, oldest first.
    async fn told<E: Event>(&self) -> Vec<E> {
        let all: Vec<(i64, EventEnvelope)> = self.store.outbox_read_after("test", 1_000).await.unwrap();
        all.iter().filter_map(|(_, event)| event.decode().unwrap()).collect()
    }

    /// The names of events that a piece of work tells.
    async fn news_of<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
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

fn registration(email: &str) -> Register {
    Register { email: email.to_owned(), password: PASSWORD.to_owned(), name: "Ada Lovelace".to_owned() }
}

fn updating(user_id: UserId, change: impl FnOnce(&mut UpdateUser)) -> UpdateUser {
    let mut request =
        UpdateUser { user_id, name: None, email: None, password: None, current_password: None, role: None };
    change(&mut request);
    request
}

/// The fields that a refusal names.
fn wrong_fields<T: std::fmt::Debug>(refused: Result<T, UsersError>) -> Vec<(String, String)> {
    match refused.unwrap_err() {
        UsersError::Common(CommonError::ValidationFailed { errors }) => {
            errors.into_iter().map(|e| (e.field.into_owned(), e.code.into_owned())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn is_wrong<T: std::fmt::Debug>(refused: Result<T, UsersError>, field: &str, code: &str) {
    assert_eq!(wrong_fields(refused), [(field.to_owned(), code.to_owned())]);
}

// --- registering ---------------------------------------------------------------------------------------------------

#[actix::test]
async fn who_registers_can_sign_in_whatever_the_case_of_the_address() {
    let house = TestUsers::open();
    let (user, news) = house.news_of(house.register(" Ada@Example.COM ")).await;
    assert_eq!(user.email.as_ref().unwrap().as_str(), "ada@example.com");
    assert_eq!((user.role, user.email_verified, &*user.name), (Role::Customer, false, "Ada Lovelace"));
    assert_eq!(news, ["users.user_registered", "users.email_verification_requested"]);
    let signed_in = house.sign_in("ADA@example.com", PASSWORD).await.unwrap();
    assert_eq!(signed_in.user, user);
    let known = house.whose(&signed_in.token).await.unwrap();
    assert_eq!((known.identity.user_id, known.identity.role), (user.id, Role::Customer));
    assert_eq!(known.expires_at, Some(signed_in.expires_at));
    assert_eq!(house.get(user.id).await, Ok(user));
}

#[actix::test]
async fn twenty_who_register_one_address_at_once_make_one_account() {
    let house = TestUsers::open();
    let spellings = (0..20).map(|n| if n % 2 == 0 { "ada@example.com" } else { "ADA@example.com" });
    let answers = join_all(spellings.map(|email| house.users.call(anyone(), registration(email)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(UsersError::EmailTaken)).count(), 19);
    assert_eq!(house.told::<UserRegistered>().await.len(), 1);
}

#[actix::test]
async fn a_repeated_registration_under_one_key_answers_the_same_and_another_is_refused() {
    let house = TestUsers::open();
    let at_once =
        join_all((0..10).map(|_| house.users.call(keyed(anyone(), "k"), registration("ada@example.com")))).await;
    let first = at_once[0].clone().unwrap();
    assert!(at_once.iter().all(|answer| answer.as_ref() == Ok(&first)), "{at_once:?}");
    let again = keyed(anyone(), "k");
    assert_eq!(house.users.call(again.clone(), registration("ada@example.com")).await, Ok(first));
    assert!(again.is_replayed());
    let reused = Err(UsersError::Common(CommonError::IdempotencyKeyReused));
    let other_password = Register { password: "another password".to_owned(), ..registration("ada@example.com") };
    for other in [registration("eve@example.com"), other_password] {
        let ctx = keyed(anyone(), "k");
        assert_eq!(house.users.call(ctx.clone(), other).await, reused);
        assert!(!ctx.is_replayed());
    }
    assert_eq!(house.told::<UserRegistered>().await.len(), 1);
    assert_eq!(house.told::<EmailVerificationRequested>().await.len(), 1);
}

#[actix::test]
async fn a_guest_who_registers_stays_the_same_user_with_the_same_token() {
    let house = TestUsers::open();
    let guest = house.guest().await;
    assert_eq!((guest.user.role, &guest.user.email, &*guest.user.name), (Role::Guest, &None, ""));
    let ctx = keyed(house.as_holder(&guest.token).await, "k");
    let (user, news) = house.news_of(house.users.call(ctx.clone(), registration("ada@example.com"))).await;
    let user = user.unwrap();
    assert_eq!((user.id, user.role), (guest.user.id, Role::Customer));
    assert!(news.contains(&"users.user_registered".to_owned()));
    assert!(news.contains(&"users.access_changed".to_owned()), "their role changed: {news:?}");
    // The cached role is gone at once, the token good as before, the account a full one.
    assert_eq!(house.whose(&guest.token).await.unwrap().identity.role, Role::Customer);
    assert_eq!(house.sign_in("ada@example.com", PASSWORD).await.unwrap().user.id, user.id);
    // A repetition, which by now comes from a customer, is still a repetition.
    let later = keyed(house.as_holder(&guest.token).await, "k");
    assert_eq!(house.users.call(later, registration("ada@example.com")).await, Ok(user.clone()));
    // A customer who registers makes one more account.
    let ctx = house.as_holder(&guest.token).await;
    let second = house.users.call(ctx, registration("grace@example.com")).await.unwrap();
    assert_ne!(second.id, user.id);
    // An address that is taken leaves a guest a guest.
    let other = house.guest().await;
    let ctx = house.as_holder(&other.token).await;
    assert_eq!(house.users.call(ctx, registration("ada@example.com")).await, Err(UsersError::EmailTaken));
    assert_eq!(house.whose(&other.token).await.unwrap().identity.role, Role::Guest);
}

#[actix::test]
async fn a_repeated_wish_for_a_guest_shows_the_same_token() {
    let house = TestUsers::open();
    let ask = || house.users.call(keyed(anyone(), "k"), CreateGuest {});
    let (one, two) = (ask().await.unwrap(), ask().await.unwrap());
    assert_eq!(one, two);
    assert_ne!(house.guest().await.token, one.token);
    assert!(house.whose(&one.token).await.is_ok());
}

#[actix::test]
async fn what_is_wrong_with_a_registration_is_said_of_every_field() {
    let house = TestUsers::open();
    let request = Register { email: "nobody".into(), password: "short".into(), name: "\n".into() };
    let fields: Vec<String> =
        wrong_fields(house.users.call(anyone(), request).await).into_iter().map(|f| f.0).collect();
    assert!(["email", "password", "name"].iter().all(|field| fields.contains(&(*field).to_owned())), "{fields:?}");
}

#[actix::test]
async fn the_shop_itself_makes_accounts_of_any_role_and_date() {
    let house = TestUsers::open();
    let date = Timestamp::parse("2024-02-29T12:00:00Z").unwrap();
    let request = || CreateUser {
        email: "boss@example.com".into(),
        password: PASSWORD.into(),
        name: "Boss".into(),
        role: Role::Admin,
        created_at: Some(date),
    };
    let ctx = || keyed(RequestContext::internal("cli"), "k");
    let (made, news) = house.news_of(house.users.call(ctx(), request())).await;
    let made = made.unwrap();
    assert_eq!((made.role, made.email_verified, made.created_at), (Role::Admin, true, date));
    assert_eq!(news, ["users.user_registered"]);
    assert_eq!(house.told::<UserRegistered>().await[0].created_at, date);
    assert_eq!(house.users.call(ctx(), request()).await, Ok(made), "repeated");
    let guest = CreateUser { role: Role::Guest, ..request() };
    is_wrong(house.users.call(RequestContext::internal("cli"), guest).await, "role", "invalid");
    let outsider = house.users.call(anyone(), request()).await;
    assert_eq!(outsider, Err(CommonError::Forbidden.into()), "nobody from outside");
}

// --- signing in and out --------------------------------------------------------------------------------------------

#[actix::test]
async fn failed_sign_ins_look_alike_and_hash_exactly_once() {
    let house = TestUsers::open();
    house.register("ada@example.com").await;
    for (email, password) in [
        ("ada@example.com", "wrong password"),
        ("eve@example.com", PASSWORD),
        ("nonsense", PASSWORD),
        ("ada@example.com", ""),
    ] {
        let before = house.state.passwords.computed();
        assert_eq!(house.sign_in(email, password).await, Err(UsersError::BadCredentials));
        // The same work for all, so that the time it takes says nothing about who has an account.
        assert_eq!(house.state.passwords.computed() - before, 1, "{email}");
    }
    let endless: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    assert_eq!(house.sign_in("ada@example.com", endless).await, Err(UsersError::BadCredentials));
}

#[actix::test]
async fn a_repeated_sign_in_under_one_key_shows_the_same_token_to_who_knows_the_password() {
    let house = TestUsers::open();
    house.register("ada@example.com").await;
    let ask = |password: &str| {
        let request = SignIn { email: "ada@example.com".into(), password: password.into() };
        house.users.call(keyed(anyone(), "k"), request)
    };
    let first = ask(PASSWORD).await.unwrap();
    assert_eq!(ask(PASSWORD).await, Ok(first.clone()));
    assert_eq!(ask("wrong password").await, Err(UsersError::BadCredentials));
    assert_ne!(house.sign_in("ada@example.com", PASSWORD).await.unwrap().token, first.token, "without the key");
}

#[actix::test]
async fn signing_out_ends_that_sign_in_at_once_and_no_other() {
    let house = TestUsers::open();
    let (user, one) = house.member("ada@example.com").await;
    let two = house.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let ctx = house.as_holder(&one.token).await;
    let Some(Credential::Session(session)) = ctx.identity().map(|who| who.credential) else { panic!() };
    house.users.call(ctx.clone(), SignOut {}).await.unwrap();
    assert_eq!(house.whose(&one.token).await, Err(UsersError::InvalidToken));
    assert!(house.whose(&two.token).await.is_ok());
    let told: Vec<_> =
        house.told::<AccessChanged>().await.into_iter().map(|event| (event.user_id, event.session_id)).collect();
    assert_eq!(told, [(user.id, Some(session))]);
    // Again, by a caller who did not hear the answer.
    let (again, news) = house.news_of(house.users.call(ctx, SignOut {})).await;
    assert_eq!((again, news.len()), (Ok(()), 0));
    let nobody = house.users.call(anyone(), SignOut {}).await;
    assert_eq!(nobody, Err(CommonError::Unauthenticated.into()));
}

#[actix::test]
async fn a_sign_in_ends_at_its_time_also_when_it_is_remembered_and_goes_from_the_database() {
    let house = TestUsers::with(|settings| settings.users.session = DAY);
    let (_, member) = house.member("ada@example.com").await;
    let guest = house.guest().await;
    assert_eq!(member.expires_at.since(house.clock.now()).as_secs() / 60, 24 * 60 - 1);
    house.clock.advance(DAY - Duration::from_secs(60));
    for token in [&member.token, &guest.token] {
        assert!(house.whose(token).await.is_ok());
    }
    house.clock.advance(Duration::from_secs(120));
    for token in [&member.token, &guest.token] {
        assert_eq!(house.whose(token).await, Err(UsersError::InvalidToken));
    }
    let purged = house.store.read(count_sessions).await.unwrap();
    assert_eq!(purged, 2);
    purge(Arc::clone(&house.state)).await;
    assert_eq!(house.store.read(count_sessions).await, Ok(0));
    assert_eq!(house.whose(&member.token).await, Err(UsersError::InvalidToken));
    assert!(house.sign_in("ada@example.com", PASSWORD).await.is_ok(), "the account stays");
}

fn count_sessions(conn: &mut crate::store::Conn) -> Result<i64, CommonError> {
    use crate::store::query::*;
    Ok(schema::session::table.count().get_result(conn)?)
}

#[actix::test]
async fn sign_ins_and_keys_outlive_a_restart() {
    let house = TestUsers::open();
    let (user, member) = house.member("ada@example.com").await;
    let guest = house.guest().await;
    let key = house.api_key(&house.as_holder(&member.token).await, "script").await;
    let house = house.restart();
    for token in [&member.token, &key.token] {
        assert_eq!(house.whose(token).await.unwrap().identity.user_id, user.id);
    }
    assert_eq!(house.whose(&guest.token).await.unwrap().identity.user_id, guest.user.id);
    assert!(house.sign_in("ada@example.com", PASSWORD).await.is_ok());
}

#[actix::test]
async fn a_panic_costs_no_sign_in() {
    let house = TestUsers::open();
    let (_, member) = house.member("ada@example.com").await;
    let mut ctx = RequestContext::internal("web");
    ctx.panic_at = Some("users.Authenticate".into());
    let refused = house.users.call(ctx, Authenticate { token: member.token.clone() }).await;
    assert_eq!(refused, Err(CommonError::Internal.into()));
    assert!(house.whose(&member.token).await.is_ok());
}

#[actix::test]
async fn sign_in_flood_is_rejected_and_blocks_nobody() {
    let house = TestUsers::with(|settings| settings.users.hashers = 1);
    let (_, member) = house.member("ada@example.com").await;
    let suspended = house.state.passwords.suspend_hasher().await;
    let rejected = std::cell::Cell::new(0);
    let flood = join_all((0..300).map(|_| async {
        let answer = house.sign_in("eve@example.com", PASSWORD).await;
        rejected.set(rejected.get() + usize::from(answer == Err(CommonError::Overloaded.into())));
        answer
    }));
    let others = async {
        // One place at the hasher and 32 waiting; the rest are rejected although nothing is hashed.
        while rejected.get() < 300 - 33 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..50 {
            house.whose(&member.token).await.unwrap();
            house.get(member.user.id).await.unwrap();
        }
        drop(suspended);
    };
    let (answers, ()) = futures_util::future::join(flood, others).await;
    let heard = answers.iter().filter(|answer| **answer == Err(UsersError::BadCredentials)).count();
    assert_eq!((rejected.get(), heard), (300 - 33, 33), "{answers:?}");
    assert!(house.sign_in("ada@example.com", PASSWORD).await.is_ok(), "and then there is state again");
}

#[actix::test]
async fn a_sign_in_that_is_still_checked_when_the_password_changes_comes_too_late() {
    use crate::store::query::*;
    use argon2::password_hash::PasswordHasher as _;
    let house = TestUsers::with(|settings| settings.users.hashers = 1);
    let user = house.register("ada@example.com").await;
    // A true hash, so that on a slow machine, where the change may come before the reading, the verdict is the same.
    let another = argon2::Argon2::default().hash_password(b"another password").unwrap().to_string();
    // Ten before it at the one hasher, so that the change falls between the reading of the hash and its verdict.
    let queue = join_all((0..10).map(|_| house.sign_in("eve@example.com", PASSWORD)));
    let late = house.sign_in("ada@example.com", PASSWORD);
    let change = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let reset = house.store.write(move |tx| {
            let row = schema::account::table.find(user.id);
            let hash = schema::account::password_hash.eq(another);
            Ok::<_, CommonError>(diesel::update(row).set(hash).execute(tx.conn)?)
        });
        reset.await.unwrap();
    };
    let (_, late, ()) = futures_util::future::join3(queue, late, change).await;
    assert_eq!(late, Err(UsersError::BadCredentials));
    assert_eq!(house.store.read(count_sessions).await, Ok(0));
}

#[actix::test]
async fn one_user_has_only_so_many_sign_ins_and_the_oldest_goes_first() {
    use crate::store::query::*;
    let house = TestUsers::open();
    let (user, oldest) = house.member("ada@example.com").await;
    assert!(house.whose(&oldest.token).await.is_ok());
    // As many as there may be, without hashing a thousand times.
    let full = house.store.write(move |tx| {
        let row = |_| {
            (
                schema::session::id.eq(SessionId::new()),
                schema::session::user_id.eq(user.id),
                schema::session::created_at.eq(tx.now),
                schema::session::expires_at.eq(tx.now.plus(DAY)),
            )
        };
        let rows: Vec<_> = (1..model::SESSIONS_MAX).map(row).collect();
        Ok::<_, CommonError>(diesel::insert_into(schema::session::table).values(rows).execute(tx.conn)?)
    });
    full.await.unwrap();
    assert!(house.whose(&oldest.token).await.is_ok());
    let newest = house.sign_in("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(house.whose(&oldest.token).await, Err(UsersError::InvalidToken));
    assert!(house.whose(&newest.token).await.is_ok());
    assert_eq!(house.store.read(count_sessions).await, Ok(model::SESSIONS_MAX));
}

// --- tokens --------------------------------------------------------------------------------------------------------

#[actix::test]
async fn a_forged_changed_or_foreign_token_is_refused() {
    let (house, stranger) = (TestUsers::open(), TestUsers::open());
    let (user, member) = house.member("ada@example.com").await;
    let key = house.api_key(&house.as_holder(&member.token).await, "script").await;
    let link = house.told::<EmailVerificationRequested>().await[0].token.clone();
    for token in [&member.token, &key.token] {
        assert!(house.whose(token).await.is_ok());
        assert_eq!(stranger.whose(token).await, Err(UsersError::InvalidToken), "another shop's secret");
        for at in [0, 4, 20, 30, token.len() - 1] {
            let mut forged = token.clone();
            let other = if &forged[at..=at] == "A" { "B" } else { "A" };
            forged.replace_range(at..=at, other);
            assert_eq!(house.whose(&forged).await, Err(UsersError::InvalidToken), "{at}");
        }
    }
    // The right id with nobody's signature: what a reader of the database could make.
    let bare = format!("mct_{}", "A".repeat(64));
    for other in [&link, &bare, "", "mct_", &member.token[4..], &format!("{} ", member.token)] {
        assert_eq!(house.whose(other).await, Err(UsersError::InvalidToken), "{other}");
    }
    // One purpose is not another, under its own prefix or a borrowed one.
    for (from, to) in [(&member.token, "mck_"), (&key.token, "mct_"), (&link, "mct_"), (&link, "mck_")] {
        let disguised = format!("{to}{}", &from[4..]);
        assert_eq!(house.whose(&disguised).await, Err(UsersError::InvalidToken));
    }
    for token in [&member.token, &key.token, &link] {
        assert_eq!(house.reset(token, "a new password").await, Err(UsersError::InvalidLink));
        let disguised = format!("mcr_{}", &token[4..]);
        assert_eq!(house.reset(&disguised, "a new password").await, Err(UsersError::InvalidLink));
    }
    house.forgot("ada@example.com").await;
    let reset = house.told::<PasswordResetRequested>().await[0].token.clone();
    for token in [&member.token, &key.token, &reset, &format!("mcv_{}", &reset[4..])] {
        assert_eq!(house.verify(token).await, Err(UsersError::InvalidLink));
    }
    assert!(!house.get(user.id).await.unwrap().email_verified);
}

#[actix::test]
async fn no_password_and_no_bearer_token_lies_in_any_file() {
    if crate::store::tested_on_server() {
        return;
    }
    let house = TestUsers::open();
    let mut secrets = vec![PASSWORD.to_owned(), "second password".to_owned(), "third password".to_owned()];
    let created = CreateUser {
        email: "boss@example.com".into(),
        password: "fourth password".into(),
        name: "Boss".into(),
        role: Role::Admin,
        created_at: None,
    };
    secrets.push(created.password.clone());
    house.users.call(keyed(RequestContext::internal("cli"), "0"), created).await.unwrap();
    let guest = house.users.call(keyed(anyone(), "1"), CreateGuest {}).await.unwrap();
    let ctx = keyed(house.as_holder(&guest.token).await, "2");
    let user = house.users.call(ctx, registration("ada@example.com")).await.unwrap();
    let signed_in = SignIn { email: "ada@example.com".into(), password: PASSWORD.into() };
    let member = house.users.call(keyed(anyone(), "3"), signed_in).await.unwrap();
    let ctx = keyed(house.as_holder(&member.token).await, "4");
    let key = house.api_key(&ctx, "script").await;
    let change = |request: &mut UpdateUser| {
        request.password = Some("second password".into());
        request.current_password = Some(PASSWORD.into());
    };
    house.update(keyed(ctx, "5"), user.id, change).await.unwrap();
    house.forgot("ada@example.com").await;
    let reset = house.told::<PasswordResetRequested>().await[0].token.clone();
    let request = ResetPassword { token: reset.clone(), password: "third password".into() };
    house.users.call(keyed(anyone(), "6"), request).await.unwrap();
    let verify = house.told::<EmailVerificationRequested>().await[0].token.clone();
    house.users.call(keyed(anyone(), "7"), VerifyEmail { token: verify.clone() }).await.unwrap();
    assert!(house.whose(&key.token).await.is_ok());
    write_uses(Arc::clone(&house.state)).await;

    secrets.extend([guest.token, member.token, key.token]);
    // Not under another prefix either, nor the signature alone.
    let signatures: Vec<String> = secrets.iter().filter(|s| s.starts_with("mc")).map(|s| s[32..].to_owned()).collect();
    secrets.extend(signatures);
    let (mut searched, mut mailed) = (0, 0);
    for file in std::fs::read_dir(house.dir.path()).unwrap() {
        let file = file.unwrap().path();
        let bytes = std::fs::read(&file).unwrap();
        searched += bytes.len();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
        // EmailLinkRow tokens must travel in their events, and lie nowhere else. That they are found shows that the search
        // finds what is there.
        let text = String::from_utf8_lossy(&bytes);
        for token in [&reset, &verify] {
            for (at, _) in text.match_indices(&**token) {
                assert!(text[..at].ends_with("\"token\":\""), "in {}", file.display());
                mailed += 1;
            }
        }
    }
    assert!(mailed >= 2, "{mailed}");
    assert!(searched > 100_000, "the database and its log were searched");
}

// --- API keys ------------------------------------------------------------------------------------------------------

#[actix::test]
async fn a_key_acts_for_its_owner_until_it_is_deleted() {
    let house = TestUsers::open();
    let (user, member) = house.member("ada@example.com").await;
    let (_, other) = house.member("eve@example.com").await;
    let (ctx, stranger) = (house.as_holder(&member.token).await, house.as_holder(&other.token).await);
    let wish = || house.users.call(keyed(ctx.clone(), "k"), CreateApiKey { name: "  till   script ".into() });
    let key = wish().await.unwrap();
    assert_eq!(wish().await, Ok(key.clone()), "a repetition shows it again");
    assert_eq!(key.api_key.name, "till script");
    assert!(key.token.starts_with(&key.api_key.prefix) && key.api_key.prefix.len() == 16, "{}", key.api_key.prefix);
    let known = house.whose(&key.token).await.unwrap();
    assert_eq!((known.identity.user_id, known.identity.role), (user.id, Role::Customer));
    assert_eq!(known.identity.credential, Credential::ApiKey(key.api_key.id));
    assert_eq!(known.expires_at, None);

    let list = |ctx: &RequestContext| house.users.call(ctx.clone(), ListApiKeys {});
    let shown = list(&ctx).await.unwrap();
    assert_eq!(shown.items.iter().map(|k| k.id).collect::<Vec<_>>(), [key.api_key.id]);
    assert!(list(&stranger).await.unwrap().items.is_empty());
    let delete = |ctx: &RequestContext| house.users.call(ctx.clone(), DeleteApiKey { api_key_id: key.api_key.id });
    assert_eq!(delete(&stranger).await, Err(UsersError::ApiKeyNotFound), "not theirs");
    assert!(house.whose(&key.token).await.is_ok());
    let (deleted, news) = house.news_of(delete(&ctx)).await;
    assert_eq!((deleted, &*news), (Ok(()), &["users.access_changed".to_owned()][..]));
    assert_eq!(house.whose(&key.token).await, Err(UsersError::InvalidToken));
    assert_eq!(delete(&ctx).await, Err(UsersError::ApiKeyNotFound));
}

#[actix::test]
async fn a_keys_use_is_noted_to_the_minute_and_written_later() {
    let house = TestUsers::open();
    let (_, member) = house.member("ada@example.com").await;
    let ctx = house.as_holder(&member.token).await;
    let key = house.api_key(&ctx, "script").await;
    let last = || async { house.users.call(ctx.clone(), ListApiKeys {}).await.unwrap().items[0].last_used_at };
    assert_eq!(last().await, None);
    let before = house.clock.now();
    for _ in 0..100 {
        house.whose(&key.token).await.unwrap();
    }
    let used = last().await.unwrap();
    assert_eq!(used.micros() % 60_000_000, 0);
    assert!(before.since(used) < Duration::from_secs(61));
    write_uses(Arc::clone(&house.state)).await;
    assert!(house.state.uses.all().is_empty());
    let house = house.restart();
    let ctx = house.as_holder(&member.token).await;
    let shown: Page<ApiKey> = house.users.call(ctx, ListApiKeys {}).await.unwrap();
    assert_eq!(shown.items[0].last_used_at, Some(used));
}

#[actix::test]
async fn a_user_has_at_most_fifty_keys_and_a_guest_none() {
    let house = TestUsers::open();
    let (_, member) = house.member("ada@example.com").await;
    let ctx = house.as_holder(&member.token).await;
    let made =
        join_all((0..60).map(|n| house.users.call(ctx.clone(), CreateApiKey { name: format!("key {n}") }))).await;
    assert_eq!(made.iter().filter(|key| key.is_ok()).count(), 50);
    assert_eq!(made.iter().filter(|key| **key == Err(UsersError::TooManyApiKeys)).count(), 10);
    assert_eq!(house.users.call(ctx.clone(), ListApiKeys {}).await.unwrap().items.len(), 50);
    is_wrong(house.users.call(ctx, CreateApiKey { name: String::new() }).await, "name", "required");
    let guest = house.as_holder(&house.guest().await.token).await;
    let refused = house.users.call(guest, CreateApiKey { name: "script".into() }).await;
    assert_eq!(refused, Err(CommonError::Forbidden.into()));
}

// --- changing ------------------------------------------------------------------------------------------------------

#[actix::test]
async fn an_owner_shows_the_password_to_change_address_or_password() {
    let house = TestUsers::open();
    let (user, member) = house.member("ada@example.com").await;
    let ctx = || house.as_holder(&member.token);
    let renamed = house.update(ctx().await, user.id, |r| r.name = Some("Countess".into())).await.unwrap();
    assert_eq!(renamed.name, "Countess", "a name needs none");
    let to_email = |r: &mut UpdateUser| r.email = Some("new@example.com".into());
    let to_password = |r: &mut UpdateUser| r.password = Some("another password".into());
    is_wrong(house.update(ctx().await, user.id, to_email).await, "current_password", "required");
    is_wrong(house.update(ctx().await, user.id, to_password).await, "current_password", "required");
    for change in [to_email as fn(&mut UpdateUser), to_password] {
        let with_wrong = |r: &mut UpdateUser| {
            change(r);
            r.current_password = Some("wrong password".into());
        };
        is_wrong(house.update(ctx().await, user.id, with_wrong).await, "current_password", "wrong");
    }
    // The whole user sent back as it is changes nothing and needs nothing.
    let (same, news) = house
        .news_of(house.update(ctx().await, user.id, |r| {
            r.name = Some("Countess".into());
            r.email = Some("ADA@example.com".into());
            r.role = Some(Role::Customer);
        }))
        .await;
    assert_eq!((same, news.len()), (Ok(renamed), 0));
    assert_eq!(house.sign_in("ada@example.com", PASSWORD).await.unwrap().user.id, user.id);
}

#[actix::test]
async fn a_new_address_must_be_verified_again_and_old_links_are_void() {
    let house = TestUsers::open();
    let (user, member) = house.member("ada@example.com").await;
    let old_link = house.told::<EmailVerificationRequested>().await[0].token.clone();
    house.forgot("ada@example.com").await;
    let old_reset = house.told::<PasswordResetRequested>().await[0].token.clone();
    house.verify(&old_link).await.unwrap();
    assert!(house.get(user.id).await.unwrap().email_verified);
    house.register("taken@example.com").await;
    let ctx = house.as_holder(&member.token).await;
    let to = |email: &'static str| {
        move |r: &mut UpdateUser| {
            r.email = Some(email.into());
            r.current_password = Some(PASSWORD.into());
        }
    };
    assert_eq!(house.update(ctx.clone(), user.id, to("taken@example.com")).await, Err(UsersError::EmailTaken));
    let (changed, news) = house.news_of(house.update(ctx, user.id, to("new@example.com"))).await;
    let changed = changed.unwrap();
    assert_eq!(changed.email, Some("new@example.com".parse::<EmailAddress>().unwrap()));
    assert!(!changed.email_verified && changed.updated_at > user.updated_at);
    assert_eq!(news, ["users.user_changed", "users.email_verification_requested"]);
    assert!(house.whose(&member.token).await.is_ok(), "a new address ends no sign-in");
    // The old mailbox opens nothing any more.
    assert_eq!(house.reset(&old_reset, "a new password").await, Err(UsersError::InvalidLink));
    assert_eq!(house.verify(&old_link).await, Err(UsersError::InvalidLink));
    let mail = house.told::<EmailVerificationRequested>().await.pop().unwrap();
    assert_eq!(mail.email.as_str(), "new@example.com");
    house.verify(&mail.token).await.unwrap();
    assert!(house.get(user.id).await.unwrap().email_verified);
    assert_eq!(house.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
}

#[actix::test]
async fn a_new_password_ends_all_other_sign_ins() {
    let house = TestUsers::open();
    let (user, mine) = house.member("ada@example.com").await;
    let thief = house.sign_in("ada@example.com", PASSWORD).await.unwrap();
    for token in [&mine.token, &thief.token] {
        assert!(house.whose(token).await.is_ok());
    }
    house.forgot("ada@example.com").await;
    let reset = house.told::<PasswordResetRequested>().await[0].token.clone();
    let change = |r: &mut UpdateUser| {
        r.password = Some("another password".into());
        r.current_password = Some(PASSWORD.into());
    };
    let ctx = keyed(house.as_holder(&mine.token).await, "k");
    let at_once = join_all((0..5).map(|_| house.update(ctx.clone(), user.id, change))).await;
    let changed = at_once[0].clone().unwrap();
    assert!(at_once.iter().all(|answer| answer.as_ref() == Ok(&changed)), "sent five times, done once: {at_once:?}");
    assert_eq!(house.told::<AccessChanged>().await.len(), 1);
    assert!(house.whose(&mine.token).await.is_ok());
    assert_eq!(house.whose(&thief.token).await, Err(UsersError::InvalidToken));
    assert_eq!(house.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    assert!(house.sign_in("ada@example.com", "another password").await.is_ok());
    assert_eq!(house.reset(&reset, "a thiefs password").await, Err(UsersError::InvalidLink));
    // Under the same key with another new password it is another request.
    let other = |r: &mut UpdateUser| {
        r.password = Some("a third password".into());
        r.current_password = Some("another password".into());
    };
    assert_eq!(house.update(ctx, user.id, other).await, Err(CommonError::IdempotencyKeyReused.into()));
}

#[actix::test]
async fn roles_are_given_by_administrators_and_somebody_always_runs_the_shop() {
    let house = TestUsers::open();
    let boss = house.admin("boss@example.com").await;
    let (user, member) = house.member("ada@example.com").await;
    let boss_token = house.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let (boss_ctx, ctx) = (house.as_holder(&boss_token).await, house.as_holder(&member.token).await);
    let to = |role| move |r: &mut UpdateUser| r.role = Some(role);
    // Not by oneself, not of others, not to a guest, not the last.
    assert_eq!(house.update(ctx.clone(), user.id, to(Role::Admin)).await, Err(CommonError::Forbidden.into()));
    assert_eq!(house.update(ctx.clone(), boss.id, to(Role::Customer)).await, Err(CommonError::Forbidden.into()));
    is_wrong(house.update(boss_ctx.clone(), user.id, to(Role::Guest)).await, "role", "invalid");
    for ctx in [boss_ctx.clone(), RequestContext::internal("cli")] {
        assert_eq!(house.update(ctx.clone(), boss.id, to(Role::Customer)).await, Err(UsersError::LastAdmin));
        let erased = house.users.call(ctx, DeleteUser { user_id: boss.id }).await;
        assert_eq!(erased, Err(UsersError::LastAdmin));
    }
    let (promoted, news) = house.news_of(house.update(boss_ctx.clone(), user.id, to(Role::Admin))).await;
    assert_eq!(promoted.unwrap().role, Role::Admin);
    assert_eq!(news, ["users.user_changed", "users.access_changed"]);
    assert_eq!(house.whose(&member.token).await.unwrap().identity.role, Role::Admin, "not what was remembered");
    // Two who resign at once: one may.
    let ctx = house.as_holder(&member.token).await;
    let resigned = futures_util::future::join(
        house.update(ctx, user.id, to(Role::Customer)),
        house.update(boss_ctx, boss.id, to(Role::Customer)),
    )
    .await;
    let (one, two) = (resigned.0, resigned.1);
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(one.and(two), Err(UsersError::LastAdmin));
}

#[actix::test]
async fn administrators_edit_others_without_their_password_and_themselves_with_it() {
    let house = TestUsers::open();
    let boss = house.admin("boss@example.com").await;
    let (user, member) = house.member("ada@example.com").await;
    let token = house.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let ctx = house.as_holder(&token).await;
    let change = |r: &mut UpdateUser| r.password = Some("given by staff".into());
    house.update(ctx.clone(), user.id, change).await.unwrap();
    assert_eq!(house.whose(&member.token).await, Err(UsersError::InvalidToken), "all of theirs end");
    assert!(house.sign_in("ada@example.com", "given by staff").await.is_ok());
    is_wrong(house.update(ctx.clone(), boss.id, change).await, "current_password", "required");
    assert_eq!(house.update(ctx, UserId::new(), change).await, Err(UsersError::UserNotFound));
}

#[actix::test]
async fn a_guest_gets_address_and_password_by_registering_only() {
    let house = TestUsers::open();
    let boss = house.admin("boss@example.com").await;
    let guest = house.guest().await;
    let ctx = house.as_holder(&guest.token).await;
    let id = guest.user.id;
    is_wrong(house.update(ctx.clone(), id, |r| r.email = Some("a@example.com".into())).await, "email", "guest");
    let password = |r: &mut UpdateUser| r.password = Some("long enough".into());
    is_wrong(house.update(ctx, id, password).await, "password", "guest");
    let token = house.sign_in("boss@example.com", PASSWORD).await.unwrap().token;
    let staff = house.as_holder(&token).await;
    is_wrong(house.update(staff, id, |r| r.role = Some(Role::Admin)).await, "role", "guest");
    assert_eq!(house.get(boss.id).await.unwrap().role, Role::Admin);
}

// --- mailed links --------------------------------------------------------------------------------------------------

#[actix::test]
async fn a_forgotten_password_is_set_anew_once_within_an_hour_and_ends_all_sign_ins() {
    let house = TestUsers::open();
    let (user, member) = house.member("ada@example.com").await;
    assert!(house.whose(&member.token).await.is_ok());
    // Nothing tells a stranger whether there is such an account.
    for unknown in ["eve@example.com", "nonsense"] {
        house.forgot(unknown).await;
    }
    assert!(house.told::<PasswordResetRequested>().await.is_empty());
    house.forgot("ADA@example.com").await;
    house.forgot("ada@example.com").await;
    let mails = house.told::<PasswordResetRequested>().await;
    assert_eq!((mails.len(), mails[0].user_id, mails[0].email.as_str()), (2, user.id, "ada@example.com"));
    is_wrong(house.reset(&mails[0].token, "short").await, "password", "too_short");
    let (done, news) = house.news_of(house.reset(&mails[0].token, "a new password")).await;
    assert_eq!((done, &*news), (Ok(()), &["users.access_changed".to_owned()][..]));
    assert_eq!(house.whose(&member.token).await, Err(UsersError::InvalidToken));
    assert_eq!(house.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    assert!(house.sign_in("ada@example.com", "a new password").await.is_ok());
    for mail in &mails {
        assert_eq!(house.reset(&mail.token, "a third password").await, Err(UsersError::InvalidLink), "used or void");
    }
    house.forgot("ada@example.com").await;
    let late = house.told::<PasswordResetRequested>().await.pop().unwrap().token;
    house.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(house.reset(&late, "a third password").await, Err(UsersError::InvalidLink));
}

#[actix::test]
async fn many_who_use_one_reset_link_at_once_set_one_password() {
    let house = TestUsers::open();
    house.register("ada@example.com").await;
    house.forgot("ada@example.com").await;
    let token = house.told::<PasswordResetRequested>().await[0].token.clone();
    let passwords: Vec<String> = (0..6).map(|n| format!("new password {n}")).collect();
    let answers = join_all(passwords.iter().map(|password| house.reset(&token, password))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let winner = answers.iter().position(Result::is_ok).unwrap();
    assert!(house.sign_in("ada@example.com", &passwords[winner]).await.is_ok());
    // The same request under one key is the same wish.
    house.forgot("ada@example.com").await;
    let token = house.told::<PasswordResetRequested>().await.pop().unwrap().token;
    let ask = |password: &str| {
        let request = ResetPassword { token: token.clone(), password: password.to_owned() };
        house.users.call(keyed(anyone(), "k"), request)
    };
    let at_once = join_all((0..4).map(|_| ask("a last password"))).await;
    assert!(at_once.iter().all(Result::is_ok), "{at_once:?}");
    assert_eq!(ask("another password").await, Err(CommonError::IdempotencyKeyReused.into()));
}

#[actix::test]
async fn one_account_causes_only_a_few_mails_an_hour() {
    let house = TestUsers::open();
    house.register("ada@example.com").await;
    join_all((0..20).map(|_| house.forgot("ada@example.com"))).await;
    assert_eq!(house.told::<PasswordResetRequested>().await.len(), 3);
    // Using one does not buy another.
    let token = house.told::<PasswordResetRequested>().await[0].token.clone();
    house.reset(&token, "a new password").await.unwrap();
    purge(Arc::clone(&house.state)).await;
    house.forgot("ada@example.com").await;
    assert_eq!(house.told::<PasswordResetRequested>().await.len(), 3);
    house.clock.advance(HOUR + Duration::from_secs(1));
    house.forgot("ada@example.com").await;
    assert_eq!(house.told::<PasswordResetRequested>().await.len(), 4);
}

#[actix::test]
async fn a_verification_link_is_good_for_days_and_a_second_click_does_no_harm() {
    let house = TestUsers::open();
    let user = house.register("ada@example.com").await;
    let other = house.register("eve@example.com").await;
    let mails = house.told::<EmailVerificationRequested>().await;
    assert_eq!((mails[0].user_id, mails[1].user_id), (user.id, other.id));
    house.clock.advance(2 * DAY);
    for _ in 0..2 {
        assert_eq!(house.verify(&mails[0].token).await, Ok(()));
    }
    assert!(house.get(user.id).await.unwrap().email_verified);
    assert!(!house.get(other.id).await.unwrap().email_verified);
    house.clock.advance(2 * DAY);
    assert_eq!(house.verify(&mails[1].token).await, Err(UsersError::InvalidLink), "too old");
}

// --- erasing and listing -------------------------------------------------------------------------------------------

#[actix::test]
async fn an_erased_users_tokens_are_refused_at_once_and_the_address_is_free_again() {
    let house = TestUsers::open();
    let (user, member) = house.member("ada@example.com").await;
    let ctx = house.as_holder(&member.token).await;
    let key = house.api_key(&ctx, "script").await;
    house.forgot("ada@example.com").await;
    let reset = house.told::<PasswordResetRequested>().await[0].token.clone();
    let verify = house.told::<EmailVerificationRequested>().await[0].token.clone();
    for token in [&member.token, &key.token] {
        assert!(house.whose(token).await.is_ok());
    }
    let (_, eve) = house.member("eve@example.com").await;
    let stranger = house.as_holder(&eve.token).await;
    let erase = |ctx: RequestContext| house.users.call(ctx, DeleteUser { user_id: user.id });
    assert_eq!(erase(stranger).await, Err(CommonError::Forbidden.into()));
    let (erased, news) = house.news_of(erase(ctx.clone())).await;
    assert_eq!(erased, Ok(()));
    assert_eq!(news, ["users.user_erased", "users.access_changed"]);
    let told = house.told::<UserErased>().await;
    assert_eq!((told[0].user_id, told[0].email.clone()), (user.id, user.email.clone()));
    for token in [&member.token, &key.token] {
        assert_eq!(house.whose(token).await, Err(UsersError::InvalidToken));
    }
    assert_eq!(house.get(user.id).await, Err(UsersError::UserNotFound));
    assert_eq!(house.sign_in("ada@example.com", PASSWORD).await, Err(UsersError::BadCredentials));
    assert_eq!(house.reset(&reset, "a new password").await, Err(UsersError::InvalidLink));
    assert_eq!(house.verify(&verify).await, Err(UsersError::InvalidLink));
    // What still holds the old identity can do nothing with it.
    let key = house.users.call(ctx.clone(), CreateApiKey { name: "late".into() }).await;
    assert_eq!(key, Err(UsersError::InvalidToken));
    assert_eq!(erase(ctx).await, Err(UsersError::UserNotFound));
    assert_ne!(house.register("ada@example.com").await.id, user.id);
}

#[actix::test]
async fn nobody_is_remembered_as_signed_in_while_they_are_being_erased() {
    let house = TestUsers::open();
    for round in 0..20 {
        let guest = house.guest().await;
        let ctx = house.as_holder(&guest.token).await;
        house.state.known.forget_all();
        // Questions that reach the database before, while and after the account goes.
        let asks = join_all((0..8).map(|_| house.whose(&guest.token)));
        let erased = house.users.call(ctx, DeleteUser { user_id: guest.user.id });
        let (_, erased) = futures_util::future::join(asks, erased).await;
        erased.unwrap();
        assert_eq!(house.whose(&guest.token).await, Err(UsersError::InvalidToken), "{round}");
    }
}

#[actix::test]
async fn a_list_shows_accounts_newest_first_page_by_page_and_no_guest() {
    let house = TestUsers::open();
    let day = |n: u64| Timestamp::parse("2025-01-01").unwrap().plus(DAY * u32::try_from(n).unwrap());
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
        house.users.call(RequestContext::internal("cli"), request).await.unwrap();
    }
    house.guest().await;
    let list = |q: Option<&str>, limit: u32, cursor: Option<crate::types::Cursor>| {
        let page = PageRequest { limit: Some(limit), cursor };
        house.users.call(RequestContext::internal("web"), ListUsers { q: q.map(str::to_owned), page })
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
        ("nobody", &[]),
    ] {
        let page = list(Some(q), 10, None).await.unwrap();
        assert_eq!(page.items.iter().map(|user| &*user.name).collect::<Vec<_>>(), found, "{q}");
        assert_eq!(page.next, None);
    }
    is_wrong(list(None, 101, None).await, "limit", "out_of_range");
    is_wrong(list(None, 1, Some(crate::types::Cursor::seal(&"other"))).await, "cursor", "invalid");
    is_wrong(list(Some(&"x".repeat(101)), 1, None).await, "q", "too_long");
    let (_, member) = house.member("e@three.example").await;
    let customer = house.as_holder(&member.token).await;
    let refused = house.users.call(customer, ListUsers::default()).await;
    assert_eq!(refused, Err(CommonError::Forbidden.into()), "administrators only");
}

#[actix::test]
async fn lists_and_the_search_for_administrators_use_their_indexes() {
    if crate::store::tested_on_server() {
        return;
    }
    use crate::store::query::*;
    use diesel::sql_types::Text;
    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    let house = TestUsers::open();
    let plan = |sql: &'static str| {
        let store = house.store.clone();
        async move {
            let steps = store.read(move |conn| {
                Ok::<_, CommonError>(diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load::<Step>(conn)?)
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
