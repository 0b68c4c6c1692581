//! Password hashing with Argon2id, off the actor's thread.
//!
//! Contains: the algorithm, its concurrency limit, its working memory and its fair, bounded queue. Does not contain:
//! accounts. Invariants: a caller without an account costs as much as one with a wrong password, and no more than a place
//! in the queue; memory is one buffer of 19 MiB per hasher, reused from hash to hash and returned to the system after some
//! idle seconds. (A buffer per hash, which the crate allocates by default, stays with the allocator of every thread that
//! ever ran one.)

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use icu_normalizer::ComposingNormalizerBorrowed;
use tokio::time::Instant;

use super::fair_queue::{FairQueue, Lease, QueuePlace};
use crate::messaging::{Caller, CommonError, RequestContext, Role};
use crate::types::ClientNetwork;

/// Callers of one network that may wait per hasher: about a second of work. Further ones are rejected at once.
const WAITING_PER_ORIGIN: usize = 32;
/// Callers that may wait per hasher, whatever their network: some seconds of work.
const WAITING_MAX: usize = 256;
/// The time after which an unused buffer is returned to the system.
const BUFFER_IDLE: Duration = Duration::from_secs(3);
/// Capacity of a buffer in blocks of 1 KiB. glibc maps allocations above 32 MiB separately and unmaps them when they are
/// freed (mallopt(3), M_MMAP_THRESHOLD); smaller ones may stay in its heap. Pages that are not written cost nothing.
const BUFFER_CAPACITY: usize = 33 * 1_024;

/// Hashes and verifies passwords with Argon2id at the crate's defaults (19 MiB, two passes: OWASP's recommendation).
pub struct PasswordHashing {
    /// A hash that no password has, verified if there is no account, so that the time taken does not reveal accounts.
    decoy: Arc<str>,
    buffers: FairQueue<Buffer>,
    /// Hashes computed so far, verified ones included.
    #[cfg(test)]
    computed: Arc<std::sync::atomic::AtomicUsize>,
}

/// The working memory of one hasher.
#[derive(Default)]
struct Buffer {
    blocks: Vec<Block>,
    used_at: Option<Instant>,
}

/// Permission to hash or to wait for it, one after the other; freed when dropped.
pub struct HashPermit<'a> {
    hasher: &'a PasswordHashing,
    place: QueuePlace<Buffer>,
}

impl PasswordHashing {
    /// A hasher that computes up to `hashers` hashes at once.
    pub fn new(hashers: usize) -> Self {
        let params = Params::DEFAULT;
        let cost = format!("m={},t={},p={}", params.m_cost(), params.t_cost(), params.p_cost());
        // Zeros as salt and hash: finding a password for them is as hard as breaking Argon2.
        let decoy = format!("$argon2id$v=19${cost}${}${}", "A".repeat(22), "A".repeat(43)).into();
        let buffers = (0..hashers).map(|_| Buffer::default()).collect();
        Self {
            decoy,
            buffers: FairQueue::new(
                buffers,
                hashers.saturating_mul(1 + WAITING_MAX),
                hashers.saturating_mul(1 + WAITING_PER_ORIGIN),
            ),
            #[cfg(test)]
            computed: Arc::default(),
        }
    }

    /// Number of hashes computed so far, for passwords set and passwords verified.
    #[cfg(test)]
    pub fn computed(&self) -> usize {
        self.computed.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Takes one hasher out of service until the lease is dropped.
    #[cfg(test)]
    pub async fn suspend_hasher(&self) -> impl Drop + use<> {
        self.buffers.enter("test".into()).expect("there is a place").lease().await
    }

    /// Reserves a place for the caller, before anything else is done for it, so that a flood costs nothing. Callers from
    /// one network share its turns.
    ///
    /// # Errors
    /// `Overloaded` if too many wait.
    pub fn acquire(&self, ctx: &RequestContext) -> Result<HashPermit<'_>, CommonError> {
        let place = self.buffers.enter(origin(ctx))?;
        Ok(HashPermit { hasher: self, place })
    }

    /// Returns the memory of buffers that were not used for some seconds to the system.
    pub fn release_idle_buffers(&self) {
        self.buffers.for_idle(|buffer| {
            if buffer.used_at.is_some_and(|at| at.elapsed() >= BUFFER_IDLE) {
                *buffer = Buffer::default();
            }
        });
    }
}

impl Buffer {
    /// Memory for `count` blocks.
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        self.blocks.reserve_exact(BUFFER_CAPACITY.max(count) - self.blocks.len());
        if self.blocks.len() < count {
            self.blocks.resize(count, Block::new());
        }
        self.used_at = Some(Instant::now());
        &mut self.blocks[..count]
    }
}

impl HashPermit<'_> {
    /// The hash of a password, as a PHC string with a salt of its own.
    ///
    /// # Errors
    /// `DeadlineExceeded` if the caller's time is over; nothing was done then.
    pub async fn hash(&self, ctx: &RequestContext, password: &str) -> Result<String, CommonError> {
        let password = normalize(password).into_owned();
        self.run(ctx, move |buffer| {
            let params = Params::DEFAULT;
            let salt = Salt::generate();
            let output = compute(buffer, Algorithm::Argon2id, Version::V0x13, &params, password.as_bytes(), &salt)?;
            let hash = PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params: ParamsString::try_from(&params)?,
                salt: Some(salt),
                hash: Some(output),
            };
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether `password` has this hash. Without a hash it has not, and finding out takes as long.
    ///
    /// # Errors
    /// As [`HashPermit::hash`].
    pub async fn verify(&self, ctx: &RequestContext, password: &str, hash: Option<&str>) -> Result<bool, CommonError> {
        let normal = normalize(password);
        // Hashes from before passwords were normalized are of the password as it was typed.
        Ok(self.verify_exactly(ctx, &normal, hash).await?
            || (normal != password && self.verify_exactly(ctx, password, hash).await?))
    }

    async fn verify_exactly(
        &self,
        ctx: &RequestContext,
        password: &str,
        hash: Option<&str>,
    ) -> Result<bool, CommonError> {
        let (password, is_known) = (password.to_owned(), hash.is_some());
        let hash: Arc<str> = hash.map_or_else(|| Arc::clone(&self.hasher.decoy), Arc::from);
        self.run(ctx, move |buffer| {
            let hash = PasswordHash::new(&hash)?;
            let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
            let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
            let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from)?;
            let params = Params::try_from(&hash)?;
            let output = compute(buffer, algorithm, version, &params, password.as_bytes(), salt)?;
            // `Output` is compared in constant time.
            Ok(output == *expected && is_known)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        ctx: &RequestContext,
        work: impl FnOnce(&mut Buffer) -> password_hash::Result<T> + Send + 'static,
    ) -> Result<T, CommonError> {
        let lease = tokio::time::timeout(ctx.remaining(), self.place.lease());
        let mut lease: Lease<Buffer> = lease.await.map_err(|_| CommonError::DeadlineExceeded)?;
        if ctx.remaining().is_zero() {
            return Err(CommonError::DeadlineExceeded);
        }
        #[cfg(test)]
        self.hasher.computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        // The lease goes with the work, not with the caller: it stands for a core and a buffer.
        let outcome = tokio::task::spawn_blocking(move || work(lease.resource())).await;
        match outcome {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                log::error!("users: hashing a password failed: {error}");
                Err(CommonError::Internal)
            }
            Err(panic) => {
                log::error!("users: hashing a password panicked: {panic}");
                Err(CommonError::Internal)
            }
        }
    }
}

fn compute(
    buffer: &mut Buffer,
    algorithm: Algorithm,
    version: Version,
    params: &Params,
    password: &[u8],
    salt: &[u8],
) -> password_hash::Result<Output> {
    let mut bytes = [0; Params::DEFAULT_OUTPUT_LEN];
    Argon2::new(algorithm, version, params.clone()).hash_password_into_with_memory(
        password,
        salt,
        &mut bytes,
        buffer.blocks(params.block_count()),
    )?;
    Ok(Output::new(&bytes)?)
}

/// Returns a password in Unicode form NFKC: keyboards differ in how they encode the same letters (RFC 8265, NIST SP 800-63B).
fn normalize(password: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfkc().normalize(password)
}

/// The name under which callers share turns: a network for strangers, also as guests, a user, or a domain.
fn origin(ctx: &RequestContext) -> Arc<str> {
    match (&ctx.caller, ctx.network) {
        (Caller::Domain(name), _) => Arc::clone(name),
        (Caller::User { identity, .. }, _) if identity.role != Role::Guest => identity.user_id.to_string().into(),
        (_, Some(network)) => network.to_string().into(),
        (Caller::User { identity, .. }, None) => identity.user_id.to_string().into(),
        (Caller::Anyone { address, .. }, None) => match address.parse::<IpAddr>() {
            Ok(address) => ClientNetwork::from(address).to_string().into(),
            Err(_) => Arc::clone(address),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn decoy_costs_as_much_as_a_hash_and_matches_nothing() {
        let passwords = PasswordHashing::new(1);
        let ctx = RequestContext::internal("test");
        let permit = passwords.acquire(&ctx).unwrap();
        let hash = permit.hash(&ctx, "correct horse").await.unwrap();
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&hash), cost(&passwords.decoy));
        assert_eq!(hash.len(), passwords.decoy.len());
        assert_eq!(permit.verify(&ctx, "correct horse", Some(&hash)).await, Ok(true));
        assert_eq!(permit.verify(&ctx, "wrong horse", Some(&hash)).await, Ok(false));
        assert_eq!(permit.verify(&ctx, "correct horse", None).await, Ok(false));
    }

    #[actix::test]
    async fn hash_of_another_implementation_is_verified() {
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 3, 1, Some(32)).unwrap());
        let known = password_hash::PasswordHasher::hash_password(&hash, b"password").unwrap().to_string();
        let passwords = PasswordHashing::new(1);
        let ctx = RequestContext::internal("test");
        let permit = passwords.acquire(&ctx).unwrap();
        assert_eq!(permit.verify(&ctx, "password", Some(&known)).await, Ok(true));
        assert_eq!(permit.verify(&ctx, "passwort", Some(&known)).await, Ok(false));
    }

    #[actix::test]
    async fn waiting_is_limited_per_origin_and_places_come_back() {
        let passwords = PasswordHashing::new(1);
        let ctx = RequestContext::internal("test");
        let permits: Vec<_> = (0..=WAITING_PER_ORIGIN).map(|_| passwords.acquire(&ctx).unwrap()).collect();
        assert_eq!(passwords.acquire(&ctx).map(drop), Err(CommonError::Overloaded));
        assert!(passwords.acquire(&RequestContext::internal("other")).is_ok());
        drop(permits);
        assert!(passwords.acquire(&ctx).is_ok());
        let gone = RequestContext::internal("test").with_timeout(Duration::ZERO);
        let late = passwords.acquire(&gone).unwrap().hash(&gone, "password").await;
        assert_eq!(late, Err(CommonError::DeadlineExceeded));
    }

    #[actix::test]
    async fn buffers_are_reused_and_released_when_idle() {
        let passwords = PasswordHashing::new(1);
        let ctx = RequestContext::internal("test");
        let held = |passwords: &PasswordHashing| {
            let mut blocks = 0;
            passwords.buffers.for_idle(|buffer| blocks += buffer.blocks.capacity());
            blocks
        };
        for _ in 0..3 {
            passwords.acquire(&ctx).unwrap().hash(&ctx, "password").await.unwrap();
            assert_eq!(held(&passwords), BUFFER_CAPACITY);
        }
        passwords.release_idle_buffers();
        assert_eq!(held(&passwords), BUFFER_CAPACITY, "it was used just now");
        passwords.buffers.for_idle(|buffer| buffer.used_at = Instant::now().checked_sub(BUFFER_IDLE));
        passwords.release_idle_buffers();
        assert_eq!(held(&passwords), 0);
    }
}
