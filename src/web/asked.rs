//! Principal asks, and everything else that travels with a request: what the handlers start from.
//!
//! It authenticates and no more. What a caller may do is decided at the message.

use std::net::IpAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, web};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use super::live::Principal;
use super::middleware::{self, COOKIE, RequestMeta};
use super::problem::Problem;
use super::state::{GatewayState, IdempotencyGuard};
use crate::app::Clients;
use crate::contract::users::{Authenticate, Authenticated, SignedIn, UsersError};
use crate::messaging::{Caller, CommonError, DomainError, IdempotencyKey, Identity, Request, RequestContext, Role};
use crate::types::Cursor;

/// The path under which the interface stands.
pub const BASE: &str = "/api/v1";

/// What a handler gives back.
pub type ApiResult = Result<HttpResponse, Problem>;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
#[cfg(feature = "test-hooks")]
const X_TEST_PANIC: HeaderName = HeaderName::from_static("x-test-panic");

/// A request whose caller is known.
pub struct ApiRequest {
    gate: Arc<GatewayState>,
    request: HttpRequest,
    trail: Rc<RequestMeta>,
    ctx: RequestContext,
    /// What the caller showed, when it was good.
    shown: Option<PresentedToken>,
    /// Keeps a second request with the same key out while this one runs.
    wish: Option<IdempotencyGuard>,
}

/// A request to a path that works without a caller too: sign-in, registration, mailed links.
///
/// A cookie that is stale, or that comes without proof that a page of ours sent it, is not believed here, and
/// the request goes on without it. RemoteUnspecified such a write is refused.
pub struct PublicApiRequest(pub ApiRequest);

/// A good token and how it came.
struct PresentedToken {
    token: String,
    by_cookie: bool,
    who: Authenticated,
}

impl FromRequest for ApiRequest {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(Self::of(request, false))
    }
}

impl FromRequest for PublicApiRequest {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { ApiRequest::of(request, true).await.map(PublicApiRequest) })
    }
}

impl ApiRequest {
    async fn of(request: HttpRequest, open: bool) -> Result<Self, Problem> {
        let gate = gate(&request)?;
        let trail = trail(&request)?;
        let (address, internal) = network(&request, &gate);
        let stranger = Caller::Anyone { address: address.into(), internal };
        let mut ctx = RequestContext::new(stranger, Arc::clone(&trail.request_id));
        ctx.deadline = (trail.began + gate.settings.http.request_timeout).into();
        ctx.trace.clone_from(&trail.trace);
        #[cfg(feature = "test-hooks")]
        if let Some(name) = request.headers().get(&X_TEST_PANIC).and_then(|value| value.to_str().ok()) {
            ctx.panic_at = Some(name.into());
        }
        let shown = authenticate(&request, &gate, &trail, &ctx, open).await?;
        if let Some(PresentedToken { who, .. }) = &shown {
            ctx.caller = Caller::User { identity: who.identity, internal };
        }
        let mut wish = None;
        if writes(request.method()) {
            ctx.key = key(request.headers())?;
            wish = gate.begin(&ctx, [request.method().as_str(), request.path(), request.query_string()])?;
        }
        Ok(Self { gate, request, trail, ctx, shown, wish })
    }

    /// How the domains are asked.
    pub fn clients(&self) -> &Clients {
        &self.gate.clients
    }

    /// What all requests share.
    pub fn gate(&self) -> &Arc<GatewayState> {
        &self.gate
    }

    /// The context to ask a domain in.
    pub fn ctx(&self) -> RequestContext {
        self.ctx.clone()
    }

    /// The context to ask a domain in after a body that took its own time to arrive.
    pub fn ctx_from_now(&self) -> RequestContext {
        self.ctx.clone().with_timeout(self.gate.settings.http.request_timeout)
    }

    /// The request itself.
    pub fn request(&self) -> &HttpRequest {
        &self.request
    }

    /// The user who asks.
    pub fn identity(&self) -> Result<Identity, CommonError> {
        self.ctx.identity().copied().ok_or(CommonError::Unauthenticated)
    }

    /// Whether the caller may ask `request`, or one with the same rights. It is the message that decides, as it does
    /// again when it is asked; a handler looks here before it reads a body.
    pub fn may(&self, request: &impl Request) -> Result<(), CommonError> {
        request.access().check(&self.ctx)
    }

    /// The id in the path, or that there is no such thing: what is no id names nothing.
    pub fn id<T: FromStr, E: DomainError>(&self, name: &str, missing: E) -> Result<T, Problem> {
        self.request.match_info().query(name).parse().map_err(|_| missing.into())
    }

    /// 200 with a body.
    pub fn ok(&self, body: &impl Serialize) -> ApiResult {
        self.answer(StatusCode::OK, body)
    }

    /// 201 with a body, and where it now is.
    pub fn created(&self, location: &str, body: &impl Serialize) -> ApiResult {
        let mut answer = self.answer(StatusCode::CREATED, body)?;
        self.locate(&mut answer, location);
        Ok(answer)
    }

    /// 202 with a body.
    pub fn accepted(&self, body: &impl Serialize) -> ApiResult {
        self.answer(StatusCode::ACCEPTED, body)
    }

    /// Says on an answer where to look for what was asked.
    pub fn locate(&self, answer: &mut HttpResponse, location: &str) {
        set(answer, header::LOCATION, location);
    }

    /// 204.
    pub fn done(&self) -> ApiResult {
        let mut answer = HttpResponse::new(StatusCode::NO_CONTENT);
        self.mark(&mut answer);
        Ok(answer)
    }

    /// 200 with a page of a list, and a link to the next one.
    pub fn page(&self, next: Option<&Cursor>, body: &impl Serialize) -> ApiResult {
        let mut answer = self.ok(body)?;
        if let Some(next) = next {
            set(&mut answer, header::LINK, &self.next_link(next));
        }
        Ok(answer)
    }

    /// The same list with another cursor.
    fn next_link(&self, next: &Cursor) -> String {
        let mut link = format!("<{}?", self.request.path());
        for pair in self.request.query_string().split('&') {
            // What could end the link early is left out; it cannot come from a client that codes its query.
            if !pair.is_empty() && pair != "cursor" && !pair.starts_with("cursor=") && !pair.contains(['<', '>', '"']) {
                link.push_str(pair);
                link.push('&');
            }
        }
        link.push_str("cursor=");
        link.push_str(next.as_str());
        link.push_str(">; rel=\"next\"");
        link
    }

    fn answer(&self, status: StatusCode, body: &impl Serialize) -> ApiResult {
        let json = serde_json::to_vec(body).map_err(|error| {
            log::error!("an answer has no JSON form: {error} [{}]", self.trail.request_id);
            CommonError::Internal
        })?;
        let mut answer =
            HttpResponse::build(status).insert_header((header::CONTENT_TYPE, "application/json")).body(json);
        self.mark(&mut answer);
        Ok(answer)
    }

    /// Notes on an answer what any of them may need.
    fn mark(&self, answer: &mut HttpResponse) {
        if let Some(wish) = &self.wish {
            wish.was_answered();
        }
        if self.ctx.is_replayed() {
            set(answer, IDEMPOTENT_REPLAYED, "true");
        }
        if self.shown.is_some() {
            // What is shown to one person is nothing for a cache on the way, nor for the next one at this browser.
            set(answer, header::CACHE_CONTROL, "no-store");
        }
    }

    /// Principal listens, for a live session: it asks again by the token whether it still may.
    pub fn who(&self) -> Option<Principal> {
        self.shown.as_ref().map(|shown| Principal { authenticated: shown.who, token: shown.token.as_str().into() })
    }

    /// Signs the browser in: the cookie lasts as long as the sign-in.
    pub fn set_cookie(&self, answer: &mut HttpResponse, signed_in: &SignedIn) {
        set(answer, header::CACHE_CONTROL, "no-store");
        let lasts = signed_in.expires_at.since(self.gate.clock.now());
        add_cookie(answer, middleware::cookie(signed_in.token.clone(), lasts, self.gate.settings.http.secure_cookies));
    }

    /// After a guest has become a customer: the same sign-in goes on, and so does its cookie.
    pub fn keep_cookie(&self, answer: &mut HttpResponse) {
        let guest = |shown: &&PresentedToken| shown.who.identity.role == Role::Guest;
        if let Some(PresentedToken { token, who, .. }) = self.shown.as_ref().filter(guest)
            && let Some(expires_at) = who.expires_at
        {
            let lasts = expires_at.since(self.gate.clock.now());
            add_cookie(answer, middleware::cookie(token.clone(), lasts, self.gate.settings.http.secure_cookies));
        }
    }

    /// Signs the browser out, when it was its cookie that it was known by.
    pub fn drop_cookie(&self) {
        if self.shown.as_ref().is_some_and(|shown| shown.by_cookie) {
            self.trail.drop_cookie.set(true);
        }
    }
}

/// What all requests share, from the application's data.
pub fn gate(request: &HttpRequest) -> Result<Arc<GatewayState>, CommonError> {
    let gate = request.app_data::<web::Data<GatewayState>>().map(|data| Arc::clone(data));
    gate.ok_or_else(|| missing("the gate"))
}

/// What the edge noted of this request.
pub fn trail(request: &HttpRequest) -> Result<Rc<RequestMeta>, CommonError> {
    let trail = request.extensions().get::<Rc<RequestMeta>>().map(Rc::clone);
    trail.ok_or_else(|| missing("the edge"))
}

fn missing(what: &str) -> CommonError {
    log::error!("a request came without {what}");
    CommonError::Internal
}

/// Sets a header whose value is made of ids, cursors and our own words; one that cannot stand in a header is left out.
fn set(answer: &mut HttpResponse, name: HeaderName, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn add_cookie(answer: &mut HttpResponse, cookie: actix_web::cookie::Cookie<'_>) {
    if answer.add_cookie(&cookie).is_err() {
        log::error!("a token cannot stand in a cookie");
    }
}

/// Whether a method changes something.
fn writes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    IdempotencyKey::parse(text).map(Some).map_err(|bad| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", format!("the Idempotency-Key {bad}"))
    })
}

/// Whose token came, if one did: a bearer token, or else the cookie.
async fn authenticate(
    request: &HttpRequest,
    gate: &Arc<GatewayState>,
    trail: &RequestMeta,
    ctx: &RequestContext,
    open: bool,
) -> Result<Option<PresentedToken>, Problem> {
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer).ok_or(UsersError::InvalidToken)?;
        let who = ask(gate, ctx, token).await?;
        return Ok(Some(PresentedToken { token: token.to_owned(), by_cookie: false, who }));
    }
    let Some(token) = session(request.headers()) else { return Ok(None) };
    let who = match ask(gate, ctx, token).await {
        Ok(who) => who,
        Err(UsersError::InvalidToken) => {
            // A sign-in that has ended is no error of a browser that still has its cookie.
            trail.drop_cookie.set(true);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if writes(request.method()) && !is_from_our_page(request.headers()) {
        // A guest's cart would be given away by not believing a guest's cookie in silence.
        return if open && who.identity.role != Role::Guest { Ok(None) } else { Err(csrf_refused()) };
    }
    Ok(Some(PresentedToken { token: token.to_owned(), by_cookie: true, who }))
}

async fn ask(gate: &GatewayState, ctx: &RequestContext, token: &str) -> Result<Authenticated, UsersError> {
    // A test's panic is meant for the message it names, which may be this one: the context goes on as it is.
    gate.clients.users.call(ctx.for_downstream_call("gateway", None), Authenticate { token: token.to_owned() }).await
}

/// The token in an `Authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token in the cookie. Read as it is written: a token has nothing that would have to be coded.
fn session(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut tokens = pairs.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    tokens.find(|(name, token)| *name == COOKIE && !token.is_empty()).map(|(_, token)| token)
}

/// Whether a page of ours made the request, and not one that merely knows that this browser is signed in here.
fn is_from_our_page(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(SEC_FETCH_SITE).is_some_and(|site| matches!(site, "same-origin" | "none")) {
        return true;
    }
    // No other origin can set this header: that takes a permission (CORS) which is given to none.
    if headers.contains_key(X_REQUESTED_WITH) {
        return true;
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host)),
        _ => false,
    }
}

fn csrf_refused() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "csrf_refused",
        "a change made by cookie must come from the shop's own pages: send `X-Requested-With: mercat`, or an `Origin` \
         that is this host, or use a bearer token",
    )
}

/// Whether the caller is in one of the shop's own networks.
pub fn is_internal(request: &HttpRequest, gate: &GatewayState) -> bool {
    network(request, gate).1
}

/// The caller's network address, and whether it is one of the shop's own.
fn network(request: &HttpRequest, gate: &GatewayState) -> (String, bool) {
    let peer = request.peer_addr().map(|address| address.ip().to_canonical());
    let forwarded = request.headers().get_all(X_FORWARDED_FOR).next_back();
    let address = match (forwarded, gate.settings.http.trust_proxy) {
        // The last entry is the one our own proxy wrote; those before it are what its caller claimed.
        (Some(list), true) => list.to_str().ok().and_then(last_address),
        (_, _) => peer,
    };
    // What came through a proxy that was not declared comes from anywhere, however near the proxy is.
    let hidden = forwarded.is_some() && !gate.settings.http.trust_proxy;
    match address {
        Some(address) => {
            let networks = &gate.settings.stats.internal_networks;
            (address.to_string(), !hidden && networks.iter().any(|network| network.contains(address)))
        }
        None => ("unknown".to_owned(), false),
    }
}

fn last_address(list: &str) -> Option<IpAddr> {
    let last = list.rsplit(',').next()?.trim();
    let address = last.parse::<IpAddr>().ok().or_else(|| last.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let request = pairs.iter().fold(TestRequest::default(), |request, pair| request.append_header(*pair));
        request.to_http_request().headers().clone()
    }

    #[test]
    fn a_write_by_cookie_needs_a_sign_that_our_page_made_it() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("x-requested-with", "mercat")], true),
            (&[("origin", "https://shop.example"), ("host", "shop.example")], true),
            (&[("origin", "https://shop.example:444"), ("host", "shop.example")], false),
            (&[("origin", "https://evil.example"), ("host", "shop.example")], false),
            (&[("origin", "null"), ("host", "shop.example")], false),
        ];
        for (pairs, ours) in cases {
            let pairs: Vec<_> = pairs.to_vec();
            assert_eq!(is_from_our_page(&headers(&pairs)), *ours, "{pairs:?}");
        }
    }

    #[test]
    fn tokens_are_found_and_nothing_else_is_taken_for_one() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
        assert_eq!(session(&headers(&[("cookie", "a=b; mercat_session=t1; c=d")])), Some("t1"));
        assert_eq!(session(&headers(&[("cookie", "not_mercat_session=t1")])), None);
        assert_eq!(session(&headers(&[("cookie", "mercat_session=")])), None);
    }

    #[test]
    fn the_proxys_own_entry_is_believed_not_what_the_caller_wrote_before_it() {
        for (list, address) in [
            ("10.0.0.1, 203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9:4711", Some("203.0.113.9")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(last_address(list).map(|a| a.to_string()).as_deref(), address, "{list}");
        }
    }
}
