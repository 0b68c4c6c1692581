//! Requests: the trait of all messages, their access rights and their envelope.

use actix::Actor;
use actix::dev::{MessageResponse, OneshotSender};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Caller, CommonError, DomainError, RequestContext, RequestMetrics, Role};
use crate::types::UserId;

/// Future of a handler. It runs as a task of its own beside the actor, as with [`actix::ResponseFuture`]; but all messages
/// share one type of task.
pub struct HandlerFuture<R: Request>(LocalBoxFuture<'static, Result<R::Reply, R::Error>>);

impl<R: Request> HandlerFuture<R> {
    /// Wraps a future.
    pub fn from_future(work: impl Future<Output = Result<R::Reply, R::Error>> + 'static) -> Self {
        Self(Box::pin(work))
    }
}

impl<A: Actor, R: Request> MessageResponse<A, Envelope<R>> for HandlerFuture<R> {
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<Result<R::Reply, R::Error>>>) {
        let task: LocalBoxFuture<'static, ()> = Box::pin(async move {
            let reply = self.0.await;
            if let Some(sender) = sender {
                // Fails if the caller has stopped waiting.
                let _ = sender.send(reply);
            }
        });
        actix::spawn(task);
    }
}

/// Request to a domain. The same struct with the same serde form is the message on every transport.
///
/// New fields are `Option` or `#[serde(default)]`; existing ones keep their name and meaning.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// Name on the wire, `domain.Request`; never changes.
    const NAME: &'static str;
    /// Whether a caller without a reply may send it again without an idempotency key: true of reads, and of writes that
    /// carry an id made by the caller.
    const RETRYABLE: bool;
    /// Whether it changes nothing.
    const IS_READ: bool;
    /// Reply on success.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Error of the domain.
    type Error: DomainError;

    /// Returns the callers that may send it. Decided at the message, so that all transports have the same rights.
    fn access(&self) -> Access;

    /// Checks that the caller may send it: by role, and by the scopes of its credential.
    ///
    /// # Errors
    /// `Unauthenticated`, `Forbidden`, `ScopeMissing` or `InternalOnly`.
    fn authorize(&self, ctx: &RequestContext) -> Result<(), CommonError> {
        let access = self.access();
        access.check(ctx)?;
        let domain = Self::NAME.split('.').next().unwrap_or_default();
        match ctx.identity() {
            Some(identity) if access != Access::Anyone && !identity.scopes.allows(domain, Self::IS_READ) => {
                let scope = format!("{domain}:{}", if Self::IS_READ { "read" } else { "write" });
                Err(CommonError::ScopeMissing { scope })
            }
            _ => Ok(()),
        }
    }

    /// Returns its metrics in this process.
    fn metrics() -> &'static RequestMetrics;
}

/// Callers that may send a request. Other domains may send all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All callers.
    Anyone,
    /// All signed-in users, guests included.
    SignedIn,
    /// This user only.
    Owner(UserId),
    /// This user, or staff with at least this role.
    OwnerOrStaff(UserId, Role),
    /// Staff with at least this role.
    Staff(Role),
    /// All callers from the shop's internal networks.
    InternalNetwork,
    /// Other domains only.
    Internal,
}

impl Access {
    /// Checks the caller in `ctx`.
    ///
    /// # Errors
    /// `Unauthenticated`, `Forbidden` or `InternalOnly`.
    pub fn check(self, ctx: &RequestContext) -> Result<(), CommonError> {
        let identity = match &ctx.caller {
            Caller::Domain(_) => return Ok(()),
            Caller::User { identity, .. } => Some(identity),
            Caller::Anyone { .. } => None,
        };
        let internal =
            matches!(ctx.caller, Caller::User { internal: true, .. } | Caller::Anyone { internal: true, .. });
        let allowed = match self {
            Self::Anyone => return Ok(()),
            Self::InternalNetwork => return if internal { Ok(()) } else { Err(CommonError::InternalOnly) },
            Self::Internal => return Err(CommonError::Forbidden),
            Self::SignedIn => identity.is_some(),
            Self::Owner(user) => identity.is_some_and(|who| who.user_id == user),
            Self::OwnerOrStaff(user, role) => identity.is_some_and(|who| who.user_id == user || who.role >= role),
            Self::Staff(role) => identity.is_some_and(|who| who.role >= role),
        };
        match (allowed, identity) {
            (true, _) => Ok(()),
            (false, None) => Err(CommonError::Unauthenticated),
            (false, Some(_)) => Err(CommonError::Forbidden),
        }
    }
}

/// Request with its context: the actix message of every request.
#[derive(Debug)]
pub struct Envelope<R> {
    /// Caller, deadline, idempotency key and trace.
    pub ctx: RequestContext,
    /// The request itself.
    pub request: R,
}

impl<R: Request> actix::Message for Envelope<R> {
    type Result = Result<R::Reply, R::Error>;
}
