//! gRPC server for other processes of the shop: calls, events, live pushes and health of the local domains.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
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
use super::tls::server_config;
use crate::messaging::{
    Caller, Client, CommonError, DispatchFn, DispatchTable, EncodedReply, Health, HealthStatus, IdempotencyKey,
    RemoteCallable, RequestContext, Versions, trace,
};
use crate::types::{ClientNetwork, PeerTls};

/// Timeout of a call whose caller states none.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest timeout that a caller may set.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Largest number of concurrent calls on one connection.
const STREAMS_MAX: u32 = 4_096;
/// Interval and time limit of HTTP/2 pings, which end dead connections.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// HTTP/2 flow control window of one stream, in bytes.
const HTTP2_WINDOW: u32 = 1 << 20;
/// Interval at which the health service is updated.
const HEALTH_PUBLISH_INTERVAL: Duration = Duration::from_millis(500);
/// Longest accepted idempotency key and request id, in bytes.
const KEY_MAX: usize = 512;

/// Messages and health of one domain, as offered to other processes.
pub struct DomainService {
    routes: BTreeMap<&'static str, DispatchFn>,
    health: Box<dyn Fn() -> Health + Send + Sync>,
}

impl DomainService {
    /// Returns all messages of the domain behind `client`.
    #[must_use]
    pub fn of<A: RemoteCallable>(client: &Client<A>) -> Self {
        let (routes, client) = (DispatchTable::for_client(client.clone()), client.clone());
        Self { routes, health: Box::new(move || client.health()) }
    }
}

/// Reads the next events of a local domain for a remote subscriber: `(source, subscriber, cursor)`.
pub type EventReader =
    Arc<dyn Fn(String, String, i64) -> BoxFuture<'static, Result<EventsReply, CommonError>> + Send + Sync>;
/// Subscribes to the live pushes of this process.
pub type LiveSource = Arc<dyn Fn() -> BoxLiveStream + Send + Sync>;
/// Live pushes, each as JSON.
pub type BoxLiveStream = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;

/// Configuration of a [`GrpcServer`].
pub struct ServerConfig {
    /// Local domains, by name.
    pub domains: HashMap<&'static str, DomainService>,
    /// Reader of their events, if other processes may pull them.
    pub event_reader: Option<EventReader>,
    /// Live pushes, if the notifications domain is local.
    pub live_source: Option<LiveSource>,
    /// Tokens of which callers must present one; none if the processes share no token.
    pub tokens: Vec<String>,
    /// Certificates; with them only callers with a certificate are served.
    pub tls: Option<PeerTls>,
    /// Largest message in bytes.
    pub message_max: usize,
    /// Longest time that a stop waits for calls in progress.
    pub drain_timeout: Duration,
}

/// Server with a bound address.
pub struct GrpcServer {
    address: SocketAddr,
    incoming: TcpIncoming,
    router: tonic::service::RoutesBuilder,
    service: Arc<DomainsService>,
    reporter: HealthReporter,
    drain_timeout: Duration,
    server: tonic::transport::Server,
    stop: watch::Sender<bool>,
}

/// Handle that stops a [`GrpcServer`].
#[derive(Clone)]
pub struct GrpcHandle(watch::Sender<bool>);

struct DomainsService {
    config: ServerConfig,
    /// Digests of the tokens.
    tokens: Vec<[u8; 32]>,
    /// Resolves when the server is being stopped.
    shutdown: Shutdown,
}

type Shutdown = Shared<BoxFuture<'static, ()>>;

impl GrpcServer {
    /// Binds `address`. Calls are handled once [`GrpcServer::run`] is polled.
    ///
    /// # Errors
    /// When the address cannot be bound, or the certificates cannot be read.
    pub fn bind(address: SocketAddr, config: ServerConfig) -> io::Result<Self> {
        let mut server = tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .initial_stream_window_size(HTTP2_WINDOW)
            .initial_connection_window_size(HTTP2_WINDOW * 4);
        if let Some(tls) = &config.tls {
            server = server.tls_config(server_config(tls)).map_err(io::Error::other)?;
        }
        let incoming = TcpIncoming::bind(address)?.with_nodelay(Some(true));
        let address = incoming.local_addr()?;
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let shutdown = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let (drain_timeout, message_max) = (config.drain_timeout, config.message_max);
        let tokens = config.tokens.iter().map(|token| Sha256::digest(token).into()).collect();
        let service = Arc::new(DomainsService { config, tokens, shutdown: shutdown.boxed().shared() });
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut router = tonic::service::RoutesBuilder::default();
        router.add_service(health);
        router.add_service(
            DomainsServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(message_max)
                .max_encoding_message_size(message_max),
        );
        Ok(Self { address, incoming, router, service, reporter, drain_timeout, server, stop })
    }

    /// Returns the bound address, with the actual port if port 0 was given.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the builder to which further services can be added.
    pub fn services(&mut self) -> &mut tonic::service::RoutesBuilder {
        &mut self.router
    }

    /// Returns a handle that stops the server.
    #[must_use]
    pub fn handle(&self) -> GrpcHandle {
        GrpcHandle(self.stop.clone())
    }

    /// Serves until it is stopped, then waits for calls in progress, at most for the drain timeout.
    ///
    /// # Errors
    /// When accepting connections failed permanently.
    pub async fn run(self) -> Result<(), tonic::transport::Error> {
        let Self { incoming, router, service, reporter, drain_timeout, mut server, .. } = self;
        let shutdown = service.shutdown.clone();
        let publishing = tokio::spawn(publish_health(Arc::clone(&service), reporter));
        let serving = server.add_routes(router.routes()).serve_with_incoming_shutdown(incoming, shutdown.clone());
        let drained = async {
            shutdown.await;
            tokio::time::sleep(drain_timeout).await;
        };
        let result = tokio::select! {
            result = serving => result,
            () = drained => Ok(()),
        };
        publishing.abort();
        result
    }
}

impl GrpcHandle {
    /// Stops accepting connections; accepted calls are completed.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Updates the health service, and ends its watch streams at the shutdown.
async fn publish_health(service: Arc<DomainsService>, mut reporter: HealthReporter) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    loop {
        let mut all = Serving;
        for (name, domain) in &service.config.domains {
            let status = (domain.health)().status;
            let up = matches!(status, HealthStatus::Up | HealthStatus::Degraded);
            reporter.set_service_status(*name, if up { Serving } else { NotServing }).await;
            // A domain that is off or has yet to be moved here is no fault of the process.
            all = if up || status == HealthStatus::Off { all } else { NotServing };
        }
        reporter.set_service_status("", all).await;
        if tokio::time::timeout(HEALTH_PUBLISH_INTERVAL, service.shutdown.clone()).await.is_ok() {
            for name in service.config.domains.keys().copied().chain([""]) {
                reporter.set_service_status(name, NotServing).await;
                reporter.clear_service_status(name).await;
            }
            return;
        }
    }
}

impl DomainsService {
    /// Returns an error unless the caller presents a shared token.
    fn authenticate(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let presented = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let presented = presented.strip_prefix("Bearer ").unwrap_or_default();
        // Digests are compared, so that the duration tells nothing about the token.
        let digest: [u8; 32] = Sha256::digest(presented).into();
        if self.tokens.contains(&digest) {
            Ok(())
        } else {
            Err(Status::unauthenticated("only for processes of this shop: wrong token"))
        }
    }

    fn context(&self, metadata: &MetadataMap, call: &CallRequest) -> Result<RequestContext, Status> {
        let caller: Caller =
            serde_json::from_slice(&call.caller).map_err(|_| Status::invalid_argument("malformed caller"))?;
        if call.request_id.len() > KEY_MAX || call.idempotency_key.len() > KEY_MAX {
            return Err(Status::invalid_argument("request id or idempotency key too long"));
        }
        let mut ctx = RequestContext::new(caller, call.request_id.as_str()).with_timeout(parse_timeout(metadata));
        if !call.idempotency_key.is_empty() {
            // Internal keys are longer than those of clients.
            ctx.key = Some(IdempotencyKey::internal(&call.idempotency_key));
        }
        ctx.versions = call.versions.as_ref().map(|versions| Versions::parse(versions.split(',')));
        ctx.network = call.network.parse::<IpAddr>().ok().map(ClientNetwork::from);
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        ctx.trace = text("traceparent").and_then(trace::parse);
        #[cfg(feature = "test-hooks")]
        {
            ctx.panic_at = text("x-test-panic").map(Into::into);
        }
        Ok(ctx)
    }
}

/// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2). Returns the default if it is missing or malformed.
pub fn parse_timeout(metadata: &MetadataMap) -> Duration {
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
        self.authenticate(request.metadata())?;
        let domains = self.config.domains.iter().map(|(name, domain)| Domain {
            domain: (*name).to_owned(),
            names: domain.routes.keys().map(|name| (*name).to_owned()).collect(),
            health: serde_json::to_vec(&(domain.health)()).unwrap_or_default().into(),
        });
        Ok(Response::new(NamesReply { version: env!("CARGO_PKG_VERSION").to_owned(), domains: domains.collect() }))
    }

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        self.authenticate(request.metadata())?;
        let (metadata, _, call) = request.into_parts();
        let domain = self.config.domains.get(call.domain.as_str());
        let route = domain.and_then(|domain| domain.routes.get(call.name.as_str()));
        let Some(route) = route else {
            return Err(Status::unimplemented("this process does not handle that message of that domain"));
        };
        let ctx = self.context(&metadata, &call)?;
        let outcome = match trace::instrument(ctx.trace.clone(), route(ctx.clone(), &call.body)).await {
            EncodedReply::Reply(body) => call_reply::Outcome::Body(body.into()),
            EncodedReply::Error(error) => call_reply::Outcome::Error(error.into()),
            EncodedReply::DecodeError => return Err(Status::invalid_argument("malformed message")),
            EncodedReply::EncodeError => return Err(Status::internal("reply cannot be encoded")),
        };
        Ok(Response::new(CallReply { outcome: Some(outcome), replayed: ctx.is_replayed() }))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<EventsReply>, Status> {
        self.authenticate(request.metadata())?;
        let Some(read) = &self.config.event_reader else {
            return Err(Status::unimplemented("events are not pulled from this process"));
        };
        let EventsRequest { source, subscriber, cursor } = request.into_inner();
        let reply = tokio::select! {
            reply = read(source, subscriber, cursor) => reply,
            () = self.shutdown.clone() => Ok(EventsReply::default()),
        };
        // A reply in the sense of the circuit breaker: this process is healthy.
        reply.map(Response::new).map_err(|error| Status::failed_precondition(error.to_string()))
    }

    type LiveStream = Pin<Box<dyn Stream<Item = Result<LiveReply, Status>> + Send>>;

    async fn live(&self, request: Request<LiveRequest>) -> Result<Response<Self::LiveStream>, Status> {
        self.authenticate(request.metadata())?;
        let Some(subscribe) = &self.config.live_source else {
            return Err(Status::unimplemented("this process has no live pushes"));
        };
        // Subscribed before the first item says so, so that no push is missed.
        let pushes = subscribe();
        let opening = stream::once(async { Bytes::new() });
        let items = opening.chain(pushes.map(Bytes::from)).map(|push| Ok(LiveReply { push }));
        Ok(Response::new(Box::pin(items.take_until(self.shutdown.clone()))))
    }
}

/// Returns the items of a broadcast as a stream of JSON; `lost` replaces items that the receiver was too slow for.
pub fn live_stream<T: Clone + Send + 'static>(
    receiver: broadcast::Receiver<T>,
    lost: Vec<u8>,
    encode: impl Fn(&T) -> Vec<u8> + Clone + Send + 'static,
) -> BoxLiveStream {
    Box::pin(stream::unfold((receiver, lost, encode), |(mut receiver, lost, encode)| async move {
        let item = match receiver.recv().await {
            Ok(item) => encode(&item),
            Err(broadcast::error::RecvError::Lagged(_)) => lost.clone(),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((item, (receiver, lost, encode)))
    }))
}
