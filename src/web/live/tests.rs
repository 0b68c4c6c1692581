//! The live promises, over real sockets: a server on a free port, the real notifications domain behind it, and
//! listeners that come from outside. Only who people are is made up, so that it can change under a listener.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use awc::error::WsProtocolError;
use awc::ws::{Frame, Message};
use futures_util::stream::LocalBoxStream;
use futures_util::{Sink, SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::contract::catalog::ProductChanged;
use crate::contract::payments::InvoiceExpired;
use crate::contract::users::{
    AccessChanged, Authenticate, Authenticated, CreateGuest, DeleteUser, SignOut, UsersError,
};
use crate::domains::notifications::{self, Feed, NotificationsActor, Push};
use crate::domains::users::{self, UsersActor};
use crate::events::{Relay, Subscriber};
use crate::messaging::{
    Caller, Client, Credential, DeliverEvents, Event, EventEnvelope, Identity, RequestContext, Role,
};
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::Settings;
use crate::types::{Clock, Currency, EventId, InvoiceId, ProductId, SessionId, Timestamp, UserId};

/// Longer than anything here takes, shorter than a person's patience with a hung test.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct People(Arc<Mutex<HashMap<String, Authenticated>>>);

impl People {
    fn whose(&self, token: &str) -> Result<Authenticated, UsersError> {
        self.0.lock().unwrap().get(token).copied().ok_or(UsersError::InvalidToken)
    }

    fn add(&self, token: &str, role: Role, expires_at: Option<Timestamp>) -> Identity {
        let identity = Identity { user_id: UserId::new(), role, credential: Credential::Session(SessionId::new()) };
        self.put(token, identity, expires_at);
        identity
    }

    fn put(&self, token: &str, identity: Identity, expires_at: Option<Timestamp>) {
        self.0.lock().unwrap().insert(token.to_owned(), Authenticated { identity, expires_at });
    }
}

struct Shop {
    hub: Hub,
    people: People,
    feed: Feed,
    clock: Clock,
    client: Client<NotificationsActor>,
    address: std::net::SocketAddr,
    server: ServerHandle,
    ground: DomainRuntime,
    _dir: TempDir,
}

impl Drop for Shop {
    fn drop(&mut self) {
        // Not waited for: the system ends with the test.
        drop(self.server.stop(false));
    }
}

async fn ws(
    req: HttpRequest,
    body: web::Payload,
    hub: web::Data<Hub>,
    people: web::Data<People>,
) -> actix_web::Result<HttpResponse> {
    let who = bearer(&req, &people)?;
    start_websocket(req, body, hub.get_ref().clone(), who).await.map_err(refuse)
}

async fn sse(
    req: HttpRequest,
    hub: web::Data<Hub>,
    people: web::Data<People>,
    query: web::Query<EventsQuery>,
) -> actix_web::Result<HttpResponse> {
    let who = bearer(&req, &people)?;
    start_sse(req, hub.get_ref().clone(), who, query.into_inner()).await.map_err(refuse)
}

fn bearer(req: &HttpRequest, people: &People) -> actix_web::Result<Option<Principal>> {
    let Some(header) = req.headers().get("authorization") else { return Ok(None) };
    let token = header.to_str().unwrap().trim_start_matches("Bearer ");
    let authenticated = people.whose(token).map_err(actix_web::error::ErrorUnauthorized)?;
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

/// The way from a sign-out to the socket: users' outbox, the relay, notifications, the feed, the hub.
struct Chain {
    users: Client<UsersActor>,
    _relay: Relay,
}

impl Chain {
    fn forge(shop: &Shop) -> (Self, Hub) {
        let RunningDomain { client: users, store } = users::open(&shop.ground).unwrap();
        let subscriber = Subscriber::new("notifications", notifications::SUBSCRIPTIONS, &shop.client);
        let limits = LiveSettings::default();
        let hub = Hub::start(&shop.feed, shop.clock.clone(), users.clone(), shop.client.clone(), limits);
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

async fn open(change: impl FnOnce(&mut LiveSettings)) -> Shop {
    let dir = TempDir::new().unwrap();
    let mut settings = Settings::for_test(dir.path());
    settings.notifications.keep = 1_000;
    let (clock, feed, people) = (Clock::system(), Feed::default(), People::default());
    let ground = DomainRuntime::new(settings, clock.clone());
    let RunningDomain { client, .. } = notifications::open(&ground, feed.clone()).unwrap();
    let mut limits = LiveSettings::default();
    change(&mut limits);
    let asked = people.clone();
    let whose: hub::Authenticator = Arc::new(move |_, Authenticate { token }| {
        let answer = asked.whose(&token);
        Box::pin(async move { answer })
    });
    let hub = Hub::start_with(&feed, clock.clone(), whose, client.clone(), limits);
    let (address, server) = serve(&hub, &people);
    Shop { hub, people, feed, clock, client, address, server, ground, _dir: dir }
}

fn serve(hub: &Hub, people: &People) -> (std::net::SocketAddr, ServerHandle) {
    let (shared, known) = (web::Data::new(hub.clone()), web::Data::new(people.clone()));
    let server = HttpServer::new(move || {
        let app = App::new().app_data(shared.clone()).app_data(known.clone());
        app.route("/ws", web::get().to(ws)).route("/events", web::get().to(sse))
    })
    .on_connect(on_connect)
    .workers(2)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix::spawn(server);
    (address, handle)
}

fn delivery<E: Event>(event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: Timestamp::from_micros(0), data, trace: None }
}

/// Something that is told to one user.
fn expired(user_id: UserId) -> EventEnvelope {
    let (invoice_id, number) = (InvoiceId::new(), "INV-000001".to_owned());
    delivery(&InvoiceExpired { invoice_id, number, user_id, hold: None, checkout: None })
}

/// Something that is told to all who watch the catalog.
fn changed(name: &str) -> EventEnvelope {
    delivery(&ProductChanged {
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

impl Shop {
    async fn tell(&self, events: Vec<EventEnvelope>) {
        self.client.call(RequestContext::internal("test"), DeliverEvents { events }).await.unwrap();
    }

    async fn connect(&self, token: Option<&str>) -> Listener {
        self.try_connect(token, None).await.unwrap()
    }

    async fn try_connect(&self, token: Option<&str>, origin: Option<&str>) -> Result<Listener, StatusCode> {
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
                Ok(Listener { out: Box::pin(out), incoming: incoming.boxed_local(), pongs: true })
            }
            Err(awc::error::WsClientError::InvalidResponseStatus(status)) => Err(status),
            Err(other) => panic!("{other}"),
        }
    }

    /// Connects, and reads the ready frame.
    async fn ready(&self, token: Option<&str>) -> (Listener, Value) {
        let mut listener = self.connect(token).await;
        let ready = listener.hear().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        (listener, ready)
    }

    /// Connects and listens.
    async fn listen(&self, token: Option<&str>, topics: &[&str]) -> Listener {
        let (mut listener, _) = self.ready(token).await;
        listener.say(&json!({ "type": "subscribe", "topics": topics })).await;
        assert_eq!(listener.hear().await["type"], "subscribed");
        listener
    }
}

struct Listener {
    out: Pin<Box<dyn Sink<Message, Error = WsProtocolError>>>,
    incoming: LocalBoxStream<'static, Result<Frame, WsProtocolError>>,
    /// Whether it answers pings.
    pongs: bool,
}

impl Listener {
    async fn say(&mut self, frame: &Value) {
        self.send(Message::Text(frame.to_string().into())).await;
    }

    async fn send(&mut self, message: Message) {
        // The shop may have closed already; whoever cares reads the close frame.
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

    async fn hear(&mut self) -> Value {
        match self.frame().await {
            Some(Frame::Text(text)) => serde_json::from_slice(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads on to the end, and says with which code it was closed.
    async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.frame().await? {
                Frame::Close(reason) => return reason.map(|reason| reason.code.into()),
                _ => continue,
            }
        }
    }

    /// Whether it hears nothing but the answer to its own ping.
    async fn hears_nothing(&mut self) {
        self.say(&json!({ "type": "ping" })).await;
        assert_eq!(self.hear().await, json!({ "type": "pong" }));
    }
}

/// A listener by hand: bytes out, and in only when asked.
fn by_hand(shop: &Shop, receive_buffer: Option<usize>) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect(&shop.address.into()).unwrap();
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

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix::test]
async fn whoever_connects_is_told_who_they_are_and_where_their_stream_stands() {
    let shop = open(|_| {}).await;
    let ada = shop.people.add("ada", Role::Customer, None).user_id;
    shop.tell(vec![expired(ada), expired(ada)]).await;
    let (_, nameless) = shop.ready(None).await;
    assert_eq!((&nameless["user_id"], &nameless["seq"]), (&Value::Null, &json!(0)));
    let (_, by_header) = shop.ready(Some("ada")).await;
    assert_eq!((&by_header["user_id"], &by_header["seq"]), (&json!(ada), &json!(2)));
    // PresentedToken in the first frame, it is the first thing answered.
    let mut by_frame = shop.connect(None).await;
    by_frame.say(&json!({ "type": "auth", "token": "ada" })).await;
    assert_eq!(by_frame.hear().await, by_header);
    let mut wrong = shop.connect(None).await;
    wrong.say(&json!({ "type": "auth", "token": "guess" })).await;
    assert_eq!(wrong.hear().await["code"], "invalid_token");
    assert_eq!(wrong.hear().await["user_id"], Value::Null);
    shop.people.add("bob", Role::Customer, None);
    by_frame.say(&json!({ "type": "auth", "token": "bob" })).await;
    assert_eq!(by_frame.hear().await["code"], "already_signed_in");
}

#[actix::test]
async fn what_happens_is_shown_at_once_to_those_who_listen_and_to_nobody_else() {
    let shop = open(|_| {}).await;
    let ada = shop.people.add("ada", Role::Customer, None).user_id;
    shop.people.add("bob", Role::Customer, None);
    let mut own = shop.listen(Some("ada"), &["user", "catalog"]).await;
    let mut other = shop.listen(Some("bob"), &["user"]).await;
    let mut nameless = shop.listen(None, &["catalog"]).await;
    shop.tell(vec![expired(ada), changed("Teapot")]).await;
    let told = own.hear().await;
    assert_eq!((&told["type"], &told["seq"], &told["topic"]), (&json!("notification"), &json!(1), &json!("user")));
    assert_eq!((&told["kind"], told["title"].is_string()), (&json!("invoice_expired"), true));
    for listener in [&mut own, &mut nameless] {
        let event = listener.hear().await;
        assert_eq!((&event["type"], &event["topic"]), (&json!("event"), &json!("catalog")));
        assert_eq!((&event["kind"], &event["data"]["name"]), (&json!("product_changed"), &json!("Teapot")));
    }
    other.hears_nothing().await;
    nameless.say(&json!({ "type": "unsubscribe", "topics": ["catalog"] })).await;
    nameless.hears_nothing().await;
    shop.tell(vec![changed("Kettle")]).await;
    nameless.hears_nothing().await;
}

#[actix::test]
async fn n3_after_each_reconnect_every_missed_one_comes_once_then_the_live_ones_while_more_happen() {
    const ALL: i64 = 900;
    let shop = open(|_| {}).await;
    let ada = shop.people.add("ada", Role::Customer, None).user_id;
    let client = shop.client.clone();
    let teller = actix::spawn(async move {
        for _ in 0..ALL / 3 {
            let events = vec![expired(ada), expired(ada), expired(ada)];
            client.call(RequestContext::internal("test"), DeliverEvents { events }).await.unwrap();
        }
    });
    let (mut seen, mut rounds) = (Vec::new(), 0);
    let epoch = shop.ready(Some("ada")).await.1["epoch"].clone();
    while seen.len() < usize::try_from(ALL).unwrap() {
        let (mut listener, _) = shop.ready(Some("ada")).await;
        let after = seen.last().copied().unwrap_or(0);
        listener.say(&json!({ "type": "subscribe", "topics": ["user"], "epoch": epoch, "after": after })).await;
        let answer = listener.hear().await;
        assert_eq!((&answer["type"], &answer["recovered"]), (&json!("subscribed"), &json!(true)));
        rounds += 1;
        // Breaks off in the midst of it, the last time not.
        let most = if rounds < 12 { 40 } else { usize::MAX };
        for _ in 0..most {
            if seen.len() == usize::try_from(ALL).unwrap() {
                break;
            }
            seen.push(listener.hear().await["seq"].as_i64().unwrap());
        }
    }
    assert_eq!(seen, (1..=ALL).collect::<Vec<_>>());
    teller.await.unwrap();
}

#[actix::test]
async fn what_happens_between_ready_and_subscribe_is_not_lost_and_a_lost_push_is_read_back() {
    let shop = open(|_| {}).await;
    let ada = shop.people.add("ada", Role::Customer, None).user_id;
    let (mut listener, _) = shop.ready(Some("ada")).await;
    shop.tell(vec![expired(ada)]).await;
    listener.say(&json!({ "type": "subscribe", "topics": ["user"] })).await;
    assert_eq!(listener.hear().await["type"], "subscribed");
    assert_eq!(listener.hear().await["seq"], 1);
    // More than the feed holds, in one breath on the hub's own thread: it must lag, and the listener must not notice.
    for _ in 0..5_000 {
        shop.feed.send(Push::Event { topic: "catalog".to_owned(), kind: "x".to_owned(), data: Value::Null });
    }
    shop.tell(vec![expired(ada), expired(ada)]).await;
    assert_eq!((listener.hear().await["seq"].as_i64(), listener.hear().await["seq"].as_i64()), (Some(2), Some(3)));
    listener.hears_nothing().await;
}

#[actix::test]
async fn n4_another_epoch_or_too_old_a_place_is_told_and_nothing_in_part() {
    let shop = open(|_| {}).await;
    let ada = shop.people.add("ada", Role::Customer, None).user_id;
    for _ in 0..11 {
        shop.tell((0..100).map(|_| expired(ada)).collect()).await;
    }
    let (mut listener, ready) = shop.ready(Some("ada")).await;
    for (epoch, after) in [(json!("another"), 1_050), (ready["epoch"].clone(), 50), (ready["epoch"].clone(), 1_101)] {
        listener.say(&json!({ "type": "subscribe", "topics": ["user"], "epoch": epoch, "after": after })).await;
        let answer = listener.hear().await;
        assert_eq!((&answer["recovered"], &answer["seq"]), (&json!(false), &json!(1_100)), "{answer}");
        assert_eq!((&answer["snapshot"], &answer["epoch"]), (&json!("/api/v1/notifications/"), &ready["epoch"]));
    }
    shop.tell(vec![expired(ada)]).await;
    assert_eq!(listener.hear().await["seq"], 1_101, "live from there on");
    // The longest that is kept comes whole, over several pages.
    listener.say(&json!({ "type": "subscribe", "topics": ["user"], "epoch": ready["epoch"], "after": 101 })).await;
    assert_eq!(listener.hear().await["recovered"], true);
    for seq in 102..=1_101 {
        assert_eq!(listener.hear().await["seq"], seq);
    }
    listener.hears_nothing().await;
}

#[actix::test]
async fn n5_all_subscribers_see_one_order_whoever_brings_the_events() {
    let shop = open(|_| {}).await;
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(shop.listen(None, &["catalog"]).await);
    }
    let relays = (0..4).map(|relay| shop.tell((0..50).map(|n| changed(&format!("{relay}/{n}"))).collect::<Vec<_>>()));
    futures_util::future::join_all(relays).await;
    let mut orders = Vec::new();
    for listener in &mut listeners {
        let mut order = Vec::new();
        for _ in 0..200 {
            order.push(listener.hear().await["data"]["name"].clone());
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
}

#[actix::test]
async fn n7_topics_are_for_those_who_may_see_them() {
    let shop = open(|_| {}).await;
    shop.people.add("ada", Role::Customer, None);
    shop.people.add("root", Role::Admin, None);
    let ask = json!({ "type": "subscribe", "topics": ["stats", "orders", "emails", "user", "nonsense", "product:1"] });
    for (token, code, refused) in [(None, "unauthenticated", 6), (Some("ada"), "forbidden", 5), (Some("root"), "", 2)] {
        let (mut listener, _) = shop.ready(token).await;
        listener.say(&ask).await;
        for n in 0..refused {
            let error = listener.hear().await;
            assert_eq!(error["type"], "error", "{token:?} {error}");
            let unknown = n >= refused - 2;
            assert_eq!(error["code"], if unknown { "unknown_topic" } else { code }, "{token:?} {error}");
        }
        let heard = match token {
            None => None,
            Some("ada") => Some(json!(["user"])),
            Some(_) => Some(json!(["stats", "orders", "emails", "user"])),
        };
        if let Some(topics) = heard {
            let answer = listener.hear().await;
            assert_eq!((&answer["type"], &answer["topics"]), (&json!("subscribed"), &topics));
        }
        listener.hears_nothing().await;
    }
    let many: Vec<String> = (0..201).map(|_| format!("product:{}", ProductId::new())).collect();
    let (mut greedy, _) = shop.ready(None).await;
    greedy.say(&json!({ "type": "subscribe", "topics": many })).await;
    assert_eq!(greedy.hear().await["code"], "too_many_topics");
    greedy.say(&json!({ "type": "subscribe", "topics": many[..200] })).await;
    assert_eq!(greedy.hear().await["type"], "subscribed");
    greedy.say(&json!({ "type": "subscribe", "topics": ["catalog"] })).await;
    assert_eq!(greedy.hear().await["code"], "too_many_topics");
}

#[actix::test]
async fn n7_a_sign_in_that_ends_closes_its_socket_and_a_lost_role_narrows_it_within_a_second() {
    let shop = open(|_| {}).await;
    let root = shop.people.add("root", Role::Admin, None);
    let mut narrowed = shop.listen(Some("root"), &["stats", "catalog"]).await;
    let mut closed = shop.listen(Some("root"), &["user"]).await;
    let change = AccessChanged { user_id: root.user_id, session_id: None };
    shop.people.put("root", Identity { role: Role::Customer, ..root }, None);
    shop.tell(vec![delivery(&change)]).await;
    let error = narrowed.hear().await;
    assert_eq!((&error["code"], &error["topic"]), (&json!("forbidden"), &json!("stats")));
    closed.hears_nothing().await;
    // Another of the user's sign-ins ends: not this one's matter.
    shop.tell(vec![delivery(&AccessChanged { session_id: Some(SessionId::new()), ..change.clone() })]).await;
    closed.hears_nothing().await;
    shop.people.0.lock().unwrap().clear();
    shop.tell(vec![delivery(&change)]).await;
    assert_eq!((narrowed.closed().await, closed.closed().await), (Some(1008), Some(1008)));
    until("the sessions are gone", || shop.hub.listeners() == 0).await;
}

#[actix::test]
async fn n7_a_real_sign_out_and_a_real_erasure_close_their_sockets_within_a_second() {
    let mut shop = open(|_| {}).await;
    let (chain, hub) = Chain::forge(&shop);
    (shop.address, shop.server) = serve(&hub, &shop.people);
    for erase in [false, true] {
        let ((token, ctx), (other, _)) = (chain.guest().await, chain.guest().await);
        let [mut listener, mut bystander] = [shop.connect(None).await, shop.connect(None).await];
        for (listener, token) in [(&mut listener, token), (&mut bystander, other)] {
            listener.say(&json!({ "type": "auth", "token": token })).await;
            assert_eq!(listener.hear().await["type"], "ready");
        }
        if erase {
            let user_id = ctx.identity().unwrap().user_id;
            chain.users.call(ctx, DeleteUser { user_id }).await.unwrap();
        } else {
            chain.users.call(ctx, SignOut {}).await.unwrap();
        }
        assert_eq!(listener.closed().await, Some(1008));
        bystander.hears_nothing().await;
    }
}

#[actix::test]
async fn n7_a_token_that_runs_out_closes_its_socket() {
    let shop = open(|_| {}).await;
    let end = shop.clock.now().saturating_add(Duration::from_secs(3_600));
    shop.people.add("ada", Role::Customer, Some(end));
    let mut listener = shop.listen(Some("ada"), &["user"]).await;
    shop.clock.advance(Duration::from_secs(3_590));
    listener.hears_nothing().await;
    shop.clock.advance(Duration::from_secs(11));
    assert_eq!(listener.closed().await, Some(1008));
}

#[actix::test]
async fn n11_nonsense_gets_an_error_frame_and_the_connection_stays() {
    let shop = open(|_| {}).await;
    let (mut listener, _) = shop.ready(None).await;
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
        listener.send(Message::Text(text.into())).await;
        let error = listener.hear().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_frame")), "{text}");
    }
    listener.send(Message::Binary(web::Bytes::from_static(b"{\"type\":\"ping\"}"))).await;
    assert_eq!(listener.hear().await["code"], "bad_frame");
    listener.hears_nothing().await;
    // A message in parts is one message.
    use actix_http::ws::Item::{Continue, FirstText, Last};
    for part in [FirstText("{\"type\"".into()), Continue(":\"pi".into()), Last("ng\"}".into())] {
        listener.send(Message::Continuation(part)).await;
    }
    assert_eq!(listener.hear().await["type"], "pong");
    // Text that is no UTF-8, which a well-behaved client library will not send.
    let mut stream = by_hand(&shop, None);
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).unwrap();
    stream.write_all(&masked(1, r#"{"type":"ping"}"#)).unwrap();
    let heard = actix_web::rt::task::spawn_blocking(move || {
        let (mut heard, mut bytes) = (Vec::new(), [0; 4_096]);
        while !String::from_utf8_lossy(&heard).contains("pong") {
            let n = stream.read(&mut bytes).unwrap();
            assert!(n > 0, "closed");
            heard.extend_from_slice(&bytes[..n]);
        }
        String::from_utf8_lossy(&heard).into_owned()
    });
    assert!(heard.await.unwrap().contains("bad_frame"));
}

#[actix::test]
async fn n11_what_is_too_large_closes_with_1009_and_what_is_no_frame_with_1002() {
    let shop = open(|_| {}).await;
    let (mut fits, _) = shop.ready(None).await;
    fits.send(Message::Text("x".repeat(64 * 1024).into())).await;
    assert_eq!(fits.hear().await["code"], "bad_frame");
    fits.hears_nothing().await;
    let (mut too_large, _) = shop.ready(None).await;
    too_large.send(Message::Text("x".repeat(64 * 1024 + 1).into())).await;
    assert_eq!(too_large.closed().await, Some(1009));
    use actix_http::ws::Item::{Continue, FirstText};
    let (mut in_parts, _) = shop.ready(None).await;
    in_parts.send(Message::Continuation(FirstText("x".repeat(40_000).into()))).await;
    in_parts.send(Message::Continuation(Continue("x".repeat(40_000).into()))).await;
    assert_eq!(in_parts.closed().await, Some(1009));
    // The head alone says it: nobody waits for the rest, or keeps it.
    let endless = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].to_vec();
    for (bytes, code) in
        [(endless, 1009_u16), (vec![0x81, 0x01, b'x'], 1002), (vec![0xf1, 0x81, 0, 0, 0, 0, b'x'], 1002)]
    {
        let mut stream = by_hand(&shop, None);
        stream.write_all(&bytes).unwrap();
        let heard = actix_web::rt::task::spawn_blocking(move || {
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            heard
        });
        let heard = heard.await.unwrap();
        assert!(heard.windows(2).any(|two| two == code.to_be_bytes()), "{code}: {heard:?}");
    }
    until("they are gone", || shop.hub.listeners() == 1).await;
}

#[actix::test]
async fn a_flood_closes_with_1008_and_a_lively_talk_does_not() {
    let shop = open(|_| {}).await;
    let (mut lively, _) = shop.ready(None).await;
    for _ in 0..150 {
        lively.hears_nothing().await;
    }
    let (mut flood, _) = shop.ready(None).await;
    for _ in 0..1_000 {
        flood.say(&json!({ "type": "ping" })).await;
    }
    assert_eq!(flood.closed().await, Some(1008));
}

#[actix::test]
async fn n6_a_reader_that_does_not_read_is_dropped_and_the_others_hear_everything() {
    let shop = open(|limits| limits.stall_max = Duration::from_millis(500)).await;
    let mut reader = shop.listen(None, &["catalog"]).await;
    let mut stalled = by_hand(&shop, Some(4_096));
    stalled.write_all(&masked(1, r#"{"type":"subscribe","topics":["catalog"]}"#)).unwrap();
    until("both are there", || shop.hub.listeners() == 2).await;
    // Answers to pings show that the subscription before them is done.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (large, limit) = ("x".repeat(16_000), shop.hub.settings().queued_bytes_max);
    let mut rounds = 0;
    let mut gone_after = None;
    while rounds < 200 || gone_after.is_none() {
        shop.tell((0..8).map(|_| changed(&large)).collect()).await;
        for _ in 0..8 {
            assert_eq!(reader.hear().await["kind"], "product_changed");
        }
        assert!(shop.hub.most_queued() <= limit + 20_000, "{}", shop.hub.most_queued());
        rounds += 1;
        assert!(rounds < 2_000, "the stalled reader is still there");
        if gone_after.is_none() && shop.hub.listeners() == 1 {
            gone_after = Some(rounds);
        }
    }
    reader.hears_nothing().await;
}

#[actix::test]
async fn a_slow_reader_that_wakes_in_time_is_told_1013() {
    let shop = open(|limits| limits.queued_bytes_max = 40_000).await;
    let mut slow = by_hand(&shop, Some(4_096));
    slow.write_all(&masked(1, r#"{"type":"subscribe","topics":["catalog"]}"#)).unwrap();
    until("it is there", || shop.hub.listeners() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let large = "x".repeat(30_000);
    for _ in 0..500 {
        shop.tell(vec![changed(&large)]).await;
    }
    let heard = actix_web::rt::task::spawn_blocking(move || {
        let mut heard = Vec::new();
        let _ = slow.read_to_end(&mut heard);
        heard
    });
    let heard = heard.await.unwrap();
    let close = [0x88, u8::try_from(2 + session::CloseCause::SlowConsumer.sentence().len()).unwrap(), 0x03, 0xf5];
    assert!(heard.windows(4).any(|four| four == close), "no close frame 1013 in {} bytes", heard.len());
    until("it is gone", || shop.hub.listeners() == 0).await;
}

#[actix::test]
async fn n8_a_peer_that_answers_no_ping_is_closed_and_one_that_does_is_not() {
    let shop = open(|limits| {
        limits.ping_every = Duration::from_millis(300);
        limits.pong_within = Duration::from_secs(3);
    })
    .await;
    let mut healthy = shop.listen(None, &["catalog"]).await;
    let mut silent = shop.listen(None, &["catalog"]).await;
    silent.pongs = false;
    let is_closed = std::cell::Cell::new(false);
    let closing = async {
        let code = silent.closed().await;
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
    healthy.hears_nothing().await;
    assert_eq!(shop.hub.listeners(), 1);
}

#[actix::test]
async fn n11_a_foreign_page_and_one_too_many_are_refused() {
    let shop = open(|limits| {
        limits.sockets_max = 2;
        limits.public_url = Some("https://shop.example".to_owned());
    })
    .await;
    for token in [None, Some("ada")] {
        shop.people.add("ada", Role::Customer, None);
        assert_eq!(shop.try_connect(token, Some("https://evil.example")).await.err(), Some(StatusCode::FORBIDDEN));
    }
    let own = shop.try_connect(None, Some("https://shop.example")).await.unwrap();
    let same = shop.try_connect(None, Some(&format!("http://{}", shop.address))).await.unwrap();
    assert_eq!(shop.try_connect(None, None).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    drop(own);
    until("its place is free", || shop.hub.listeners() == 1).await;
    assert!(shop.try_connect(None, None).await.is_ok());
    drop(same);
}

#[actix::test]
async fn n11_what_is_no_handshake_is_refused_and_takes_no_place() {
    let shop = open(|limits| limits.sockets_max = 1).await;
    for _ in 0..3 {
        let plain = awc::Client::new().get(format!("http://{}/ws", shop.address)).send().await.unwrap();
        assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
    }
    assert!(shop.try_connect(None, None).await.is_ok());
}

#[actix::test]
async fn when_the_shop_closes_sockets_are_told_1001_and_no_more_are_taken() {
    let shop = open(|_| {}).await;
    let mut listener = shop.listen(None, &["catalog"]).await;
    let (closed, ()) = futures_util::future::join(listener.closed(), shop.hub.close_all(Duration::from_secs(5))).await;
    assert_eq!((closed, shop.hub.listeners()), (Some(1001), 0));
    assert_eq!(shop.try_connect(None, None).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
}

#[actix::test]
async fn n12_the_same_stream_comes_as_server_sent_events() {
    // A listener that is gone is noticed by the sign of life it does not take.
    let shop = open(|limits| limits.ping_every = Duration::from_millis(200)).await;
    let ada = shop.people.add("ada", Role::Customer, None).user_id;
    shop.tell(vec![expired(ada), expired(ada)]).await;
    let mut last = String::new();
    for round in 0..2 {
        let mut request = awc::Client::builder()
            .timeout(WAIT_TIMEOUT)
            .finish()
            .get(format!("http://{}/events?topics=user,catalog,stats", shop.address))
            .insert_header(("authorization", "Bearer ada"));
        if round == 1 {
            request = request.insert_header(("last-event-id", last.as_str()));
            shop.tell(vec![expired(ada)]).await;
        }
        let mut answer = request.send().await.unwrap();
        assert_eq!(answer.headers().get("content-type").unwrap(), "text/event-stream");
        let (mut text, mut told) = (String::new(), false);
        let wanted = if round == 0 { 3 } else { 5 };
        while !text.contains(&format!("\"seq\":{wanted},\"topic\"")) {
            let piece = tokio::time::timeout(WAIT_TIMEOUT, answer.next()).await.expect("in time").unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
            if !told && text.contains("\"subscribed\"") {
                told = true;
                shop.tell(vec![changed("Teapot"), expired(ada)]).await;
            }
        }
        let (frames, ids) = read_events(&text);
        let types: Vec<&str> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
        let seqs: Vec<i64> =
            frames.iter().filter(|f| f["type"] == "notification").map(|f| f["seq"].as_i64().unwrap()).collect();
        assert_eq!(types[..3], ["ready", "error", "subscribed"], "stats is not for a customer");
        assert_eq!((frames[2]["recovered"].as_bool(), seqs), (Some(round == 1), [vec![3], vec![4, 5]][round].clone()));
        assert!(types.contains(&"event"));
        last = ids.last().unwrap().clone();
    }
    until("they are gone", || shop.hub.listeners() == 0).await;
}

fn read_events(text: &str) -> (Vec<Value>, Vec<String>) {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|d| serde_json::from_str(d).unwrap());
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
    (data.collect(), ids.collect())
}
