//! A whole shop on a free port with databases of its own, and a small client that speaks to it as the world does.

use std::time::Duration;

use awc::http::header::{HeaderMap, HeaderName, HeaderValue};
use awc::http::{Method, StatusCode};
use futures_util::FutureExt;
use mercat::app::App;
use mercat::messaging::{Ctx, Role};
use mercat::settings::Settings;
use mercat::types::Clock;
use mercat::users::CreateUser;
use mercat::web::{self, Handle};
use serde_json::{Value, json};

/// The password of everybody in these tests.
pub const PASSWORD: &str = "correct horse battery";

/// Marks of our insides. None may ever be in an answer.
const INSIDE: &[&str] =
    &["sqlite", "SELECT", "INSERT", "diesel", "panicked", ".rs:", "src/", "mailbox", "Envelope", "struct ", "serde"];

/// A shop. Dropping it ends it.
pub struct TestShop {
    pub app: Option<App>,
    pub address: String,
    pub handle: Handle,
    pub ended: Option<actix_web::rt::task::JoinHandle<std::io::Result<()>>>,
    http: awc::Client,
    _dir: tempfile::TempDir,
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
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_test(dir.path());
        settings.http.workers = 2;
        change(&mut settings);
        let app = App::open(settings, Clock::system()).unwrap();
        let server = web::start(&app).unwrap();
        let (address, handle) = (server.address().to_string(), server.handle());
        let ended = Some(actix_web::rt::spawn(server.run()));
        let connector = awc::Connector::new().limit(256);
        let http = awc::Client::builder().connector(connector).timeout(Duration::from_secs(30)).finish();
        Self { app: Some(app), address, handle, ended, http, _dir: dir }
    }

    /// A shop whose domains are all switched off: what the gateway can do alone.
    pub async fn bare() -> Self {
        Self::with(|settings| only(settings, &[])).await
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// A request to a path of the interface, or with a leading `!` to any path.
    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        let path = path.strip_prefix('!').map_or_else(|| format!("/api/v1{path}"), str::to_owned);
        Call { shop: self, method: method.parse().unwrap(), path, headers: Vec::new(), body: Vec::new() }
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
        self.app().clients.users.call(Ctx::domain("test"), request).await.unwrap();
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
        if let Some(app) = self.app.take() {
            app.close();
        }
    }
}

/// Switches all domains off but these.
pub fn only(settings: &mut Settings, names: &[&str]) {
    for domain in &mut settings.domains {
        if !names.contains(&domain.name) {
            domain.place = mercat::settings::Place::Off;
        }
    }
}

pub fn new_product(sku: &str, price: i64, stock: i64) -> Value {
    json!({
        "name": format!("Thing {sku}"), "sku": sku, "description": "A thing.", "price": price, "currency": "EUR",
        "stock": stock,
    })
}

impl Call<'_> {
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
        let url = format!("http://{}{}", self.shop.address, self.path);
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
