//! Messaging between the parts of a shop: requests, events, their envelopes, the client that sends them and the supervisor
//! of actors.
//!
//! Contains: everything between a caller and a domain's actor, so that neither depends on whether the other runs in the
//! same process. Does not contain: business rules, SQL, HTTP, or any one domain. Imports only `types`, `histogram` and
//! `fault_injection`.

mod audit;
mod backoff;
mod client;
mod common_error;
mod context;
mod dispatch;
mod event;
#[cfg(feature = "test-hooks")]
mod faulty_transport;
pub mod grpc;
mod invariants;
mod request;
mod request_metrics;
mod scopes;
mod supervisor;
pub mod trace;

pub use audit::{AuditEntry, ListAuditEntries};
pub use backoff::Backoff;
pub use client::{Client, Health, HealthStatus, Pause, StatusTracker, StorageHealth};
pub use common_error::{CommonError, DomainError, ErrorKind};
pub use context::{
    Caller, Credential, IdempotencyKey, Identity, InvalidIdempotencyKey, RequestContext, Role, Versions, user_scope,
};
pub use dispatch::{DispatchFn, DispatchTable, EncodedReply, RemoteCallable};
pub use event::{DeliverEvents, Event, EventEnvelope};
pub use invariants::{CheckInvariants, FACTS_PAGE_SIZE, InvariantReport, Selection, Violation};
pub use request::{Access, Envelope, HandlerFuture, Request};
pub use request_metrics::{RequestMetrics, RequestMetricsSnapshot};
pub use scopes::{Scopes, UnknownScope};
pub use supervisor::{ActorHealth, Supervisor};

/// Parts of the expansion of the macros below; not to be called directly.
#[doc(hidden)]
pub mod hooks {
    use actix::{Actor, Addr, Context, Handler, MailboxError};

    use super::{Envelope, Request, RequestContext};

    /// Sends a request to its actor and returns the reply; in a simulation, through its fault injector.
    pub async fn deliver<A, R>(
        address: &Addr<A>,
        envelope: Envelope<R>,
    ) -> Result<Result<R::Reply, R::Error>, MailboxError>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
        R: Request,
    {
        #[cfg(feature = "test-hooks")]
        if let Some(injector) = crate::fault_injection::current() {
            return super::faulty_transport::send_with_faults(injector, address, envelope).await;
        }
        address.send(envelope).await
    }

    /// Panics if a test requested it in the context. Empty without the feature `test-hooks`.
    pub fn panic_if_requested<R: Request>(ctx: &RequestContext) {
        #[cfg(feature = "test-hooks")]
        super::trace::in_scope(ctx.trace.clone(), || {
            assert!(ctx.panic_at.as_deref() != Some(R::NAME), "panic in {} requested by a test", R::NAME);
        });
        #[cfg(not(feature = "test-hooks"))]
        let _ = ctx;
    }
}

/// Declares the requests of a domain: name on the wire, reply, error, whether a caller without a reply may send it again
/// (`retry`) or not (`once`), and access.
///
/// ```ignore
/// requests! { CatalogError;
///     "catalog.GetProduct": GetProduct => Product, read, |_| Access::Anyone;
///     "catalog.CreateProduct": CreateProduct => Product, once, |_| Access::Staff(Role::Manager);
/// }
/// ```
#[macro_export]
macro_rules! requests {
    (@retry read) => { true };
    (@retry retry) => { true };
    (@retry once) => { false };
    (@read read) => { true };
    (@read $other:ident) => { false };
    ($error:ty; $($name:literal : $request:ty => $reply:ty, $retry:ident, |$this:pat_param| $access:expr;)+) => {$(
        impl $crate::messaging::Request for $request {
            const NAME: &'static str = $name;
            const RETRYABLE: bool = $crate::requests!(@retry $retry);
            const IS_READ: bool = $crate::requests!(@read $retry);
            type Reply = $reply;
            type Error = $error;
            fn access(&self) -> $crate::messaging::Access {
                #[allow(unused_imports, reason = "most rules name no role")]
                use $crate::messaging::{Access, Role};
                let $this = self;
                $access
            }
            fn metrics() -> &'static $crate::messaging::RequestMetrics {
                static METRICS: $crate::messaging::RequestMetrics = $crate::messaging::RequestMetrics::new($name);
                &METRICS
            }
        }
    )+};
}

/// Declares the handlers of an actor: an async function per request, of the actor's shared state (its field `state`), the
/// context and the request. Called after the access check.
///
/// ```ignore
/// handlers! { Catalog; GetProduct => get_product, CreateProduct => create_product }
/// ```
///
/// The same list makes the requests callable from other processes ([`messaging::RemoteCallable`]).
#[macro_export]
macro_rules! handlers {
    ($actor:ty; $($request:ty => $handler:path),+ $(,)?) => {
        impl $crate::messaging::RemoteCallable for $actor {
            fn register(table: &mut $crate::messaging::DispatchTable<Self>) {
                $(table.register::<$request>();)+
            }
        }
        $(
        impl actix::Handler<$crate::messaging::Envelope<$request>> for $actor {
            type Result = $crate::messaging::HandlerFuture<$request>;
            fn handle(
                &mut self,
                envelope: $crate::messaging::Envelope<$request>,
                _: &mut Self::Context,
            ) -> Self::Result {
                use $crate::messaging::Request as _;
                let $crate::messaging::Envelope { ctx, request } = envelope;
                $crate::messaging::hooks::panic_if_requested::<$request>(&ctx);
                let (trace, allowed) = (ctx.trace.clone(), request.authorize(&ctx));
                let state = std::sync::Arc::clone(&self.state);
                // Log lines and events of the handler carry its trace.
                $crate::messaging::HandlerFuture::from_future($crate::messaging::trace::instrument(trace, async move {
                    allowed?;
                    $handler(state, ctx, request).await
                }))
            }
        }
        )+
    };
}
