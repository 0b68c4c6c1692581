//! `/metrics`: the figures of this process, for Prometheus; and those of HTTP, counted by route.
//!
//! A route is named by its pattern, never by a path: paths have ids in them, and each would be a series of its own.
//! Every number is read, or asked for, when somebody looks; what is counted on the way is an atomic addition to a
//! counter that was found when the routes were laid ([`Route`]) or is the message's own ([`RequestMetrics`]).

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::asked::is_internal;
use super::problem::Problem;
use super::state::GatewayState;
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::messaging::{CommonError, Health, HealthStatus, RequestMetrics, RequestMetricsSnapshot};
use crate::settings::DomainLocation;

/// The form of what is answered. Everything that reads Prometheus' figures reads this one.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a database may take to say what waits in it. One that does not is left out, and the rest is answered.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// The classes of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// What is counted where a path, or a method at it, is none of ours.
const UNMATCHED: &str = "other";

/// All routes of this process. Their number is that of the patterns in `routes.rs`.
static ROUTES: Mutex<Vec<Arc<Route>>> = Mutex::new(Vec::new());
/// What has no route.
static NO_ROUTE: LazyLock<Arc<Route>> = LazyLock::new(|| Route::of(UNMATCHED, &[]));
/// Requests under way.
static IN_FLIGHT: AtomicI64 = AtomicI64::new(0);
/// When the process began to serve.
static STARTED_AT: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());

/// Notes that the process begins to serve.
pub fn begin() {
    LazyLock::force(&STARTED_AT);
    LazyLock::force(&NO_ROUTE);
}

/// What is counted of one route.
#[derive(Debug)]
pub struct Route {
    pattern: String,
    /// The methods it has, and last whatever else it was asked by.
    methods: Vec<(&'static str, RouteMetrics)>,
}

#[derive(Debug, Default)]
struct RouteMetrics {
    answers: [AtomicU64; CLASSES.len()],
    took: Histogram,
}

impl Route {
    /// The route with this pattern and these methods; the same for all threads.
    pub fn of(pattern: &str, methods: &[&'static str]) -> Arc<Self> {
        let mut routes = ROUTES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.iter().find(|route| route.pattern == pattern) {
            return Arc::clone(route);
        }
        let methods = methods.iter().chain(&[UNMATCHED]).map(|method| (*method, RouteMetrics::default())).collect();
        let route = Arc::new(Self { pattern: pattern.to_owned(), methods });
        routes.push(Arc::clone(&route));
        route
    }

    fn note(&self, method: &Method, status: StatusCode, took: Duration) {
        let known = self.methods.iter().find(|(name, _)| *name == method.as_str()).or_else(|| self.methods.last());
        let Some((_, figures)) = known else { return };
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(answers) = figures.answers.get(class) {
            answers.fetch_add(1, Relaxed);
        }
        figures.took.note(took);
    }
}

/// A request under way. Dropped before it was answered, its caller is gone, and it counts as no answer.
pub struct InFlightRequest(Method);

impl InFlightRequest {
    /// One more.
    pub fn begin(method: &Method) -> Self {
        IN_FLIGHT.fetch_add(1, Relaxed);
        Self(method.clone())
    }

    /// It is answered: its head, that is; a picture or a live stream may take longer.
    pub fn answered(self, answer: &ServiceResponse, began: Instant) {
        let route = answer.request().app_data::<Arc<Route>>().unwrap_or(&NO_ROUTE);
        route.note(&self.0, answer.status(), began.elapsed());
    }

    /// It is answered, and nobody knows any more by what route it went: its handler panicked.
    pub fn lost(self, status: StatusCode, began: Instant) {
        NO_ROUTE.note(&self.0, status, began.elapsed());
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        IN_FLIGHT.fetch_sub(1, Relaxed);
    }
}

/// GET `/metrics`. For the shop's own networks, as the action log is: how much is sold, and which parts of the shop are
/// ill, is nobody else's matter.
pub async fn show(request: HttpRequest, gate: web::Data<GatewayState>) -> Result<HttpResponse, Problem> {
    if !is_internal(&request, &gate) {
        return Err(CommonError::InternalOnly.into());
    }
    let page = Snapshot::of(&gate).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut body = String::new();
    text::encode_registry(&mut body, &registry).map_err(|error| {
        log::error!("the figures cannot be written: {error}");
        CommonError::Internal
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body))
}

/// What is not counted on the way, but asked for when somebody looks.
#[derive(Debug)]
struct Snapshot {
    health: Vec<(&'static str, Health)>,
    /// Source, subscriber, and how many events it has not heard of.
    backlog: Vec<(&'static str, &'static str, i64)>,
    /// Whose database, and how many changes wait for it.
    writes: Vec<(&'static str, i64)>,
    /// Only where the gateway is.
    live: Option<i64>,
}

impl Snapshot {
    async fn of(gate: &GatewayState) -> Self {
        let stores = gate.outboxes.kept();
        let writes = stores.iter().map(|(store, _)| (store.domain(), whole(store.queue_depth()))).collect();
        let backlog = join_all(stores.into_iter().map(async |(store, names)| {
            let told = tokio::time::timeout(BACKLOG_TIMEOUT, store.outbox_backlog(names)).await;
            let told = told.ok().and_then(Result::ok).unwrap_or_default();
            told.into_iter().map(|(name, events)| (store.domain(), name, events)).collect::<Vec<_>>()
        }));
        let known = |name: &str, health: &Health| {
            health.status != HealthStatus::Off && gate.settings.domain(name).place != DomainLocation::RemoteUnspecified
        };
        Self {
            health: gate.clients.health().into_iter().filter(|(name, health)| known(name, health)).collect(),
            backlog: backlog.await.into_iter().flatten().collect(),
            writes,
            live: gate.settings.gateway.then(|| whole(gate.hub.listeners())),
        }
    }
}

fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Numbers and their labels.
trait Write {
    fn number(&mut self, labels: &impl EncodeLabelSet, number: i64) -> fmt::Result;
    fn times(&mut self, labels: &impl EncodeLabelSet, times: &HistogramSnapshot) -> fmt::Result;
}

impl Write for MetricEncoder<'_> {
    /// Counters are written this way too: the form with which the library writes them is that of OpenMetrics, in which
    /// the name of a counter and that of its numbers differ, and which older readers take for two things.
    fn number(&mut self, labels: &impl EncodeLabelSet, number: i64) -> fmt::Result {
        self.encode_family(labels)?.encode_gauge(&number)
    }

    fn times(&mut self, labels: &impl EncodeLabelSet, times: &HistogramSnapshot) -> fmt::Result {
        self.encode_family(labels)?.encode_histogram::<NoLabelSet>(times.sum, times.count, &times.buckets, None)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut to;
        process(to)?;
        self.domains(to)?;
        messages(to)?;
        http(to)?;
        if let Some(live) = self.live {
            let help = "Live sessions, WebSocket and server-sent events.";
            gauge(to, "mercat_live_sessions", help)?.encode_gauge(&live)?;
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
        let mut written = gauge(to, "mercat_domain_state", "How each domain is: 1 for the state it is in.")?;
        for (domain, health) in &self.health {
            let place = if health.is_local() { "local" } else { "remote" };
            for (state, word) in states {
                let labels = [("domain", *domain), ("place", place), ("state", word)];
                written.number(&labels, i64::from(health.status == state))?;
            }
        }
        let mut written =
            gauge(to, "mercat_domain_queue_depth", "Requests that a domain has in hand for this process.")?;
        for (domain, health) in &self.health {
            written.number(&[("domain", *domain)], whole(health.queue_depth))?;
        }
        let mut written = counter(to, "mercat_domain_restarts_total", "Restarts of a domain here after a panic.")?;
        for (domain, health) in self.health.iter().filter(|(_, health)| health.is_local()) {
            written.number(&[("domain", *domain)], whole(health.restarts))?;
        }
        let mut written = gauge(to, "mercat_domain_read_only", "1 while the domain's database takes no change.")?;
        for (domain, health) in &self.health {
            written.number(&[("domain", *domain)], i64::from(health.read_only))?;
        }
        let mut written = gauge(to, "mercat_store_waiting_writes", "Changes that wait for a domain's database.")?;
        for (domain, waiting) in &self.writes {
            written.number(&[("domain", *domain)], *waiting)?;
        }
        let help = "Events that a subscriber has not heard of yet; over RabbitMQ the subscriber is the broker.";
        let mut written = gauge(to, "mercat_outbox_backlog_events", help)?;
        for (source, subscriber, events) in &self.backlog {
            written.number(&[("source", *source), ("subscriber", *subscriber)], *events)?;
        }
        Ok(())
    }
}

fn messages(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let all = RequestMetrics::all();
    let labels = |counted: &RequestMetricsSnapshot| {
        let domain = counted.name.split('.').next().unwrap_or_default();
        [("domain", domain), ("message", counted.name), ("place", counted.place)]
    };
    let help = "How long messages took until they were answered, by whom asked here.";
    let mut written = histogram(to, "mercat_message_duration_seconds", help)?;
    for counted in &all {
        written.times(&labels(counted), &counted.took)?;
    }
    let mut written = counter(to, "mercat_message_errors_total", "Messages that failed, by kind.")?;
    for counted in &all {
        for (kind, count) in &counted.failed {
            written.number(&(labels(counted), [("kind", *kind)]), whole(*count))?;
        }
    }
    let mut written = gauge(to, "mercat_messages_in_flight", "Messages that were asked here and not answered yet.")?;
    for counted in &all {
        written.number(&labels(counted), counted.in_flight)?;
    }
    Ok(())
}

fn http(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let routes = ROUTES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let figures: Vec<_> = routes
        .iter()
        .flat_map(|route| route.methods.iter().map(|(method, figures)| (&*route.pattern, *method, figures)))
        .map(|(route, method, figures)| (route, method, figures, figures.took.read()))
        .filter(|(.., took)| took.count > 0)
        .collect();
    let mut written = counter(to, "mercat_http_requests_total", "HTTP requests that were answered.")?;
    for (route, method, figures, _) in &figures {
        for (class, count) in CLASSES.iter().zip(&figures.answers) {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels = [("method", *method), ("route", *route), ("status", *class)];
                written.number(&labels, whole(count))?;
            }
        }
    }
    let help = "How long HTTP requests took until the head of their answer.";
    let mut written = histogram(to, "mercat_http_request_duration_seconds", help)?;
    for (route, method, _, took) in &figures {
        written.times(&[("method", *method), ("route", *route)], took)?;
    }
    gauge(to, "mercat_http_requests_in_flight", "HTTP requests that are not answered yet.")?
        .encode_gauge(&IN_FLIGHT.load(Relaxed))
}

fn process(to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    gauge(to, "mercat_build_info", "Which version runs.")?.number(&version, 1)?;
    // By the names that all programs have for them.
    gauge(to, "process_start_time_seconds", "When the process began to serve, in seconds since 1970.")?
        .encode_gauge(&*STARTED_AT)?;
    if let Some(bytes) = resident() {
        gauge(to, "process_resident_memory_bytes", "Resident memory.")?.encode_gauge(&bytes)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(to, "process_open_fds", "Open file descriptors.")?.encode_gauge(&whole(files.count()))?;
    }
    Ok(())
}

/// Bytes of resident memory, where the system says it as Linux does.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
