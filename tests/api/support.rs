//! A whole shop in this process, on a free port with databases of its own, and an HTTP client for it.

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

use crate::common;
use crate::topology::{self, DomainProcess};

/// Limit for every wait in these tests: generous, so that a busy machine does not fail them.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Password of all users in these tests.
pub const PASSWORD: &str = "correct horse battery";

/// Strings that reveal internals. No error response may contain one.
const INTERNAL_MARKERS: &[&str] =
    &["sqlite", "SELECT", "INSERT", "diesel", "panicked", ".rs:", "src/", "mailbox", "Envelope", "struct ", "serde"];

/// A running shop. It ends when dropped.
pub struct TestShop {
    /// App behind the gateway. In a split shop it calls all domains over gRPC.
    app: Option<App>,
    /// Processes of the domains in a split shop.
    processes: Vec<DomainProcess>,
    pub address: String,
    pub handle: Handle,
    pub server_task: Option<actix_web::rt::task::JoinHandle<std::io::Result<()>>>,
    pub clock: Clock,
    http: awc::Client,
    /// Address and handle of a second gateway.
    second_gateway: Option<(String, Handle)>,
    dir: Option<TempDir>,
}

/// A user with a session or an API key.
#[derive(Debug, Clone)]
pub struct TestUser {
    pub id: String,
    pub token: String,
    pub email: String,
}

/// A response.
#[derive(Debug)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    request: String,
}

/// A request that is being built.
pub struct RequestBuilder<'a> {
    shop: &'a TestShop,
    address: String,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl TestShop {
    pub async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub async fn open_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), Clock::system(), change).await
    }

    /// Opens a shop on a data folder that may have been used before, with a clock that the test can advance.
    pub async fn open_in(dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::for_test(dir.path());
        settings.http.workers = 2;
        change(&mut settings);
        let (app, processes) = topology::open(settings, &clock).await;
        let server = web::start(&app).unwrap();
        let (address, handle) = (server.address().to_string(), server.handle());
        let server_task = Some(actix_web::rt::spawn(server.run()));
        let connector = awc::Connector::new().limit(256);
        let http = awc::Client::builder().connector(connector).timeout(WAIT_TIMEOUT).finish();
        Self {
            app: Some(app),
            processes,
            address,
            handle,
            server_task,
            clock,
            http,
            second_gateway: None,
            dir: Some(dir),
        }
    }

    /// Starts a second gateway for the same domains. It does not share the in-flight keys of the first.
    pub fn start_second_gateway(&mut self) {
        let server = web::start(self.app()).unwrap();
        self.second_gateway = Some((server.address().to_string(), server.handle()));
        actix_web::rt::spawn(server.run());
    }

    /// Stops the shop gracefully and returns its data folder.
    pub async fn close(mut self) -> TempDir {
        self.handle.stop(true).await;
        self.server_task.take().unwrap().await.unwrap().unwrap();
        self.app.take().unwrap().close();
        while let Some(part) = self.processes.pop() {
            part.close().await;
        }
        self.dir.take().unwrap()
    }

    /// Ends the shop without any notice and returns its data folder.
    pub async fn kill(mut self) -> TempDir {
        self.handle.stop(false).await;
        self.close_apps();
        self.dir.take().unwrap()
    }

    fn close_apps(&mut self) {
        if let Some(app) = self.app.take() {
            app.close();
        }
        while let Some(part) = self.processes.pop() {
            part.kill();
        }
    }

    /// Waits until every event has reached its subscribers.
    pub async fn drain_events(&self) {
        let apps: Vec<&App> = self.app.iter().chain(self.processes.iter().map(|part| &part.app)).collect();
        let settled = tokio::time::timeout(WAIT_TIMEOUT, App::settle_all(&apps)).await;
        settled.expect("events do not reach their subscribers").unwrap();
    }

    /// Waits for all events, then asserts that all invariants hold.
    pub async fn assert_consistent(&self) {
        self.drain_events().await;
        let report = consistency_check::run(&self.app().clients).await.unwrap();
        assert!(report.violations.is_empty(), "{:#?}", report.violations);
    }

    /// Polls `path` until `expected` holds.
    pub async fn poll_until(&self, user: &TestUser, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.call("GET", path).with_user(user).send().await.expect(200);
            if expected(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < WAIT_TIMEOUT, "{path} never became as expected: {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads `path` as `user`.
    pub async fn read(&self, user: &TestUser, path: &str) -> Value {
        self.call("GET", path).with_user(user).send().await.expect(200)
    }

    /// Adds a product to the cart; returns the cart item.
    pub async fn add(&self, user: &TestUser, product: &str, quantity: i64) -> Value {
        let line = json!({ "product_id": product, "quantity": quantity });
        self.call("POST", &format!("/user/{}/cart", user.id)).with_user(user).json(&line).send().await.expect(201)
    }

    /// Checks the cart out; a guest with an e-mail address of its own.
    pub async fn check_out(&self, user: &TestUser, key: &str) -> TestResponse {
        let email = json!({ "email": format!("{}@example.com", user.id) });
        self.call("POST", &format!("/user/{}/cart/checkout", user.id))
            .with_user(user)
            .idempotency_key(key)
            .json(&email)
            .send()
            .await
    }

    /// Pays an invoice under an idempotency key.
    pub async fn pay(&self, user: &TestUser, invoice: &str, token: &str, key: &str) -> TestResponse {
        let token = json!({ "token": token });
        self.call("POST", &format!("/invoices/{invoice}/pay"))
            .with_user(user)
            .idempotency_key(key)
            .json(&token)
            .send()
            .await
    }

    /// Stock of a product, once all events have arrived.
    pub async fn stock_of(&self, product: &str) -> i64 {
        self.drain_events().await;
        self.get(&format!("/product/{product}")).await.expect(200)["stock"].as_i64().unwrap()
    }

    /// Number of e-mails of a template, once all events have arrived.
    pub async fn count_emails(&self, admin: &TestUser, template: &str) -> usize {
        self.drain_events().await;
        count(&self.read(admin, "/emails/?limit=100").await, "template", template)
    }

    /// Number of notifications of a kind, once all events have arrived.
    pub async fn count_notifications(&self, user: &TestUser, kind: &str) -> usize {
        self.drain_events().await;
        count(&self.read(user, "/notifications/?limit=100").await, "kind", kind)
    }

    /// Opens a shop with all domains disabled: the gateway alone.
    pub async fn without_domains() -> Self {
        Self::open_with(|settings| enable_only(settings, &[])).await
    }

    /// App behind the gateway.
    pub fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// Starts a request to a path below `/api/v1`, or with a leading `!` to any path.
    pub fn call(&self, method: &str, path: &str) -> RequestBuilder<'_> {
        let path = path.strip_prefix('!').map_or_else(|| format!("/api/v1{path}"), str::to_owned);
        let (address, method) = (self.address.clone(), method.parse().unwrap());
        RequestBuilder { shop: self, address, method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub async fn get(&self, path: &str) -> TestResponse {
        self.call("GET", path).send().await
    }

    /// Signs in an existing account.
    pub async fn sign_in(&self, email: &str) -> TestUser {
        let body = json!({ "email": email, "password": PASSWORD });
        let signed_in = self.call("POST", "/signin").json(&body).send().await.expect(200);
        TestUser {
            id: signed_in["user"]["id"].as_str().unwrap().to_owned(),
            token: signed_in["token"].as_str().unwrap().to_owned(),
            email: email.to_owned(),
        }
    }

    pub async fn customer(&self, email: &str) -> TestUser {
        let body = json!({ "email": email, "password": PASSWORD, "name": "Ada" });
        self.call("POST", "/user/").json(&body).send().await.expect(201);
        self.sign_in(email).await
    }

    pub async fn admin(&self) -> TestUser {
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

    /// Creates an account of staff with this role and signs in to it.
    pub async fn staff(&self, role: Role) -> TestUser {
        let email = format!("{}@example.com", role.as_str());
        let request = CreateUser {
            email: email.clone(),
            password: PASSWORD.to_owned(),
            name: "Staff".to_owned(),
            role,
            created_at: None,
        };
        self.app().clients.users.call(RequestContext::internal("test"), request).await.unwrap();
        self.sign_in(&email).await
    }

    /// Begins to set up the second factor of a user; returns a code of the app.
    pub async fn enroll(&self, user: &TestUser) -> String {
        let path = format!("/user/{}/totp", user.id);
        let enrolment = self.call("POST", &path).with_user(user).send().await.expect(200);
        let secret = totp_rs::Secret::try_from_base32(enrolment["secret"].as_str().unwrap()).unwrap();
        totp_rs::Builder::new().with_secret(secret).build().unwrap().generate_current().to_string()
    }

    pub async fn guest(&self) -> TestUser {
        let signed_in = self.call("POST", "/guest").send().await.expect(201);
        TestUser {
            id: signed_in["user"]["id"].as_str().unwrap().to_owned(),
            token: signed_in["token"].as_str().unwrap().to_owned(),
            email: String::new(),
        }
    }

    /// Creates a product; returns its id.
    pub async fn product(&self, admin: &TestUser, sku: &str, price: i64, stock: i64) -> String {
        let product =
            self.call("POST", "/product/").with_user(admin).json(&new_product(sku, price, stock)).send().await;
        product.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// Adds one unit to the cart and checks out; returns the invoice.
    pub async fn checkout_with_one(&self, user: &TestUser, product: &str) -> Value {
        let cart = format!("/user/{}/cart", user.id);
        let line = json!({ "product_id": product, "quantity": 1 });
        self.call("POST", &cart).with_user(user).json(&line).send().await.expect(201);
        self.call("POST", &format!("{cart}/checkout")).with_user(user).send().await.expect(201)
    }
}

impl Drop for TestShop {
    fn drop(&mut self) {
        // The stop begins at the first poll; its end is not awaited.
        let _ = self.handle.stop(false).now_or_never();
        if let Some((_, handle)) = &self.second_gateway {
            let _ = handle.stop(false).now_or_never();
        }
        self.close_apps();
        if let Some(dir) = &self.dir {
            common::release_virtual_host(dir.path());
        }
    }
}

/// Disables all domains but these.
pub fn enable_only(settings: &mut Settings, names: &[&str]) {
    for domain in &mut settings.domains {
        if !names.contains(&domain.name) {
            domain.place = mercat::settings::DomainLocation::Off;
        }
    }
}

/// An address in Paris.
pub fn paris() -> Value {
    json!({ "name": "Ada Lovelace", "line1": "1 rue de Rivoli", "postal_code": "75001", "city": "Paris", "country": "FR" })
}

pub fn new_product(sku: &str, price: i64, stock: i64) -> Value {
    json!({
        "name": format!("Thing {sku}"), "sku": sku, "description": "A thing.", "price": price, "currency": "EUR",
        "stock": stock,
    })
}

/// Field `id` of a body.
pub fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}"))
}

/// Number of items of a list whose `field` has this value.
pub fn count(list: &Value, field: &str, value: &str) -> usize {
    list["items"].as_array().unwrap().iter().filter(|item| item[field] == value).count()
}

impl RequestBuilder<'_> {
    /// Sends it to the second gateway, if there is one.
    pub fn via_second_gateway(mut self) -> Self {
        if let Some((address, _)) = &self.shop.second_gateway {
            self.address.clone_from(address);
        }
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_user(self, user: &TestUser) -> Self {
        self.bearer(&user.token)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn cookie(self, token: &str) -> Self {
        self.header("cookie", &format!("mercat_session={token}"))
    }

    pub fn idempotency_key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn json(self, body: &Value) -> Self {
        self.raw("application/json", body.to_string())
    }

    pub fn raw(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        if content_type.is_empty() { self } else { self.header("content-type", content_type) }
    }

    pub async fn send(self) -> TestResponse {
        let request = format!("{} {}", self.method, self.path);
        let url = format!("http://{}{}", self.address, self.path);
        let mut builder = self.shop.http.request(self.method, url).no_decompress();
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().unwrap();
            builder = builder.append_header((name, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        }
        let sent = if self.body.is_empty() { builder.send() } else { builder.send_body(self.body) };
        let mut answer = sent.await.unwrap_or_else(|error| panic!("{request}: {error}"));
        let bytes = answer.body().limit(64 << 20).await.unwrap_or_default().to_vec();
        let reply = TestResponse { status: answer.status(), headers: answer.headers().clone(), bytes, request };
        reply.assert_well_formed();
        reply
    }
}

impl TestResponse {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts the status; returns the body.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.request, self.text());
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// Whether it is a stored response to an earlier request.
    pub fn is_replay(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// Asserts status and code of a problem; returns it.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{}: {problem}", self.request);
        problem
    }

    /// Asserts what holds for every response: headers, problem documents, nothing internal.
    #[track_caller]
    fn assert_well_formed(&self) {
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
                self.request
            );
        }
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert_eq!(problem["request_id"], id, "{problem}");
        let text = problem.to_string();
        for marker in INTERNAL_MARKERS {
            assert!(!text.contains(marker), "{} reveals internals ({marker}): {text}", self.request);
        }
        match self.status.as_u16() {
            401 => assert_eq!(self.header("www-authenticate"), Some("Bearer"), "{self:?}"),
            405 => assert!(self.header("allow").is_some(), "{self:?}"),
            429 | 503 => assert!(self.header("retry-after").is_some(), "{self:?}"),
            _ => {}
        }
    }
}
