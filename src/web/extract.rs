//! Extractors that every API handler starts from: the request with its authenticated caller, its context and its
//! idempotency guard.
//!
//! Does not contain rights: those are decided at the message.

use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;

use super::auth;
use super::client_ip::ClientAddress;
use super::csrf;
use super::etag;
use super::idempotency_guard::IdempotencyGuard;
use super::live::Principal;
use super::problem::Problem;
use super::request_meta::RequestMeta;
use super::routes::PublicRead;
use super::state::GatewayState;
use crate::app::Clients;
use crate::contract::users::{Authenticated, UsersError};
use crate::messaging::{CommonError, DomainError, ErrorKind, IdempotencyKey, Identity, Request, RequestContext, Role};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
#[cfg(feature = "test-hooks")]
const X_TEST_PANIC: HeaderName = HeaderName::from_static("x-test-panic");

/// Session cookies of one request that are tried.
const SESSION_COOKIES_MAX: usize = 4;

/// Extractor: an API request with its authenticated caller, its context and its idempotency guard.
pub struct ApiRequest {
    state: Arc<GatewayState>,
    http: HttpRequest,
    meta: Rc<RequestMeta>,
    ctx: RequestContext,
    token: Option<PresentedToken>,
    /// Excludes a second request with the same key while this one runs.
    guard: Option<IdempotencyGuard>,
}

/// Extractor: a request to a path that works without a caller too, such as sign-in, registration and mailed links.
///
/// A cookie that is stale, or that comes without a sign that the shop's own page sent it, is ignored here and the
/// request goes on without a caller. With [`ApiRequest`] such a write is rejected.
pub struct PublicApiRequest(pub ApiRequest);

/// A valid token and the way it was presented.
pub struct PresentedToken {
    /// The token itself.
    pub token: String,
    /// Whether it came in the session cookie.
    pub is_cookie: bool,
    /// The account behind it.
    pub authenticated: Authenticated,
}

impl FromRequest for ApiRequest {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(Self::extract(request, false))
    }
}

impl FromRequest for PublicApiRequest {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { ApiRequest::extract(request, true).await.map(PublicApiRequest) })
    }
}

impl ApiRequest {
    async fn extract(http: HttpRequest, is_public: bool) -> Result<Self, Problem> {
        let state = GatewayState::of(&http)?;
        let meta = RequestMeta::of(&http)?;
        let address = ClientAddress::of(&http, &state.settings);
        state.limits.admit(&http, &meta, &address).await?;
        if csrf::is_mutating(http.method()) && csrf::is_foreign_origin(&http, &state.origins) {
            return Err(csrf::foreign_origin());
        }
        let network = address.network();
        let mut ctx = RequestContext::new(address.into_anonymous_caller(), Arc::clone(&meta.request_id));
        ctx.network = Some(network);
        ctx.deadline = (meta.started_at + state.settings.http.request_timeout).into();
        ctx.trace.clone_from(&meta.trace);
        #[cfg(feature = "test-hooks")]
        if let Some(name) = http.headers().get(&X_TEST_PANIC).and_then(|value| value.to_str().ok()) {
            ctx.panic_at = Some(name.into());
        }
        let token = authenticate(&http, &state, &meta, &ctx, is_public).await?;
        if let Some(PresentedToken { authenticated, .. }) = &token {
            state.limits.admit_identity(&meta, &authenticated.identity).await?;
            auth::set_caller(&mut ctx, authenticated);
        }
        let mut guard = None;
        if csrf::is_mutating(http.method()) {
            ctx.key = idempotency_key(http.headers())?;
            ctx.versions = etag::versions(http.headers());
            let target = [http.method().as_str(), http.path(), http.query_string()];
            if ctx.key.is_some() {
                let _ = meta.keyed_context.set(ctx.clone());
            }
            guard = state.idempotency.begin_idempotent(&ctx, target)?;
        }
        Ok(Self { state, http, meta, ctx, token, guard })
    }

    /// Clients for the domains.
    pub fn clients(&self) -> &Clients {
        &self.state.clients
    }

    /// State that all requests share.
    pub fn state(&self) -> &Arc<GatewayState> {
        &self.state
    }

    /// Context for calls to domains.
    pub fn ctx(&self) -> RequestContext {
        self.ctx.clone()
    }

    /// Context with the whole request timeout ahead, for calls after a body that took its own time to arrive.
    pub fn ctx_with_fresh_timeout(&self) -> RequestContext {
        self.ctx.clone().with_timeout(self.state.settings.http.request_timeout)
    }

    /// Whether the response is one that was stored under the same idempotency key before.
    pub fn is_replayed(&self) -> bool {
        self.ctx.is_replayed()
    }

    /// The HTTP request.
    pub fn http(&self) -> &HttpRequest {
        &self.http
    }

    /// Metadata of the request.
    pub fn meta(&self) -> &RequestMeta {
        &self.meta
    }

    /// The token that the caller is authenticated by.
    pub fn token(&self) -> Option<&PresentedToken> {
        self.token.as_ref()
    }

    /// Idempotency guard of a mutating request with a key.
    pub fn guard(&self) -> Option<&IdempotencyGuard> {
        self.guard.as_ref()
    }

    /// The caller's account.
    pub fn identity(&self) -> Result<Identity, CommonError> {
        self.ctx.identity().copied().ok_or(CommonError::Unauthenticated)
    }

    /// Checks whether the caller may send `request`, or one with the same rights. The message decides, and decides
    /// again when it is sent; a handler checks here before it reads a body, so that a caller without the right learns
    /// that and not the faults of the body.
    pub fn authorize(&self, request: &impl Request) -> Result<(), CommonError> {
        request.authorize(&self.ctx)
    }

    /// Id in the path. Text that is no id names nothing, so it fails with `missing`.
    pub fn path_id<T: FromStr, E: DomainError>(&self, name: &str, missing: E) -> Result<T, Problem> {
        self.http.match_info().query(name).parse().map_err(|_| missing.into())
    }

    /// The caller of a live session, with the token to authenticate again by.
    pub fn principal(&self) -> Option<Principal> {
        let principal = |presented: &PresentedToken| Principal {
            authenticated: presented.authenticated,
            token: presented.token.as_str().into(),
        };
        self.token.as_ref().map(principal)
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    IdempotencyKey::parse(text).map(Some).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", format!("the Idempotency-Key {error}"))
    })
}

/// Whether the request reads what every caller may read.
fn is_public_read(request: &HttpRequest) -> bool {
    !csrf::is_mutating(request.method())
        && request.app_data::<PublicRead>().is_some_and(|PublicRead(is_public)| *is_public)
}

/// Authenticates the bearer token of a request, or else its session cookie.
async fn authenticate(
    request: &HttpRequest,
    state: &GatewayState,
    meta: &RequestMeta,
    ctx: &RequestContext,
    is_public: bool,
) -> Result<Option<PresentedToken>, Problem> {
    let users = &state.clients.users;
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let token = auth::bearer_token(value.as_bytes())?;
        let authenticated = auth::authenticate(users, ctx, token).await?;
        return Ok(Some(PresentedToken { token: token.to_owned(), is_cookie: false, authenticated }));
    }
    let tokens = auth::session_tokens(request.headers(), state.settings.http.secure_cookies);
    let mut valid = None;
    for token in tokens.take(SESSION_COOKIES_MAX) {
        match auth::authenticate(users, ctx, token).await {
            Ok(authenticated) => {
                valid = Some((token, authenticated));
                break;
            }
            // A browser that still has the cookie of a session that has ended makes no error.
            Err(UsersError::InvalidToken) => meta.remove_cookie.set(true),
            // A visitor with a cookie may look at what is public while accounts are out of reach.
            Err(error) if error.kind() == ErrorKind::Unavailable && is_public_read(request) => {
                meta.remove_cookie.set(false);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let Some((token, authenticated)) = valid else { return Ok(None) };
    meta.remove_cookie.set(false);
    if csrf::is_mutating(request.method()) && !csrf::is_same_origin(request, &state.origins) {
        // Silently ignoring a guest's cookie would lose the guest's cart.
        let ignore = is_public && authenticated.identity.role != Role::Guest;
        return if ignore { Ok(None) } else { Err(csrf::csrf_refused()) };
    }
    Ok(Some(PresentedToken { token: token.to_owned(), is_cookie: true, authenticated }))
}
