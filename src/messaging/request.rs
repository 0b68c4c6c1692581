//! What makes a struct a contract, and who may ask it.

use actix::Actor;
use actix::dev::{MessageResponse, OneshotSender};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Caller, CommonError, DomainError, RequestContext, RequestMetrics, Role};
use crate::types::UserId;

/// What an actor's handler gives back: the work that ends in the answer. It is done as a task of its own, beside the
/// actor, as with [`actix::ResponseFuture`]; but one type of task serves all messages.
pub struct HandlerFuture<R: Request>(LocalBoxFuture<'static, Result<R::Reply, R::Error>>);

impl<R: Request> HandlerFuture<R> {
    /// Answers with what this work comes to.
    pub fn by(work: impl Future<Output = Result<R::Reply, R::Error>> + 'static) -> Self {
        Self(Box::pin(work))
    }
}

impl<A: Actor, R: Request> MessageResponse<A, Envelope<R>> for HandlerFuture<R> {
    fn handle(self, _: &mut A::Context, asker: Option<OneshotSender<Result<R::Reply, R::Error>>>) {
        let task: LocalBoxFuture<'static, ()> = Box::pin(async move {
            let answer = self.0.await;
            if let Some(asker) = asker {
                // Nobody may wait for it any more.
                let _ = asker.send(answer);
            }
        });
        actix::spawn(task);
    }
}

/// A question to a domain. The same struct with the same serde form is the message on every transport.
///
/// New fields are `Option` or `#[serde(default)]`; nothing is ever renamed or given a new meaning.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// `domain.Request`, on the wire for ever.
    const NAME: &'static str;
    /// May a caller that got no answer ask again without an idempotency key? Reads, and writes that carry an id
    /// made by the caller, may.
    const RETRYABLE: bool;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What can go wrong.
    type Error: DomainError;

    /// Who may ask. Decided here, so that every way in has the same rights.
    fn access(&self) -> Access;

    /// What is counted of it in this process.
    fn meter() -> &'static RequestMetrics;
}

/// Who may ask a request. Another domain of the shop may ask everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anyone,
    /// Everybody who is signed in, guests included.
    SignedIn,
    /// This user alone.
    Owner(UserId),
    /// This user, or an administrator.
    OwnerOrAdmin(UserId),
    /// Administrators.
    Admin,
    /// Whoever calls from the shop's own networks.
    InternalNetwork,
    /// Only other domains.
    Internal,
}

impl Access {
    /// Whether the caller in `ctx` may ask.
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
            Self::OwnerOrAdmin(user) => identity.is_some_and(|who| who.user_id == user || who.role == Role::Admin),
            Self::Admin => identity.is_some_and(|who| who.role == Role::Admin),
        };
        match (allowed, identity) {
            (true, _) => Ok(()),
            (false, None) => Err(CommonError::Unauthenticated),
            (false, Some(_)) => Err(CommonError::Forbidden),
        }
    }
}

/// A question and what travels with it: the actix message of every request.
#[derive(Debug)]
pub struct Envelope<R> {
    /// Who asks, until when, under which key.
    pub ctx: RequestContext,
    /// What they ask.
    pub request: R,
}

impl<R: Request> actix::Message for Envelope<R> {
    type Result = Result<R::Reply, R::Error>;
}
