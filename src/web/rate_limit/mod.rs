//! Rate limits: how often a network, a user and an API key may send requests (429 above that).
//!
//! Contains: the classes of limits that [`super::ROUTES`] names, the buckets in memory or Redis, the headers of the IETF
//! draft `ratelimit-headers`. Every route counts against its class for the network that the request comes from, before
//! anything else is done for it; authenticated requests also count for their user or API key. Does not contain: limits
//! that need a domain's data, such as failed sign-ins of one account, and those of size, time and live sessions.

mod gcra;
mod memory;
mod redis;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;

use self::redis::RedisBuckets;
use super::client_ip::ClientAddress;
use super::problem::Problem;
use super::request_meta::RequestMeta;
use super::state::GatewayState;
use crate::messaging::{CommonError, Credential, Identity};
use crate::settings::{LimitStore, LimitsSettings, Quota};
use crate::types::{ApiKeyId, ClientNetwork, Clock, UserId};
use gcra::{Gcra, Verdict};
use memory::{BucketKey, MemoryBuckets};

/// The header with the policy that a response is about.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The header with what is left of it.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Decisions by class: allowed and limited ones.
static DECISIONS: [[AtomicU64; 2]; LimitClass::ALL.len()] =
    [const { [const { AtomicU64::new(0) }; 2] }; LimitClass::ALL.len()];

/// Class of a limit. Each route has one, and each network has a bucket per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitClass {
    /// Everything without a class of its own.
    Api,
    /// Sign-in.
    SignIn,
    /// Registration.
    Registration,
    /// Creation of guests.
    Guest,
    /// Password resets.
    Password,
    /// Mailed links, and mails sent on demand.
    Email,
    /// Entries of the action log.
    Log,
    /// Health and metrics: apart from the rest, so that a flood does not make a probe fail.
    Probe,
}

impl LimitClass {
    /// All classes.
    pub const ALL: [Self; 8] =
        [Self::Api, Self::SignIn, Self::Registration, Self::Guest, Self::Password, Self::Email, Self::Log, Self::Probe];

    /// Name in metrics and, for networks, in headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::SignIn => "signin",
            Self::Registration => "registration",
            Self::Guest => "guest",
            Self::Password => "password",
            Self::Email => "email",
            Self::Log => "log",
            Self::Probe => "probe",
        }
    }
}

/// Caller whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An API key.
    ApiKey(ApiKeyId),
    /// A user, over all sessions.
    User(UserId),
    /// A network; requests of unknown origin are one.
    Network(ClientNetwork),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(id) => write!(f, "key:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Network(network) => write!(f, "net:{network}"),
        }
    }
}

impl From<&Identity> for Subject {
    fn from(identity: &Identity) -> Self {
        match identity.credential {
            Credential::ApiKey(id) => Self::ApiKey(id),
            Credential::Session(_) => Self::User(identity.user_id),
        }
    }
}

/// A caller's state under one limit, as the response's headers report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitStatus {
    policy: &'static str,
    quota: Quota,
    verdict: Verdict,
}

impl LimitStatus {
    /// Sets `RateLimit-Policy` and `RateLimit` (IETF draft-ietf-httpapi-ratelimit-headers).
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        let Self { policy, quota, verdict } = self;
        let policy_value = format!("\"{policy}\";q={};w={}", quota.requests, quota.window.as_secs());
        let value = format!("\"{policy}\";r={};t={}", verdict.remaining, whole_seconds(verdict.reset));
        for (name, value) in [(RATE_LIMIT_POLICY, policy_value), (RATE_LIMIT, value)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The rate limits of a gateway.
pub struct RateLimits {
    settings: LimitsSettings,
    clock: Clock,
    memory: MemoryBuckets,
    redis: Option<RedisBuckets>,
    has_warned: AtomicBool,
}

impl RateLimits {
    /// The limits that the settings ask for.
    #[must_use]
    pub fn new(settings: &LimitsSettings, clock: &Clock) -> Self {
        let redis = match &settings.store {
            LimitStore::Redis(url) if settings.enabled => RedisBuckets::new(url)
                .inspect_err(|error| log::error!("limits: redis cannot be used: {}", error.category()))
                .ok(),
            _ => None,
        };
        let has_warned = AtomicBool::new(false);
        Self { settings: settings.clone(), clock: clock.clone(), memory: MemoryBuckets::new(), redis, has_warned }
    }

    /// Whether Redis answers; `None` if rates are not counted there.
    #[must_use]
    pub fn is_shared_store_up(&self) -> Option<bool> {
        self.redis.as_ref().map(RedisBuckets::is_up)
    }

    /// Counts a request; `None` while limits are switched off.
    ///
    /// # Errors
    /// The caller's state when it has no request left.
    pub async fn check(&self, class: LimitClass, subject: Subject) -> Result<Option<LimitStatus>, LimitStatus> {
        if !self.settings.enabled {
            return Ok(None);
        }
        let (policy, quota) = self.policy(class, subject);
        let (key, gcra, now) = (BucketKey { class, subject }, Gcra::new(quota), self.clock.now().micros());
        let shared = match &self.redis {
            Some(redis) => redis.check(key, &gcra, now).await,
            None => None,
        };
        let verdict = shared.unwrap_or_else(|| self.memory.check(key, &gcra, now));
        DECISIONS[class as usize][usize::from(!verdict.is_allowed)].fetch_add(1, Relaxed);
        let status = LimitStatus { policy, quota, verdict };
        if verdict.is_allowed { Ok(Some(status)) } else { Err(status) }
    }

    /// Counts a request from this address.
    ///
    /// # Errors
    /// As [`RateLimits::check`].
    pub async fn check_address(
        &self,
        class: LimitClass,
        address: &ClientAddress,
    ) -> Result<Option<LimitStatus>, LimitStatus> {
        let network = address.network();
        let checked = self.check(class, Subject::Network(network)).await;
        if checked.is_err() && address.is_hidden && !self.has_warned.swap(true, Relaxed) {
            log::warn!(
                "limits: {network} exceeds a rate and sends forwarded addresses, but is not in http.trusted_proxies: all \
                 clients behind it share one rate"
            );
        }
        checked
    }

    /// The limit that applies to a caller: its name and its quota.
    fn policy(&self, class: LimitClass, subject: Subject) -> (&'static str, Quota) {
        let settings = &self.settings;
        match (class, subject) {
            (LimitClass::Api, Subject::ApiKey(_)) => ("api_key", settings.api_key),
            (LimitClass::Api, Subject::User(_)) => ("user", settings.user),
            (LimitClass::Api, Subject::Network(_)) => ("network", settings.network),
            (LimitClass::SignIn, _) => (class.as_str(), settings.sign_in),
            (LimitClass::Registration, _) => (class.as_str(), settings.registration),
            (LimitClass::Guest, _) => (class.as_str(), settings.guest),
            (LimitClass::Password, _) => (class.as_str(), settings.password),
            (LimitClass::Email, _) => (class.as_str(), settings.email),
            (LimitClass::Log, _) => (class.as_str(), settings.log),
            (LimitClass::Probe, _) => (class.as_str(), settings.probe),
        }
    }

    /// Counts an HTTP request for its network, and notes the state for the response's headers.
    ///
    /// # Errors
    /// 429 when the network has no request left.
    pub async fn admit(
        &self,
        request: &HttpRequest,
        meta: &RequestMeta,
        address: &ClientAddress,
    ) -> Result<(), Problem> {
        let class = ResourceLimits::class_of(request);
        let checked = self.check_address(class, address).await;
        // The wide limits of all other requests are reported when they are met, which saves two headers per response.
        note(meta, checked, class != LimitClass::Api)
    }

    /// Counts an authenticated request for its user or API key.
    ///
    /// # Errors
    /// 429 when that has no request left.
    pub async fn admit_identity(&self, meta: &RequestMeta, identity: &Identity) -> Result<(), Problem> {
        note(meta, self.check(LimitClass::Api, identity.into()).await, false)
    }
}

/// Keeps the state for the headers of the response: always when a limit is met, otherwise if it is to be shown.
fn note(meta: &RequestMeta, checked: Result<Option<LimitStatus>, LimitStatus>, is_shown: bool) -> Result<(), Problem> {
    match checked {
        Ok(status) => {
            if is_shown {
                meta.limit.set(status);
            }
            Ok(())
        }
        Err(status) => {
            meta.limit.set(Some(status));
            Err(CommonError::from(status).into())
        }
    }
}

/// Decisions since the start: class, allowed, limited.
pub fn decisions() -> impl Iterator<Item = (LimitClass, [u64; 2])> {
    LimitClass::ALL
        .into_iter()
        .zip(&DECISIONS)
        .map(|(class, [allowed, limited])| (class, [allowed.load(Relaxed), limited.load(Relaxed)]))
}

/// Classes of the routes of one path, by method. Application data of its resource.
pub struct ResourceLimits(Vec<(&'static str, LimitClass)>);

impl ResourceLimits {
    /// The classes of a path's routes.
    pub fn new(classes: Vec<(&'static str, LimitClass)>) -> Arc<Self> {
        Arc::new(Self(classes))
    }

    /// The class of the route that a request matched.
    fn class_of(request: &HttpRequest) -> LimitClass {
        let method = match request.method().as_str() {
            "HEAD" => "GET",
            method => method,
        };
        let classes = request.app_data::<Arc<Self>>().map_or(&[][..], |limits| &limits.0);
        classes.iter().find(|(of, _)| *of == method).map_or(LimitClass::Api, |(_, class)| *class)
    }
}

/// Extractor of handlers that need no caller: the request is within the limit of its network.
pub struct WithinLimits;

impl FromRequest for WithinLimits {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let (state, meta) = (GatewayState::of(&request)?, RequestMeta::of(&request)?);
            let address = ClientAddress::of(&request, &state.settings);
            state.limits.admit(&request, &meta, &address).await.map(|()| Self)
        })
    }
}

/// The error of a request that is over a limit.
impl From<LimitStatus> for CommonError {
    fn from(status: LimitStatus) -> Self {
        Self::RateLimited { limit: status.policy.to_owned(), retry_after: whole_seconds(status.verdict.reset).max(1) }
    }
}
