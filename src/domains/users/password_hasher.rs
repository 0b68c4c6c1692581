//! Password hashing with argon2id, off the actor's thread.
//!
//! Contains: the algorithm, its concurrency limit and its bounded queue. Does not contain: accounts. Invariant: a caller
//! without an account costs as much as one with a wrong password, and no more than a place in the queue.

use std::sync::Arc;

use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::messaging::{CommonError, RequestContext};

/// Callers that may wait per hasher: about a second of work. Further ones are rejected at once.
const WAITING_MAX: usize = 32;

/// Hashes and verifies passwords with argon2id at the crate's defaults (19 MiB, two passes: OWASP's advice of 2025).
pub struct PasswordHashing {
    argon2: Argon2<'static>,
    /// Hash that no password matches, verified when there is no account so that the time taken reveals nothing.
    decoy: Arc<str>,
    /// One permit per running hash, which takes 19 MiB and a core.
    workers: Arc<Semaphore>,
    /// One permit per running or waiting caller.
    queue: Arc<Semaphore>,
    /// Hashes computed so far, verified ones included.
    #[cfg(test)]
    computed: Arc<std::sync::atomic::AtomicUsize>,
}

/// A place in the queue for hashing; released when dropped.
pub struct HashPermit<'a> {
    passwords: &'a PasswordHashing,
    _queue_slot: OwnedSemaphorePermit,
}

impl PasswordHashing {
    /// Creates a hasher that computes at most `hashers` hashes at once.
    pub fn new(hashers: usize) -> Self {
        let params = Params::DEFAULT;
        let cost = format!("m={},t={},p={}", params.m_cost(), params.t_cost(), params.p_cost());
        // Zeros as salt and hash: finding a password for them is as hard as breaking argon2.
        let decoy = format!("$argon2id$v=19${cost}${}${}", "A".repeat(22), "A".repeat(43)).into();
        let (workers, queue) = (Semaphore::new(hashers), Semaphore::new(hashers.saturating_mul(1 + WAITING_MAX)));
        Self {
            argon2: Argon2::from(params),
            decoy,
            workers: Arc::new(workers),
            queue: Arc::new(queue),
            #[cfg(test)]
            computed: Arc::default(),
        }
    }

    /// Number of hashes computed so far, for passwords set and passwords verified.
    #[cfg(test)]
    pub fn computed(&self) -> usize {
        self.computed.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Takes one hasher out of service until the permit is dropped.
    #[cfg(test)]
    pub async fn suspend_hasher(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.workers).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Takes a place in the queue. Called before anything else is done for a request, so that a flood costs nothing.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full.
    pub fn acquire(&self) -> Result<HashPermit<'_>, CommonError> {
        let queue_slot = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| CommonError::Overloaded)?;
        Ok(HashPermit { passwords: self, _queue_slot: queue_slot })
    }
}

impl HashPermit<'_> {
    /// Hashes a password with a random salt and returns the PHC string.
    ///
    /// # Errors
    /// `DeadlineExceeded` when the deadline passed in the queue.
    pub async fn hash(&self, ctx: &RequestContext, password: &str) -> Result<String, CommonError> {
        let password = password.to_owned();
        self.work(ctx, move |argon2| Ok(argon2.hash_password(password.as_bytes())?.to_string())).await
    }

    /// Returns `true` if the password matches the hash; without a hash `false`, after the same work.
    ///
    /// # Errors
    /// `DeadlineExceeded` when the deadline passed in the queue.
    pub async fn verify(&self, ctx: &RequestContext, password: &str, hash: Option<&str>) -> Result<bool, CommonError> {
        let (password, known) = (password.to_owned(), hash.is_some());
        let hash: Arc<str> = hash.map_or_else(|| Arc::clone(&self.passwords.decoy), Arc::from);
        self.work(ctx, move |argon2| match argon2.verify_password(password.as_bytes(), &*hash) {
            Ok(()) => Ok(known),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(other) => Err(other),
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        ctx: &RequestContext,
        work: impl FnOnce(&Argon2<'static>) -> password_hash::Result<T> + Send + 'static,
    ) -> Result<T, CommonError> {
        let worker = Arc::clone(&self.passwords.workers).acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        if ctx.remaining().is_zero() {
            // The caller has timed out; nothing was done.
            return Err(CommonError::DeadlineExceeded);
        }
        #[cfg(test)]
        self.passwords.computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let argon2 = self.passwords.argon2.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            // Held until the work ends, also when its caller is gone: a permit is a core and its memory.
            let _worker = worker;
            work(&argon2)
        })
        .await;
        match outcome {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                log::error!("users: password hashing failed: {error}");
                Err(CommonError::Internal)
            }
            Err(panicked) => {
                log::error!("users: password hashing panicked: {panicked}");
                Err(CommonError::Internal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn decoy_hash_costs_as_much_and_never_matches() {
        let passwords = PasswordHashing::new(1);
        let (ctx, permit) = (RequestContext::internal("test"), passwords.acquire().unwrap());
        let hash = permit.hash(&ctx, "correct horse").await.unwrap();
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&hash), cost(&passwords.decoy));
        assert_eq!(hash.len(), passwords.decoy.len());
        assert_eq!(permit.verify(&ctx, "correct horse", Some(&hash)).await, Ok(true));
        assert_eq!(permit.verify(&ctx, "wrong horse", Some(&hash)).await, Ok(false));
        assert_eq!(permit.verify(&ctx, "correct horse", None).await, Ok(false));
    }

    #[actix::test]
    async fn full_queue_rejects_until_permits_are_dropped() {
        let passwords = PasswordHashing::new(1);
        let permits: Vec<_> = (0..=WAITING_MAX).map(|_| passwords.acquire().unwrap()).collect();
        assert_eq!(passwords.acquire().map(drop), Err(CommonError::Overloaded));
        drop(permits);
        assert!(passwords.acquire().is_ok());
        let gone = RequestContext::internal("test").with_timeout(std::time::Duration::ZERO);
        let late = passwords.acquire().unwrap().hash(&gone, "password").await;
        assert_eq!(late, Err(CommonError::DeadlineExceeded));
    }
}
