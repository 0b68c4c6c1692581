//! One address of another process: its connection, what it says of itself, and whether it is asked at present.
//!
//! A task of its own connects, shakes hands, looks every few seconds whether the other side still answers, and connects
//! again with growing pauses. Calls only ever use what it has found to work, so that a dead address costs them nothing.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::breaker::CircuitBreaker;
use super::proto::domains_client::DomainsClient;
use super::proto::{NamesReply, NamesRequest};
use crate::messaging::{CommonError, HealthStatus};

/// How long connecting may take, and shaking hands once more as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the other side is asked how it is.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to say so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many times in a row it may fail to say so in time. A machine that is very busy is not dead yet.
const MISSED_PROBES_MAX: u32 = 2;
/// The first and the longest pause before an address is tried again.
const RECONNECT_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Pings on an idle connection: a link that was cut without a word is found by them.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How many bytes may be on their way on one stream before the other side has taken them.
const HTTP2_WINDOW: u32 = 1 << 20;

const BREAKER_OPEN_MESSAGE: &str = "call after call was lost";

/// What all links of a process share.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Shown with every call, when the processes share a secret.
    pub token: Option<MetadataValue<Ascii>>,
    /// Bytes of the largest message.
    pub message_max: usize,
}

impl PeerConfig {
    /// A call that carries what the other side believes us by.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

/// One address.
pub struct PeerConnection {
    /// Which.
    pub address: SocketAddr,
    state: Mutex<ConnectionState>,
    suspect: Notify,
    /// Told whenever the state changes.
    changed: watch::Sender<()>,
}

enum ConnectionState {
    /// The first try since it was last up.
    Connecting,
    Up(Arc<Connection>),
    /// Left alone for a while.
    Open(Arc<str>),
}

/// A connection that works.
pub struct Connection {
    /// Asks over it.
    pub client: DomainsClient<Channel>,
    said: Mutex<Arc<PeerInfo>>,
    breaker: Mutex<CircuitBreaker>,
    lost: watch::Sender<bool>,
}

/// What a process says of itself.
#[derive(Debug, Default)]
pub struct PeerInfo {
    /// Its version.
    pub version: String,
    /// Its domains.
    pub domains: HashMap<String, PeerDomainInfo>,
}

/// What a process says of one domain.
#[derive(Debug)]
pub struct PeerDomainInfo {
    /// What it answers.
    pub names: BTreeSet<String>,
    /// How it is.
    pub health: ReportedHealth,
}

/// How a domain is, by its own word.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ReportedHealth {
    /// Its state.
    pub status: HealthStatus,
    /// Requests in hand.
    #[serde(default)]
    pub queue_depth: usize,
    /// Restarts after a panic.
    #[serde(default)]
    pub restarts: u64,
    /// Whether it cannot write.
    #[serde(default)]
    pub read_only: bool,
    /// Whether it cannot read.
    #[serde(default)]
    pub unreadable: bool,
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The request never left: it may be sent elsewhere, whatever it is.
    NotSent(String),
    /// The connection broke: whether it was done is unknown.
    Unknown(String),
    /// The other side, or the deadline, said no. Trying again changes nothing.
    Refused(CommonError, String),
}

/// How an address is, for `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressStatus {
    /// It was not reached yet, or is being reached again.
    Connecting,
    /// It answers.
    Up,
    /// It does not, for this reason.
    Down(Arc<str>),
}

/// A call that was let through; tells the breaker what came of it, also when it is dropped.
pub struct BreakerPermit {
    /// Over which it goes.
    pub connection: Arc<Connection>,
    link: Arc<PeerConnection>,
    told: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PeerConnection {
    /// Starts to keep up a connection to `address`; ends when the link is dropped.
    pub fn start(address: SocketAddr, wire: PeerConfig, changed: watch::Sender<()>) -> Arc<Self> {
        let link =
            Arc::new(Self { address, state: Mutex::new(ConnectionState::Connecting), suspect: Notify::new(), changed });
        tokio::spawn(keep(Arc::downgrade(&link), address, wire));
        link
    }

    /// How it is.
    pub fn seen(&self) -> AddressStatus {
        match &*lock(&self.state) {
            ConnectionState::Connecting => AddressStatus::Connecting,
            ConnectionState::Up(_) => AddressStatus::Up,
            ConnectionState::Open(why) => AddressStatus::Down(Arc::clone(why)),
        }
    }

    /// Its connection, if it has one.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        match &*lock(&self.state) {
            ConnectionState::Up(connection) => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// Lets a call through, if it is asked at present.
    pub fn admit(self: &Arc<Self>) -> Option<BreakerPermit> {
        let connection = self.connection()?;
        let admitted = lock(&connection.breaker).admit();
        admitted.then(|| BreakerPermit { connection, link: Arc::clone(self), told: false })
    }

    fn set(&self, state: ConnectionState) {
        *lock(&self.state) = state;
        self.changed.send_replace(());
    }
}

impl Connection {
    /// What the other side last said of itself.
    pub fn said(&self) -> Arc<PeerInfo> {
        Arc::clone(&lock(&self.said))
    }

    /// Waits until it is found to be broken.
    pub async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        // An error says that the connection is gone altogether, which is the same.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Whether it was found to be broken.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }
}

impl BreakerPermit {
    /// Waits for the answer of what was sent, but not longer than the connection lives.
    pub async fn answer<T>(
        mut self,
        sent: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, CallError> {
        let connection = Arc::clone(&self.connection);
        let answer = tokio::select! {
            biased;
            answer = sent => answer.map_err(|status| trouble(&status)),
            () = connection.lost() => Err(CallError::Unknown("the connection broke".to_owned())),
        };
        self.told = true;
        let mut breaker = lock(&connection.breaker);
        match &answer {
            Ok(_) => breaker.answered(),
            // It did answer.
            Err(CallError::Refused(failure, _)) if *failure != CommonError::DeadlineExceeded => breaker.answered(),
            Err(CallError::Refused(..)) => breaker.given_up(),
            Err(CallError::NotSent(_) | CallError::Unknown(_)) => {
                breaker.lost();
                self.link.suspect.notify_one();
            }
        }
        drop(breaker);
        answer.map(tonic::Response::into_inner)
    }
}

impl Drop for BreakerPermit {
    fn drop(&mut self) {
        if !self.told {
            lock(&self.connection.breaker).given_up();
            // Whoever gave up waited in vain; whether anybody is there is seen sooner that way.
            self.link.suspect.notify_one();
        }
    }
}

/// What a status that is no answer means.
fn trouble(status: &Status) -> CallError {
    let text = || format!("{:?}: {}", status.code(), status.message());
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    // The other side's own word has no cause on this side.
    if cause.is_none() {
        return match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => CallError::Refused(CommonError::DeadlineExceeded, text()),
            Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted | Code::Internal => {
                CallError::Refused(CommonError::Internal, text())
            }
            Code::Unavailable | Code::Unknown | Code::Aborted => CallError::Unknown(text()),
            _ => CallError::Refused(CommonError::Unavailable, text()),
        };
    }
    while let Some(error) = cause {
        let never_sent = error.is::<tonic::ConnectError>()
            || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if never_sent {
            return CallError::NotSent(text());
        }
        if error.is::<tonic::TimeoutExpired>() {
            return CallError::Refused(CommonError::DeadlineExceeded, text());
        }
        cause = error.source();
    }
    CallError::Unknown(text())
}

/// Connects, looks after the connection, and begins again, for as long as anybody holds the link.
async fn keep(link: Weak<PeerConnection>, address: SocketAddr, wire: PeerConfig) {
    let (mut pause, mut tripped) = (RECONNECT_BACKOFF.0, false);
    loop {
        let connected = connect(address, &wire).await;
        let Some(here) = link.upgrade() else { return };
        let (here, why): (Arc<PeerConnection>, Arc<str>) = match connected {
            Err(why) => {
                if !matches!(here.seen(), AddressStatus::Down(before) if *before == *why) {
                    log::warn!("{address} cannot be asked: {why}");
                }
                (here, why.into())
            }
            Ok((client, said)) => {
                let breaker = if tripped { CircuitBreaker::half_open() } else { CircuitBreaker::default() };
                let connection = Arc::new(Connection {
                    client,
                    said: Mutex::new(Arc::new(said)),
                    breaker: Mutex::new(breaker),
                    lost: watch::Sender::new(false),
                });
                log::info!("{address} is connected: {}", summary(&connection.said()));
                here.set(ConnectionState::Up(Arc::clone(&connection)));
                drop(here);
                let end = look_after(&link, &connection, &wire).await;
                let Some(here) = link.upgrade() else { return };
                let again = match &end {
                    Disconnect::Broken(why) => {
                        log::warn!("{address} is lost: {why}");
                        here.set(ConnectionState::Connecting);
                        true
                    }
                    Disconnect::BreakerOpened => {
                        log::warn!("{address} is left alone for a while: call after call was lost");
                        here.set(ConnectionState::Open(BREAKER_OPEN_MESSAGE.into()));
                        false
                    }
                };
                // Told to those who wait on it after it is out of everybody's hands.
                connection.lost.send_replace(true);
                tripped = !again;
                if again {
                    pause = RECONNECT_BACKOFF.0;
                    continue;
                }
                (here, BREAKER_OPEN_MESSAGE.into())
            }
        };
        here.set(ConnectionState::Open(why));
        drop(here);
        tokio::time::sleep(jitter(pause)).await;
        pause = (pause * 2).min(RECONNECT_BACKOFF.1);
    }
}

enum Disconnect {
    Broken(String),
    BreakerOpened,
}

async fn look_after(link: &Weak<PeerConnection>, connection: &Arc<Connection>, wire: &PeerConfig) -> Disconnect {
    let mut silent = 0;
    loop {
        let Some(here) = link.upgrade() else { return Disconnect::Broken("nobody asks it any more".to_owned()) };
        let _ = tokio::time::timeout(PROBE_INTERVAL, here.suspect.notified()).await;
        drop(here);
        match tokio::time::timeout(PROBE_TIMEOUT, names(&connection.client, wire)).await {
            Ok(Ok(said)) => {
                silent = 0;
                *lock(&connection.said) = Arc::new(said);
                let mut breaker = lock(&connection.breaker);
                breaker.looked();
                if breaker.is_open() {
                    return Disconnect::BreakerOpened;
                }
            }
            Ok(Err(why)) => return Disconnect::Broken(why),
            Err(_) => {
                silent += 1;
                if silent >= MISSED_PROBES_MAX {
                    return Disconnect::Broken("it does not answer".to_owned());
                }
            }
        }
    }
}

async fn connect(address: SocketAddr, wire: &PeerConfig) -> Result<(DomainsClient<Channel>, PeerInfo), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| reason(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW * 4);
    let channel = endpoint.connect().await.map_err(|error| reason(&error))?;
    let client = DomainsClient::new(channel)
        .max_decoding_message_size(wire.message_max)
        .max_encoding_message_size(wire.message_max);
    match tokio::time::timeout(CONNECT_TIMEOUT, names(&client, wire)).await {
        Ok(said) => Ok((client, said?)),
        Err(_) => Err("it takes the connection and does not answer".to_owned()),
    }
}

async fn names(client: &DomainsClient<Channel>, wire: &PeerConfig) -> Result<PeerInfo, String> {
    match client.clone().names(wire.request(NamesRequest {})).await {
        Ok(reply) => Ok(said(reply.into_inner())),
        Err(status) => Err(match status.code() {
            Code::Unauthenticated => {
                "it refuses our token: peers.token (MERCAT_PEERS__TOKEN) must be the same in every process".to_owned()
            }
            Code::Unimplemented => "what answers there is no mercat of this kind".to_owned(),
            _ if status.source().is_some() => reason(&status),
            code => format!("{code:?}: {}", status.message()),
        }),
    }
}

fn said(reply: NamesReply) -> PeerInfo {
    let domains = reply.domains.into_iter().filter_map(|domain| {
        let health = serde_json::from_slice(&domain.health)
            .inspect_err(|error| log::warn!("the health of {} cannot be read: {error}", domain.domain))
            .ok()?;
        Some((domain.domain, PeerDomainInfo { names: domain.names.into_iter().collect(), health }))
    });
    PeerInfo { version: reply.version, domains: domains.collect() }
}

fn summary(said: &PeerInfo) -> String {
    let mut names: Vec<&str> = said.domains.keys().map(String::as_str).collect();
    names.sort_unstable();
    format!("version {}, {}", said.version, if names.is_empty() { "no domains".to_owned() } else { names.join(", ") })
}

/// The innermost cause: the outer ones say only that something went wrong.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    let text = innermost.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Spreads the tries of many processes that lost the same one together.
fn jitter(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_bytes()[15];
    pause.mul_f64(0.8 + 0.4 * f64::from(random) / 255.0)
}
