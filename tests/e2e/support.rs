//! Starts the real binary on a data folder of its own, and an HTTP and WebSocket client for it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Asserts that all invariants of the shop in `data` hold. The shop may be running.
pub fn assert_consistent(data: &Path) {
    let checked = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .arg("check")
        .env("MERCAT_DATA", data)
        .current_dir(data.parent().unwrap_or(data))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A running shop. Dropped, it is killed.
pub struct Shop {
    pub process: Child,
    pub url: String,
}

impl Shop {
    /// Starts the binary on `data` with more arguments and variables, and waits until it listens.
    pub fn start(data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mercat"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .env("MERCAT_LIMITS__ENABLED", "false")
            // All buyers have one address, and a crash leaves their orders unpaid.
            .env("MERCAT_LIMITS__UNPAID_PER_NETWORK", "100000")
            .envs(variables.iter().copied())
            .current_dir(data.parent().unwrap_or(data))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let mut url = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            let found = line.split_once("listening on http://").map(|(_, rest)| rest.trim().to_owned());
            log.push(line);
            if let Some(address) = found {
                let address: String =
                    address.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
                url = Some(format!("http://{address}"));
                break;
            }
        }
        let Some(url) = url else { panic!("the shop did not start: {log:#?}") };
        // Drained, so that a shop that logs much never blocks.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, url }
    }

    /// kill -9: no warning, no clean-up.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends SIGTERM; returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.process.wait().unwrap().code()
    }

    /// A client without a session.
    pub fn client(&self) -> HttpClient {
        let client = awc::Client::builder().timeout(Duration::from_secs(60)).finish();
        HttpClient { client, base: format!("{}/api/v1", self.url), token: None }
    }

    /// A client with this token.
    pub fn client_with_token(&self, token: &str) -> HttpClient {
        HttpClient { token: Some(token.to_owned()), ..self.client() }
    }

    /// Creates an administrator on the command line, and signs in.
    pub async fn admin(&self, data: &Path) -> HttpClient {
        let made = Command::new(env!("CARGO_BIN_EXE_mercat"))
            .args(["admin", "create", "--email", "boss@example.com", "--name", "Boss"])
            .env("MERCAT_DATA", data)
            .env("MERCAT_ADMIN_PASSWORD", "correct horse battery")
            .current_dir(data.parent().unwrap_or(data))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut admin = self.client();
        admin.sign_in("boss@example.com", "correct horse battery").await;
        admin
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An HTTP client, optionally signed in.
#[derive(Clone)]
pub struct HttpClient {
    client: awc::Client,
    base: String,
    pub token: Option<String>,
}

/// A response with a JSON body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub is_replay: bool,
    pub body: Value,
}

impl Response {
    /// Asserts the status; returns the body.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl HttpClient {
    pub async fn sign_in(&mut self, email: &str, password: &str) {
        let session = self.post("/signin", json!({"email": email, "password": password})).await.expect_status(200);
        self.token = Some(session["token"].as_str().unwrap().to_owned());
    }

    pub async fn get(&self, path: &str) -> Response {
        self.try_send("GET", path, None, None).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.try_send("POST", path, Some(body), None).await.unwrap()
    }

    pub async fn post_idempotent(&self, path: &str, body: Value, key: &str) -> Response {
        self.try_send("POST", path, Some(body), Some(key)).await.unwrap()
    }

    /// Sends a request; `None` if the connection broke before the response.
    pub async fn try_send(&self, method: &str, path: &str, body: Option<Value>, key: Option<&str>) -> Option<Response> {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = key {
            request = request.insert_header(("Idempotency-Key", key));
        }
        let sent = match body {
            Some(body) => request.send_json(&body),
            None => request.send(),
        };
        let mut answer = sent.await.ok()?;
        let bytes = answer.body().limit(10_000_000).await.ok()?;
        Some(Response {
            status: answer.status().as_u16(),
            is_replay: answer.headers().contains_key("Idempotent-Replayed"),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    /// Gets a path outside the API, such as `/health`.
    pub async fn get_root(&self, path: &str) -> Value {
        let base = self.base.trim_end_matches("/api/v1");
        self.client.get(format!("{base}{path}")).send().await.unwrap().json().await.unwrap()
    }

    /// Reads all pages of a list; `path` has a query already.
    pub async fn get_all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut next) = (Vec::new(), Value::Null);
        loop {
            let cursor = next.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("{path}{cursor}")).await.expect_status(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            next = page["next"].clone();
            if next.is_null() {
                return items;
            }
        }
    }

    /// Polls `path`, for up to a minute, until `expected` holds.
    pub async fn poll_until(&self, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1_200 {
            let answer = self.get(path).await;
            if answer.status == 200 && expected(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} never became as expected: {}", self.get(path).await.body)
    }

    /// Opens a WebSocket with the token of this client.
    pub async fn socket(&self) -> Socket {
        let mut request = self.client.ws(format!("{}/ws", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let (_, framed) = request.connect().await.unwrap();
        Socket(framed)
    }
}

/// A WebSocket with JSON frames.
pub struct Socket(actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec>);

impl Socket {
    pub async fn send(&mut self, frame: Value) {
        use futures_util::SinkExt as _;
        self.0.send(awc::ws::Message::Text(frame.to_string().into())).await.unwrap();
    }

    /// Next JSON frame for which `expected` holds, others skipped; fails after a minute.
    pub async fn next(&mut self, expected: impl Fn(&Value) -> bool) -> Value {
        use futures_util::StreamExt as _;
        let wait = async {
            loop {
                match self.0.next().await.expect("the socket was closed").unwrap() {
                    awc::ws::Frame::Text(text) => {
                        let frame: Value = serde_json::from_slice(&text).unwrap();
                        if expected(&frame) {
                            return frame;
                        }
                    }
                    awc::ws::Frame::Close(reason) => panic!("closed: {reason:?}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the frame did not come")
    }
}
