//! Tests of live sessions over real sockets: a server on a free port with the real notifications domain. Only the accounts
//! are made up, so that they can change under a session.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, web};
use awc::error::WsProtocolError;
use awc::ws::{Frame, Message};
use futures_util::stream::LocalBoxStream;
use futures_util::{Sink, SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::contract::catalog::ProductChanged;
use crate::contract::notifications::{ListNotifications, MarkRead};
use crate::contract::payments::InvoiceExpired;
use crate::contract::users::{
    AccessChanged, Authenticate, Authenticated, CreateGuest, DeleteUser, SignOut, UsersError,
};
use crate::domains::notifications::{self, Feed, NotificationsActor, Push};
use crate::domains::users::{self, UsersActor};
use crate::events::{Relay, Subscriber};
use crate::messaging::{
    Caller, Client, Credential, DeliverEvents, DomainError, ErrorKind, Event, EventEnvelope, Identity, RequestContext,
    Role,
};
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::Settings;
use crate::types::{ClientNetwork, Clock, Currency, EventId, InvoiceId, ProductId, SessionId, Timestamp, UserId};
use crate::web::connection::{self, ConnectionLimits, ServerTimeouts};
use crate::web::origin::AllowedOrigins;

/// Timeout of every wait, far longer than any of them takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct TestAccounts(Arc<Mutex<HashMap<String, Authenticated>>>);

impl TestAccounts {
    fn authenticate(&self, token: &str) -> Result<Authenticated, UsersError> {
        self.0.lock().get(token).copied().ok_or(UsersError::InvalidToken)
    }

    fn add(&self, token: &str, role: Role, expires_at: Option<Timestamp>) -> Identity {
        let identity = Identity::new(UserId::new(), role, Credential::Session(SessionId::new()));
        self.put(token, identity, expires_at);
        identity
    }

    fn put(&self, token: &str, identity: Identity, expires_at: Option<Timestamp>) {
        self.0.lock().insert(token.to_owned(), Authenticated { identity, expires_at });
    }
}

struct TestServer {
    hub: Hub,
    accounts: TestAccounts,
    feed: Feed,
    clock: Clock,
    client: Client<NotificationsActor>,
    address: std::net::SocketAddr,
    server: ServerHandle,
    runtime: DomainRuntime,
    _dir: TempDir,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Not awaited: the actix system ends with the test.
        drop(self.server.stop(false));
    }
}

async fn ws(
    req: HttpRequest,
    body: web::Payload,
    hub: web::Data<Hub>,
    accounts: web::Data<TestAccounts>,
) -> actix_web::Result<HttpResponse> {
    let who = bearer(&req, &accounts)?;
    let network = network_of(&req);
    start_websocket(req, body, hub.get_ref().clone(), who, network).await.map_err(refuse)
}

async fn sse(
    req: HttpRequest,
    hub: web::Data<Hub>,
    accounts: web::Data<TestAccounts>,
    query: web::Query<EventsQuery>,
) -> actix_web::Result<HttpResponse> {
    let who = bearer(&req, &accounts)?;
    let network = network_of(&req);
    start_sse(req, hub.get_ref().clone(), who, network, query.into_inner()).await.map_err(refuse)
}

fn network_of(req: &HttpRequest) -> Option<ClientNetwork> {
    req.peer_addr().map(|peer| peer.ip().into())
}

fn bearer(req: &HttpRequest, accounts: &TestAccounts) -> actix_web::Result<Option<Principal>> {
    let Some(header) = req.headers().get("authorization") else { return Ok(None) };
    let token = header.to_str().unwrap().trim_start_matches("Bearer ");
    let authenticated = accounts.authenticate(token).map_err(actix_web::error::ErrorUnauthorized)?;
    Ok(Some(Principal { authenticated, token: token.into() }))
}

fn refuse(error: LiveError) -> actix_web::Error {
    let status = match error.kind() {
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    InternalError::new(error, status).into()
}

/// Path from a sign-out to the socket: users' outbox, relay, notifications, feed, hub.
struct TestPipeline {
    users: Client<UsersActor>,
    _relay: Relay,
}

impl TestPipeline {
    fn start(server: &TestServer) -> (Self, Hub) {
        let RunningDomain { client: users, store } = users::open(&server.runtime).unwrap();
        let subscriber = Subscriber::new("notifications", notifications::SUBSCRIPTIONS, &server.client);
        let limits = LiveSettings::default();
        let hub = Hub::start(&server.feed, server.clock.clone(), users.clone(), server.client.clone(), limits);
        (Self { users, _relay: Relay::start(store, vec![subscriber]) }, hub)
    }

    async fn guest(&self) -> (String, RequestContext) {
        let guest = self.users.call(RequestContext::internal("test"), CreateGuest {}).await.unwrap();
        let token = guest.token.clone();
        let Authenticated { identity, .. } =
            self.users.call(RequestContext::internal("test"), Authenticate { token }).await.unwrap();
        (guest.token, RequestContext::new(Caller::User { identity, internal: false }, "test"))
    }
}

async fn open(change: impl FnOnce(&mut LiveSettings)) -> TestServer {
    let dir = TempDir::new().unwrap();
    let mut settings = Settings::for_test(dir.path());
    settings.notifications.keep = 1_000;
    let (clock, feed, accounts) = (Clock::system(), Feed::default(), TestAccounts::default());
    let runtime = DomainRuntime::new(settings, clock.clone());
    let RunningDomain { client, .. } = notifications::open(&runtime, feed.clone()).unwrap();
    let mut limits = LiveSettings::default();
    change(&mut limits);
    let known = accounts.clone();
    let authenticator: domain_calls::Authenticator = Arc::new(move |_, token| {
        let result = known.authenticate(&token);
        Box::pin(async move { result })
    });
    let hub = Hub::start_with(&feed, clock.clone(), authenticator, client.clone(), limits);
    let (address, server) = serve(&hub, &accounts);
    TestServer { hub, accounts, feed, clock, client, address, server, runtime, _dir: dir }
}

fn serve(hub: &Hub, accounts: &TestAccounts) -> (std::net::SocketAddr, ServerHandle) {
    let (hub, accounts) = (web::Data::new(hub.clone()), web::Data::new(accounts.clone()));
    let limits = Arc::new(ConnectionLimits::new(&Settings::for_test(std::path::Path::new("."))));
    let timeouts = ServerTimeouts {
        keep_alive: Duration::from_secs(5),
        request_head: Duration::from_secs(5),
        // Longer than any wait: what ends a connection here is not this.
        disconnect: 10 * WAIT_TIMEOUT,
        shutdown: Duration::from_secs(30),
        workers: 2,
    };
    let app = move || {
        let app = App::new().app_data(hub.clone()).app_data(accounts.clone());
        app.route("/ws", web::get().to(ws)).route("/events", web::get().to(sse))
    };
    let (address, server) =
        connection::serve(std::net::SocketAddr::from(([127, 0, 0, 1], 0)), limits, timeouts, app).unwrap();
    let handle = server.handle();
    actix::spawn(server);
    (address, handle)
}

fn envelope<E: Event>(event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: Timestamp::from_micros(0), data, trace: None }
}

/// Event that notifies one user.
fn expired(user_id: UserId) -> EventEnvelope {
    let (invoice_id, number) = (InvoiceId::new(), "INV-000001".to_owned());
    envelope(&InvoiceExpired { invoice_id, number, user_id, hold: None, checkout: None })
}

/// Event on the topic of the catalog.
fn changed(name: &str) -> EventEnvelope {
    envelope(&ProductChanged {
        product_id: ProductId::new(),
        sku: "T-1".to_owned(),
        name: name.to_owned(),
        group: None,
        price: 1,
        currency: Currency::EUR,
        stock: 1,
        rating: None,
        review_count: 0,
        deleted: false,
        updated_at: Timestamp::from_micros(0),
    })
}

impl TestServer {
    async fn deliver(&self, events: Vec<EventEnvelope>) {
        self.client.call(RequestContext::internal("test"), DeliverEvents { events }).await.unwrap();
    }

    async fn connect(&self, token: Option<&str>) -> TestClient {
        self.try_connect(token, None).await.unwrap()
    }

    async fn try_connect(&self, token: Option<&str>, origin: Option<&str>) -> Result<TestClient, StatusCode> {
        let mut request = awc::Client::new().ws(format!("http://{}/ws", self.address)).max_frame_size(1 << 20);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(origin) = origin {
            request = request.origin(origin);
        }
        match request.connect().await {
            Ok((_, socket)) => {
                let (out, incoming) = socket.split();
                Ok(TestClient { out: Box::pin(out), incoming: incoming.boxed_local(), pongs: true })
            }
            Err(awc::error::WsClientError::InvalidResponseStatus(status)) => Err(status),
            Err(other) => panic!("{other}"),
        }
    }

    /// Connects, and reads the ready frame.
    async fn ready(&self, token: Option<&str>) -> (TestClient, Value) {
        let mut client = self.connect(token).await;
        let ready = client.receive().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        (client, ready)
    }

    /// Connects and listens.
    async fn subscribe(&self, token: Option<&str>, topics: &[&str]) -> TestClient {
        let (mut client, _) = self.ready(token).await;
        client.send_json(&json!({ "type": "subscribe", "topics": topics })).await;
        assert_eq!(client.receive().await["type"], "subscribed");
        client
    }
}

struct TestClient {
    out: Pin<Box<dyn Sink<Message, Error = WsProtocolError>>>,
    incoming: LocalBoxStream<'static, Result<Frame, WsProtocolError>>,
    /// Whether it answers pings.
    pongs: bool,
}

impl TestClient {
    async fn send_json(&mut self, frame: &Value) {
        self.send(Message::Text(frame.to_string().into())).await;
    }

    async fn send(&mut self, message: Message) {
        // The server may have closed already; tests that care read the close frame.
        let _ = self.out.send(message).await;
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            match tokio::time::timeout(WAIT_TIMEOUT, self.incoming.next()).await.expect("a frame in time") {
                Some(Ok(Frame::Ping(bytes))) if self.pongs => self.send(Message::Pong(bytes)).await,
                Some(Ok(Frame::Ping(_))) => {}
                Some(Ok(frame)) => return Some(frame),
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn receive(&mut self) -> Value {
        match self.frame().await {
            Some(Frame::Text(text)) => serde_json::from_slice(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads until the close frame. Returns its code.
    async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.frame().await? {
                Frame::Close(reason) => return reason.map(|reason| reason.code.into()),
                _ => continue,
            }
        }
    }

    /// Asserts that nothing arrives before the answer to a ping.
    async fn assert_silent(&mut self) {
        self.send_json(&json!({ "type": "ping" })).await;
        assert_eq!(self.receive().await, json!({ "type": "pong" }));
    }
}

/// A WebSocket client on a plain socket, which reads only when the test does.
fn raw_client(server: &TestServer, receive_buffer: Option<usize>) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect(&server.address.into()).unwrap();
    let mut stream: std::net::TcpStream = socket.into();
    let hello = "GET /ws HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(hello.as_bytes()).unwrap();
    stream
}

/// A short frame under a mask of zeros.
fn masked(operation: u8, text: &str) -> Vec<u8> {
    [&[0x80 | operation, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0], text.as_bytes()].concat()
}

async fn wait_until(condition_name: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "not in time: {condition_name}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix::test]
async fn ready_frame_names_user_and_stream_position() {
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    server.deliver(vec![expired(ada), expired(ada)]).await;
    let (_, anonymous) = server.ready(None).await;
    assert_eq!((&anonymous["user_id"], &anonymous["seq"]), (&Value::Null, &json!(0)));
    let (_, by_header) = server.ready(Some("ada")).await;
    assert_eq!((&by_header["user_id"], &by_header["seq"]), (&json!(ada), &json!(2)));
    // A token in the first frame is handled before the ready frame.
    let mut by_frame = server.connect(None).await;
    by_frame.send_json(&json!({ "type": "auth", "token": "ada" })).await;
    assert_eq!(by_frame.receive().await, by_header);
    let mut wrong = server.connect(None).await;
    wrong.send_json(&json!({ "type": "auth", "token": "guess" })).await;
    assert_eq!(wrong.receive().await["code"], "invalid_token");
    assert_eq!(wrong.receive().await["user_id"], Value::Null);
    server.accounts.add("bob", Role::Customer, None);
    by_frame.send_json(&json!({ "type": "auth", "token": "bob" })).await;
    assert_eq!(by_frame.receive().await["code"], "already_signed_in");
}

#[actix::test]
async fn repeated_auth_skips_no_notification() {
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    let mut client = server.subscribe(Some("ada"), &["user"]).await;
    for seq in 1..=8 {
        let auth = json!({ "type": "auth", "token": "ada" });
        futures_util::future::join(client.send_json(&auth), server.deliver(vec![expired(ada)])).await;
        let (mut is_ready, mut is_notified) = (false, false);
        while !(is_ready && is_notified) {
            let frame = client.receive().await;
            match frame["type"].as_str() {
                Some("ready") => is_ready = true,
                Some("notification") => {
                    assert_eq!(frame["seq"], seq);
                    is_notified = true;
                }
                _ => panic!("{frame}"),
            }
        }
    }
}

#[actix::test]
async fn pushes_reach_only_their_subscribers() {
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    server.accounts.add("bob", Role::Customer, None);
    let mut own = server.subscribe(Some("ada"), &["user", "catalog"]).await;
    let mut other = server.subscribe(Some("bob"), &["user"]).await;
    let mut anonymous = server.subscribe(None, &["catalog"]).await;
    server.deliver(vec![expired(ada), changed("Teapot")]).await;
    let notification = own.receive().await;
    assert_eq!(
        (&notification["type"], &notification["seq"], &notification["topic"]),
        (&json!("notification"), &json!(1), &json!("user"))
    );
    assert_eq!((&notification["kind"], notification["title"].is_string()), (&json!("invoice_expired"), true));
    for client in [&mut own, &mut anonymous] {
        let event = client.receive().await;
        assert_eq!((&event["type"], &event["topic"]), (&json!("event"), &json!("catalog")));
        assert_eq!((&event["kind"], &event["data"]["name"]), (&json!("product_changed"), &json!("Teapot")));
    }
    other.assert_silent().await;
    anonymous.send_json(&json!({ "type": "unsubscribe", "topics": ["catalog"] })).await;
    anonymous.assert_silent().await;
    server.deliver(vec![changed("Kettle")]).await;
    anonymous.assert_silent().await;
}

#[actix::test]
async fn n03_reconnects_replay_every_notification_once() {
    const ALL: i64 = 900;
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    let client = server.client.clone();
    let publisher = actix::spawn(async move {
        for _ in 0..ALL / 3 {
            let events = vec![expired(ada), expired(ada), expired(ada)];
            client.call(RequestContext::internal("test"), DeliverEvents { events }).await.unwrap();
        }
    });
    let (mut seen, mut rounds) = (Vec::new(), 0);
    let epoch = server.ready(Some("ada")).await.1["epoch"].clone();
    while seen.len() < usize::try_from(ALL).unwrap() {
        let (mut client, _) = server.ready(Some("ada")).await;
        let after = seen.last().copied().unwrap_or(0);
        client.send_json(&json!({ "type": "subscribe", "topics": ["user"], "epoch": epoch, "after": after })).await;
        let answer = client.receive().await;
        assert_eq!((&answer["type"], &answer["recovered"]), (&json!("subscribed"), &json!(true)));
        rounds += 1;
        // Disconnects in the middle of the replay, except for the last time.
        let most = if rounds < 12 { 40 } else { usize::MAX };
        for _ in 0..most {
            if seen.len() == usize::try_from(ALL).unwrap() {
                break;
            }
            seen.push(client.receive().await["seq"].as_i64().unwrap());
        }
    }
    assert_eq!(seen, (1..=ALL).collect::<Vec<_>>());
    publisher.await.unwrap();
}

#[actix::test]
async fn missed_and_lost_pushes_are_read_back() {
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    let (mut client, _) = server.ready(Some("ada")).await;
    server.deliver(vec![expired(ada)]).await;
    client.send_json(&json!({ "type": "subscribe", "topics": ["user"] })).await;
    assert_eq!(client.receive().await["type"], "subscribed");
    assert_eq!(client.receive().await["seq"], 1);
    // More than the feed holds, sent from the hub's own thread: the hub lags, and the client must not notice.
    for _ in 0..5_000 {
        server.feed.send(Push::Event { topic: "catalog".to_owned(), kind: "x".to_owned(), data: Value::Null });
    }
    server.deliver(vec![expired(ada), expired(ada)]).await;
    assert_eq!((client.receive().await["seq"].as_i64(), client.receive().await["seq"].as_i64()), (Some(2), Some(3)));
    client.assert_silent().await;
}

#[actix::test]
async fn n04_unknown_position_gets_a_snapshot_not_a_part() {
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    for _ in 0..11 {
        server.deliver((0..100).map(|_| expired(ada)).collect()).await;
    }
    let (mut client, ready) = server.ready(Some("ada")).await;
    for (epoch, after) in [(json!("another"), 1_050), (ready["epoch"].clone(), 50), (ready["epoch"].clone(), 1_101)] {
        client.send_json(&json!({ "type": "subscribe", "topics": ["user"], "epoch": epoch, "after": after })).await;
        let answer = client.receive().await;
        assert_eq!((&answer["recovered"], &answer["seq"]), (&json!(false), &json!(1_100)), "{answer}");
        assert_eq!((&answer["snapshot"], &answer["epoch"]), (&json!("/api/v1/notifications/"), &ready["epoch"]));
    }
    server.deliver(vec![expired(ada)]).await;
    assert_eq!(client.receive().await["seq"], 1_101, "live from there on");
    // The longest that is kept comes whole, over several pages.
    client.send_json(&json!({ "type": "subscribe", "topics": ["user"], "epoch": ready["epoch"], "after": 101 })).await;
    assert_eq!(client.receive().await["recovered"], true);
    for seq in 102..=1_101 {
        assert_eq!(client.receive().await["seq"], seq);
    }
    client.assert_silent().await;
}

#[actix::test]
async fn n05_all_subscribers_see_one_order() {
    let server = open(|_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(server.subscribe(None, &["catalog"]).await);
    }
    let relays =
        (0..4).map(|relay| server.deliver((0..50).map(|n| changed(&format!("{relay}/{n}"))).collect::<Vec<_>>()));
    futures_util::future::join_all(relays).await;
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut order = Vec::new();
        for _ in 0..200 {
            order.push(client.receive().await["data"]["name"].clone());
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
}

#[actix::test]
async fn n07_topics_require_their_rights() {
    let server = open(|_| {}).await;
    server.accounts.add("ada", Role::Customer, None);
    server.accounts.add("root", Role::Admin, None);
    let ask = json!({ "type": "subscribe", "topics": ["stats", "orders", "emails", "user", "nonsense", "product:1"] });
    for (token, code, refused) in [(None, "unauthenticated", 6), (Some("ada"), "forbidden", 5), (Some("root"), "", 2)] {
        let (mut client, _) = server.ready(token).await;
        client.send_json(&ask).await;
        for n in 0..refused {
            let error = client.receive().await;
            assert_eq!(error["type"], "error", "{token:?} {error}");
            let unknown = n >= refused - 2;
            assert_eq!(error["code"], if unknown { "unknown_topic" } else { code }, "{token:?} {error}");
        }
        let received = match token {
            None => None,
            Some("ada") => Some(json!(["user"])),
            Some(_) => Some(json!(["stats", "orders", "emails", "user"])),
        };
        if let Some(topics) = received {
            let answer = client.receive().await;
            assert_eq!((&answer["type"], &answer["topics"]), (&json!("subscribed"), &topics));
        }
        client.assert_silent().await;
    }
    let many: Vec<String> = (0..201).map(|_| format!("product:{}", ProductId::new())).collect();
    let (mut greedy, _) = server.ready(None).await;
    greedy.send_json(&json!({ "type": "subscribe", "topics": many })).await;
    assert_eq!(greedy.receive().await["code"], "too_many_topics");
    greedy.send_json(&json!({ "type": "subscribe", "topics": many[..200] })).await;
    assert_eq!(greedy.receive().await["type"], "subscribed");
    greedy.send_json(&json!({ "type": "subscribe", "topics": ["catalog"] })).await;
    assert_eq!(greedy.receive().await["code"], "too_many_topics");
}

#[actix::test]
async fn n07_revoked_rights_close_or_narrow_the_session() {
    let server = open(|_| {}).await;
    let root = server.accounts.add("root", Role::Admin, None);
    let mut narrowed = server.subscribe(Some("root"), &["stats", "catalog"]).await;
    let mut closed = server.subscribe(Some("root"), &["user"]).await;
    let change = AccessChanged { user_id: root.user_id, session_id: None };
    server.accounts.put("root", Identity { role: Role::Customer, ..root }, None);
    server.deliver(vec![envelope(&change)]).await;
    let error = narrowed.receive().await;
    assert_eq!((&error["code"], &error["topic"]), (&json!("forbidden"), &json!("stats")));
    closed.assert_silent().await;
    // The end of another session of the user changes nothing.
    server.deliver(vec![envelope(&AccessChanged { session_id: Some(SessionId::new()), ..change.clone() })]).await;
    closed.assert_silent().await;
    server.accounts.0.lock().clear();
    server.deliver(vec![envelope(&change)]).await;
    assert_eq!((narrowed.close_code().await, closed.close_code().await), (Some(1008), Some(1008)));
    wait_until("the sessions are gone", || server.hub.session_count() == 0).await;
}

#[actix::test]
async fn n07_sign_out_and_deletion_close_the_session() {
    let mut server = open(|_| {}).await;
    let (pipeline, hub) = TestPipeline::start(&server);
    (server.address, server.server) = serve(&hub, &server.accounts);
    for erase in [false, true] {
        let ((token, ctx), (other, _)) = (pipeline.guest().await, pipeline.guest().await);
        let [mut client, mut bystander] = [server.connect(None).await, server.connect(None).await];
        for (client, token) in [(&mut client, token), (&mut bystander, other)] {
            client.send_json(&json!({ "type": "auth", "token": token })).await;
            assert_eq!(client.receive().await["type"], "ready");
        }
        if erase {
            let user_id = ctx.identity().unwrap().user_id;
            pipeline.users.call(ctx, DeleteUser { user_id }).await.unwrap();
        } else {
            pipeline.users.call(ctx, SignOut {}).await.unwrap();
        }
        assert_eq!(client.close_code().await, Some(1008));
        bystander.assert_silent().await;
    }
}

#[actix::test]
async fn n07_expired_token_closes_the_session() {
    let server = open(|_| {}).await;
    let end = server.clock.now().saturating_add(Duration::from_secs(3_600));
    server.accounts.add("ada", Role::Customer, Some(end));
    let mut client = server.subscribe(Some("ada"), &["user"]).await;
    server.clock.advance(Duration::from_secs(3_590));
    client.assert_silent().await;
    server.clock.advance(Duration::from_secs(11));
    assert_eq!(client.close_code().await, Some(1008));
}

#[actix::test]
async fn n11_invalid_frames_get_errors_and_keep_the_session() {
    let server = open(|_| {}).await;
    let (mut client, _) = server.ready(None).await;
    let nonsense = [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"type":"dance"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","topics":"user"}"#,
        r#"{"type":"auth","token":7}"#,
        r#"{"type":"ack","seq":5}"#,
    ];
    for text in nonsense {
        client.send(Message::Text(text.into())).await;
        let error = client.receive().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_frame")), "{text}");
    }
    client.send(Message::Binary(web::Bytes::from_static(b"{\"type\":\"ping\"}"))).await;
    assert_eq!(client.receive().await["code"], "bad_frame");
    client.assert_silent().await;
    // A fragmented message is one message.
    use actix_http::ws::Item::{Continue, FirstText, Last};
    for part in [FirstText("{\"type\"".into()), Continue(":\"pi".into()), Last("ng\"}".into())] {
        client.send(Message::Continuation(part)).await;
    }
    assert_eq!(client.receive().await["type"], "pong");
}

#[actix::test]
async fn n11_oversized_frame_closes_1009_and_malformed_1002() {
    let server = open(|_| {}).await;
    let (mut fits, _) = server.ready(None).await;
    fits.send(Message::Text("x".repeat(64 * 1024).into())).await;
    assert_eq!(fits.receive().await["code"], "bad_frame");
    fits.assert_silent().await;
    let (mut too_large, _) = server.ready(None).await;
    too_large.send(Message::Text("x".repeat(64 * 1024 + 1).into())).await;
    assert_eq!(too_large.close_code().await, Some(1009));
    use actix_http::ws::Item::{Continue, FirstText};
    let (mut in_parts, _) = server.ready(None).await;
    in_parts.send(Message::Continuation(FirstText("x".repeat(40_000).into()))).await;
    in_parts.send(Message::Continuation(Continue("x".repeat(40_000).into()))).await;
    assert_eq!(in_parts.close_code().await, Some(1009));
    // The head alone suffices: the body is neither awaited nor stored.
    let endless = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].to_vec();
    // Text that is not UTF-8 (RFC 6455 §8.1), whole and in two parts.
    let not_utf8 = vec![0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe];
    let not_utf8_in_parts = vec![0x01, 0x81, 0, 0, 0, 0, 0xc3, 0x80, 0x81, 0, 0, 0, 0, 0x28];
    for (bytes, code) in [
        (endless, 1009_u16),
        (vec![0x81, 0x01, b'x'], 1002),
        (vec![0xf1, 0x81, 0, 0, 0, 0, b'x'], 1002),
        (not_utf8, 1007),
        (not_utf8_in_parts, 1007),
        (vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], 1000),
    ] {
        let mut stream = raw_client(&server, None);
        stream.write_all(&bytes).unwrap();
        let received = actix_web::rt::task::spawn_blocking(move || {
            let mut received = Vec::new();
            // The server closes: a client waits for that (RFC 6455 §7.1.1).
            stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
            stream.read_to_end(&mut received).unwrap();
            received
        });
        let received = received.await.unwrap();
        assert!(received.windows(2).any(|two| two == code.to_be_bytes()), "{code}: {received:?}");
    }
    wait_until("they are gone", || server.hub.session_count() == 1).await;
}

/// A frame under a mask of zeros, with any first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ ..126 => vec![0x80 | u8::try_from(short).unwrap()],
        long => [&[0x80 | 126][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[first][..], &length, &[0; 4], payload].concat()
}

/// The server's frames in `bytes`: first byte and payload.
fn server_frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match (length, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (length, rest) => (usize::from(*length), rest),
        };
        frames.push((*first, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    frames
}

/// Sends frames and returns the server's, with the ready frame left out, until it has closed the connection.
async fn exchange(server: &TestServer, sent: Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut stream = raw_client(server, None);
    let received = actix_web::rt::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(&sent);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let received = received.await.unwrap();
    let head = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let frames = server_frames(&received[head..]).into_iter();
    frames.filter(|(_, payload)| !payload.starts_with(br#"{"type":"ready""#)).collect()
}

/// The cases of the Autobahn test suite that apply to a server which answers in frames of its own, by their chapters.
#[actix::test]
async fn n11_frames_are_handled_as_rfc_6455_says() {
    const TEXT: u8 = 0x81;
    const PING: u8 = 0x89;
    const CLOSE: u8 = 0x88;
    let server = open(|_| {}).await;
    let bye = frame(CLOSE, &1000_u16.to_be_bytes());
    let closed =
        |code: u16| move |(first, payload): &(u8, Vec<u8>)| *first == CLOSE && payload.starts_with(&code.to_be_bytes());
    let ends = |name: String, sent: Vec<u8>, code: u16| {
        let server = &server;
        async move {
            let frames = exchange(server, sent).await;
            let last = frames.last().unwrap_or_else(|| panic!("{name}: no close frame"));
            assert!(closed(code)(last), "{name}: {frames:?}");
            assert_eq!(frames.iter().filter(|(first, _)| *first == CLOSE).count(), 1, "{name}: {frames:?}");
            frames
        }
    };
    // 2: pings and pongs.
    for payload in [&b""[..], b"Hello, world!", &[0x00, 0xff, 0xfe], &[0xfe; 125]] {
        let frames = ends("2 ping".into(), [frame(PING, payload), bye.clone()].concat(), 1000).await;
        assert_eq!(frames[0], (0x8a, payload.to_vec()));
    }
    ends("2.5 ping of 126 bytes".into(), frame(PING, &[0xfe; 126]), 1002).await;
    let unasked = ends("2.7 unasked pong".into(), [frame(0x8a, b"x"), bye.clone()].concat(), 1000).await;
    assert_eq!(unasked.len(), 1);
    // 3 and 4: reserved bits and operations.
    for bits in 1..8_u8 {
        ends(format!("3 bits {bits}"), frame(TEXT | bits << 4, b"{}"), 1002).await;
        ends(format!("3 bits {bits} in a ping"), frame(PING | bits << 4, b""), 1002).await;
    }
    for operation in (3..8_u8).chain(11..16) {
        ends(format!("4 operation {operation}"), frame(0x80 | operation, b""), 1002).await;
    }
    // 5: fragments.
    let ping_frame = br#"{"type":"ping"}"#;
    let (begin, end) = (frame(0x01, &ping_frame[..7]), frame(0x80, &ping_frame[7..]));
    let whole = [begin.clone(), frame(PING, b"between"), end.clone(), bye.clone()].concat();
    let frames = ends("5.6 ping between fragments".into(), whole, 1000).await;
    assert_eq!(frames[0], (0x8a, b"between".to_vec()));
    assert_eq!(frames[1].1, br#"{"type":"pong"}"#);
    ends("5.1 ping in fragments".into(), frame(0x09, b"x"), 1002).await;
    ends("5.9 continuation of nothing".into(), frame(0x80, b"x"), 1002).await;
    ends("5.13 continuation of nothing, to be continued".into(), frame(0x00, b"x"), 1002).await;
    ends("5.15 end, and a continuation".into(), [begin.clone(), end.clone(), frame(0x00, b"x")].concat(), 1002).await;
    ends("5.18 text within fragments".into(), [begin.clone(), frame(TEXT, b"{}")].concat(), 1002).await;
    // 6: texts that are UTF-8 and such that are not.
    for valid in ["", "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!", "\u{10ffff}", "\u{fffe}"] {
        let frames = ends("6 valid text".into(), [frame(TEXT, valid.as_bytes()), bye.clone()].concat(), 1000).await;
        assert!(String::from_utf8_lossy(&frames[0].1).contains("bad_frame"), "{valid:?}: {frames:?}");
    }
    let parts = [frame(0x01, &[0xce]), frame(0x80, &[0xba]), bye.clone()].concat();
    ends("6.2 letter in two parts".into(), parts, 1000).await;
    for invalid in [&[0xce_u8][..], &[0x80], &[0xc0, 0xaf], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80], &[0xff]] {
        ends(format!("6 invalid {invalid:x?}"), frame(TEXT, invalid), 1007).await;
    }
    // 7: the closing handshake.
    let frames = exchange(&server, [bye.clone(), frame(PING, b"late"), frame(TEXT, ping_frame)].concat()).await;
    assert_eq!(frames.len(), 1, "7.1 frames after the end: {frames:?}");
    assert_eq!(exchange(&server, frame(CLOSE, b"")).await, [(CLOSE, Vec::new())], "7.3.1 without a code");
    ends("7.3.2 one byte".into(), frame(CLOSE, &[3]), 1002).await;
    let reason = |code: u16, text: &[u8]| frame(CLOSE, &[&code.to_be_bytes()[..], text].concat());
    ends("7.3.5 longest reason".into(), reason(1000, &[b'*'; 123]), 1000).await;
    ends("7.3.6 reason too long".into(), reason(1000, &[b'*'; 124]), 1002).await;
    // 1007 would say more; the library does not tell this from an invalid code.
    ends("7.5.1 reason not UTF-8".into(), reason(1000, &[0xce, 0xba, 0xed, 0xa0, 0x80]), 1002).await;
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        ends(format!("7.7 code {code}"), reason(code, b""), code).await;
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        ends(format!("7.9 code {code}"), reason(code, b""), 1002).await;
    }
}

#[actix::test]
async fn frame_flood_closes_1008() {
    let server = open(|_| {}).await;
    let (mut lively, _) = server.ready(None).await;
    for _ in 0..150 {
        lively.assert_silent().await;
    }
    let (mut flood, _) = server.ready(None).await;
    for _ in 0..1_000 {
        flood.send_json(&json!({ "type": "ping" })).await;
    }
    assert_eq!(flood.close_code().await, Some(1008));
}

#[actix::test]
async fn acknowledgements_are_no_flood() {
    const ALL: i64 = 900;
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    server.deliver((0..ALL).map(|_| expired(ada)).collect()).await;
    let (mut client, ready) = server.ready(Some("ada")).await;
    let resume = json!({ "type": "subscribe", "topics": ["user"], "epoch": ready["epoch"], "after": 0 });
    client.send_json(&resume).await;
    assert_eq!(client.receive().await["recovered"], true);
    for seq in 1..=ALL {
        assert_eq!(client.receive().await["seq"], seq);
    }
    for seq in 1..=ALL {
        client.send_json(&json!({ "type": "ack", "seq": seq })).await;
    }
    client.assert_silent().await;
    // The same one again and again acknowledges nothing.
    for _ in 0..1_000 {
        client.send_json(&json!({ "type": "ack", "seq": 1 })).await;
    }
    assert_eq!(client.close_code().await, Some(1008));
}

#[actix::test]
async fn s01_replays_of_one_session_are_limited() {
    let server = open(|_| {}).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    server.deliver((0..50).map(|_| expired(ada)).collect()).await;
    let (mut client, ready) = server.ready(Some("ada")).await;
    let resume = json!({ "type": "subscribe", "topics": ["user"], "epoch": ready["epoch"], "after": 0 });
    for _ in 0..60 {
        client.send_json(&resume).await;
    }
    client.send_json(&json!({ "type": "ping" })).await;
    let (mut replayed, mut refused) = (0, 0);
    loop {
        let frame = client.receive().await;
        match frame["type"].as_str().unwrap() {
            "notification" => replayed += 1,
            "error" if frame["code"] == "too_many_resumes" => refused += 1,
            "pong" => break,
            other => assert_eq!(other, "subscribed"),
        }
    }
    assert_eq!((replayed, refused), (5 * 50, 55));
    // What is new still arrives.
    server.deliver(vec![expired(ada)]).await;
    assert_eq!(client.receive().await["seq"], 51);
}

#[actix::test]
async fn marking_read_reaches_the_other_sessions() {
    let server = open(|_| {}).await;
    let identity = server.accounts.add("ada", Role::Customer, None);
    server.accounts.add("bob", Role::Customer, None);
    server.deliver(vec![expired(identity.user_id)]).await;
    let mut other = server.subscribe(Some("ada"), &["user"]).await;
    let mut stranger = server.subscribe(Some("bob"), &["user"]).await;
    let ctx = || RequestContext::new(Caller::User { identity, internal: false }, "test");
    let listed = server.client.call(ctx(), ListNotifications::default()).await.unwrap();
    let id = listed.items[0].id;
    server.client.call(ctx(), MarkRead { notification_id: id }).await.unwrap();
    let expected = json!({ "type": "event", "topic": "user", "kind": "notification_read", "data": { "id": id } });
    assert_eq!(other.receive().await, expected);
    stranger.assert_silent().await;
}

#[actix::test]
async fn n06_stalled_client_is_dropped_without_loss_for_others() {
    let server = open(|limits| limits.stall_max = Duration::from_millis(500)).await;
    let mut reader = server.subscribe(None, &["catalog"]).await;
    let mut stalled = raw_client(&server, Some(4_096));
    stalled.write_all(&masked(1, r#"{"type":"subscribe","topics":["catalog"]}"#)).unwrap();
    wait_until("both are there", || server.hub.session_count() == 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (large, limit) = ("x".repeat(16_000), server.hub.settings().queued_bytes_max);
    let mut rounds = 0;
    let mut gone_after = None;
    while rounds < 200 || gone_after.is_none() {
        server.deliver((0..8).map(|_| changed(&large)).collect()).await;
        for _ in 0..8 {
            assert_eq!(reader.receive().await["kind"], "product_changed");
        }
        assert!(server.hub.max_queued_bytes() <= limit + 20_000, "{}", server.hub.max_queued_bytes());
        rounds += 1;
        assert!(rounds < 2_000, "the stalled reader is still there");
        if gone_after.is_none() && server.hub.session_count() == 1 {
            gone_after = Some(rounds);
        }
    }
    reader.assert_silent().await;
}

#[actix::test]
async fn slow_client_that_resumes_reading_gets_1013() {
    let server = open(|limits| limits.queued_bytes_max = 40_000).await;
    let mut slow = raw_client(&server, Some(4_096));
    slow.write_all(&masked(1, r#"{"type":"subscribe","topics":["catalog"]}"#)).unwrap();
    wait_until("it is there", || server.hub.session_count() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let large = "x".repeat(30_000);
    for _ in 0..500 {
        server.deliver(vec![changed(&large)]).await;
    }
    let received = actix_web::rt::task::spawn_blocking(move || {
        let mut received = Vec::new();
        let _ = slow.read_to_end(&mut received);
        received
    });
    let received = received.await.unwrap();
    let close = [0x88, u8::try_from(2 + close_cause::CloseCause::SlowConsumer.message().len()).unwrap(), 0x03, 0xf5];
    assert!(received.windows(4).any(|four| four == close), "no close frame 1013 in {} bytes", received.len());
    wait_until("it is gone", || server.hub.session_count() == 0).await;
}

#[actix::test]
async fn n08_client_without_pongs_is_closed() {
    let server = open(|limits| {
        limits.ping_interval = Duration::from_millis(300);
        limits.pong_timeout = Duration::from_secs(3);
    })
    .await;
    let mut healthy = server.subscribe(None, &["catalog"]).await;
    let mut silent = server.subscribe(None, &["catalog"]).await;
    silent.pongs = false;
    let is_closed = std::cell::Cell::new(false);
    let closing = async {
        let code = silent.close_code().await;
        is_closed.set(true);
        code
    };
    // Answers pings until the silent one is closed, and a few more.
    let answering = async {
        let mut after = 0;
        while after < 3 {
            let frame = tokio::time::timeout(WAIT_TIMEOUT, healthy.incoming.next()).await;
            let Ok(Some(Ok(Frame::Ping(bytes)))) = frame else { panic!("{frame:?}") };
            healthy.send(Message::Pong(bytes)).await;
            after += usize::from(is_closed.get());
        }
    };
    let (silent, ()) = futures_util::future::join(closing, answering).await;
    assert_eq!(silent, Some(1008));
    healthy.assert_silent().await;
    assert_eq!(server.hub.session_count(), 1);
}

#[actix::test]
async fn n11_foreign_origin_and_excess_session_are_rejected() {
    let server = open(|limits| {
        limits.sockets_max = 2;
        let mut settings = Settings::for_test(std::path::Path::new("/unused"));
        settings.public_url = Some("https://shop.example".to_owned());
        limits.origins = AllowedOrigins::of(&settings);
    })
    .await;
    for token in [None, Some("ada")] {
        server.accounts.add("ada", Role::Customer, None);
        assert_eq!(server.try_connect(token, Some("https://evil.example")).await.err(), Some(StatusCode::FORBIDDEN));
    }
    let own = server.try_connect(None, Some("https://shop.example")).await.unwrap();
    let same = server.try_connect(None, Some(&format!("http://{}", server.address))).await.unwrap();
    assert_eq!(server.try_connect(None, None).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    drop(own);
    wait_until("its place is free", || server.hub.session_count() == 1).await;
    assert!(server.try_connect(None, None).await.is_ok());
    drop(same);
}

#[actix::test]
async fn s01_sessions_of_one_network_are_limited() {
    let server = open(|limits| limits.sockets_per_network = Some(2)).await;
    let (first, second) =
        (server.try_connect(None, None).await.unwrap(), server.try_connect(None, None).await.unwrap());
    assert_eq!(server.try_connect(None, None).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    drop(first);
    wait_until("its place is free", || server.hub.session_count() == 1).await;
    assert!(server.try_connect(None, None).await.is_ok());
    drop(second);
}

#[actix::test]
async fn n11_failed_handshake_frees_its_permit() {
    let server = open(|limits| limits.sockets_max = 1).await;
    for _ in 0..3 {
        let plain = awc::Client::new().get(format!("http://{}/ws", server.address)).send().await.unwrap();
        assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
    }
    assert!(server.try_connect(None, None).await.is_ok());
}

#[actix::test]
async fn shutdown_closes_1001_and_rejects_new_sessions() {
    let server = open(|_| {}).await;
    let mut client = server.subscribe(None, &["catalog"]).await;
    let (closed, ()) =
        futures_util::future::join(client.close_code(), server.hub.close_all(Duration::from_secs(5))).await;
    assert_eq!((closed, server.hub.session_count()), (Some(1001), 0));
    assert_eq!(server.try_connect(None, None).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
}

#[actix::test]
async fn n12_server_sent_events_carry_the_same_stream() {
    // The end of a client is noticed by a failed ping.
    let server = open(|limits| limits.ping_interval = Duration::from_millis(200)).await;
    let ada = server.accounts.add("ada", Role::Customer, None).user_id;
    server.deliver(vec![expired(ada), expired(ada)]).await;
    let mut last = String::new();
    for round in 0..2 {
        let mut request = awc::Client::builder()
            .timeout(WAIT_TIMEOUT)
            .finish()
            .get(format!("http://{}/events?topics=user,catalog,stats", server.address))
            .insert_header(("authorization", "Bearer ada"));
        if round == 1 {
            request = request.insert_header(("last-event-id", last.as_str()));
            server.deliver(vec![expired(ada)]).await;
        }
        let mut answer = request.send().await.unwrap();
        assert_eq!(answer.headers().get("content-type").unwrap(), "text/event-stream");
        let (mut text, mut seen) = (String::new(), false);
        let wanted = if round == 0 { 3 } else { 5 };
        while !text.contains(&format!("\"seq\":{wanted},\"topic\"")) {
            let piece = tokio::time::timeout(WAIT_TIMEOUT, answer.next()).await.expect("in time").unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
            if !seen && text.contains("\"subscribed\"") {
                seen = true;
                server.deliver(vec![changed("Teapot"), expired(ada)]).await;
            }
        }
        let ready = text.split("\n\n").find(|event| event.contains("\"ready\"")).unwrap();
        assert!(
            !ready.contains("id: "),
            "a client that is cut off after it would resume behind what it missed: {ready}"
        );
        let (frames, ids) = read_events(&text);
        let types: Vec<&str> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
        let seqs: Vec<i64> =
            frames.iter().filter(|f| f["type"] == "notification").map(|f| f["seq"].as_i64().unwrap()).collect();
        assert_eq!(types[..3], ["ready", "error", "subscribed"], "stats is not for a customer");
        assert_eq!((frames[2]["recovered"].as_bool(), seqs), (Some(round == 1), [vec![3], vec![4, 5]][round].clone()));
        assert!(types.contains(&"event"));
        last = ids.last().unwrap().clone();
    }
    wait_until("they are gone", || server.hub.session_count() == 0).await;
}

fn read_events(text: &str) -> (Vec<Value>, Vec<String>) {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|d| serde_json::from_str(d).unwrap());
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
    (data.collect(), ids.collect())
}
