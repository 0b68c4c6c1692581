//! Tests of calls over gRPC: replies, errors, deadlines and keys as of a local domain, also when connections fail.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::proto::EventsRequest;
use super::test_authority::TestAuthority;
use super::*;
use crate::messaging::{
    Caller, Client, CommonError, HealthStatus, IdempotencyKey, RemoteCallable, RequestContext, StorageHealth,
    Supervisor,
};
use crate::types::{Address, FieldError, PeerTls, UserId};

/// Domain that replies as each request demands.
struct EchoActor {
    state: Arc<EchoState>,
}

#[derive(Default)]
struct EchoState {
    /// Number that tells several domains apart.
    id: u32,
    /// Number of handled [`Once`] requests.
    calls: AtomicU32,
}

impl Actor for EchoActor {
    type Context = Context<Self>;
}
impl Supervised for EchoActor {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Say {
    text: String,
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Once {
    millis: u64,
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identify {}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Secret {}

crate::requests! { CommonError;
    "echo.Say": Say => String, retry, |_| Access::Anyone;
    "echo.Once": Once => u32, once, |_| Access::Anyone;
    "echo.Identify": Identify => (u32, String, Option<String>), retry, |_| Access::Anyone;
    "echo.Secret": Secret => (), retry, |_| Access::Internal;
}
crate::handlers! { EchoActor; Say => say, Once => once, Identify => identify, Secret => secret }

async fn say(_: Arc<EchoState>, ctx: RequestContext, request: Say) -> Result<String, CommonError> {
    match request.text.as_str() {
        "wrong" => Err(FieldError::new("text", "wrong", "is wrong").into()),
        "panic" => panic!("requested"),
        "again" => {
            ctx.mark_replayed();
            Ok("again".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

async fn once(state: Arc<EchoState>, _: RequestContext, request: Once) -> Result<u32, CommonError> {
    let calls = state.calls.fetch_add(1, SeqCst) + 1;
    // Only the first call is slow.
    if calls == 1 {
        tokio::time::sleep(Duration::from_millis(request.millis)).await;
    }
    Ok(calls)
}

async fn identify(
    state: Arc<EchoState>,
    ctx: RequestContext,
    _: Identify,
) -> Result<(u32, String, Option<String>), CommonError> {
    Ok((state.id, format!("{:?} {:?}", ctx.caller, ctx.key), ctx.trace.as_deref().map(str::to_owned)))
}

async fn secret(_: Arc<EchoState>, _: RequestContext, _: Secret) -> Result<(), CommonError> {
    Ok(())
}

fn peer_config(token: Option<&str>) -> PeerConfig {
    PeerConfig { token: token.map(|token| format!("Bearer {token}").parse().unwrap()), tls: None, message_max: 1 << 20 }
}

fn echo(id: u32, in_flight_max: usize) -> (Client<EchoActor>, Arc<EchoState>) {
    let state = Arc::new(EchoState { id, ..EchoState::default() });
    let own = Arc::clone(&state);
    let (address, vitals) = Supervisor::start(&actix::Arbiter::current(), "echo", 64, move || EchoActor { state: own });
    (Client::local("echo", address, vitals, in_flight_max, Arc::new(StorageHealth::default())), state)
}

/// Serves the domain. Returns the address, and a handle that stops the server.
fn serve(client: &Client<EchoActor>, at: SocketAddr, token: Option<&str>) -> (SocketAddr, GrpcHandle) {
    serve_with(client, at, token, None, None)
}

fn serve_with(
    client: &Client<EchoActor>,
    at: SocketAddr,
    token: Option<&str>,
    event_reader: Option<EventReader>,
    tls: Option<PeerTls>,
) -> (SocketAddr, GrpcHandle) {
    let config = ServerConfig {
        domains: HashMap::from([("echo", DomainService::of(client))]),
        event_reader,
        live_source: None,
        tokens: token.map(|tokens| tokens.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        tls,
        message_max: 1 << 20,
        drain_timeout: Duration::from_secs(5),
    };
    let server = GrpcServer::bind(at, config).unwrap();
    let (address, handle) = (server.address(), server.handle());
    actix::spawn(async move { server.run().await.unwrap() });
    (address, handle)
}

fn at(address: SocketAddr) -> Address {
    Address { is_tls: false, host: address.ip().to_string(), port: address.port() }
}

fn remote(peer: &Arc<Peer>) -> Client<EchoActor> {
    Client::remote("echo", Remote::new("echo", EchoActor::names(), Arc::clone(peer)), 64)
}

fn ctx() -> RequestContext {
    RequestContext::internal("test")
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[actix::test]
async fn remote_calls_behave_like_local_calls() {
    let (local_echo, state) = echo(7, 2);
    let (address, _stop) = serve(&local_echo, ANY, Some("the secret of the tests"));
    let peer = Peer::start(at(address), peer_config(Some("the secret of the tests")));
    let remote_echo = remote(&peer);
    let say = |text: &str| Say { text: text.to_owned() };
    for client in [&local_echo, &remote_echo] {
        assert_eq!(client.call(ctx(), say("tea")).await.unwrap(), "tea");
        let wrong = client.call(ctx(), say("wrong")).await.unwrap_err();
        assert_eq!(wrong, FieldError::new("text", "wrong", "is wrong").into());
        assert_eq!(client.call(ctx(), say("panic")).await, Err(CommonError::Internal));
        let replayed = ctx();
        client.call(replayed.clone(), say("again")).await.unwrap();
        assert!(replayed.is_replayed());
        let anonymous = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "r1");
        assert_eq!(client.call(anonymous.clone(), Secret {}).await, Err(CommonError::Forbidden));
        client.call(ctx(), Secret {}).await.unwrap();
        let mut traced = anonymous.with_key(IdempotencyKey::internal("k1"));
        traced.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let (id, caller, trace) = client.call(traced.clone(), Identify {}).await.unwrap();
        assert_eq!((id, trace.as_deref()), (7, traced.trace.as_deref()));
        assert!(caller.contains("192.0.2.1") && caller.contains("k1"), "{caller}");
        let short = ctx().with_timeout(Duration::from_millis(50));
        state.calls.store(0, SeqCst);
        assert_eq!(client.call(short, Once { millis: 400 }).await, Err(CommonError::DeadlineExceeded));
    }
    let large = "x".repeat(2 << 20);
    assert_eq!(
        remote_echo.call(ctx(), say(&large)).await,
        Err(CommonError::Internal),
        "rejected instead of retried without end"
    );
    let user = UserId::new().to_string();
    assert_eq!(remote_echo.call(ctx(), say(&user)).await.unwrap(), user);
}

#[actix::test]
async fn h03_full_remote_domain_rejects_as_overloaded() {
    let (local_echo, state) = echo(1, 1);
    let (address, _stop) = serve(&local_echo, ANY, None);
    let remote_echo = remote(&Peer::start(at(address), peer_config(None)));
    let first = remote_echo.call(ctx(), Once { millis: 2_000 });
    let second = async {
        while state.calls.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        remote_echo.call(ctx(), Say { text: "tea".to_owned() }).await
    };
    let (first, second) = futures_util::future::join(first, second).await;
    assert_eq!((first, second), (Ok(1), Err(CommonError::Overloaded)));
}

#[actix::test]
async fn wrong_token_is_rejected_and_reported() {
    let (local_echo, _) = echo(1, 8);
    let (address, _stop) = serve(&local_echo, ANY, Some("the secret of the tests"));
    for wrong in [None, Some("some other secret")] {
        let remote_echo = remote(&Peer::start(at(address), peer_config(wrong)));
        assert_eq!(remote_echo.call(ctx(), Say { text: "tea".to_owned() }).await, Err(CommonError::Unavailable));
        let health = remote_echo.health();
        let problem = health.addresses.first().and_then(|address| address.problem.clone()).unwrap();
        assert!(health.status == HealthStatus::Down && problem.contains("peers.token"), "{problem}");
    }
}

#[actix::test]
async fn both_tokens_are_accepted_while_one_is_replaced() {
    let (local_echo, _) = echo(1, 8);
    let (address, _stop) = serve(&local_echo, ANY, Some("the old secret of tests,the new secret of tests"));
    for token in ["the old secret of tests", "the new secret of tests"] {
        let remote_echo = remote(&Peer::start(at(address), peer_config(Some(token))));
        assert!(remote_echo.call(ctx(), Say { text: "tea".to_owned() }).await.is_ok(), "{token}");
    }
}

#[actix::test]
async fn missing_message_names_make_a_peer_degraded() {
    let (local_echo, _) = echo(1, 8);
    let (address, _stop) = serve(&local_echo, ANY, None);
    let peer = Peer::start(at(address), peer_config(None));
    let names = EchoActor::names().into_iter().chain(["echo.New"]).collect();
    let remote_echo: Client<EchoActor> = Client::remote("echo", Remote::new("echo", names, Arc::clone(&peer)), 64);
    assert_eq!(remote_echo.call(ctx(), Say { text: "tea".to_owned() }).await.unwrap(), "tea");
    let health = remote_echo.health();
    let problem = health.addresses.first().and_then(|address| address.problem.clone()).unwrap();
    assert!(health.status == HealthStatus::Degraded && problem.contains("echo.New"), "{problem}");
}

/// Starts a TCP proxy to `to`. Returns its address, and what cuts all its connections when notified.
async fn proxy(to: SocketAddr) -> (SocketAddr, Arc<tokio::sync::Notify>) {
    let listener = tokio::net::TcpListener::bind(ANY).await.unwrap();
    let (address, cut) = (listener.local_addr().unwrap(), Arc::new(tokio::sync::Notify::new()));
    let shared_cut = Arc::clone(&cut);
    actix::spawn(async move {
        while let Ok((mut downstream, _)) = listener.accept().await {
            let cut = Arc::clone(&shared_cut);
            actix::spawn(async move {
                let mut upstream = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut downstream, &mut upstream) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    (address, cut)
}

#[actix::test]
async fn lost_reply_is_retried_only_with_a_key() {
    let (local_echo, state) = echo(1, 8);
    let (address, _stop) = serve(&local_echo, ANY, None);
    let (address, cut) = proxy(address).await;
    let remote_echo = remote(&Peer::start(at(address), peer_config(None)));
    remote_echo.call(ctx(), Say { text: "tea".to_owned() }).await.unwrap();
    for (context, calls, reply) in
        [(ctx(), 1, Err(CommonError::Unavailable)), (ctx().with_key(IdempotencyKey::internal("k")), 2, Ok(2))]
    {
        state.calls.store(0, SeqCst);
        // Longer than any machine takes to cut the connection; the test does not wait for it.
        let call = remote_echo.call(context, Once { millis: 30_000 });
        let cutting = async {
            while state.calls.load(SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cut.notify_waiters();
        };
        let (result, ()) = futures_util::future::join(call, cutting).await;
        assert_eq!((result, state.calls.load(SeqCst)), (reply, calls));
    }
}

#[actix::test]
async fn rejected_event_reads_do_not_open_the_breaker() {
    let (local_echo, _) = echo(1, 64);
    // As while a domain and its events are being relocated to another process.
    let none: EventReader = Arc::new(|_, _, _| Box::pin(async { Err(CommonError::Unavailable) }));
    let (address, _stop) = serve_with(&local_echo, ANY, None, Some(none), None);
    let peer = Peer::start(at(address), peer_config(None));
    let remote_echo = remote(&peer);
    assert!(remote_echo.call(ctx(), Say { text: "tea".into() }).await.is_ok());
    for _ in 0..40 {
        let request = EventsRequest { source: "echo".into(), subscriber: "tea".into(), cursor: 0 };
        let rejected = peer.events(request).await.unwrap_err();
        assert!(matches!(rejected, CallError::Rejected(CommonError::Unavailable, _)), "{rejected:?}");
        // Long enough for the status check that follows every lost connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(remote_echo.call(ctx(), Say { text: "tea".into() }).await.is_ok());
}

#[actix::test]
async fn stopped_peer_fails_fast_and_recovers() {
    let (local_echo, _) = echo(1, 8);
    let (address, stop) = serve(&local_echo, ANY, None);
    let remote_echo = remote(&Peer::start(at(address), peer_config(None)));
    let tea = || Say { text: "tea".to_owned() };
    remote_echo.call(ctx(), tea()).await.unwrap();
    stop.stop();
    let mut rejected = 0;
    let started = std::time::Instant::now();
    while rejected < 20 {
        rejected += u32::from(remote_echo.call(ctx(), tea()).await == Err(CommonError::Unavailable));
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(remote_echo.health().status, HealthStatus::Down);
    // Rejected because of the known status of the peer, not because a deadline has passed.
    let long = ctx().with_timeout(Duration::from_secs(3_600));
    let rejected = tokio::time::timeout(Duration::from_secs(60), remote_echo.call(long, tea())).await;
    assert_eq!(rejected.expect("it waits for a peer that is down"), Err(CommonError::Unavailable));
    let (_, _stop) = serve(&local_echo, address, None);
    for n in 0.. {
        if remote_echo.call(ctx(), tea()).await.is_ok() {
            break;
        }
        assert!(n < 1_200, "it did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(remote_echo.health().status, HealthStatus::Up);
}

#[actix::test]
async fn resolved_addresses_are_balanced_and_refreshed() {
    let ((one, _), (two, _)) = (echo(1, 8), echo(2, 8));
    let ((first, _stop), (second, stop)) = (serve(&one, ANY, None), serve(&two, ANY, None));
    let known = Arc::new(Mutex::new(vec![first]));
    let names = Arc::clone(&known);
    let resolver: super::peer::Resolver = Arc::new(move |_| {
        let found = names.lock().clone();
        Box::pin(async move { if found.is_empty() { Err("nothing".to_owned()) } else { Ok(found) } })
    });
    let address = Address { is_tls: false, host: "shop.example".to_owned(), port: 1 };
    let remote_echo = remote(&Peer::start_with(address, peer_config(None), resolver, Duration::from_millis(20)));
    let count_calls = async || {
        let mut counts = [0; 3];
        for _ in 0..20 {
            counts[remote_echo.call(ctx(), Identify {}).await.unwrap().0 as usize] += 1;
        }
        counts
    };
    assert_eq!(count_calls().await, [0, 20, 0]);
    known.lock().push(second);
    while remote_echo.health().addresses.len() < 2 || remote_echo.health().status != HealthStatus::Up {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count_calls().await, [0, 10, 10]);
    // Failures of the resolver remove no address.
    known.lock().clear();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(count_calls().await, [0, 10, 10]);
    *known.lock() = vec![first, second];
    // One server stops: no call fails, since retryable requests go to the other.
    stop.stop();
    for _ in 0..50 {
        remote_echo.call(ctx(), Identify {}).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    *known.lock() = vec![first];
    while remote_echo.health().addresses.len() != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count_calls().await, [0, 20, 0]);
}

#[actix::test]
async fn accepted_call_is_completed_at_shutdown() {
    let (local_echo, state) = echo(1, 8);
    let (address, stop) = serve(&local_echo, ANY, None);
    let remote_echo = remote(&Peer::start(at(address), peer_config(None)));
    remote_echo.call(ctx(), Say { text: "tea".to_owned() }).await.unwrap();
    let call = remote_echo.call(ctx(), Once { millis: 300 });
    let stopping = async {
        while state.calls.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.stop();
    };
    assert_eq!(futures_util::future::join(call, stopping).await.0, Ok(1));
}

#[actix::test]
async fn tls_lets_only_processes_of_the_shop_call() {
    let (client, _) = echo(1, 8);
    let (shop, stranger) = (TestAuthority::generate(), TestAuthority::generate());
    let token = "the secret of the tests";
    let (address, _stop) = serve_with(&client, ANY, Some(token), None, Some(shop.process("127.0.0.1")));
    let call = async |is_tls: bool, host: &str, tls: Option<PeerTls>| {
        let address = Address { is_tls, host: host.to_owned(), port: address.port() };
        let peer = Peer::start(address, PeerConfig { tls, ..peer_config(Some(token)) });
        let reply = remote(&peer).call(ctx(), Say { text: "tea".to_owned() }).await;
        (reply, peer.statuses().first().map(|(_, status, _)| status.clone()))
    };
    let (reply, status) = call(true, "127.0.0.1", Some(shop.process("caller"))).await;
    assert_eq!(reply.as_deref(), Ok("tea"), "{status:?}");
    let refused = [
        ("a server whose certificate names another host", true, "localhost", Some(shop.process("caller"))),
        ("a server of another authority", true, "127.0.0.1", Some(stranger.process("caller"))),
        (
            "a caller of another authority",
            true,
            "127.0.0.1",
            Some(PeerTls { authority: shop.process("x").authority, ..stranger.process("caller") }),
        ),
        ("a caller without certificates", true, "127.0.0.1", None),
        ("a caller without TLS", false, "127.0.0.1", None),
    ];
    for (case, is_tls, host, tls) in refused {
        let (reply, status) = call(is_tls, host, tls).await;
        assert_eq!(reply, Err(CommonError::Unavailable), "{case}: {status:?}");
    }
}
