//! Connection to one address of another process, with the peer's own report of its domains and a circuit breaker.
//!
//! A task connects, exchanges a handshake, probes the peer every few seconds and reconnects with growing delays. Calls
//! only use connections that the task has found to work, so that an unreachable address does not delay them.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::breaker::CircuitBreaker;
use super::proto::domains_client::DomainsClient;
use super::proto::{NamesReply, NamesRequest};
use super::tls::client_config;
use crate::messaging::{Backoff, CommonError, HealthStatus};
use crate::types::{Address, PeerTls};

/// Time limit of the TCP and HTTP/2 connection, and again of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two probes without a failed call.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of one probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Probes in a row that may time out: a busy machine is not a dead one.
const MISSED_PROBES_MAX: u32 = 2;
/// Delays before an address is tried again, each with 20 % jitter.
const RECONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// Interval and time limit of HTTP/2 pings, which find a connection that was cut silently.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// HTTP/2 flow control window of one stream, in bytes.
const HTTP2_WINDOW: u32 = 1 << 20;

const BREAKER_OPEN_MESSAGE: &str = "circuit breaker open after repeated failures";

/// Settings shared by all connections of a process.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Value of the `authorization` header, if the processes share a token.
    pub token: Option<MetadataValue<Ascii>>,
    /// Certificates, if the processes of the shop have any.
    pub tls: Option<PeerTls>,
    /// Largest message in bytes.
    pub message_max: usize,
}

impl PeerConfig {
    /// Wraps a message in a request with the shared token.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

/// One address of a peer with its connection.
pub struct PeerConnection {
    /// Address that it connects to.
    pub address: SocketAddr,
    state: Mutex<ConnectionState>,
    /// Notified after a failed call, for an early probe.
    suspect: Notify,
    /// Notified of every change of the state.
    changed: watch::Sender<()>,
}

enum ConnectionState {
    /// First attempt since it was last up.
    Connecting,
    Up(Arc<Connection>),
    /// Not called at present, for this reason.
    Open(Arc<str>),
}

/// Working connection.
pub struct Connection {
    /// gRPC client on this connection.
    pub client: DomainsClient<Channel>,
    info: Mutex<Arc<PeerInfo>>,
    breaker: Mutex<CircuitBreaker>,
    lost: watch::Sender<bool>,
}

/// A process's report of itself.
#[derive(Debug, Default)]
pub struct PeerInfo {
    /// Version of its program.
    pub version: String,
    /// Reports of its domains, by name.
    pub domains: HashMap<String, PeerDomainInfo>,
}

/// A process's report of one of its domains.
#[derive(Debug)]
pub struct PeerDomainInfo {
    /// Names of the messages that it handles.
    pub names: BTreeSet<String>,
    /// Health of the domain in that process.
    pub health: ReportedHealth,
}

/// Health of a domain as reported by its own process.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ReportedHealth {
    /// State of the domain.
    pub status: HealthStatus,
    /// Number of requests in progress.
    #[serde(default)]
    pub queue_depth: usize,
    /// Number of restarts after panics.
    #[serde(default)]
    pub restarts: u64,
    /// Whether its database cannot be written.
    #[serde(default)]
    pub read_only: bool,
    /// Whether its database cannot be read.
    #[serde(default)]
    pub unreadable: bool,
}

/// Reason for a missing reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The request was not sent; it may be sent again, whatever it is.
    NotSent(String),
    /// The connection broke after the request was sent; it may have been executed.
    OutcomeUnknown(String),
    /// The peer rejected the call, or the deadline passed. A retry would end the same way.
    Rejected(CommonError, String),
}

impl CallError {
    /// Returns the cause as text.
    pub fn into_reason(self) -> String {
        match self {
            Self::NotSent(reason) | Self::OutcomeUnknown(reason) | Self::Rejected(_, reason) => reason,
        }
    }
}

/// Status of an address, for `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressStatus {
    /// Not connected yet, or connecting again.
    Connecting,
    /// Connected.
    Up,
    /// Not connected, for this reason.
    Down(Arc<str>),
}

/// Admitted call, which reports its outcome to the breaker, also when dropped.
pub struct BreakerPermit {
    /// Connection that the call uses.
    pub connection: Arc<Connection>,
    peer: Arc<PeerConnection>,
    is_reported: bool,
}

impl PeerConnection {
    /// Starts the task that keeps a connection to `address`, one of those that `peer` resolves to. The task ends when the
    /// last handle is dropped.
    pub fn start(peer: Address, address: SocketAddr, config: PeerConfig, changed: watch::Sender<()>) -> Arc<Self> {
        let this =
            Arc::new(Self { address, state: Mutex::new(ConnectionState::Connecting), suspect: Notify::new(), changed });
        tokio::spawn(run(Arc::downgrade(&this), peer, address, config));
        this
    }

    /// Returns the status for `/health`.
    pub fn status(&self) -> AddressStatus {
        match &*self.state.lock() {
            ConnectionState::Connecting => AddressStatus::Connecting,
            ConnectionState::Up(_) => AddressStatus::Up,
            ConnectionState::Open(why) => AddressStatus::Down(Arc::clone(why)),
        }
    }

    /// Returns the connection if there is one.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        match &*self.state.lock() {
            ConnectionState::Up(connection) => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// Admits a call if there is a connection and its breaker is not open.
    pub fn admit(self: &Arc<Self>) -> Option<BreakerPermit> {
        let connection = self.connection()?;
        let admitted = connection.breaker.lock().admit();
        admitted.then(|| BreakerPermit { connection, peer: Arc::clone(self), is_reported: false })
    }

    fn set(&self, state: ConnectionState) {
        *self.state.lock() = state;
        self.changed.send_replace(());
    }
}

impl Connection {
    /// Returns the peer's latest report of itself.
    pub fn peer_info(&self) -> Arc<PeerInfo> {
        Arc::clone(&self.info.lock())
    }

    /// Waits until the connection is found broken.
    pub async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        // An error means that the connection was dropped, which amounts to the same.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Whether the connection was found broken.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }
}

impl BreakerPermit {
    /// Waits for the reply of `sent`, at most until the connection breaks, and reports the outcome to the breaker.
    pub async fn reply<T>(
        mut self,
        sent: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, CallError> {
        let connection = Arc::clone(&self.connection);
        let reply = tokio::select! {
            biased;
            reply = sent => reply.map_err(|status| call_error(&status)),
            () = connection.lost() => Err(CallError::OutcomeUnknown("the connection broke".to_owned())),
        };
        self.is_reported = true;
        let mut breaker = connection.breaker.lock();
        match &reply {
            Ok(_) => breaker.on_success(),
            // A rejection is a reply, except for the deadline.
            Err(CallError::Rejected(error, _)) if *error != CommonError::DeadlineExceeded => breaker.on_success(),
            Err(CallError::Rejected(..)) => breaker.on_cancelled(),
            Err(CallError::NotSent(_) | CallError::OutcomeUnknown(_)) => {
                breaker.on_failure();
                self.peer.suspect.notify_one();
            }
        }
        drop(breaker);
        reply.map(tonic::Response::into_inner)
    }
}

impl Drop for BreakerPermit {
    fn drop(&mut self) {
        if !self.is_reported {
            self.connection.breaker.lock().on_cancelled();
            // The caller waited in vain: probe the peer early.
            self.peer.suspect.notify_one();
        }
    }
}

/// Classifies a gRPC status that carries no reply.
fn call_error(status: &Status) -> CallError {
    let text = || format!("{:?}: {}", status.code(), status.message());
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    // A status sent by the peer has no cause on this side.
    if cause.is_none() {
        return match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => CallError::Rejected(CommonError::DeadlineExceeded, text()),
            Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted | Code::Internal => {
                CallError::Rejected(CommonError::Internal, text())
            }
            Code::Unavailable | Code::Unknown | Code::Aborted => CallError::OutcomeUnknown(text()),
            _ => CallError::Rejected(CommonError::Unavailable, text()),
        };
    }
    while let Some(error) = cause {
        let never_sent = error.is::<tonic::ConnectError>()
            || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if never_sent {
            return CallError::NotSent(text());
        }
        if error.is::<tonic::TimeoutExpired>() {
            return CallError::Rejected(CommonError::DeadlineExceeded, text());
        }
        cause = error.source();
    }
    CallError::OutcomeUnknown(text())
}

/// Keeps a connection until the last handle of `peer` is dropped.
async fn run(peer: Weak<PeerConnection>, name: Address, address: SocketAddr, config: PeerConfig) {
    let (mut backoff, mut was_tripped) = (RECONNECT_BACKOFF, false);
    loop {
        let connected = connect(&name, address, &config).await;
        let reason: Arc<str> = match connected {
            Err(error) => {
                let Some(this) = peer.upgrade() else { return };
                if !matches!(this.status(), AddressStatus::Down(before) if *before == *error) {
                    log::warn!("peer {address}: connect failed: {error}");
                }
                error.into()
            }
            Ok((client, info)) => {
                let breaker = if was_tripped { CircuitBreaker::half_open() } else { CircuitBreaker::default() };
                let connection = Connection {
                    client,
                    info: Mutex::new(Arc::new(info)),
                    breaker: Mutex::new(breaker),
                    lost: watch::Sender::new(false),
                };
                let Some(end) = use_connection(&peer, address, connection, &config).await else { return };
                was_tripped = matches!(end, Disconnect::BreakerOpened);
                if !was_tripped {
                    backoff.reset();
                    continue;
                }
                BREAKER_OPEN_MESSAGE.into()
            }
        };
        let Some(this) = peer.upgrade() else { return };
        this.set(ConnectionState::Open(reason));
        drop(this);
        tokio::time::sleep(jitter(backoff.next_delay())).await;
    }
}

/// Offers a new connection to calls and monitors it until it ends. `None` if the peer is dropped meanwhile.
async fn use_connection(
    peer: &Weak<PeerConnection>,
    address: SocketAddr,
    connection: Connection,
    config: &PeerConfig,
) -> Option<Disconnect> {
    let connection = Arc::new(connection);
    log::info!("peer {address}: connected: {}", describe(&connection.peer_info()));
    peer.upgrade()?.set(ConnectionState::Up(Arc::clone(&connection)));
    let end = monitor(peer, &connection, config).await;
    let this = peer.upgrade()?;
    match &end {
        Disconnect::Broken(error) => {
            log::warn!("peer {address}: connection lost: {error}");
            this.set(ConnectionState::Connecting);
        }
        Disconnect::BreakerOpened => {
            log::warn!("peer {address}: {BREAKER_OPEN_MESSAGE}");
            this.set(ConnectionState::Open(BREAKER_OPEN_MESSAGE.into()));
        }
    }
    // After the state has changed, so that calls that wait on this connection do not get it again.
    connection.lost.send_replace(true);
    Some(end)
}

enum Disconnect {
    Broken(String),
    BreakerOpened,
}

/// Probes a connection until it is broken or its breaker opens.
async fn monitor(peer: &Weak<PeerConnection>, connection: &Arc<Connection>, config: &PeerConfig) -> Disconnect {
    let mut missed_probes = 0;
    loop {
        let Some(this) = peer.upgrade() else { return Disconnect::Broken("no longer used".to_owned()) };
        let _ = tokio::time::timeout(PROBE_INTERVAL, this.suspect.notified()).await;
        drop(this);
        match tokio::time::timeout(PROBE_TIMEOUT, handshake(&connection.client, config)).await {
            Ok(Ok(info)) => {
                missed_probes = 0;
                *connection.info.lock() = Arc::new(info);
                let mut breaker = connection.breaker.lock();
                breaker.on_probe_ok();
                if breaker.is_open() {
                    return Disconnect::BreakerOpened;
                }
            }
            Ok(Err(error)) => return Disconnect::Broken(error),
            Err(_) => {
                missed_probes += 1;
                if missed_probes >= MISSED_PROBES_MAX {
                    return Disconnect::Broken("probes timed out".to_owned());
                }
            }
        }
    }
}

async fn connect(
    peer: &Address,
    address: SocketAddr,
    config: &PeerConfig,
) -> Result<(DomainsClient<Channel>, PeerInfo), String> {
    let url = format!("{}://{address}", peer.scheme());
    let mut endpoint = Endpoint::from_shared(url).map_err(|error| root_cause(&error))?;
    if peer.is_tls {
        let tls = config.tls.as_ref().ok_or("an https address needs the certificates peers.tls_*")?;
        endpoint = endpoint.tls_config(client_config(tls, peer)).map_err(|error| root_cause(&error))?;
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW * 4);
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    let client = DomainsClient::new(channel)
        .max_decoding_message_size(config.message_max)
        .max_encoding_message_size(config.message_max);
    match tokio::time::timeout(CONNECT_TIMEOUT, handshake(&client, config)).await {
        Ok(info) => Ok((client, info?)),
        Err(_) => Err("connected, but no answer to the handshake".to_owned()),
    }
}

async fn handshake(client: &DomainsClient<Channel>, config: &PeerConfig) -> Result<PeerInfo, String> {
    match client.clone().names(config.request(NamesRequest {})).await {
        Ok(reply) => Ok(peer_info(reply.into_inner())),
        Err(status) => Err(match status.code() {
            Code::Unauthenticated => {
                "token rejected: peers.token (MERCAT_PEERS__TOKEN) must be the same in every process".to_owned()
            }
            Code::Unimplemented => "the server is no mercat process with domains".to_owned(),
            _ if status.source().is_some() => root_cause(&status),
            code => format!("{code:?}: {}", status.message()),
        }),
    }
}

fn peer_info(reply: NamesReply) -> PeerInfo {
    let domains = reply.domains.into_iter().filter_map(|domain| {
        let health = serde_json::from_slice(&domain.health)
            .inspect_err(|error| log::warn!("peer: health of {} has an unknown form: {error}", domain.domain))
            .ok()?;
        Some((domain.domain, PeerDomainInfo { names: domain.names.into_iter().collect(), health }))
    });
    PeerInfo { version: reply.version, domains: domains.collect() }
}

fn describe(info: &PeerInfo) -> String {
    let mut names: Vec<&str> = info.domains.keys().map(String::as_str).collect();
    names.sort_unstable();
    format!("version {}, {}", info.version, if names.is_empty() { "no domains".to_owned() } else { names.join(", ") })
}

/// Returns the text of the innermost cause; the outer ones only say that something failed.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    let text = innermost.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Varies a delay by 20 %, so that many processes do not reconnect to one at the same time.
fn jitter(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_bytes()[15];
    pause.mul_f64(0.8 + 0.4 * f64::from(random) / 255.0)
}
