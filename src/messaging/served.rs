//! What a domain can be asked, as a table of names: the door for transports that carry text.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use futures_util::future::BoxFuture;

use super::{Client, Ctx, Envelope, Request};

/// An actor that can list what it answers. [`crate::answers!`] makes it one.
pub trait Served: Actor<Context = Context<Self>> {
    /// Enters every request it answers.
    fn enter(table: &mut Table<Self>);

    /// The names of what it answers.
    fn names() -> Vec<&'static str>
    where
        Self: Sized,
    {
        let mut table = Table::new(Client::off(""));
        Self::enter(&mut table);
        table.routes.into_keys().collect()
    }
}

/// What came of a request, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer.
    Reply(Vec<u8>),
    /// The domain's error.
    Error(Vec<u8>),
    /// The request is not the JSON of this message.
    Unreadable,
    /// The answer has no JSON form. Logged where it happened.
    Unwritable,
}

/// Asks one message, read from JSON.
pub type Route = Arc<dyn Fn(Ctx, &[u8]) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// The messages of one domain by their names, each with the way to its actor.
pub struct Table<A: Actor> {
    client: Client<A>,
    routes: BTreeMap<&'static str, Route>,
}

impl<A: Served> Table<A> {
    fn new(client: Client<A>) -> Self {
        Self { client, routes: BTreeMap::new() }
    }

    /// All ways to the domain behind `client`. They lead through the client, and so through its limits.
    #[must_use]
    pub fn of(client: Client<A>) -> BTreeMap<&'static str, Route> {
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
        let route: Route = Arc::new(move |ctx, body| {
            let request_id = Arc::clone(&ctx.request_id);
            let request = match serde_json::from_slice::<R>(body) {
                Ok(request) => request,
                Err(error) => return Box::pin(std::future::ready(unreadable(R::NAME, &error, &request_id))),
            };
            let client = client.clone();
            Box::pin(async move {
                let written = match client.call(ctx, request).await {
                    Ok(reply) => serde_json::to_vec(&reply).map(Outcome::Reply),
                    Err(error) => serde_json::to_vec(&error).map(Outcome::Error),
                };
                written.unwrap_or_else(|error| unwritable(R::NAME, &error, &request_id))
            })
        });
        self.routes.insert(R::NAME, route);
    }
}

fn unreadable(name: &str, error: &serde_json::Error, request_id: &str) -> Outcome {
    log::warn!("{name} cannot be read: {error} [{request_id}]");
    Outcome::Unreadable
}

fn unwritable(name: &str, error: &serde_json::Error, request_id: &str) -> Outcome {
    log::error!("the answer to {name} has no JSON form: {error} [{request_id}]");
    Outcome::Unwritable
}
