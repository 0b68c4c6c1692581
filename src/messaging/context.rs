//! What travels with every request: who asks, until when, under which idempotency key, and the id that the logs
//! of all rooms share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::types::{ApiKeyId, SessionId, UserId, new_uuid};

/// How long a caller waits when nothing else was said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a user may do in the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nameless, with a cart; may become a customer.
    Guest,
    /// Has an account.
    Customer,
    /// Runs the shop.
    Admin,
}

impl Role {
    /// The word for it, in columns and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Customer => "customer",
            Self::Admin => "admin",
        }
    }

    /// The role that has this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Guest, Self::Customer, Self::Admin].into_iter().find(|role| role.as_str() == word)
    }
}

/// What a caller showed to be who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The token of a sign-in.
    Session(SessionId),
    /// A named key of a program.
    ApiKey(ApiKeyId),
}

/// A user who has shown who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub user_id: UserId,
    /// What they may do.
    pub role: Role,
    /// By what they were known.
    pub credential: Credential,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// Somebody from outside, known only by their network address.
    Anyone {
        /// The address, for limits and logs.
        address: Arc<str>,
        /// Whether that address is in the shop's own networks.
        internal: bool,
    },
    /// A user.
    User {
        /// Who they are.
        identity: Identity,
        /// Whether they call from the shop's own networks.
        internal: bool,
    },
    /// Another domain of the shop, or the shop's own command line: trusted.
    Domain(Arc<str>),
}

impl Caller {
    /// Under which name idempotency keys of this caller are kept, so that the same key of another user, or of
    /// another API key of the same user, is another key.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Anyone { address, .. } => format!("a:{address}"),
            Self::User { identity, .. } => match identity.credential {
                Credential::Session(_) => format!("u:{}", identity.user_id),
                Credential::ApiKey(key) => format!("k:{key}"),
            },
            Self::Domain(name) => format!("d:{name}"),
        }
    }
}

/// A caller's name for one wish, so that a repetition is recognised (IETF draft Idempotency-Key, and Stripe's).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(Arc<str>);

/// What cannot be an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 printable ASCII characters, bare or in double quotes")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Reads a key in either spelling: bare as Stripe's, or quoted as the IETF draft's. Both mean the same key.
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

    /// The key of one step of the wish, for a call to another domain.
    #[must_use]
    pub fn step(&self, step: &str) -> Self {
        Self(format!("{}/{step}", self.0).into())
    }

    /// Makes a key of the shop's own: the name of a thing and what is done with it.
    #[must_use]
    pub fn own(text: &str) -> Self {
        Self(text.into())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The context of a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who asks.
    pub caller: Caller,
    /// The id under which all rooms log this request.
    pub request_id: Arc<str>,
    /// The caller's name for this wish, when they gave one.
    pub key: Option<IdempotencyKey>,
    /// When the caller stops waiting. Past it the outcome is unknown to them, never "did not happen".
    pub deadline: Instant,
    /// Where it stands in a trace (W3C `traceparent`), when it is in one.
    pub trace: Option<Arc<str>>,
    /// The request whose handler is to panic, for tests of what then happens.
    #[cfg(feature = "test-hooks")]
    pub panic_at: Option<Arc<str>>,
    replayed: Arc<AtomicBool>,
}

impl RequestContext {
    /// A request of `caller`, with the usual patience and no key.
    #[must_use]
    pub fn new(caller: Caller, request_id: impl Into<Arc<str>>) -> Self {
        Self {
            caller,
            request_id: request_id.into(),
            key: None,
            deadline: Instant::now() + DEFAULT_TIMEOUT,
            trace: None,
            #[cfg(feature = "test-hooks")]
            panic_at: None,
            replayed: Arc::default(),
        }
    }

    /// A request of the shop itself, made by `domain` on its own account.
    #[must_use]
    pub fn internal(domain: &str) -> Self {
        Self::new(Caller::Domain(domain.into()), new_uuid().to_string())
    }

    /// The same context with this key.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The same context with so much patience from now on.
    #[must_use]
    pub fn with_timeout(mut self, patience: Duration) -> Self {
        self.deadline = Instant::now() + patience;
        self
    }

    /// The context in which `domain` asks another domain while it serves this request: its own trust, the
    /// caller's request id and deadline, and a key of its own, because the caller's key names the whole wish.
    #[must_use]
    pub fn for_downstream_call(&self, domain: &str, key: Option<IdempotencyKey>) -> Self {
        Self { caller: Caller::Domain(domain.into()), key, replayed: Arc::default(), ..self.clone() }
    }

    /// The user who asks, if it is one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match &self.caller {
            Caller::User { identity, .. } => Some(identity),
            _ => None,
        }
    }

    /// Whether an administrator or the shop itself asks.
    #[must_use]
    pub fn is_staff(&self) -> bool {
        match &self.caller {
            Caller::User { identity, .. } => identity.role == Role::Admin,
            Caller::Domain(_) => true,
            Caller::Anyone { .. } => false,
        }
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Notes that the answer is one given before under the same key.
    pub fn mark_replayed(&self) {
        self.replayed.store(true, Ordering::Relaxed);
    }

    /// Whether the answer is one given before under the same key.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.replayed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_key_are_one_key_and_nonsense_is_none() {
        assert_eq!(IdempotencyKey::parse("\"abc\""), IdempotencyKey::parse("abc"));
        assert!(IdempotencyKey::parse(&"x".repeat(255)).is_ok());
        for bad in ["", "\"\"", "a\"b", "caf\u{e9}", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::parse(bad), Err(InvalidIdempotencyKey), "{bad}");
        }
    }
}
