//! A domain asked over the wire: the same answers, errors, deadlines and keys, whatever happens to the connection.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde::{Deserialize, Serialize};

use super::proto::EventsRequest;
use super::*;
use crate::messaging::{
    Caller, Client, CommonError, HealthStatus, IdempotencyKey, RemoteCallable, RequestContext, StorageHealth,
    Supervisor,
};
use crate::types::{Address, FieldError, UserId};

/// A domain that answers as it is told.
struct Echo {
    state: Arc<Room>,
}

#[derive(Default)]
struct Room {
    /// Which of several it is.
    name: u32,
    asked: AtomicU32,
}

impl Actor for Echo {
    type Context = Context<Self>;
}
impl Supervised for Echo {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Say {
    what: String,
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Once {
    millis: u64,
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Who {}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Secret {}

crate::requests! { CommonError;
    "echo.Say": Say => String, retry, |_| Access::Anyone;
    "echo.Once": Once => u32, once, |_| Access::Anyone;
    "echo.Who": Who => (u32, String, Option<String>), retry, |_| Access::Anyone;
    "echo.Secret": Secret => (), retry, |_| Access::Internal;
}
crate::handlers! { Echo; Say => say, Once => once, Who => who, Secret => secret }

async fn say(_: Arc<Room>, ctx: RequestContext, request: Say) -> Result<String, CommonError> {
    match request.what.as_str() {
        "wrong" => Err(FieldError::new("what", "wrong", "is wrong").into()),
        "panic" => panic!("it was asked to"),
        "again" => {
            ctx.mark_replayed();
            Ok("again".to_owned())
        }
        what => Ok(what.to_owned()),
    }
}

async fn once(state: Arc<Room>, _: RequestContext, request: Once) -> Result<u32, CommonError> {
    let asked = state.asked.fetch_add(1, SeqCst) + 1;
    // Only the first one takes its time.
    if asked == 1 {
        tokio::time::sleep(Duration::from_millis(request.millis)).await;
    }
    Ok(asked)
}

async fn who(state: Arc<Room>, ctx: RequestContext, _: Who) -> Result<(u32, String, Option<String>), CommonError> {
    Ok((state.name, format!("{:?} {:?}", ctx.caller, ctx.key), ctx.trace.as_deref().map(str::to_owned)))
}

async fn secret(_: Arc<Room>, _: RequestContext, _: Secret) -> Result<(), CommonError> {
    Ok(())
}

fn wire(token: Option<&str>) -> PeerConfig {
    PeerConfig { token: token.map(|token| format!("Bearer {token}").parse().unwrap()), message_max: 1 << 20 }
}

fn echo(name: u32, in_flight_max: usize) -> (Client<Echo>, Arc<Room>) {
    let state = Arc::new(Room { name, ..Room::default() });
    let own = Arc::clone(&state);
    let (address, vitals) = Supervisor::start(&actix::Arbiter::current(), "echo", 64, move || Echo { state: own });
    (Client::local("echo", address, vitals, in_flight_max, Arc::new(StorageHealth::default())), state)
}

/// Serves the domain; gives where, and what stops it.
fn serve(client: &Client<Echo>, at: SocketAddr, token: Option<&str>) -> (SocketAddr, Handle) {
    serve_with(client, at, token, None)
}

fn serve_with(
    client: &Client<Echo>,
    at: SocketAddr,
    token: Option<&str>,
    news: Option<EventReader>,
) -> (SocketAddr, Handle) {
    let offers = ServerConfig {
        domains: HashMap::from([("echo", DomainService::of(client))]),
        event_reader: news,
        live_source: None,
        token: token.map(str::to_owned),
        message_max: 1 << 20,
        drain_timeout: Duration::from_secs(5),
    };
    let server = Server::bind(at, offers).unwrap();
    let (address, handle) = (server.address(), server.handle());
    actix::spawn(async move { server.run().await.unwrap() });
    (address, handle)
}

fn at(address: SocketAddr) -> Address {
    Address { host: address.ip().to_string(), port: address.port() }
}

fn remote(peer: &Arc<Peer>) -> Client<Echo> {
    Client::remote("echo", Remote::new("echo", Echo::names(), Arc::clone(peer)), 64)
}

fn ctx() -> RequestContext {
    RequestContext::internal("test")
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[actix::test]
async fn answers_errors_rights_keys_deadlines_and_traces_are_those_of_a_domain_here() {
    let (local, state) = echo(7, 2);
    let (address, _stop) = serve(&local, ANY, Some("the secret of the tests"));
    let peer = Peer::start(at(address), wire(Some("the secret of the tests")));
    let there = remote(&peer);
    let say = |what: &str| Say { what: what.to_owned() };
    for client in [&local, &there] {
        assert_eq!(client.call(ctx(), say("tea")).await.unwrap(), "tea");
        let wrong = client.call(ctx(), say("wrong")).await.unwrap_err();
        assert_eq!(wrong, FieldError::new("what", "wrong", "is wrong").into());
        assert_eq!(client.call(ctx(), say("panic")).await, Err(CommonError::Internal));
        let seen = ctx();
        client.call(seen.clone(), say("again")).await.unwrap();
        assert!(seen.is_replayed());
        let stranger = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "r1");
        assert_eq!(client.call(stranger.clone(), Secret {}).await, Err(CommonError::Forbidden));
        client.call(ctx(), Secret {}).await.unwrap();
        let mut asked = stranger.with_key(IdempotencyKey::internal("k1"));
        asked.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let (name, who, trace) = client.call(asked.clone(), Who {}).await.unwrap();
        assert_eq!((name, trace.as_deref()), (7, asked.trace.as_deref()));
        assert!(who.contains("192.0.2.1") && who.contains("k1"), "{who}");
        let hurried = ctx().with_timeout(Duration::from_millis(50));
        state.asked.store(0, SeqCst);
        assert_eq!(client.call(hurried, Once { millis: 400 }).await, Err(CommonError::DeadlineExceeded));
    }
    let large = "x".repeat(2 << 20);
    assert_eq!(
        there.call(ctx(), say(&large)).await,
        Err(CommonError::Internal),
        "refused, and not asked again for ever"
    );
    let user = UserId::new().to_string();
    assert_eq!(there.call(ctx(), say(&user)).await.unwrap(), user);
}

#[actix::test]
async fn what_is_full_there_is_refused_as_here() {
    let (local, state) = echo(1, 1);
    let (address, _stop) = serve(&local, ANY, None);
    let there = remote(&Peer::start(at(address), wire(None)));
    let first = there.call(ctx(), Once { millis: 2_000 });
    let second = async {
        while state.asked.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        there.call(ctx(), Say { what: "tea".to_owned() }).await
    };
    let (first, second) = futures_util::future::join(first, second).await;
    assert_eq!((first, second), (Ok(1), Err(CommonError::Overloaded)));
}

#[actix::test]
async fn who_shows_another_token_is_refused_and_told_so() {
    let (local, _) = echo(1, 8);
    let (address, _stop) = serve(&local, ANY, Some("the secret of the tests"));
    for wrong in [None, Some("some other secret")] {
        let there = remote(&Peer::start(at(address), wire(wrong)));
        assert_eq!(there.call(ctx(), Say { what: "tea".to_owned() }).await, Err(CommonError::Unavailable));
        let health = there.health();
        let problem = health.addresses.first().and_then(|address| address.problem.clone()).unwrap();
        assert!(health.status == HealthStatus::Down && problem.contains("peers.token"), "{problem}");
    }
}

#[actix::test]
async fn a_process_of_another_version_is_known_by_the_names_it_lacks() {
    let (local, _) = echo(1, 8);
    let (address, _stop) = serve(&local, ANY, None);
    let peer = Peer::start(at(address), wire(None));
    let names = Echo::names().into_iter().chain(["echo.New"]).collect();
    let there: Client<Echo> = Client::remote("echo", Remote::new("echo", names, Arc::clone(&peer)), 64);
    assert_eq!(there.call(ctx(), Say { what: "tea".to_owned() }).await.unwrap(), "tea");
    let health = there.health();
    let problem = health.addresses.first().and_then(|address| address.problem.clone()).unwrap();
    assert!(health.status == HealthStatus::Degraded && problem.contains("echo.New"), "{problem}");
}

/// Carries bytes between a client and a server until it is cut.
async fn cable(to: SocketAddr) -> (SocketAddr, Arc<tokio::sync::Notify>) {
    let listener = tokio::net::TcpListener::bind(ANY).await.unwrap();
    let (address, cut) = (listener.local_addr().unwrap(), Arc::new(tokio::sync::Notify::new()));
    let cutter = Arc::clone(&cut);
    actix::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let cut = Arc::clone(&cutter);
            actix::spawn(async move {
                let mut onward = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut onward) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    (address, cut)
}

#[actix::test]
async fn after_a_lost_answer_only_what_may_be_asked_twice_is_asked_twice() {
    let (local, state) = echo(1, 8);
    let (address, _stop) = serve(&local, ANY, None);
    let (address, cut) = cable(address).await;
    let there = remote(&Peer::start(at(address), wire(None)));
    there.call(ctx(), Say { what: "tea".to_owned() }).await.unwrap();
    for (context, asked, answer) in
        [(ctx(), 1, Err(CommonError::Unavailable)), (ctx().with_key(IdempotencyKey::internal("k")), 2, Ok(2))]
    {
        state.asked.store(0, SeqCst);
        // Longer than any machine takes to cut the connection; nobody waits for it.
        let call = there.call(context, Once { millis: 30_000 });
        let cutting = async {
            while state.asked.load(SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cut.notify_waiters();
        };
        let (answered, ()) = futures_util::future::join(call, cutting).await;
        assert_eq!((answered, state.asked.load(SeqCst)), (answer, asked));
    }
}

#[actix::test]
async fn who_says_again_and_again_that_it_has_no_news_is_asked_for_everything_else_all_the_same() {
    let (local, _) = echo(1, 64);
    // As while a domain is on its way from one process to another, and its events with it.
    let none: EventReader = Arc::new(|_, _, _| Box::pin(async { Err(CommonError::Unavailable) }));
    let (address, _stop) = serve_with(&local, ANY, None, Some(none));
    let peer = Peer::start(at(address), wire(None));
    let there = remote(&peer);
    assert!(there.call(ctx(), Say { what: "tea".into() }).await.is_ok());
    for _ in 0..40 {
        let request = EventsRequest { source: "echo".into(), subscriber: "tea".into(), cursor: 0 };
        let refused = peer.events(request).await.unwrap_err();
        assert!(matches!(refused, CallError::Rejected(CommonError::Unavailable, _)), "{refused:?}");
        // Long enough for a look, which every loss is followed by.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(there.call(ctx(), Say { what: "tea".into() }).await.is_ok());
}

#[actix::test]
async fn one_that_is_gone_is_refused_at_once_and_comes_back_by_itself() {
    let (local, _) = echo(1, 8);
    let (address, stop) = serve(&local, ANY, None);
    let there = remote(&Peer::start(at(address), wire(None)));
    let tea = || Say { what: "tea".to_owned() };
    there.call(ctx(), tea()).await.unwrap();
    stop.stop();
    let mut refused = 0;
    let begun = std::time::Instant::now();
    while refused < 20 {
        refused += u32::from(there.call(ctx(), tea()).await == Err(CommonError::Unavailable));
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(there.health().status, HealthStatus::Down);
    // Refused for what is known of the peer, not because a deadline has passed.
    let patient = ctx().with_timeout(Duration::from_secs(3_600));
    let refused = tokio::time::timeout(Duration::from_secs(60), there.call(patient, tea())).await;
    assert_eq!(refused.expect("it waits for a peer that is down"), Err(CommonError::Unavailable));
    let (_, _stop) = serve(&local, address, None);
    for n in 0.. {
        if there.call(ctx(), tea()).await.is_ok() {
            break;
        }
        assert!(n < 1_200, "it did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(there.health().status, HealthStatus::Up);
}

#[actix::test]
async fn the_addresses_of_a_name_are_asked_in_turn_and_looked_up_again() {
    let ((one, _), (two, _)) = (echo(1, 8), echo(2, 8));
    let ((first, _stop), (second, stop)) = (serve(&one, ANY, None), serve(&two, ANY, None));
    let known = Arc::new(Mutex::new(vec![first]));
    let names = Arc::clone(&known);
    let resolver: super::peer::Resolver = Arc::new(move |_| {
        let found = names.lock().unwrap().clone();
        Box::pin(async move { if found.is_empty() { Err("nothing".to_owned()) } else { Ok(found) } })
    });
    let place = Address { host: "shop.example".to_owned(), port: 1 };
    let there = remote(&Peer::start_with(place, wire(None), resolver, Duration::from_millis(20)));
    let seen = async || {
        let mut seen = [0; 3];
        for _ in 0..20 {
            seen[there.call(ctx(), Who {}).await.unwrap().0 as usize] += 1;
        }
        seen
    };
    assert_eq!(seen().await, [0, 20, 0]);
    known.lock().unwrap().push(second);
    while there.health().addresses.len() < 2 || there.health().status != HealthStatus::Up {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen().await, [0, 10, 10]);
    // A resolver that fails for a while takes nothing away.
    known.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(seen().await, [0, 10, 10]);
    *known.lock().unwrap() = vec![first, second];
    // One goes: nobody notices, since what can be asked again is asked at the other.
    stop.stop();
    for _ in 0..50 {
        there.call(ctx(), Who {}).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    *known.lock().unwrap() = vec![first];
    while there.health().addresses.len() != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen().await, [0, 20, 0]);
}

#[actix::test]
async fn what_is_accepted_when_the_process_is_told_to_stop_is_answered() {
    let (local, state) = echo(1, 8);
    let (address, stop) = serve(&local, ANY, None);
    let there = remote(&Peer::start(at(address), wire(None)));
    there.call(ctx(), Say { what: "tea".to_owned() }).await.unwrap();
    let call = there.call(ctx(), Once { millis: 300 });
    let stopping = async {
        while state.asked.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.stop();
    };
    assert_eq!(futures_util::future::join(call, stopping).await.0, Ok(1));
}
