//! Errors that any request of any domain may have, and the trait of the domains' own errors.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::FieldError;

/// Kinds of errors, which the gateway maps to HTTP statuses and gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Malformed request: 400.
    Malformed,
    /// Missing or invalid credentials: 401.
    Unauthenticated,
    /// Failed payment: 402.
    PaymentRequired,
    /// Insufficient rights: 403.
    Forbidden,
    /// Missing, or not visible to the caller: 404.
    NotFound,
    /// Conflict with the current state: 409.
    Conflict,
    /// Failed precondition: 412.
    PreconditionFailed,
    /// Request too large: 413.
    TooLarge,
    /// Unsupported media type: 415.
    UnsupportedMedia,
    /// Well-formed but invalid request: 422.
    Invalid,
    /// Rate limit exceeded: 429.
    TooManyRequests,
    /// Bug or misconfiguration: 500.
    Internal,
    /// Error of an external service: 502.
    Upstream,
    /// Temporarily unavailable: 503.
    Unavailable,
    /// Timeout with unknown outcome: 504.
    DeadlineExceeded,
}

/// Error of a domain, which the gateway can translate without knowing the domain.
///
/// Its serde form has a field `code`, the machine-readable code. Its `Display` is shown to users; causes for the log only
/// are fields with `#[serde(skip)]` that `Display` omits.
pub trait DomainError:
    Serialize + DeserializeOwned + std::error::Error + From<CommonError> + Send + Sync + 'static
{
    /// Returns its kind.
    fn kind(&self) -> ErrorKind;

    /// Returns the invalid fields, if it is a validation error.
    fn fields(&self) -> &[FieldError] {
        &[]
    }
}

/// Errors of any request, whatever the domain. Each domain's error has this as its last variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CommonError {
    /// No user is signed in.
    #[error("sign in first: this needs a bearer token or the sign-in cookie")]
    Unauthenticated,
    /// The caller has no right to this.
    #[error("you may not do this")]
    Forbidden,
    /// The API key lacks the scope of the request.
    #[error("this API key lacks the scope {scope}; create one that has it")]
    ScopeMissing {
        /// The scope that is needed.
        scope: String,
    },
    /// The password was not given for a while, or the credential is an API key.
    #[error("sign in again: this needs a session that began less than 15 minutes ago")]
    RecentSignInRequired,
    /// Restricted to the shop's internal networks.
    #[error("this is answered to the shop's internal networks only")]
    InternalOnly,
    /// Fields are invalid.
    #[error("the request is well-formed, but {}", sentence(errors))]
    ValidationFailed {
        /// Invalid fields with the reason.
        errors: Vec<FieldError>,
    },
    /// The idempotency key was used before with another request.
    #[error("this Idempotency-Key was used before with another request; use a new key")]
    IdempotencyKeyReused,
    /// The first request with this idempotency key is in progress.
    #[error("the first request with this Idempotency-Key still runs; ask again in a moment")]
    RequestInProgress,
    /// The resource has changed since the version that `If-Match` names (RFC 9110 §13.1.1). Not executed.
    #[error("this was changed since you read it; read it again and repeat your change")]
    PreconditionFailed,
    /// Required for requests that move money.
    #[error("this needs an Idempotency-Key header, so that a repetition cannot do it twice")]
    IdempotencyKeyRequired,
    /// The caller exceeds a rate limit. Not executed.
    #[error("too many requests: the limit `{limit}` is reached; try again in {retry_after} s")]
    RateLimited {
        /// Name of the limit, as in the header `RateLimit-Policy`.
        limit: String,
        /// Seconds until a request is accepted again.
        retry_after: u64,
    },
    /// Too many calls in flight. Not executed.
    #[error("too busy right now; try again in a moment")]
    Overloaded,
    /// The domain cannot be reached. The outcome is unknown.
    #[error("this part of the shop is not available right now; try again later")]
    Unavailable,
    /// No reply within the timeout. The outcome is unknown.
    #[error("no answer came in time; whether it was done is unknown, so look before you repeat it")]
    DeadlineExceeded,
    /// The database cannot be written or read: full, read-only or gone. Not executed.
    #[error("the shop cannot save this right now; nothing was changed, try again later")]
    StorageUnavailable,
    /// Bug or misconfiguration, logged where it happened.
    #[error("something went wrong on our side; it has been logged under this request's id")]
    Internal,
}

impl CommonError {
    /// Returns a validation error of one field.
    pub fn field(error: FieldError) -> Self {
        Self::ValidationFailed { errors: vec![error] }
    }
}

fn sentence(errors: &[FieldError]) -> String {
    let parts: Vec<String> = errors.iter().map(|e| format!("`{}` {}", e.field, e.message)).collect();
    parts.join("; ")
}

impl DomainError for CommonError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unauthenticated => ErrorKind::Unauthenticated,
            Self::Forbidden | Self::ScopeMissing { .. } | Self::RecentSignInRequired | Self::InternalOnly => {
                ErrorKind::Forbidden
            }
            Self::ValidationFailed { .. } | Self::IdempotencyKeyReused => ErrorKind::Invalid,
            Self::RequestInProgress => ErrorKind::Conflict,
            Self::PreconditionFailed => ErrorKind::PreconditionFailed,
            Self::IdempotencyKeyRequired => ErrorKind::Malformed,
            Self::RateLimited { .. } => ErrorKind::TooManyRequests,
            Self::Overloaded | Self::Unavailable | Self::StorageUnavailable => ErrorKind::Unavailable,
            Self::DeadlineExceeded => ErrorKind::DeadlineExceeded,
            Self::Internal => ErrorKind::Internal,
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::ValidationFailed { errors } => errors,
            _ => &[],
        }
    }
}

impl From<Vec<FieldError>> for CommonError {
    fn from(errors: Vec<FieldError>) -> Self {
        Self::ValidationFailed { errors }
    }
}

impl From<FieldError> for CommonError {
    fn from(error: FieldError) -> Self {
        Self::field(error)
    }
}

/// Implements `From` for an error enum of a domain, so that `?` converts validation errors into its variant
/// `Common(CommonError)`. Errors of the database are converted by `impl_from_storage_error!`.
#[macro_export]
macro_rules! impl_from_common_errors {
    ($error:ident) => {
        impl From<Vec<$crate::types::FieldError>> for $error {
            fn from(errors: Vec<$crate::types::FieldError>) -> Self {
                Self::Common(errors.into())
            }
        }
        impl From<$crate::types::FieldError> for $error {
            fn from(error: $crate::types::FieldError) -> Self {
                Self::Common(error.into())
            }
        }
    };
}
