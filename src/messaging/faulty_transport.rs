//! Delivery of a request to its actor under fault injection: requests and replies may be lost, requests may arrive twice.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, MailboxError};

use super::{Envelope, Request};
use crate::fault_injection::{FaultInjector, InjectedFault, InjectionPoint, inject};

/// Sends a request to its actor and returns the reply, with the faults of `injector`. A lost message ends as `Timeout` at
/// once instead of at the deadline.
pub async fn send_with_faults<A, R>(
    injector: Arc<dyn FaultInjector>,
    address: &Addr<A>,
    envelope: Envelope<R>,
) -> Result<Result<R::Reply, R::Error>, MailboxError>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
    R: Request,
{
    let is_retryable = R::RETRYABLE || envelope.ctx.key.is_some();
    match inject(&injector, InjectionPoint::Request(R::NAME, is_retryable)).await {
        InjectedFault::MessageLost => return Err(MailboxError::Timeout),
        InjectedFault::Duplicated => {
            let request = serde_json::to_value(&envelope.request).and_then(serde_json::from_value::<R>);
            let mut ctx = envelope.ctx.for_downstream_call("", envelope.ctx.key.clone());
            ctx.caller = envelope.ctx.caller.clone();
            if let Ok(request) = request {
                let _ = address.send(Envelope { ctx, request }).await;
            }
        }
        _ => {}
    }
    let reply = address.send(envelope).await;
    match inject(&injector, InjectionPoint::Answer(R::NAME)).await {
        InjectedFault::MessageLost => Err(MailboxError::Timeout),
        _ => reply,
    }
}
