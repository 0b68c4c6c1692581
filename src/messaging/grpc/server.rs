//! Answers other processes for the domains of this one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use futures_util::{Stream, StreamExt as _, stream};
use prost::bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{broadcast, watch};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::server::HealthReporter;

use super::proto::domains_server::{Domains, DomainsServer};
use super::proto::{
    CallReply, CallRequest, Domain, EventsReply, EventsRequest, LiveReply, LiveRequest, NamesReply, NamesRequest,
    call_reply,
};
use crate::messaging::{
    Caller, Client, CommonError, DispatchFn, DispatchTable, EncodedReply, Health, HealthStatus, IdempotencyKey,
    RemoteCallable, RequestContext, trace,
};

/// How long a call may take when its caller does not say.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a caller may wish for.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// How many calls one connection may have under way.
const STREAMS_MAX: u32 = 4_096;
/// Pings on an idle connection, so that a dead one does not stay for ever.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How many bytes may be on their way on one stream before we have taken them.
const HTTP2_WINDOW: u32 = 1 << 20;
/// How often the health service is told how the domains are.
const HEALTH_PUBLISH_INTERVAL: Duration = Duration::from_millis(500);
/// The longest idempotency key, request id and caller that are taken.
const KEY_MAX: usize = 512;

/// What one domain offers.
pub struct DomainService {
    routes: BTreeMap<&'static str, DispatchFn>,
    health: Box<dyn Fn() -> Health + Send + Sync>,
}

impl DomainService {
    /// Everything that the domain behind `client` answers.
    #[must_use]
    pub fn of<A: RemoteCallable>(client: &Client<A>) -> Self {
        let (routes, client) = (DispatchTable::of(client.clone()), client.clone());
        Self { routes, health: Box::new(move || client.health()) }
    }
}

/// Reads the next events of a domain here for a subscriber elsewhere: `(source, subscriber, told)`.
pub type EventReader =
    Arc<dyn Fn(String, String, i64) -> BoxFuture<'static, Result<EventsReply, CommonError>> + Send + Sync>;
/// Begins to listen to what is shown live.
pub type LiveSource = Arc<dyn Fn() -> BoxLiveStream + Send + Sync>;
/// What is shown live, each item as JSON.
pub type BoxLiveStream = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;

/// What a process offers to others.
pub struct ServerConfig {
    /// Its domains.
    pub domains: HashMap<&'static str, DomainService>,
    /// Their events.
    pub news: Option<EventReader>,
    /// What its notifications show.
    pub show: Option<LiveSource>,
    /// What callers must show, when the processes share a secret.
    pub token: Option<String>,
    /// Bytes of the largest message.
    pub message_max: usize,
    /// How long a stop waits for calls under way.
    pub drain_timeout: Duration,
}

/// The server, bound.
pub struct Server {
    address: SocketAddr,
    incoming: TcpIncoming,
    router: tonic::service::RoutesBuilder,
    offers: Arc<DomainsService>,
    reporter: HealthReporter,
    drain_timeout: Duration,
    stop: watch::Sender<bool>,
}

/// Stops a [`Server`] from elsewhere.
#[derive(Clone)]
pub struct Handle(watch::Sender<bool>);

struct DomainsService {
    offers: ServerConfig,
    token: Option<[u8; 32]>,
    /// Resolves when the process is on its way out.
    stopping: Shutdown,
}

type Shutdown = Shared<BoxFuture<'static, ()>>;

impl Server {
    /// Binds `address`. Calls are answered from [`Server::run`] on.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr, offers: ServerConfig) -> io::Result<Self> {
        let incoming = TcpIncoming::bind(address)?.with_nodelay(Some(true));
        let address = incoming.local_addr()?;
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let stopping = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let (drain_timeout, message_max) = (offers.drain_timeout, offers.message_max);
        let token = offers.token.as_deref().map(|token| Sha256::digest(token).into());
        let door = Arc::new(DomainsService { offers, token, stopping: stopping.boxed().shared() });
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut router = tonic::service::RoutesBuilder::default();
        router.add_service(health);
        router.add_service(
            DomainsServer::from_arc(Arc::clone(&door))
                .max_decoding_message_size(message_max)
                .max_encoding_message_size(message_max),
        );
        Ok(Self { address, incoming, router, offers: door, reporter, drain_timeout, stop })
    }

    /// Where it listens; with the port the system gave when none was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds services beside those for other processes.
    pub fn services(&mut self) -> &mut tonic::service::RoutesBuilder {
        &mut self.router
    }

    /// What stops it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.stop.clone())
    }

    /// Answers until it is stopped. When this returns, the calls under way have been answered, as far as the drain
    /// timeout allowed.
    ///
    /// # Errors
    /// When accepting connections failed for good.
    pub async fn run(self) -> Result<(), tonic::transport::Error> {
        let Self { incoming, router, offers, reporter, drain_timeout, .. } = self;
        let stopping = offers.stopping.clone();
        let telling = tokio::spawn(tell(Arc::clone(&offers), reporter));
        let mut server = tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .initial_stream_window_size(HTTP2_WINDOW)
            .initial_connection_window_size(HTTP2_WINDOW * 4);
        let served = server.add_routes(router.routes()).serve_with_incoming_shutdown(incoming, stopping.clone());
        let patience = async {
            stopping.await;
            tokio::time::sleep(drain_timeout).await;
        };
        let result = tokio::select! {
            result = served => result,
            () = patience => Ok(()),
        };
        telling.abort();
        result
    }
}

impl Handle {
    /// No new connection is taken, what was accepted is answered.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Keeps the health service up to date, and ends what watches it when the process goes.
async fn tell(door: Arc<DomainsService>, mut reporter: HealthReporter) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    loop {
        let mut all = Serving;
        for (name, offer) in &door.offers.domains {
            let status = (offer.health)().status;
            let up = matches!(status, HealthStatus::Up | HealthStatus::Degraded);
            reporter.set_service_status(*name, if up { Serving } else { NotServing }).await;
            // A process in which a domain is yet to come is as it should be.
            all = if up || status == HealthStatus::Off { all } else { NotServing };
        }
        reporter.set_service_status("", all).await;
        if tokio::time::timeout(HEALTH_PUBLISH_INTERVAL, door.stopping.clone()).await.is_ok() {
            for name in door.offers.domains.keys().copied().chain([""]) {
                reporter.set_service_status(name, NotServing).await;
                reporter.clear_service_status(name).await;
            }
            return;
        }
    }
}

impl DomainsService {
    /// Whether the caller is a process of this shop.
    fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(token) = &self.token else { return Ok(()) };
        let shown = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let shown = shown.strip_prefix("Bearer ").unwrap_or_default();
        // Digests are compared, so that how long it takes says nothing about the token.
        let digest: [u8; 32] = Sha256::digest(shown).into();
        if digest == *token {
            Ok(())
        } else {
            Err(Status::unauthenticated("this is for processes of the shop: wrong token"))
        }
    }

    fn context(&self, metadata: &MetadataMap, call: &CallRequest) -> Result<RequestContext, Status> {
        let caller: Caller =
            serde_json::from_slice(&call.caller).map_err(|_| Status::invalid_argument("the caller cannot be read"))?;
        if call.request_id.len() > KEY_MAX || call.idempotency_key.len() > KEY_MAX {
            return Err(Status::invalid_argument("the request id or the idempotency key is too long"));
        }
        let mut ctx = RequestContext::new(caller, call.request_id.as_str()).with_timeout(patience(metadata));
        if !call.idempotency_key.is_empty() {
            // Keys of the domains' own are longer than those of outsiders.
            ctx.key = Some(IdempotencyKey::own(&call.idempotency_key));
        }
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        ctx.trace = text("traceparent").and_then(trace::read);
        #[cfg(feature = "test-hooks")]
        {
            ctx.panic_at = text("x-test-panic").map(Into::into);
        }
        Ok(ctx)
    }
}

/// How long the caller waits (`grpc-timeout`: up to eight digits and a unit).
pub fn patience(metadata: &MetadataMap) -> Duration {
    let text = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let read = |text: &str| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3_600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    };
    text.and_then(read).unwrap_or(CALL_TIMEOUT).min(CALL_TIMEOUT_MAX)
}

#[tonic::async_trait]
impl Domains for DomainsService {
    async fn names(&self, request: Request<NamesRequest>) -> Result<Response<NamesReply>, Status> {
        self.admit(request.metadata())?;
        let domains = self.offers.domains.iter().map(|(name, offer)| Domain {
            domain: (*name).to_owned(),
            names: offer.routes.keys().map(|name| (*name).to_owned()).collect(),
            health: serde_json::to_vec(&(offer.health)()).unwrap_or_default().into(),
        });
        Ok(Response::new(NamesReply { version: env!("CARGO_PKG_VERSION").to_owned(), domains: domains.collect() }))
    }

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        self.admit(request.metadata())?;
        let (metadata, _, call) = request.into_parts();
        let domain = self.offers.domains.get(call.domain.as_str());
        let route = domain.and_then(|domain| domain.routes.get(call.name.as_str()));
        let Some(route) = route else {
            return Err(Status::unimplemented("this process does not answer that message of that domain"));
        };
        let ctx = self.context(&metadata, &call)?;
        let outcome = match trace::within(ctx.trace.clone(), route(ctx.clone(), &call.body)).await {
            EncodedReply::Reply(body) => call_reply::Outcome::Body(body.into()),
            EncodedReply::Error(error) => call_reply::Outcome::Error(error.into()),
            EncodedReply::DecodeError => return Err(Status::invalid_argument("the message cannot be read")),
            EncodedReply::EncodeError => return Err(Status::internal("the answer cannot be written")),
        };
        Ok(Response::new(CallReply { outcome: Some(outcome), replayed: ctx.is_replayed() }))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<EventsReply>, Status> {
        self.admit(request.metadata())?;
        let Some(news) = &self.offers.news else {
            return Err(Status::unimplemented("this process has no events to fetch"));
        };
        let EventsRequest { source, subscriber, told } = request.into_inner();
        let reply = tokio::select! {
            reply = news(source, subscriber, told) => reply,
            () = self.stopping.clone() => Ok(EventsReply::default()),
        };
        // An answer, not a lost call: this process is as it should be.
        reply.map(Response::new).map_err(|failure| Status::failed_precondition(failure.to_string()))
    }

    type LiveStream = Pin<Box<dyn Stream<Item = Result<LiveReply, Status>> + Send>>;

    async fn live(&self, request: Request<LiveRequest>) -> Result<Response<Self::LiveStream>, Status> {
        self.admit(request.metadata())?;
        let Some(show) = &self.offers.show else {
            return Err(Status::unimplemented("this process has nothing to show live"));
        };
        // Begun before the first item says so: nothing falls between.
        let shown = show();
        let begun = stream::once(async { Bytes::new() });
        let items = begun.chain(shown.map(Bytes::from)).map(|push| Ok(LiveReply { push }));
        Ok(Response::new(Box::pin(items.take_until(self.stopping.clone()))))
    }
}

/// What a listener hears, as a stream; `lost` stands for what it was too slow for.
pub fn heard<T: Clone + Send + 'static>(
    listener: broadcast::Receiver<T>,
    lost: Vec<u8>,
    write: impl Fn(&T) -> Vec<u8> + Clone + Send + 'static,
) -> BoxLiveStream {
    Box::pin(stream::unfold((listener, lost, write), |(mut listener, lost, write)| async move {
        let item = match listener.recv().await {
            Ok(item) => write(&item),
            Err(broadcast::error::RecvError::Lagged(_)) => lost.clone(),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((item, (listener, lost, write)))
    }))
}
