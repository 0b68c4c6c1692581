//! Context of a request: caller, deadline, idempotency key, request id and trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{CommonError, Scopes};
use crate::types::{ApiKeyId, ClientNetwork, SessionId, Timestamp, UserId, new_uuid};

/// Timeout of a request whose caller states none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after a sign-in in which the password need not be given again.
pub const RECENT_SIGN_IN: Duration = Duration::from_secs(15 * 60);

/// Role of a user. Each has the rights of the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Anonymous user with a cart; may become a customer.
    Guest,
    /// User with an account.
    Customer,
    /// Staff who look: orders, customers, statistics.
    ReadOnly,
    /// Staff who help customers: e-mails and comments.
    Support,
    /// Staff who run the shop: products, stock, invoices, refunds, accounts of customers.
    Manager,
    /// Owner of the shop: everything, such as the accounts of staff and where domains run.
    Admin,
}

impl Role {
    /// All roles, from the fewest rights to the most.
    pub const ALL: [Self; 6] = [Self::Guest, Self::Customer, Self::ReadOnly, Self::Support, Self::Manager, Self::Admin];

    /// Returns the name used in columns and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Customer => "customer",
            Self::ReadOnly => "read_only",
            Self::Support => "support",
            Self::Manager => "manager",
            Self::Admin => "admin",
        }
    }

    /// Whether it is a role of the shop's staff.
    #[must_use]
    pub const fn is_staff(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Support | Self::Manager | Self::Admin)
    }

    /// Returns the role with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Credential by which a user was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// Token of a session.
    Session(SessionId),
    /// API key.
    ApiKey(ApiKeyId),
}

/// Authenticated user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Id of the user.
    pub user_id: UserId,
    /// Role of the user.
    pub role: Role,
    /// Credential that was presented.
    pub credential: Credential,
    /// Requests that the credential may send: all of them with a session.
    #[serde(default, skip_serializing_if = "Scopes::is_all")]
    pub scopes: Scopes,
    /// Time at which the password was given for the session; none for an API key, and for a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_in_at: Option<Timestamp>,
}

impl Identity {
    /// Returns an identity with all scopes that has given no password.
    #[must_use]
    pub const fn new(user_id: UserId, role: Role, credential: Credential) -> Self {
        Self { user_id, role, credential, scopes: Scopes::ALL, signed_in_at: None }
    }
}

/// Caller of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// Unauthenticated client, known only by its network address.
    Anyone {
        /// Network address, for limits and logs.
        address: Arc<str>,
        /// Whether the address is in the shop's internal networks.
        internal: bool,
    },
    /// Authenticated user.
    User {
        /// Identity of the user.
        identity: Identity,
        /// Whether the call comes from the shop's internal networks.
        internal: bool,
    },
    /// Another domain, or the command line; trusted.
    Domain(Arc<str>),
}

impl Caller {
    /// Returns the scope of this caller's idempotency keys: equal keys of two users, or of two API keys of one user, are
    /// different keys.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Anyone { address, .. } => format!("a:{address}"),
            Self::User { identity, .. } => match identity.credential {
                Credential::Session(_) => user_scope(identity.user_id),
                Credential::ApiKey(key) => format!("k:{key}"),
            },
            Self::Domain(name) => format!("d:{name}"),
        }
    }
}

/// Namespace of the idempotency keys of a signed-in user.
#[must_use]
pub fn user_scope(user: UserId) -> String {
    format!("u:{user}")
}

/// Idempotency key of a request, by which a repetition is recognised (IETF draft Idempotency-Key, and Stripe's).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(Arc<str>);

/// Error of a malformed idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 printable ASCII characters, bare or in double quotes")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Parses a header, bare as Stripe's or quoted as in the IETF draft; both are the same key.
    ///
    /// # Errors
    /// When it is not 1 to 255 printable ASCII characters.
    pub fn parse(header: &str) -> Result<Self, InvalidIdempotencyKey> {
        let text = header.trim();
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let printable = bare.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"');
        if bare.is_empty() || bare.len() > 255 || !printable {
            Err(InvalidIdempotencyKey)
        } else {
            Ok(Self(bare.into()))
        }
    }

    /// Makes a key for a call of the shop itself, such as an id and an operation.
    #[must_use]
    pub fn internal(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Versions of a resource, each the time of its last change. Its text form has microseconds with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions(Arc<[Timestamp]>);

impl Versions {
    /// Maximum number of versions; further ones are left out.
    const MAX: usize = 16;

    /// The versions among `texts`; a text that is none is left out.
    pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let micros = |text: &str| text.trim().parse().ok().map(Timestamp::from_micros);
        Self(texts.filter_map(micros).take(Self::MAX).collect())
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|at| at.micros().to_string()).collect();
        f.write_str(&texts.join(","))
    }
}

/// Context of a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Caller of the request.
    pub caller: Caller,
    /// Network that the request came from, also when the caller is a user; none for the shop's own work.
    pub network: Option<ClientNetwork>,
    /// Request id shared by all log lines.
    pub request_id: Arc<str>,
    /// Idempotency key, if the caller gave one.
    pub key: Option<IdempotencyKey>,
    /// Versions of the resource that the request may change, from `If-Match`; any when absent.
    pub versions: Option<Versions>,
    /// Time at which the caller stops waiting; afterwards the outcome is unknown to it.
    pub deadline: Instant,
    /// W3C `traceparent`, if the request is traced.
    pub trace: Option<Arc<str>>,
    /// Name of the request whose handler is to panic, for tests.
    #[cfg(feature = "test-hooks")]
    pub panic_at: Option<Arc<str>>,
    replayed: Arc<AtomicBool>,
}

impl RequestContext {
    /// Returns a context of `caller` with the default timeout and no key.
    #[must_use]
    pub fn new(caller: Caller, request_id: impl Into<Arc<str>>) -> Self {
        Self {
            caller,
            network: None,
            request_id: request_id.into(),
            key: None,
            versions: None,
            deadline: Instant::now() + DEFAULT_TIMEOUT,
            trace: None,
            #[cfg(feature = "test-hooks")]
            panic_at: None,
            replayed: Arc::default(),
        }
    }

    /// Returns a context of a call that `domain` makes on its own account.
    #[must_use]
    pub fn internal(domain: &str) -> Self {
        Self::new(Caller::Domain(domain.into()), new_uuid().to_string())
    }

    /// Sets the idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Checks that the request may change a resource that was last changed at `updated_at`. To be called in the
    /// transaction of the change.
    ///
    /// # Errors
    /// `PreconditionFailed`.
    pub fn check_version(&self, updated_at: Timestamp) -> Result<(), CommonError> {
        match &self.versions {
            Some(Versions(allowed)) if !allowed.contains(&updated_at) => Err(CommonError::PreconditionFailed),
            _ => Ok(()),
        }
    }

    /// Sets the deadline to `timeout` from now.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Instant::now() + timeout;
        self
    }

    /// Returns the context of a call that `domain` makes while it handles this request: trusted as a domain, with the same
    /// request id, deadline and trace, and with a key of its own, as the caller's key stands for the whole request.
    #[must_use]
    pub fn for_downstream_call(&self, domain: &str, key: Option<IdempotencyKey>) -> Self {
        Self { caller: Caller::Domain(domain.into()), key, versions: None, replayed: Arc::default(), ..self.clone() }
    }

    /// Returns the identity of the caller, if it is a user.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match &self.caller {
            Caller::User { identity, .. } => Some(identity),
            _ => None,
        }
    }

    /// Whether the caller is another domain of the shop.
    #[must_use]
    pub const fn is_domain(&self) -> bool {
        matches!(self.caller, Caller::Domain(_))
    }

    /// Whether the caller has at least the rights of a role. The shop itself has all.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        match &self.caller {
            Caller::User { identity, .. } => identity.role >= role,
            Caller::Domain(_) => true,
            Caller::Anyone { .. } => false,
        }
    }

    /// Checks that the caller gave a password within the last [`RECENT_SIGN_IN`]: a stolen session or key is not enough for
    /// what endangers the whole shop. The shop itself passes.
    ///
    /// # Errors
    /// `RecentSignInRequired`.
    pub fn require_recent_sign_in(&self, now: Timestamp) -> Result<(), CommonError> {
        let signed_in_at = match &self.caller {
            Caller::Domain(_) => return Ok(()),
            Caller::User { identity, .. } => identity.signed_in_at,
            Caller::Anyone { .. } => None,
        };
        let is_recent = signed_in_at.is_some_and(|at| now.duration_since(at) <= RECENT_SIGN_IN);
        if is_recent { Ok(()) } else { Err(CommonError::RecentSignInRequired) }
    }

    /// Returns the time left until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Marks the reply as a stored one of an earlier request with the same key.
    pub fn mark_replayed(&self) {
        self.replayed.store(true, Ordering::Relaxed);
    }

    /// Whether the reply is a stored one of an earlier request with the same key.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.replayed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_key_parses_bare_and_quoted() {
        assert_eq!(IdempotencyKey::parse("\"abc\""), IdempotencyKey::parse("abc"));
        assert!(IdempotencyKey::parse(&"x".repeat(255)).is_ok());
        for bad in ["", "\"\"", "a\"b", "caf\u{e9}", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::parse(bad), Err(InvalidIdempotencyKey), "{bad}");
        }
    }
}
