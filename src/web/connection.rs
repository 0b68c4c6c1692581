//! TCP connections of the gateway: counted, refused with 503 above the limit, one file each, and cut from outside.
//!
//! The limit follows from the process's limit of open files, less a reserve for databases and everything else: at the limit
//! of open files SQLite cannot open its files and the whole shop would stop.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, Service};
use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::live::KillSwitch;
use super::network_limit::{NetworkLimit, NetworkPermit};
use super::problem::Problem;
use super::protocol_errors::{ProtocolErrors, last_response};
use super::request_pacing::RequestPacing;
use crate::settings::Settings;
use crate::types::ClientNetwork;

/// Time after which the kernel closes a connection whose peer does not acknowledge sent bytes (`TCP_USER_TIMEOUT`): the
/// last resort for peers that vanish.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Longest time in which a peer reads nothing of what is written to it, although it acknowledges packets.
const STALLED_MAX: Duration = Duration::from_secs(60);
/// Bytes of responses after which no more are prepared until some are sent. A connection keeps a buffer of this size, and a
/// piece of a body, as long as it is open.
const WRITE_BUFFER: usize = 8 * 1_024;
/// Bytes that the kernel keeps for a peer that does not read (`SO_SNDBUF`, of which it makes the double); without a limit it
/// keeps some megabytes for each.
const SEND_BUFFER: usize = 128 * 1_024;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1_024;
/// Files that are kept for databases, logs, the mail server and calls to other processes.
const RESERVED_FILES: usize = 256;
/// Share of the open files that is kept at least, whatever their limit.
const RESERVED_SHARE: usize = 8;
/// Limit of open files that is assumed where there is none.
const UNLIMITED_FILES: usize = 1 << 20;
/// Refused connections that get a response at a time; further ones are closed without a response.
const REFUSALS_MAX: usize = 32;
/// Time that a refused client has to read its response.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Number of connections and their limits.
pub struct ConnectionLimits {
    open: Arc<NetworkLimit>,
    /// Proxies, which stand for many clients.
    trusted_proxies: Vec<IpNet>,
    refused: AtomicU64,
    refusals: Arc<Semaphore>,
}

impl ConnectionLimits {
    /// The limits by the settings and by the process's limit of open files.
    pub fn new(settings: &Settings) -> Self {
        let max = match settings.limits.connections {
            0 => connections_for(open_files_max()),
            max => max,
        };
        let per_network = match settings.limits.connections_per_network {
            0 => max.div_ceil(4),
            most => most,
        };
        // No limit per network while limits are switched off.
        Self {
            open: NetworkLimit::new(max, settings.limits.enabled.then_some(per_network)),
            trusted_proxies: settings.http.trusted_proxies.clone(),
            refused: AtomicU64::new(0),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    /// Most live sessions: a part of the connections, so that requests always find one.
    pub fn sessions_max(&self) -> usize {
        let max = self.open.max();
        max - max.div_ceil(4)
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.open.open()
    }

    /// Connections refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Counts a connection until the permit is dropped; `None` above a limit.
    fn admit(&self, peer: Option<SocketAddr>) -> Option<NetworkPermit> {
        let is_proxy = |peer: &SocketAddr| {
            let address = peer.ip().to_canonical();
            self.trusted_proxies.iter().any(|network| network.contains(&address))
        };
        let network = peer.filter(|peer| !is_proxy(peer)).map(|peer| ClientNetwork::from(peer.ip()));
        let permit = self.open.admit(network);
        if permit.is_none() {
            self.refused.fetch_add(1, Relaxed);
        }
        permit
    }
}

/// Connections that a process with this limit of open files may have.
fn connections_for(files: usize) -> usize {
    let reserved = RESERVED_FILES.min(files / 2).max(files / RESERVED_SHARE);
    (files - reserved).max(1)
}

/// The process's limit of open files.
fn open_files_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    limit.unwrap_or(UNLIMITED_FILES).min(UNLIMITED_FILES)
}

/// A TCP connection that a [`KillSwitch`] ends.
pub struct ClientConnection {
    /// Taken only when the connection is dropped.
    stream: Option<TcpStream>,
    kill_switch: KillSwitch,
    pacing: RequestPacing,
    protocol_errors: ProtocolErrors,
    /// Runs while the peer takes no more bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    permit: Option<NetworkPermit>,
}

impl ClientConnection {
    fn new(stream: TcpStream, permit: NetworkPermit) -> Self {
        let socket = SockRef::from(&stream);
        let options = socket
            .set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
            .and_then(|()| socket.set_tcp_nodelay(true))
            .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER));
        if let Err(error) = options {
            log::debug!("http: setting the options of a connection failed: {error}");
        }
        Self {
            stream: Some(stream),
            kill_switch: KillSwitch::default(),
            pacing: RequestPacing::default(),
            protocol_errors: ProtocolErrors::default(),
            stalled: None,
            permit: Some(permit),
        }
    }

    /// The result of a write, unless the peer has read nothing for too long.
    fn limit_stall(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED_MAX)));
        std::task::ready!(timer.as_mut().poll(cx));
        self.stream.iter().for_each(drop_unread);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The stream of a connection, unless it was cut.
fn uncut<'a>(
    stream: &'a mut Option<TcpStream>,
    kill_switch: &KillSwitch,
    cx: &Context<'_>,
) -> io::Result<Pin<&'a mut TcpStream>> {
    let stream = stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
    if kill_switch.is_killed(cx) {
        drop_unread(stream);
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(Pin::new(stream))
}

/// Lets the kernel forget what the peer has not read when the connection is closed; it would keep it.
fn drop_unread(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if let (true, Some(stream)) = (self.protocol_errors.has_failed(), self.stream.take()) {
            let permit = self.permit.take();
            actix_web::rt::spawn(async move {
                let _permit = permit;
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, read_to_end(stream)).await;
            });
        }
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, kill_switch, pacing, .. } = self.get_mut();
        let stream = uncut(stream, kill_switch, cx)?;
        // Read from only after all was written. The peer closes then too, and is not left waiting for the time-out.
        if kill_switch.take_finished() {
            SockRef::from(&*stream).shutdown(Shutdown::Write)?;
        }
        pacing.poll_read(cx, buffer, |cx, buffer| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut stream = uncut(&mut this.stream, &this.kill_switch, cx)?;
        let polled = this.protocol_errors.poll_write(bytes, |bytes| stream.as_mut().poll_write(cx, bytes));
        if polled.is_ready() {
            this.pacing.on_write();
        }
        this.limit_stall(polled, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        uncut(&mut this.stream, &this.kill_switch, cx)?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        uncut(&mut this.stream, &this.kill_switch, cx)?.poll_shutdown(cx)
    }
}

/// Time limits and threads of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServerTimeouts {
    /// Longest idle time of a connection.
    pub keep_alive: Duration,
    /// Time in which the head of a request must arrive.
    pub request_head: Duration,
    /// Time that a closing connection may take to finish.
    pub disconnect: Duration,
    /// Time that requests in flight have to end when the server stops.
    pub shutdown: Duration,
    /// Threads; 0 for one per core.
    pub workers: usize,
}

/// Serves an application on an address. Returns the bound address and the server, which runs when it is awaited.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve<F, I, S, B>(
    address: SocketAddr,
    limits: Arc<ConnectionLimits>,
    timeouts: ServerTimeouts,
    app: F,
) -> io::Result<(SocketAddr, Server)>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let listener = bind(address)?;
    let address = listener.local_addr()?;
    let mut server = Server::build()
        .disable_signals()
        .shutdown_timeout(timeouts.shutdown.as_secs())
        .max_concurrent_connections(limits.open.max() + REFUSALS_MAX);
    if timeouts.workers > 0 {
        server = server.workers(timeouts.workers);
    }
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("http", listener, move || {
        let (stopping, limits) = (stopping.clone(), Arc::clone(&limits));
        let app = app().into_factory().map_err(|error| error.into().error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(KeepAlive::Timeout(timeouts.keep_alive))
            .client_request_timeout(timeouts.request_head)
            .client_disconnect_timeout(timeouts.disconnect)
            .h1_write_buffer_size(WRITE_BUFFER)
            .local_addr(address)
            .on_connect_ext(|connection: &ClientConnection, extensions| {
                extensions.insert(connection.kill_switch.clone());
            })
            .finish(map_config(app, |()| AppConfig::default()));
        fn_service(move |stream: TcpStream| std::future::ready(accept(stream, &limits))).and_then(http)
    })?;
    Ok((address, server.run()))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    // A restart need not wait until the connections of the last run are forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes a connection over, or refuses it.
fn accept(
    stream: TcpStream,
    limits: &Arc<ConnectionLimits>,
) -> Result<(ClientConnection, Protocol, Option<SocketAddr>), DispatchError> {
    let peer = stream.peer_addr().ok();
    match limits.admit(peer) {
        Some(permit) => Ok((ClientConnection::new(stream, permit), Protocol::Http1, peer)),
        None => {
            if let Ok(place) = Arc::clone(&limits.refusals).try_acquire_owned() {
                actix_web::rt::spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                });
            }
            Err(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()))
        }
    }
}

/// Responds with 503.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&refusal()).await?;
    read_to_end(stream).await
}

/// Ends a connection after its last response, and reads what the client sends meanwhile: the kernel would reset the
/// connection, and the response with it, if it were closed with bytes unread.
async fn read_to_end(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut ignored = [0; 1_024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// The response to a refused connection.
fn refusal() -> Vec<u8> {
    last_response(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_connections",
        "too many connections are open; close idle ones, or try again later",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_leaves_files_for_the_rest_of_the_shop() {
        for (files, connections) in [(2, 1), (256, 128), (600, 344), (1_024, 768), (65_536, 57_344)] {
            assert_eq!(connections_for(files), connections, "{files} files");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connection_ends_when_its_peer_reads_nothing() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let permit = NetworkLimit::new(1, None).admit(None).unwrap();
        let mut connection = ClientConnection::new(listener.accept().await.unwrap().0, permit);
        let started = tokio::time::Instant::now();
        let mut written = 0;
        let error = loop {
            match connection.write(&[0; 64 * 1_024]).await {
                Ok(bytes) => written += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(written > 0 && started.elapsed() >= STALLED_MAX, "{written} bytes, {:?}", started.elapsed());
    }

    #[test]
    fn networks_have_a_share_and_proxies_the_whole() {
        let mut settings = Settings::for_test(std::path::Path::new("."));
        settings.limits.enabled = true;
        settings.limits.connections = 8;
        settings.http.trusted_proxies = vec!["10.0.0.1/32".parse().unwrap()];
        let limits = Arc::new(ConnectionLimits::new(&settings));
        let admit = |peer: &str| limits.admit(Some(SocketAddr::new(peer.parse().unwrap(), 1)));
        let first: Vec<_> = (0..2).map(|_| admit("2001:db8::1").unwrap()).collect();
        assert!(admit("2001:db8::2").is_none(), "the same /64");
        let other = admit("203.0.113.1").unwrap();
        let proxied: Vec<_> = (0..5).map(|_| admit("10.0.0.1").unwrap()).collect();
        assert!(admit("203.0.113.2").is_none(), "all are open");
        assert_eq!((limits.open(), limits.refused()), (8, 2));
        drop((first, other, proxied));
        assert_eq!(limits.open(), 0);
        assert_eq!(limits.open.networks(), 0);
        assert!(admit("2001:db8::1").is_some());
    }
}
