//! A whole shop on a free port with databases of its own, and a small client that speaks to it as the world does.

use std::time::{Duration, Instant};

use awc::http::header::{HeaderMap, HeaderName, HeaderValue};
use awc::http::{Method, StatusCode};
use futures_util::FutureExt;
use mercat::app::App;
use mercat::consistency_check;
use mercat::contract::users::CreateUser;
use mercat::messaging::{RequestContext, Role};
use mercat::settings::Settings;
use mercat::types::Clock;
use mercat::web::{self, Handle};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run;
use crate::topology::{self, Part};

/// The longest wait for anything. Nothing takes so long: it is how long a test waits before it says that it never came.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The password of everybody in these tests.
pub const PASSWORD: &str = "correct horse battery";

/// Marks of our insides. None may ever be in an answer.
const INSIDE: &[&str] =
    &["sqlite", "SELECT", "INSERT", "diesel", "panicked", ".rs:", "src/", "mailbox", "Envelope", "struct ", "serde"];

/// A shop. Dropping it ends it.
pub struct TestShop {
    /// The app that the gateway stands on. Where the shop is split it asks all domains over gRPC.
    app: Option<App>,
    /// The other apps of a split shop.
    parts: Vec<Part>,
    pub address: String,
    pub handle: Handle,
    pub ended: Option<actix_web::rt::task::JoinHandle<std::io::Result<()>>>,
    pub clock: Clock,
    http: awc::Client,
    /// A second gateway before the same domains.
    other: Option<(String, Handle)>,
    dir: Option<TempDir>,
}

/// Somebody with a token.
#[derive(Debug, Clone)]
pub struct Person {
    pub id: String,
    pub token: String,
    pub email: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    asked: String,
}

/// A request about to be sent.
pub struct Call<'a> {
    shop: &'a TestShop,
    address: String,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl TestShop {
    pub async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::at(tempfile::tempdir().unwrap(), Clock::system(), change).await
    }

    /// A shop on a folder that may have been one's before, on a clock that the test can move.
    pub async fn at(dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::for_test(dir.path());
        settings.http.workers = 2;
        change(&mut settings);
        let (app, parts) = topology::open(settings, &clock).await;
        let server = web::start(&app).unwrap();
        let (address, handle) = (server.address().to_string(), server.handle());
        let ended = Some(actix_web::rt::spawn(server.run()));
        let connector = awc::Connector::new().limit(256);
        let http = awc::Client::builder().connector(connector).timeout(PATIENCE).finish();
        Self { app: Some(app), parts, address, handle, ended, clock, http, other: None, dir: Some(dir) }
    }

    /// Opens a second gateway before the same domains, which knows nothing of what the first one has in hand.
    pub fn open_another_door(&mut self) {
        let server = web::start(self.app()).unwrap();
        self.other = Some((server.address().to_string(), server.handle()));
        actix_web::rt::spawn(server.run());
    }

    /// Ends the shop as an order to stop does, and gives its folder.
    pub async fn close(mut self) -> TempDir {
        self.handle.stop(true).await;
        self.ended.take().unwrap().await.unwrap().unwrap();
        self.app.take().unwrap().close();
        while let Some(part) = self.parts.pop() {
            part.close().await;
        }
        self.dir.take().unwrap()
    }

    /// Ends the shop without a word to anybody, and gives its folder.
    pub async fn leave(mut self) -> TempDir {
        self.handle.stop(false).await;
        self.end();
        self.dir.take().unwrap()
    }

    fn end(&mut self) {
        if let Some(app) = self.app.take() {
            app.close();
        }
        while let Some(part) = self.parts.pop() {
            part.leave();
        }
    }

    /// Waits until everybody has heard all news.
    pub async fn settle(&self) {
        let apps: Vec<&App> = self.app.iter().chain(self.parts.iter().map(|part| &part.app)).collect();
        let settled = tokio::time::timeout(PATIENCE, App::settle_all(&apps)).await;
        settled.expect("news does not reach everybody").unwrap();
    }

    /// How a scenario ends: everybody has heard all news, and all books agree.
    pub async fn is_sound(&self) {
        self.settle().await;
        let report = consistency_check::run(&self.app().clients).await.unwrap();
        assert!(report.faults.is_empty(), "{:#?}", report.faults);
    }

    /// Asks again and again until the answer is as wished.
    pub async fn until(&self, person: &Person, path: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.call("GET", path).as_(person).send().await.expect(200);
            if wished(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} did not become as wished: {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads what `person` may read; lists with up to a hundred items.
    pub async fn read(&self, person: &Person, path: &str) -> Value {
        self.call("GET", path).as_(person).send().await.expect(200)
    }

    /// Puts so many into the cart; the line.
    pub async fn add(&self, person: &Person, product: &str, quantity: i64) -> Value {
        let line = json!({ "product_id": product, "quantity": quantity });
        self.call("POST", &format!("/user/{}/cart", person.id)).as_(person).json(&line).send().await.expect(201)
    }

    /// Asks for the cart's invoice; a guest's goes to an address of their own.
    pub async fn check_out(&self, person: &Person, key: &str) -> Reply {
        let email = json!({ "email": format!("{}@example.com", person.id) });
        self.call("POST", &format!("/user/{}/cart/checkout", person.id)).as_(person).key(key).json(&email).send().await
    }

    /// Pays an invoice.
    pub async fn pay(&self, person: &Person, invoice: &str, token: &str, key: &str) -> Reply {
        let token = json!({ "token": token });
        self.call("POST", &format!("/invoices/{invoice}/pay")).as_(person).key(key).json(&token).send().await
    }

    /// How many of a product are on the shelf, when all news has arrived.
    pub async fn stock(&self, product: &str) -> i64 {
        self.settle().await;
        self.get(&format!("/product/{product}")).await.expect(200)["stock"].as_i64().unwrap()
    }

    /// The shop's mails of a kind, when all news has arrived.
    pub async fn mails(&self, admin: &Person, template: &str) -> usize {
        self.settle().await;
        count(&self.read(admin, "/emails/?limit=100").await, "template", template)
    }

    /// How often somebody was told of a kind, when all news has arrived.
    pub async fn told(&self, person: &Person, kind: &str) -> usize {
        self.settle().await;
        count(&self.read(person, "/notifications/?limit=100").await, "kind", kind)
    }

    /// A shop whose domains are all switched off: what the gateway can do alone.
    pub async fn bare() -> Self {
        Self::with(|settings| only(settings, &[])).await
    }

    /// The app that the gateway stands on.
    pub fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// A request to a path of the interface, or with a leading `!` to any path.
    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        let path = path.strip_prefix('!').map_or_else(|| format!("/api/v1{path}"), str::to_owned);
        let (address, method) = (self.address.clone(), method.parse().unwrap());
        Call { shop: self, address, method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path).send().await
    }

    /// Signs in somebody who has an account.
    pub async fn sign_in(&self, email: &str) -> Person {
        let body = json!({ "email": email, "password": PASSWORD });
        let signed_in = self.call("POST", "/signin").json(&body).send().await.expect(200);
        Person {
            id: signed_in["user"]["id"].as_str().unwrap().to_owned(),
            token: signed_in["token"].as_str().unwrap().to_owned(),
            email: email.to_owned(),
        }
    }

    pub async fn customer(&self, email: &str) -> Person {
        let body = json!({ "email": email, "password": PASSWORD, "name": "Ada" });
        self.call("POST", "/user/").json(&body).send().await.expect(201);
        self.sign_in(email).await
    }

    pub async fn admin(&self) -> Person {
        let request = CreateUser {
            email: "admin@example.com".to_owned(),
            password: PASSWORD.to_owned(),
            name: "Admin".to_owned(),
            role: Role::Admin,
            created_at: None,
        };
        self.app().clients.users.call(RequestContext::internal("test"), request).await.unwrap();
        self.sign_in("admin@example.com").await
    }

    pub async fn guest(&self) -> Person {
        let signed_in = self.call("POST", "/guest").send().await.expect(201);
        Person {
            id: signed_in["user"]["id"].as_str().unwrap().to_owned(),
            token: signed_in["token"].as_str().unwrap().to_owned(),
            email: String::new(),
        }
    }

    /// A product for sale; its id.
    pub async fn product(&self, admin: &Person, sku: &str, price: i64, stock: i64) -> String {
        let product = self.call("POST", "/product/").as_(admin).json(&new_product(sku, price, stock)).send().await;
        product.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// Puts one into the cart and checks out; the invoice.
    pub async fn checked_out(&self, person: &Person, product: &str) -> Value {
        let cart = format!("/user/{}/cart", person.id);
        let line = json!({ "product_id": product, "quantity": 1 });
        self.call("POST", &cart).as_(person).json(&line).send().await.expect(201);
        self.call("POST", &format!("{cart}/checkout")).as_(person).send().await.expect(201)
    }
}

impl Drop for TestShop {
    fn drop(&mut self) {
        // The order to stop is given at the first poll; nobody waits for its end.
        let _ = self.handle.stop(false).now_or_never();
        if let Some((_, handle)) = &self.other {
            let _ = handle.stop(false).now_or_never();
        }
        self.end();
        if let Some(dir) = &self.dir {
            run::is_over(dir.path());
        }
    }
}

/// Switches all domains off but these.
pub fn only(settings: &mut Settings, names: &[&str]) {
    for domain in &mut settings.domains {
        if !names.contains(&domain.name) {
            domain.place = mercat::settings::DomainLocation::Off;
        }
    }
}

pub fn new_product(sku: &str, price: i64, stock: i64) -> Value {
    json!({
        "name": format!("Thing {sku}"), "sku": sku, "description": "A thing.", "price": price, "currency": "EUR",
        "stock": stock,
    })
}

/// The id of what was answered.
pub fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}"))
}

/// How many items of a list have this word.
pub fn count(list: &Value, field: &str, word: &str) -> usize {
    list["items"].as_array().unwrap().iter().filter(|item| item[field] == word).count()
}

impl Call<'_> {
    /// Through the second gateway, if there is one.
    pub fn by_the_other_door(mut self) -> Self {
        if let Some((address, _)) = &self.shop.other {
            self.address.clone_from(address);
        }
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn as_(self, person: &Person) -> Self {
        self.bearer(&person.token)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn cookie(self, token: &str) -> Self {
        self.header("cookie", &format!("mercat_session={token}"))
    }

    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn json(self, body: &Value) -> Self {
        self.raw("application/json", body.to_string())
    }

    pub fn raw(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        if content_type.is_empty() { self } else { self.header("content-type", content_type) }
    }

    pub async fn send(self) -> Reply {
        let asked = format!("{} {}", self.method, self.path);
        let url = format!("http://{}{}", self.address, self.path);
        let mut request = self.shop.http.request(self.method, url).no_decompress();
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().unwrap();
            request = request.append_header((name, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        }
        let sent = if self.body.is_empty() { request.send() } else { request.send_body(self.body) };
        let mut answer = sent.await.unwrap_or_else(|error| panic!("{asked}: {error}"));
        let bytes = answer.body().limit(64 << 20).await.unwrap_or_default().to_vec();
        let reply = Reply { status: answer.status(), headers: answer.headers().clone(), bytes, asked };
        reply.check();
        reply
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.asked, self.text());
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// Whether it was given before.
    pub fn is_replay(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// The problem of an answer with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{}: {problem}", self.asked);
        problem
    }

    /// What holds for every answer.
    #[track_caller]
    fn check(&self) {
        let id = self.header("x-request-id").unwrap_or_else(|| panic!("no request id: {self:?}"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        if self.status.as_u16() < 400 || self.header("content-type").is_some_and(|t| t.starts_with("text/html")) {
            return;
        }
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        if self.bytes.is_empty() {
            return; // an answer to HEAD
        }
        let problem = self.json();
        for member in ["type", "title", "detail", "code", "request_id"] {
            assert!(
                problem[member].as_str().is_some_and(|text| !text.is_empty()),
                "{}: no {member}: {problem}",
                self.asked
            );
        }
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert_eq!(problem["request_id"], id, "{problem}");
        let text = problem.to_string();
        for inside in INSIDE {
            assert!(!text.contains(inside), "{} tells of our insides ({inside}): {text}", self.asked);
        }
        match self.status.as_u16() {
            401 => assert_eq!(self.header("www-authenticate"), Some("Bearer"), "{self:?}"),
            405 => assert!(self.header("allow").is_some(), "{self:?}"),
            429 | 503 => assert!(self.header("retry-after").is_some(), "{self:?}"),
            _ => {}
        }
    }
}
