//! What a domain can be asked, as a table of names: the door for transports that carry text.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use futures_util::future::BoxFuture;

use super::{Client, Envelope, Request, RequestContext};

/// An actor that can list what it answers. [`crate::handlers!`] makes it one.
pub trait RemoteCallable: Actor<Context = Context<Self>> {
    /// Enters every request it answers.
    fn enter(table: &mut DispatchTable<Self>);

    /// The names of what it answers.
    fn names() -> Vec<&'static str>
    where
        Self: Sized,
    {
        let mut table = DispatchTable::new(Client::off(""));
        Self::enter(&mut table);
        table.routes.into_keys().collect()
    }
}

/// What came of a request, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedReply {
    /// The answer.
    Reply(Vec<u8>),
    /// The domain's error.
    Error(Vec<u8>),
    /// The request is not the JSON of this message.
    DecodeError,
    /// The answer has no JSON form. Logged where it happened.
    EncodeError,
}

/// Asks one message, read from JSON.
pub type DispatchFn = Arc<dyn Fn(RequestContext, &[u8]) -> BoxFuture<'static, EncodedReply> + Send + Sync>;

/// The messages of one domain by their names, each with the way to its actor.
pub struct DispatchTable<A: Actor> {
    client: Client<A>,
    routes: BTreeMap<&'static str, DispatchFn>,
}

impl<A: RemoteCallable> DispatchTable<A> {
    fn new(client: Client<A>) -> Self {
        Self { client, routes: BTreeMap::new() }
    }

    /// All ways to the domain behind `client`. They lead through the client, and so through its limits.
    #[must_use]
    pub fn of(client: Client<A>) -> BTreeMap<&'static str, DispatchFn> {
        let mut table = Self::new(client);
        A::enter(&mut table);
        table.routes
    }

    /// Enters a request.
    pub fn add<R: Request>(&mut self)
    where
        A: Handler<Envelope<R>>,
    {
        let client = self.client.clone();
        let route: DispatchFn = Arc::new(move |ctx, body| {
            let request_id = Arc::clone(&ctx.request_id);
            let request = match serde_json::from_slice::<R>(body) {
                Ok(request) => request,
                Err(error) => return Box::pin(std::future::ready(unreadable(R::NAME, &error, &request_id))),
            };
            let client = client.clone();
            Box::pin(async move {
                let written = match client.call(ctx, request).await {
                    Ok(reply) => serde_json::to_vec(&reply).map(EncodedReply::Reply),
                    Err(error) => serde_json::to_vec(&error).map(EncodedReply::Error),
                };
                written.unwrap_or_else(|error| unwritable(R::NAME, &error, &request_id))
            })
        });
        self.routes.insert(R::NAME, route);
    }
}

fn unreadable(name: &str, error: &serde_json::Error, request_id: &str) -> EncodedReply {
    log::warn!("{name} cannot be read: {error} [{request_id}]");
    EncodedReply::DecodeError
}

fn unwritable(name: &str, error: &serde_json::Error, request_id: &str) -> EncodedReply {
    log::error!("the answer to {name} has no JSON form: {error} [{request_id}]");
    EncodedReply::EncodeError
}
