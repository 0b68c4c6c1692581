//! Calls from live sessions to the domains, limited so that a thousand clients that reconnect together do not overload
//! them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::Semaphore;

use crate::contract::notifications::{GetStream, MissedNotifications, ReadMissed, Stream};
use crate::contract::users::{Authenticated, UsersError};
use crate::domains::notifications::NotificationsActor;
use crate::domains::users::UsersActor;
use crate::messaging::{Backoff, Client, DomainError, ErrorKind, RequestContext};
use crate::types::UserId;
use crate::web::auth;
use crate::web::names::GATEWAY;

/// Most calls at once; further ones wait for a permit.
const CONCURRENT_CALLS_MAX: usize = 64;
/// Timeout of a call, and of the wait for a permit before it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Delays before a call to an unavailable domain is repeated.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));

/// Authenticated user of a session.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Account and expiry of the token.
    pub authenticated: Authenticated,
    /// The token, authenticated again whenever the user's rights may have changed.
    pub token: Arc<str>,
}

/// Function that authenticates a token. Tests replace it, to change accounts under a session.
pub type Authenticator =
    Arc<dyn Fn(RequestContext, Arc<str>) -> LocalBoxFuture<'static, Result<Authenticated, UsersError>> + Send + Sync>;

/// Error of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// The token is not valid.
    Denied,
    /// The domain does not answer.
    Unavailable,
}

/// Authenticator that calls the users domain.
pub fn authenticator(users: Client<UsersActor>) -> Authenticator {
    Arc::new(move |ctx, token| {
        let users = users.clone();
        Box::pin(async move { auth::authenticate(&users, &ctx, &token).await })
    })
}

/// Clients for the domains that sessions call.
pub struct DomainCalls {
    authenticator: Authenticator,
    notifications: Client<NotificationsActor>,
    permits: Semaphore,
}

impl DomainCalls {
    /// Calls with all permits free.
    pub fn new(authenticator: Authenticator, notifications: Client<NotificationsActor>) -> Self {
        Self { authenticator, notifications, permits: Semaphore::new(CONCURRENT_CALLS_MAX) }
    }

    /// Authenticates a token.
    pub async fn authenticate(&self, token: Arc<str>) -> Result<Authenticated, LookupError> {
        let result = self.call_limited(async |ctx| (self.authenticator)(ctx, token).await).await?;
        result.map_err(|error| match error.kind() {
            ErrorKind::Unauthenticated | ErrorKind::NotFound | ErrorKind::Forbidden => LookupError::Denied,
            _ => LookupError::Unavailable,
        })
    }

    /// Returns the end of a user's stream, or the epoch alone without a user.
    pub async fn stream(&self, user_id: Option<UserId>) -> Result<Stream, LookupError> {
        self.call_with_retry(async |ctx| self.notifications.call(ctx, GetStream { user_id }).await).await
    }

    /// Returns the notifications of a user after a position.
    pub async fn missed(&self, user_id: UserId, after: Stream) -> Result<MissedNotifications, LookupError> {
        let request = ReadMissed { user_id, epoch: after.epoch, after: after.seq };
        self.call_with_retry(async |ctx| self.notifications.call(ctx, request.clone()).await).await
    }

    /// Repeats a call while the domain is unavailable for a moment, as during a restart of its process: a client that
    /// was disconnected instead would make the same call again.
    async fn call_with_retry<T, E: DomainError>(
        &self,
        call: impl AsyncFn(RequestContext) -> Result<T, E>,
    ) -> Result<T, LookupError> {
        let (started_at, mut backoff) = (tokio::time::Instant::now(), RETRY_BACKOFF);
        loop {
            match self.call_limited(&call).await? {
                Ok(reply) => return Ok(reply),
                Err(error) if error.kind() == ErrorKind::Unavailable && started_at.elapsed() < CALL_TIMEOUT => {
                    backoff.wait().await;
                }
                Err(_) => return Err(LookupError::Unavailable),
            }
        }
    }

    /// Waits for a permit, then calls.
    async fn call_limited<T>(&self, call: impl AsyncFnOnce(RequestContext) -> T) -> Result<T, LookupError> {
        let permit = tokio::time::timeout(CALL_TIMEOUT, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(LookupError::Unavailable) };
        Ok(call(RequestContext::internal(GATEWAY).with_timeout(CALL_TIMEOUT)).await)
    }
}
