//! How one part asks another: requests, the envelope that carries them, the client that sends them, and the
//! supervisor that keeps an actor alive.
//!
//! Lives here: everything between a caller and a domain's door, so that neither learns whether the other is in
//! this process. Never enters: a business rule, SQL, HTTP, the name of any one domain.

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
mod supervisor;
pub mod trace;

pub use backoff::Backoff;
pub use client::{Client, Health, HealthStatus, Pause, StatusTracker, StorageHealth};
pub use common_error::{CommonError, DomainError, ErrorKind};
pub use context::{Caller, Credential, IdempotencyKey, Identity, InvalidIdempotencyKey, RequestContext, Role};
pub use dispatch::{DispatchFn, DispatchTable, EncodedReply, RemoteCallable};
pub use event::{DeliverEvents, Event, EventEnvelope};
pub use invariants::{CheckInvariants, FACTS_PAGE_SIZE, InvariantReport, Selection, Violation};
pub use request::{Access, Envelope, HandlerFuture, Request};
pub use request_metrics::{RequestMetrics, RequestMetricsSnapshot};
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

    /// Panics when a test asked for it in the context. Compiled to nothing outside tests.
    pub fn panic_if_requested<R: Request>(ctx: &RequestContext) {
        #[cfg(feature = "test-hooks")]
        super::trace::during(ctx.trace.clone(), || {
            assert!(ctx.panic_at.as_deref() != Some(R::NAME), "a test asked {} to panic", R::NAME);
        });
        #[cfg(not(feature = "test-hooks"))]
        let _ = ctx;
    }
}

/// Declares what a domain can be asked: for each request its reply, its error, its name on the wire, whether a
/// caller without an answer may ask again, and who may ask.
///
/// ```ignore
/// requests! { CatalogError;
///     "catalog.GetProduct": GetProduct => Product, retry, |_| Access::Anyone;
///     "catalog.CreateProduct": CreateProduct => Product, once, |_| Access::Admin;
/// }
/// ```
#[macro_export]
macro_rules! requests {
    (@retry retry) => { true };
    (@retry once) => { false };
    ($error:ty; $($name:literal : $request:ty => $reply:ty, $retry:ident, |$this:pat_param| $access:expr;)+) => {$(
        impl $crate::messaging::Request for $request {
            const NAME: &'static str = $name;
            const RETRYABLE: bool = $crate::requests!(@retry $retry);
            type Reply = $reply;
            type Error = $error;
            fn access(&self) -> $crate::messaging::Access {
                use $crate::messaging::Access;
                let $this = self;
                $access
            }
            fn meter() -> &'static $crate::messaging::RequestMetrics {
                static METER: $crate::messaging::RequestMetrics = $crate::messaging::RequestMetrics::new($name);
                &METER
            }
        }
    )+};
}

/// Makes an actor answer requests: each goes, once its caller was found to be allowed, to an async function of
/// the actor's shared state (its field `state`), the context and the request.
///
/// ```ignore
/// handlers! { Catalog; GetProduct => get_product, CreateProduct => create_product }
/// ```
///
/// The same list says what other processes can ask it ([`messaging::RemoteCallable`]).
#[macro_export]
macro_rules! handlers {
    ($actor:ty; $($request:ty => $answer:path),+ $(,)?) => {
        impl $crate::messaging::RemoteCallable for $actor {
            fn enter(table: &mut $crate::messaging::DispatchTable<Self>) {
                $(table.add::<$request>();)+
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
                let (trace, allowed) = (ctx.trace.clone(), request.access().check(&ctx));
                let state = std::sync::Arc::clone(&self.state);
                // What it logs says its trace, and what it emits carries it.
                $crate::messaging::HandlerFuture::by($crate::messaging::trace::within(trace, async move {
                    allowed?;
                    $answer(state, ctx, request).await
                }))
            }
        }
        )+
    };
}
