//! Outermost layer around every request: its metadata, its metrics, its log line, the headers of every response, 500
//! after a panic, and problem documents for all errors.

use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::uri::PathAndQuery;
use actix_web::http::{StatusCode, Uri};
use actix_web::{Error, HttpMessage};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::cookies::removal_cookie;
use super::headers::{IDEMPOTENT_REPLAYED, STRICT_TRANSPORT_SECURITY, set_common_headers};
use super::metrics;
use super::pieces::Pieces;
use super::problem::Problem;
use super::request_meta::RequestMeta;
use super::state::GatewayState;
use crate::messaging::{RequestContext, trace};

/// Middleware that wraps the whole application.
pub struct RequestMiddleware(pub Arc<GatewayState>);

/// Service of [`RequestMiddleware`], one per worker.
pub struct RequestMiddlewareService<S> {
    state: Arc<GatewayState>,
    inner: S,
}

impl<S> Transform<S, ServiceRequest> for RequestMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type InitError = ();
    type Transform = RequestMiddlewareService<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(RequestMiddlewareService { state: Arc::clone(&self.0), inner }))
    }
}

impl<S> Service<ServiceRequest> for RequestMiddlewareService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    forward_ready!(inner);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let meta = Rc::new(RequestMeta::new(request.headers()));
        normalize_path(&mut request);
        request.extensions_mut().insert(Rc::clone(&meta));
        let state = Arc::clone(&self.state);
        let metrics = metrics::InFlightRequest::begin(request.method());
        // A handler may panic before there is a future to poll.
        let inner = trace::in_scope(meta.trace.clone(), || {
            std::panic::catch_unwind(AssertUnwindSafe(|| self.inner.call(request)))
        });
        Box::pin(trace::instrument(meta.trace.clone(), async move {
            let result = match inner {
                Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            state.served.increment();
            let Ok(result) = result else {
                metrics.unmatched(StatusCode::INTERNAL_SERVER_ERROR, meta.started_at);
                log::error!("web: a handler panicked [{}]", meta.request_id);
                return Err(Problem::panicked().with_request_id(Arc::clone(&meta.request_id)).into());
            };
            let mut response = match result {
                Ok(response) => render_error(response, &meta),
                Err(error) => {
                    metrics.unmatched(error.as_response_error().status_code(), meta.started_at);
                    return Err(problem_of(&error).with_request_id(Arc::clone(&meta.request_id)).into());
                }
            };
            set_common_headers(response.headers_mut(), &meta.request_id);
            if state.is_https() {
                let value = HeaderValue::from_static(STRICT_TRANSPORT_SECURITY);
                response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
            }
            if let Some(limit) = meta.limit.get() {
                limit.set_headers(response.headers_mut());
            }
            // A cookie that the handler has just set stays.
            if meta.remove_cookie.get()
                && !response.headers().contains_key(header::SET_COOKIE)
                && let Ok(removal) =
                    HeaderValue::from_str(&removal_cookie(state.settings.http.secure_cookies).to_string())
            {
                response.headers_mut().append(header::SET_COOKIE, removal);
            }
            if state.is_draining() {
                response.response_mut().head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
            }
            log_request(&response, &meta);
            metrics.finished(&response, meta.started_at);
            Ok(response.map_body(|_, body| Pieces::of(body)))
        }))
    }
}

/// Headers of an error response that stay when it is rendered as a problem document.
const KEPT_HEADERS: [HeaderName; 7] = [
    header::ALLOW,
    header::CONTENT_RANGE,
    header::SEC_WEBSOCKET_VERSION,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::VARY,
];

/// Renders an error response as a problem document; any other response stays as it is.
fn render_error(response: ServiceResponse, meta: &RequestMeta) -> ServiceResponse {
    if response.status().as_u16() < 400 {
        return response;
    }
    let problem = match response.response().error() {
        Some(error) => problem_of(error),
        // A page or a document that a handler made.
        None if response.headers().contains_key(header::CONTENT_TYPE) => return response,
        None => Problem::from_status(response.status()),
    };
    let (request, original) = response.into_parts();
    let mut rendered = problem.to_response(&meta.request_id);
    for name in KEPT_HEADERS {
        if let Some(value) = original.headers().get(&name)
            && !rendered.headers().contains_key(&name)
        {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    if meta.keyed_context.get().is_some_and(RequestContext::is_replayed) {
        rendered.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    ServiceResponse::new(request, rendered)
}

fn problem_of(error: &Error) -> Problem {
    match error.as_error::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::from_status(error.as_response_error().status_code()),
    }
}

/// Removes slashes from the end of the path: they are optional everywhere.
fn normalize_path(request: &mut ServiceRequest) {
    let path = request.uri().path();
    if path.len() < 2 || !path.ends_with('/') {
        return;
    }
    let trimmed = match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let text = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    let Ok(path) = text.parse::<PathAndQuery>() else { return };
    parts.path_and_query = Some(path);
    let Ok(uri) = Uri::from_parts(parts) else { return };
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
}

/// Writes the access log line. Without the query, which may contain a mailed token.
fn log_request(response: &ServiceResponse, meta: &RequestMeta) {
    let status = response.status().as_u16();
    let level = if status >= 500 { log::Level::Warn } else { log::Level::Debug };
    if log::log_enabled!(target: "mercat::access", level) {
        let request = response.request();
        let (method, path): (&Method, &str) = (request.method(), request.path());
        let micros = u64::try_from(meta.started_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        log::log!(
            target: "mercat::access", level,
            request_id = &*meta.request_id, method = method.as_str(), path = path, status = status, micros = micros;
            "{method} {path} {status} {micros} us [{}]", meta.request_id
        );
    }
}
