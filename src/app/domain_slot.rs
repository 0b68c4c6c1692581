//! Type-erased handle to one domain of this process: what relocation needs to hand it to another process and to take it
//! back. Does not contain: the steps of a move, a rule of any domain.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};
use futures_util::future::LocalBoxFuture;

use crate::messaging::grpc::{Peer, Remote};
use crate::messaging::{Client, Pause, RemoteCallable};
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::Settings;
use crate::store::{OpenError, Store};

/// Domain that can be moved between processes.
pub trait RelocatableDomain: Send + Sync {
    /// Returns the domain's name.
    fn domain(&self) -> &'static str;
    /// Returns whether the domain runs in this process.
    fn is_local(&self) -> bool;
    /// Returns the other process that the domain runs in, if there is one.
    fn remote_peer(&self) -> Option<Arc<Peer>>;
    /// Holds back new calls until the returned guard is dropped or the domain is routed elsewhere.
    fn pause(&self) -> Box<dyn PausedDomain>;
    /// Starts the domain in this process and routes calls to it.
    ///
    /// # Errors
    /// If the database cannot be opened.
    fn start(&self, runtime: &DomainRuntime) -> Result<Store, OpenError>;
    /// Routes calls to another process.
    fn route_to(&self, peer: &Arc<Peer>, settings: &Settings);
    /// Rejects all calls.
    fn disable(&self);
}

/// Domain that receives no new calls. Dropping the guard before calls are routed elsewhere resumes it where it was.
pub trait PausedDomain {
    /// Waits for the calls in flight; `false` if they have not ended within `timeout`.
    fn wait_drained(&mut self, timeout: Duration) -> LocalBoxFuture<'_, bool>;
}

/// Implementation of [`RelocatableDomain`] for the domain of actor `A`, started by `O`.
pub struct DomainSlot<A: Actor, O> {
    domain: &'static str,
    client: Client<A>,
    open: O,
}

impl<A: Actor, O> DomainSlot<A, O> {
    /// Creates the slot of the domain behind `client`, which `open` starts.
    pub fn new(domain: &'static str, client: Client<A>, open: O) -> Self {
        Self { domain, client, open }
    }
}

impl<A, O> RelocatableDomain for DomainSlot<A, O>
where
    A: Actor<Context = Context<A>> + RemoteCallable,
    O: Fn(&DomainRuntime) -> Result<RunningDomain<A>, OpenError> + Send + Sync,
{
    fn domain(&self) -> &'static str {
        self.domain
    }

    fn is_local(&self) -> bool {
        self.client.is_local()
    }

    fn remote_peer(&self) -> Option<Arc<Peer>> {
        self.client.remote_peer()
    }

    fn pause(&self) -> Box<dyn PausedDomain> {
        Box::new(self.client.pause())
    }

    fn start(&self, runtime: &DomainRuntime) -> Result<Store, OpenError> {
        let RunningDomain { client, store } = (self.open)(runtime)?;
        self.client.redirect_to(&client);
        Ok(store)
    }

    fn route_to(&self, peer: &Arc<Peer>, settings: &Settings) {
        let remote = Remote::new(self.domain, A::names(), Arc::clone(peer));
        self.client.redirect_to(&Client::remote(self.domain, remote, settings.domain(self.domain).in_flight_max));
    }

    fn disable(&self) {
        self.client.redirect_to(&Client::disabled(self.domain));
    }
}

impl<A: Actor> PausedDomain for Pause<A> {
    fn wait_drained(&mut self, timeout: Duration) -> LocalBoxFuture<'_, bool> {
        Box::pin(Self::wait_drained(self, timeout))
    }
}
