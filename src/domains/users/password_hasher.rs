//! Hashing passwords: slow on purpose, so it happens off the actor's thread, a few at once, and only so many wait.

use std::sync::Arc;

use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::messaging::{CommonError, RequestContext};

/// How many may wait for each hasher: about a second of work. Whoever would wait longer is better told so at once.
const WAITING_MAX: usize = 32;

/// Hashes and verifies passwords with argon2id at the crate's defaults (19 MiB, two passes: OWASP's advice of 2025).
pub struct Passwords {
    argon2: Argon2<'static>,
    /// A hash that no password has, verified when there is no account, so that nobody can tell by the time it takes.
    decoy: Arc<str>,
    /// One each that works: 19 MiB and a core.
    slots: Arc<Semaphore>,
    /// One each that works or waits.
    places: Arc<Semaphore>,
    /// Hashes computed so far, verified ones included.
    #[cfg(test)]
    computed: Arc<std::sync::atomic::AtomicUsize>,
}

/// A place among those who hash or wait to. Free again when dropped.
pub struct HashPermit<'a> {
    passwords: &'a Passwords,
    _place: OwnedSemaphorePermit,
}

impl Passwords {
    /// Hashes so many at once.
    pub fn new(hashers: usize) -> Self {
        let params = Params::DEFAULT;
        let cost = format!("m={},t={},p={}", params.m_cost(), params.t_cost(), params.p_cost());
        // Zeros as salt and hash: as good as any, because finding their password is as hard as breaking argon2.
        let decoy = format!("$argon2id$v=19${cost}${}${}", "A".repeat(22), "A".repeat(43)).into();
        let (slots, places) = (Semaphore::new(hashers), Semaphore::new(hashers.saturating_mul(1 + WAITING_MAX)));
        Self {
            argon2: Argon2::from(params),
            decoy,
            slots: Arc::new(slots),
            places: Arc::new(places),
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
        Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A place, or `Overloaded`. Taken before anything else is done for the caller, so that a flood costs nothing.
    pub fn enter(&self) -> Result<HashPermit<'_>, CommonError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| CommonError::Overloaded)?;
        Ok(HashPermit { passwords: self, _place: place })
    }
}

impl HashPermit<'_> {
    /// The hash of a password, as a PHC string with a salt of its own.
    pub async fn hash(&self, ctx: &RequestContext, password: &str) -> Result<String, CommonError> {
        let password = password.to_owned();
        self.work(ctx, move |argon2| Ok(argon2.hash_password(password.as_bytes())?.to_string())).await
    }

    /// Whether this is the password of that hash. Without a hash it is not, and takes as long.
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
        let slot = Arc::clone(&self.passwords.slots).acquire_owned().await.map_err(|_| CommonError::Unavailable)?;
        if ctx.remaining().is_zero() {
            // The caller has gone; nothing was done.
            return Err(CommonError::DeadlineExceeded);
        }
        #[cfg(test)]
        self.passwords.computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let argon2 = self.passwords.argon2.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            // StockHold by the work, not by who waits for it: a slot is a core and its memory.
            let _slot = slot;
            work(&argon2)
        })
        .await;
        match outcome {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                log::error!("users: a password could not be hashed: {error}");
                Err(CommonError::Internal)
            }
            Err(panicked) => {
                log::error!("users: hashing a password panicked: {panicked}");
                Err(CommonError::Internal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn the_decoy_costs_what_a_hash_costs_and_fits_no_password() {
        let passwords = Passwords::new(1);
        let (ctx, turn) = (RequestContext::internal("test"), passwords.enter().unwrap());
        let hash = turn.hash(&ctx, "correct horse").await.unwrap();
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&hash), cost(&passwords.decoy));
        assert_eq!(hash.len(), passwords.decoy.len());
        assert_eq!(turn.verify(&ctx, "correct horse", Some(&hash)).await, Ok(true));
        assert_eq!(turn.verify(&ctx, "wrong horse", Some(&hash)).await, Ok(false));
        assert_eq!(turn.verify(&ctx, "correct horse", None).await, Ok(false));
    }

    #[actix::test]
    async fn only_so_many_wait_and_places_come_back() {
        let passwords = Passwords::new(1);
        let turns: Vec<_> = (0..=WAITING_MAX).map(|_| passwords.enter().unwrap()).collect();
        assert_eq!(passwords.enter().map(drop), Err(CommonError::Overloaded));
        drop(turns);
        assert!(passwords.enter().is_ok());
        let gone = RequestContext::internal("test").with_timeout(std::time::Duration::ZERO);
        let late = passwords.enter().unwrap().hash(&gone, "password").await;
        assert_eq!(late, Err(CommonError::DeadlineExceeded));
    }
}
