//! Dispatch of encoded requests by message name, for transports that carry JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use futures_util::future::BoxFuture;

use super::{Client, Envelope, Request, RequestContext};

/// Actor whose requests can be called by name. Implemented by [`crate::handlers!`].
pub trait RemoteCallable: Actor<Context = Context<Self>> {
    /// Registers every request that it handles.
    fn register(table: &mut DispatchTable<Self>);

    /// Returns the names of the requests that it handles.
    fn names() -> Vec<&'static str>
    where
        Self: Sized,
    {
        let mut table = DispatchTable::new(Client::disabled(""));
        Self::register(&mut table);
        table.functions.into_keys().collect()
    }
}

/// Result of a request as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedReply {
    /// Reply of the handler.
    Reply(Vec<u8>),
    /// Error of the domain.
    Error(Vec<u8>),
    /// The request is not the JSON of its message.
    DecodeError,
    /// The reply has no JSON form; logged.
    EncodeError,
}

/// Decodes one request, calls the domain and encodes the result.
pub type DispatchFn = Arc<dyn Fn(RequestContext, &[u8]) -> BoxFuture<'static, EncodedReply> + Send + Sync>;

/// Dispatch functions of one domain, by message name.
pub struct DispatchTable<A: Actor> {
    client: Client<A>,
    functions: BTreeMap<&'static str, DispatchFn>,
}

impl<A: RemoteCallable> DispatchTable<A> {
    fn new(client: Client<A>) -> Self {
        Self { client, functions: BTreeMap::new() }
    }

    /// Returns the dispatch functions of the domain behind `client`. They are subject to the client's limits.
    #[must_use]
    pub fn for_client(client: Client<A>) -> BTreeMap<&'static str, DispatchFn> {
        let mut table = Self::new(client);
        A::register(&mut table);
        table.functions
    }

    /// Registers a request.
    pub fn register<R: Request>(&mut self)
    where
        A: Handler<Envelope<R>>,
    {
        let client = self.client.clone();
        let function: DispatchFn = Arc::new(move |ctx, body| {
            let request_id = Arc::clone(&ctx.request_id);
            let request = match serde_json::from_slice::<R>(body) {
                Ok(request) => request,
                Err(error) => return Box::pin(std::future::ready(decode_error(R::NAME, &error, &request_id))),
            };
            let client = client.clone();
            Box::pin(async move {
                let encoded = match client.call(ctx, request).await {
                    Ok(reply) => serde_json::to_vec(&reply).map(EncodedReply::Reply),
                    Err(error) => serde_json::to_vec(&error).map(EncodedReply::Error),
                };
                encoded.unwrap_or_else(|error| encode_error(R::NAME, &error, &request_id))
            })
        });
        self.functions.insert(R::NAME, function);
    }
}

fn decode_error(name: &str, error: &serde_json::Error, request_id: &str) -> EncodedReply {
    log::warn!("{name}: malformed request: {error} [{request_id}]");
    EncodedReply::DecodeError
}

fn encode_error(name: &str, error: &serde_json::Error, request_id: &str) -> EncodedReply {
    log::error!("{name}: encoding the reply failed: {error} [{request_id}]");
    EncodedReply::EncodeError
}
