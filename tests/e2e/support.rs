//! Starts the real binary on a folder of its own and talks to it as a stranger would.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Has all books of the shop in `data` looked at; nothing may be wrong with them. The shop may run meanwhile.
pub fn books_agree(data: &Path) {
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
        // Read on, so that a shop that logs much never waits for us.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, url }
    }

    /// kill -9: no warning, no clean-up.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.process.wait().unwrap().code()
    }

    /// A visitor whom the shop does not know yet.
    pub fn visitor(&self) -> Visitor {
        let client = awc::Client::builder().timeout(Duration::from_secs(30)).finish();
        Visitor { client, base: format!("{}/api/v1", self.url), token: None }
    }

    /// Somebody who holds this token.
    pub fn visitor_with(&self, token: &str) -> Visitor {
        Visitor { token: Some(token.to_owned()), ..self.visitor() }
    }

    /// Makes an administrator by the command line, beside the running shop, and signs in.
    pub async fn admin(&self, data: &Path) -> Visitor {
        let made = Command::new(env!("CARGO_BIN_EXE_mercat"))
            .args(["admin", "create", "--email", "boss@example.com", "--name", "Boss"])
            .env("MERCAT_DATA", data)
            .env("MERCAT_ADMIN_PASSWORD", "correct horse battery")
            .current_dir(data.parent().unwrap_or(data))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut admin = self.visitor();
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

/// Somebody who asks over HTTP.
#[derive(Clone)]
pub struct Visitor {
    client: awc::Client,
    base: String,
    pub token: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub replayed: bool,
    pub body: Value,
}

impl Answer {
    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Visitor {
    pub async fn sign_in(&mut self, email: &str, password: &str) {
        let session = self.post("/signin", json!({"email": email, "password": password})).await.expect_status(200);
        self.token = Some(session["token"].as_str().unwrap().to_owned());
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.try_ask("GET", path, None, None).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.try_ask("POST", path, Some(body), None).await.unwrap()
    }

    pub async fn post_once(&self, path: &str, body: Value, key: &str) -> Answer {
        self.try_ask("POST", path, Some(body), Some(key)).await.unwrap()
    }

    /// Asks; `None` when the connection broke before an answer came.
    pub async fn try_ask(&self, method: &str, path: &str, body: Option<Value>, key: Option<&str>) -> Option<Answer> {
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
        Some(Answer {
            status: answer.status().as_u16(),
            replayed: answer.headers().contains_key("Idempotent-Replayed"),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    /// Asks for something beside the interface, such as `/health`.
    pub async fn ask_bare(&self, path: &str) -> Value {
        let base = self.base.trim_end_matches("/api/v1");
        self.client.get(format!("{base}{path}")).send().await.unwrap().json().await.unwrap()
    }

    /// Asks again and again, for at most half a minute, until the answer is as wished.
    pub async fn until(&self, path: &str, wished: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..600 {
            let answer = self.get(path).await;
            if answer.status == 200 && wished(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} did not become as wished: {}", self.get(path).await.body)
    }

    /// A WebSocket of this visitor.
    pub async fn socket(&self) -> Socket {
        let mut request = self.client.ws(format!("{}/ws", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let (_, framed) = request.connect().await.unwrap();
        Socket(framed)
    }
}

/// One end of a WebSocket that speaks JSON.
pub struct Socket(actix_codec::Framed<awc::BoxedSocket, awc::ws::Codec>);

impl Socket {
    pub async fn send(&mut self, frame: Value) {
        use futures_util::SinkExt as _;
        self.0.send(awc::ws::Message::Text(frame.to_string().into())).await.unwrap();
    }

    /// The next JSON frame that is as wished, others passed over; fails after ten seconds.
    pub async fn next(&mut self, wished: impl Fn(&Value) -> bool) -> Value {
        use futures_util::StreamExt as _;
        let wait = async {
            loop {
                match self.0.next().await.expect("the socket was closed").unwrap() {
                    awc::ws::Frame::Text(text) => {
                        let frame: Value = serde_json::from_slice(&text).unwrap();
                        if wished(&frame) {
                            return frame;
                        }
                    }
                    awc::ws::Frame::Close(reason) => panic!("closed: {reason:?}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the frame did not come")
    }
}
