//! One domain's place in this process, whatever domain it is: what placement needs to take it from here and bring it back.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};
use futures_util::future::LocalBoxFuture;

use crate::messaging::grpc::{Peer, Remote};
use crate::messaging::{Client, Pause, RemoteCallable};
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::Settings;
use crate::store::{OpenError, Store};

/// One domain's place.
pub trait RelocatableDomain: Send + Sync {
    /// Whose.
    fn domain(&self) -> &'static str;
    /// Whether the domain is in this process.
    fn is_here(&self) -> bool;
    /// The other process it is in, if it is in one.
    fn elsewhere(&self) -> Option<Arc<Peer>>;
    /// Lets nobody reach it for a while; who asks waits.
    fn pause(&self) -> Box<dyn PausedDomain>;
    /// Opens it here; who asks is answered here from now on.
    fn open(&self, ground: &DomainRuntime) -> Result<Store, OpenError>;
    /// Who asks is answered by the other process from now on.
    fn is_at(&self, peer: &Arc<Peer>, settings: &Settings);
    /// Who asks is refused from now on.
    fn is_nowhere(&self);
}

/// A domain that nobody reaches. Dropped before it is drained, it is where it was.
pub trait PausedDomain {
    /// Waits until the calls under way have ended; `false` when they have not within that time.
    fn drained(&mut self, within: Duration) -> LocalBoxFuture<'_, bool>;
}

/// The seat of one domain.
pub struct DomainSlot<A: Actor, O> {
    domain: &'static str,
    client: Client<A>,
    open: O,
}

impl<A: Actor, O> DomainSlot<A, O> {
    /// The seat of the domain behind `client`, which is opened by `open`.
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

    fn is_here(&self) -> bool {
        self.client.is_local()
    }

    fn elsewhere(&self) -> Option<Arc<Peer>> {
        self.client.remote_peer()
    }

    fn pause(&self) -> Box<dyn PausedDomain> {
        Box::new(self.client.pause())
    }

    fn open(&self, ground: &DomainRuntime) -> Result<Store, OpenError> {
        let RunningDomain { client, store } = (self.open)(ground)?;
        self.client.redirect_to(&client);
        Ok(store)
    }

    fn is_at(&self, peer: &Arc<Peer>, settings: &Settings) {
        let remote = Remote::new(self.domain, A::names(), Arc::clone(peer));
        self.client.redirect_to(&Client::remote(self.domain, remote, settings.domain(self.domain).in_flight_max));
    }

    fn is_nowhere(&self) {
        self.client.redirect_to(&Client::disabled(self.domain));
    }
}

impl<A: Actor> PausedDomain for Pause<A> {
    fn drained(&mut self, within: Duration) -> LocalBoxFuture<'_, bool> {
        Box::pin(self.wait_drained(within))
    }
}
