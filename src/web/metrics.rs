//! Handler of `/metrics`: metrics of this process in the Prometheus text format, and the counters of HTTP requests.
//!
//! A route is labelled by its pattern, never by a path: paths contain ids, and each would become a series of its own.
//! Gauges are read when the endpoint is called. A request costs atomic additions to counters that were looked up when
//! the router was built ([`ResourceMetrics`]) or belong to the message ([`RequestMetrics`]).

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::client_ip::ClientAddress;
use super::problem::Problem;
use super::rate_limit::{WithinLimits, decisions};
use super::state::GatewayState;
use crate::backup::schedule::{self, ScheduleStatus};
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::messaging::{CommonError, Health, HealthStatus, RequestMetrics, RequestMetricsSnapshot};
use crate::settings::DomainLocation;

/// Media type of the response: the Prometheus text format, which every collector reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Timeout for reading the backlog of one database. A slower one is left out of the response.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// Classes of status codes.
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Label of requests whose path, or whose method at a path, has no route.
const UNMATCHED: &str = "other";

/// Metrics of all patterns of the router.
static RESOURCES: Mutex<Vec<Arc<ResourceMetrics>>> = Mutex::new(Vec::new());
/// Metrics of requests without a route.
static NO_RESOURCE: LazyLock<Arc<ResourceMetrics>> = LazyLock::new(|| ResourceMetrics::of(UNMATCHED, &[]));
/// Requests without a response yet.
static IN_FLIGHT: AtomicI64 = AtomicI64::new(0);
/// Start of serving, in seconds since 1970.
static STARTED_AT: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());

/// Records the start of serving.
pub fn record_start() {
    LazyLock::force(&STARTED_AT);
    LazyLock::force(&NO_RESOURCE);
}

/// Metrics of one path pattern.
#[derive(Debug)]
pub struct ResourceMetrics {
    pattern: String,
    /// Metrics per method, the last one for methods without a route.
    methods: Vec<(&'static str, RouteMetrics)>,
}

#[derive(Debug, Default)]
struct RouteMetrics {
    responses: [AtomicU64; STATUS_CLASSES.len()],
    duration: Histogram,
}

impl ResourceMetrics {
    /// Metrics of a pattern with these methods, shared by all workers.
    pub fn of(pattern: &str, methods: &[&'static str]) -> Arc<Self> {
        let mut resources = RESOURCES.lock();
        if let Some(resource) = resources.iter().find(|resource| resource.pattern == pattern) {
            return Arc::clone(resource);
        }
        let methods = methods.iter().chain(&[UNMATCHED]).map(|method| (*method, RouteMetrics::default())).collect();
        let resource = Arc::new(Self { pattern: pattern.to_owned(), methods });
        resources.push(Arc::clone(&resource));
        resource
    }

    fn record(&self, method: &Method, status: StatusCode, duration: Duration) {
        let known = self.methods.iter().find(|(name, _)| *name == method.as_str()).or_else(|| self.methods.last());
        let Some((_, metrics)) = known else { return };
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(responses) = metrics.responses.get(class) {
            responses.fetch_add(1, Relaxed);
        }
        metrics.duration.observe(duration);
    }
}

/// A request without a response yet. One that is dropped, because its client has disconnected, counts as no response.
pub struct InFlightRequest(Method);

impl InFlightRequest {
    /// Counts a request as in flight.
    pub fn begin(method: &Method) -> Self {
        IN_FLIGHT.fetch_add(1, Relaxed);
        Self(method.clone())
    }

    /// Records the head of the response. The body of an image or a live stream may take longer.
    pub fn finished(self, response: &ServiceResponse, started_at: Instant) {
        let resource = response.request().app_data::<Arc<ResourceMetrics>>().unwrap_or(&NO_RESOURCE);
        resource.record(&self.0, response.status(), started_at.elapsed());
    }

    /// Records a response whose route is not known any more because its handler panicked.
    pub fn unmatched(self, status: StatusCode, started_at: Instant) {
        NO_RESOURCE.record(&self.0, status, started_at.elapsed());
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        IN_FLIGHT.fetch_sub(1, Relaxed);
    }
}

/// GET `/metrics`. Only for internal networks, as the action log is: sales and outages are not public.
pub async fn metrics(
    _: WithinLimits,
    request: HttpRequest,
    state: web::Data<GatewayState>,
) -> Result<HttpResponse, Problem> {
    if !ClientAddress::of(&request, &state.settings).is_internal {
        return Err(CommonError::InternalOnly.into());
    }
    let snapshot = Snapshot::of(&state).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut body = String::new();
    text::encode_registry(&mut body, &registry).map_err(|error| {
        log::error!("web: encoding the metrics failed: {error}");
        CommonError::Internal
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT_FORMAT))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body))
}

/// Gauges, read when the endpoint is called.
#[derive(Debug)]
struct Snapshot {
    health: Vec<(&'static str, Health)>,
    /// Source, subscriber, and number of events not delivered yet.
    backlog: Vec<(&'static str, &'static str, i64)>,
    /// Domain, and number of writes that wait for its database.
    writes: Vec<(&'static str, i64)>,
    /// Live sessions, in a process that runs the gateway.
    live: Option<i64>,
    /// Open HTTP connections, and those refused.
    connections: (i64, i64),
    /// Whether Redis answers, if rates are counted there.
    is_limit_store_up: Option<bool>,
    /// Whether the broker can be used, if one carries the events.
    is_broker_up: Option<bool>,
    /// Backups at intervals, if the process takes them.
    backups: Option<ScheduleStatus>,
}

impl Snapshot {
    async fn of(state: &GatewayState) -> Self {
        let stores = state.outboxes.retained();
        let writes = stores.iter().map(|(store, _)| (store.domain(), as_i64(store.queue_depth()))).collect();
        let backlog = join_all(stores.into_iter().map(async |(store, names)| {
            let backlog = tokio::time::timeout(BACKLOG_TIMEOUT, store.outbox_backlog(names)).await;
            let backlog = backlog.ok().and_then(Result::ok).unwrap_or_default();
            backlog.into_iter().map(|(name, events)| (store.domain(), name, events)).collect::<Vec<_>>()
        }));
        let has_place = |name: &str, health: &Health| {
            health.status != HealthStatus::Off && state.settings.domain(name).place != DomainLocation::RemoteUnspecified
        };
        Self {
            health: state.clients.health().into_iter().filter(|(name, health)| has_place(name, health)).collect(),
            backlog: backlog.await.into_iter().flatten().collect(),
            writes,
            live: state.settings.gateway.then(|| as_i64(state.hub.session_count())),
            connections: (as_i64(state.connections.open()), as_i64(state.connections.refused())),
            is_limit_store_up: state.limits.is_shared_store_up(),
            is_broker_up: state.outboxes.is_broker_up(),
            backups: state.settings.backup.every.map(|_| schedule::status()),
        }
    }
}

fn as_i64(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Writes one sample of a metric.
trait EncodeSample {
    fn number(&mut self, labels: &impl EncodeLabelSet, number: i64) -> fmt::Result;
    fn histogram(&mut self, labels: &impl EncodeLabelSet, durations: &HistogramSnapshot) -> fmt::Result;
}

impl EncodeSample for MetricEncoder<'_> {
    /// Encodes counters too: the library encodes them as OpenMetrics, where a counter and its samples have different
    /// names, and older collectors read that as two metrics.
    fn number(&mut self, labels: &impl EncodeLabelSet, number: i64) -> fmt::Result {
        self.encode_family(labels)?.encode_gauge(&number)
    }

    fn histogram(&mut self, labels: &impl EncodeLabelSet, durations: &HistogramSnapshot) -> fmt::Result {
        let HistogramSnapshot { sum, count, buckets } = durations;
        self.encode_family(labels)?.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        process(to)?;
        self.domains(to)?;
        messages(to)?;
        http(to)?;
        rate_limits(to)?;
        let (open, refused) = self.connections;
        gauge(to, "mercat_http_connections", "Open HTTP connections, live sessions included.")?.encode_gauge(&open)?;
        let help = "HTTP connections refused because too many were open, in all or from one address.";
        counter(to, "mercat_http_connections_refused_total", help)?.encode_gauge(&refused)?;
        if let Some(live) = self.live {
            let help = "Live sessions, WebSocket and server-sent events.";
            gauge(to, "mercat_live_sessions", help)?.encode_gauge(&live)?;
        }
        if let Some(ScheduleStatus { newest_at, failures }) = self.backups {
            let help = "Time of the newest backup that the shop took of itself, in seconds since 1970.";
            gauge(to, "mercat_backup_newest_timestamp_seconds", help)?.encode_gauge(&newest_at)?;
            let help = "Failed attempts of the shop to take a backup of itself.";
            counter(to, "mercat_backup_failures_total", help)?.encode_gauge(&failures)?;
        }
        if let Some(is_up) = self.is_broker_up {
            let help = "1 while the broker can be used, 0 while events wait in the outboxes.";
            gauge(to, "mercat_broker_up", help)?.encode_gauge(&i64::from(is_up))?;
        }
        if let Some(is_up) = self.is_limit_store_up {
            let help = "1 while Redis counts the rates of all gateways, 0 while each counts its own.";
            gauge(to, "mercat_rate_limit_store_up", help)?.encode_gauge(&i64::from(is_up))?;
        }
        Ok(())
    }
}

fn gauge<'a>(to: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Result<MetricEncoder<'a>, fmt::Error> {
    to.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn counter<'a>(to: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Result<MetricEncoder<'a>, fmt::Error> {
    to.encode_descriptor(name, help, None, MetricType::Counter)
}

fn histogram<'a>(
    to: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    to.encode_descriptor(name, help, None, MetricType::Histogram)
}

impl Snapshot {
    fn domains(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let states = [(HealthStatus::Up, "up"), (HealthStatus::Degraded, "degraded"), (HealthStatus::Down, "down")];
        let mut samples = gauge(to, "mercat_domain_state", "State of each domain: 1 for the current one.")?;
        for (domain, health) in &self.health {
            let place = if health.is_local() { "local" } else { "remote" };
            for (state, name) in states {
                let labels = [("domain", *domain), ("place", place), ("state", name)];
                samples.number(&labels, i64::from(health.status == state))?;
            }
        }
        let mut samples =
            gauge(to, "mercat_domain_queue_depth", "Requests of this process that a domain has in flight.")?;
        for (domain, health) in &self.health {
            samples.number(&[("domain", *domain)], as_i64(health.queue_depth))?;
        }
        let mut samples = counter(to, "mercat_domain_restarts_total", "Restarts of a local domain after a panic.")?;
        for (domain, health) in self.health.iter().filter(|(_, health)| health.is_local()) {
            samples.number(&[("domain", *domain)], as_i64(health.restarts))?;
        }
        let mut samples = gauge(to, "mercat_domain_read_only", "1 while the domain's database takes no change.")?;
        for (domain, health) in &self.health {
            samples.number(&[("domain", *domain)], i64::from(health.read_only))?;
        }
        let mut samples =
            gauge(to, "mercat_store_waiting_writes", "Write jobs that wait for the database of a domain.")?;
        for (domain, pending) in &self.writes {
            samples.number(&[("domain", *domain)], *pending)?;
        }
        let help = "Events that a subscriber has not acknowledged yet; over RabbitMQ the subscriber is the broker.";
        let mut samples = gauge(to, "mercat_outbox_backlog_events", help)?;
        for (source, subscriber, events) in &self.backlog {
            samples.number(&[("source", *source), ("subscriber", *subscriber)], *events)?;
        }
        Ok(())
    }
}

fn messages(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let messages = RequestMetrics::all();
    let labels = |message: &RequestMetricsSnapshot| {
        let domain = message.name.split('.').next().unwrap_or_default();
        [("domain", domain), ("message", message.name), ("place", message.place)]
    };
    let help = "Time from sending a message to its reply, measured at the caller and at the domain.";
    let mut samples = histogram(to, "mercat_message_duration_seconds", help)?;
    for message in &messages {
        samples.histogram(&labels(message), &message.durations)?;
    }
    let mut samples = counter(to, "mercat_message_errors_total", "Messages that failed, by kind.")?;
    for message in &messages {
        for (kind, count) in &message.errors {
            samples.number(&(labels(message), [("kind", *kind)]), as_i64(*count))?;
        }
    }
    let mut samples = gauge(to, "mercat_messages_in_flight", "Messages sent or received here that have no reply yet.")?;
    for message in &messages {
        samples.number(&labels(message), message.in_flight)?;
    }
    Ok(())
}

fn http(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let resources = RESOURCES.lock().clone();
    let routes: Vec<_> = resources
        .iter()
        .flat_map(|resource| resource.methods.iter().map(|(method, metrics)| (&*resource.pattern, *method, metrics)))
        .map(|(pattern, method, metrics)| (pattern, method, metrics, metrics.duration.snapshot()))
        .filter(|(.., durations)| durations.count > 0)
        .collect();
    let mut samples = counter(to, "mercat_http_requests_total", "HTTP requests that got a response.")?;
    for (pattern, method, metrics, _) in &routes {
        for (class, count) in STATUS_CLASSES.iter().zip(&metrics.responses) {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels = [("method", *method), ("route", *pattern), ("status", *class)];
                samples.number(&labels, as_i64(count))?;
            }
        }
    }
    let help = "How long HTTP requests took until the head of their answer.";
    let mut samples = histogram(to, "mercat_http_request_duration_seconds", help)?;
    for (pattern, method, _, durations) in &routes {
        samples.histogram(&[("method", *method), ("route", *pattern)], durations)?;
    }
    gauge(to, "mercat_http_requests_in_flight", "HTTP requests that are not answered yet.")?
        .encode_gauge(&IN_FLIGHT.load(Relaxed))
}

fn rate_limits(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut samples = counter(to, "mercat_rate_limit_decisions_total", "Requests counted against a rate limit.")?;
    for (class, counts) in decisions() {
        for (decision, count) in ["allowed", "limited"].into_iter().zip(counts) {
            samples.number(&[("class", class.as_str()), ("decision", decision)], as_i64(count))?;
        }
    }
    Ok(())
}

fn process(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    gauge(to, "mercat_build_info", "Which version runs.")?.number(&version, 1)?;
    // Names that Prometheus client libraries share.
    gauge(to, "process_start_time_seconds", "When the process began to serve, in seconds since 1970.")?
        .encode_gauge(&*STARTED_AT)?;
    if let Some(bytes) = resident_memory() {
        gauge(to, "process_resident_memory_bytes", "Resident memory.")?.encode_gauge(&bytes)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(to, "process_open_fds", "Open file descriptors.")?.encode_gauge(&as_i64(files.count()))?;
    }
    Ok(())
}

/// Resident memory in bytes, on Linux.
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
