//! What can go wrong with any request in any domain, and what every domain's own error must be able to say.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::FieldError;

/// The few kinds of failure that the edges translate: to an HTTP status, to a gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be read. 400.
    Malformed,
    /// Who are you? 401.
    Unauthenticated,
    /// Money was asked for and not given. 402.
    PaymentRequired,
    /// You may not. 403.
    Forbidden,
    /// There is no such thing, or not for you. 404.
    NotFound,
    /// It does not fit what is. 409.
    Conflict,
    /// It is no longer as you believe. 412.
    PreconditionFailed,
    /// Too much at once. 413.
    TooLarge,
    /// Of a kind we do not take. 415.
    UnsupportedMedia,
    /// Well-formed but wrong. 422.
    Invalid,
    /// Too often. 429.
    TooManyRequests,
    /// Our fault. 500.
    Internal,
    /// The fault of somebody we asked. 502.
    Upstream,
    /// Not now; try again. 503.
    Unavailable,
    /// No answer in time; the outcome is unknown. 504.
    DeadlineExceeded,
}

/// An error of a domain, in its own words, that the edges can translate without knowing the domain.
///
/// Its serde form has a field `code`: the stable word that programs rely on. Its `Display` is what people may
/// read; causes for our log alone are fields with `#[serde(skip)]` that `Display` leaves out.
pub trait DomainError:
    Serialize + DeserializeOwned + std::error::Error + From<CommonError> + Send + Sync + 'static
{
    /// Of which kind it is.
    fn kind(&self) -> ErrorKind;

    /// What is wrong with which field, when that is the matter.
    fn fields(&self) -> &[FieldError] {
        &[]
    }
}

/// What can go wrong with any request, whatever the domain. Each domain's error has this as its last variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CommonError {
    /// Only a user may ask this.
    #[error("sign in first: this needs a bearer token or the sign-in cookie")]
    Unauthenticated,
    /// Not this user.
    #[error("you may not do this")]
    Forbidden,
    /// Only from the shop's own networks.
    #[error("this is answered to the shop's internal networks only")]
    InternalOnly,
    /// Fields are wrong.
    #[error("the request is well-formed, but {}", sentence(errors))]
    ValidationFailed {
        /// What is wrong with which field.
        errors: Vec<FieldError>,
    },
    /// The key came before with another request.
    #[error("this Idempotency-Key was used before with another request; use a new key")]
    IdempotencyKeyReused,
    /// The first request with this key still runs.
    #[error("the first request with this Idempotency-Key still runs; ask again in a moment")]
    RequestInProgress,
    /// Money moves under a key only.
    #[error("this needs an Idempotency-Key header, so that a repetition cannot do it twice")]
    IdempotencyKeyRequired,
    /// Too many ask at once. Certainly not done.
    #[error("too busy right now; try again in a moment")]
    Overloaded,
    /// The domain cannot be reached. Nobody knows whether it was done.
    #[error("this part of the shop is not available right now; try again later")]
    Unavailable,
    /// No answer came in time. Nobody knows whether it was done.
    #[error("no answer came in time; whether it was done is unknown, so look before you repeat it")]
    DeadlineExceeded,
    /// The database refuses to be written or read: full, read-only, gone. Not done.
    #[error("the shop cannot save this right now; nothing was changed, try again later")]
    StorageUnavailable,
    /// A fault of ours, logged where it happened.
    #[error("something went wrong on our side; it has been logged under this request's id")]
    Internal,
}

impl CommonError {
    /// One wrong field.
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
            Self::Forbidden | Self::InternalOnly => ErrorKind::Forbidden,
            Self::ValidationFailed { .. } | Self::IdempotencyKeyReused => ErrorKind::Invalid,
            Self::RequestInProgress => ErrorKind::Conflict,
            Self::IdempotencyKeyRequired => ErrorKind::Malformed,
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
