//! Idempotent writes: the response to a request with an idempotency key is stored in the transaction of its effect, so
//! that neither exists without the other.
//!
//! Contains: fingerprints, the table `idempotency`, and the builder that every domain's single-step write uses. Does
//! not contain: the gateway's guard against two equal requests at once, and the inbox of events. All layers together
//! are described in `docs/idempotency.md`.

use std::time::Duration;

use diesel::upsert::excluded;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::audit::StaffAction;
use super::query::*;
use super::schema::idempotency;
use super::{Conn, LockSet, Prepare, Store, Tx};
use crate::messaging::{CommonError, DomainError, IdempotencyKey, Request, RequestContext, user_scope};
use crate::types::{Timestamp, UserId};

/// Time for which a response is stored and its key stays taken. Stripe's is the same.
pub const RESPONSE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Responses to callers without an account that each domain keeps; the oldest beyond it are deleted, so that strangers
/// cannot fill the disk. About 100 MB.
pub const STRANGERS_RESPONSES_MAX: i64 = 250_000;

/// Stored in the place of a response that showed a person who was erased since. Not JSON, so no response is equal.
const ERASED: &str = "";

/// SHA-256 of a request's name and content, which distinguishes two requests under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// Hashes a whole request.
    ///
    /// # Errors
    ///
    /// `Internal` when the request has no JSON form.
    pub fn of<R: Request>(request: &R) -> Result<Self, CommonError> {
        let name = R::NAME;
        let json = serde_json::to_vec(request).map_err(|error| {
            log::error!("idempotency: {name} cannot be encoded as JSON: {error}");
            CommonError::Internal
        })?;
        Ok(Self(Sha256::new().chain_update(name).chain_update([0]).chain_update(json).finalize().to_vec()))
    }

    /// Wraps the bytes of a column.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Bytes for a column.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Identity of a request with an idempotency key. Work of several steps stores it in its own row, so that the step that
/// ends the work, also after a crash, can store the response in its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// Namespace of the key: the caller, see [`crate::messaging::Caller::scope`].
    pub scope: String,
    /// Key that the caller chose.
    pub key: IdempotencyKey,
    /// Hash of the request's content.
    pub fingerprint: Fingerprint,
}

impl IdempotentRequest {
    /// Builds it for a request whose context carries a key; `None` without one, and then nothing is hashed.
    ///
    /// # Errors
    ///
    /// `Internal` when the request has no JSON form.
    pub fn from_context<R: Request>(ctx: &RequestContext, request: &R) -> Result<Option<Self>, CommonError> {
        let Some(key) = ctx.key.clone() else { return Ok(None) };
        Ok(Some(Self { scope: ctx.caller.scope(), key, fingerprint: Fingerprint::of(request)? }))
    }
}

/// A write that takes effect once per idempotency key, made by [`Store::idempotent`].
///
/// With a key in the context, [`IdempotentWrite::run`] stores what its job returns, in the job's own transaction. The
/// same request under the same key gets that response again, without the job, and the context is marked as replayed;
/// another request under the key is refused with `IdempotencyKeyReused`. Without a key it is a plain write.
///
/// Responses are stored as JSON for [`RESPONSE_TTL`], so a job must not return a secret. A request that contains one is
/// passed to [`Store::idempotent`] with the secret blanked: the fingerprint must not be a hash of a password.
#[derive(Clone)]
#[must_use = "nothing is written before `run`"]
pub struct IdempotentWrite<'a> {
    store: &'a Store,
    ctx: &'a RequestContext,
    request: Option<IdempotentRequest>,
    /// Action to record, if the caller is a member of staff.
    action: Option<StaffAction>,
    locks: LockSet,
}

impl<'a> IdempotentWrite<'a> {
    pub(super) fn new<R: Request>(store: &'a Store, ctx: &'a RequestContext, request: &R) -> Result<Self, CommonError> {
        let action = StaffAction::of(ctx, request);
        let request = IdempotentRequest::from_context(ctx, request)?;
        Ok(Self { store, ctx, request, action, locks: LockSet::domain() })
    }

    /// Sets the locks that the job takes, instead of the whole domain's. See [`Store::write_locked`].
    pub fn locks(mut self, locks: LockSet) -> Self {
        self.locks = locks;
        self
    }

    /// Runs `job` in a write transaction, unless its response is stored; returns when all of it is durable.
    ///
    /// # Errors
    ///
    /// The job's own, which undo it and leave the key free; `IdempotencyKeyReused`; the store's, see [`Store::write`].
    pub async fn run<T, E>(self, job: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: DomainError + From<diesel::result::Error>,
    {
        let action = self.action;
        let job = move |tx: &mut Tx<'_>| {
            let response = job(tx)?;
            tx.record_action(action.as_ref())?;
            Ok::<_, E>(response)
        };
        let Some(request) = self.request else { return self.store.write_locked(self.locks, job).await };
        // Equal requests under one key wait for the first, in all processes.
        let locks = self.locks.with_key(&request);
        let (response, replayed) = self
            .store
            .write_locked(locks, move |tx| {
                if let Some(stored) = tx.find_response::<T, E>(&request)? {
                    return Ok((stored, true));
                }
                let response = job(tx)?;
                tx.save_response::<T, E>(&request, &response)?;
                Ok::<_, E>((response, false))
            })
            .await?;
        if replayed {
            self.ctx.mark_replayed();
        }
        Ok(response)
    }

    /// Returns the stored response, if there is one, and marks the context as replayed. For work that must do something
    /// else before it writes, so that a repetition does not fail on what has changed since.
    ///
    /// # Errors
    ///
    /// `IdempotencyKeyReused` when the key belongs to another request.
    pub async fn find_response<T, E>(&self) -> Result<Option<T>, E>
    where
        T: DeserializeOwned + Send + 'static,
        E: DomainError + From<diesel::result::Error>,
    {
        let Some(request) = self.request.clone() else { return Ok(None) };
        let now = self.store.now();
        let found = self.store.read(move |conn| find_response::<T, E>(conn, &request, now)).await?;
        if found.is_some() {
            self.ctx.mark_replayed();
        }
        Ok(found)
    }

    /// Returns the stored response, or else the result of `work`, which does something else, such as a call to another
    /// domain, before it ends in [`IdempotentWrite::run`].
    ///
    /// When `work` fails, the stored response is looked up once more: the first request may have ended meanwhile, and
    /// what it changed may be what refused this one. The last item is sold out because it is in this very cart.
    ///
    /// # Errors
    ///
    /// The error of `work` when there is still no response; `IdempotencyKeyReused`.
    pub async fn check_first<T, E, F>(&self, work: impl FnOnce() -> F) -> Result<T, E>
    where
        T: DeserializeOwned + Send + 'static,
        E: DomainError + From<diesel::result::Error>,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(stored) = self.find_response::<T, E>().await? {
            return Ok(stored);
        }
        match work().await {
            Err(error) => self.find_response::<T, E>().await?.ok_or(error),
            response => response,
        }
    }
}

/// Reads the response stored under the request's key, unless it has expired.
///
/// # Errors
///
/// `IdempotencyKeyReused` when the key belongs to another request; `Internal` when the response cannot be decoded.
pub fn find_response<T: DeserializeOwned, E: From<CommonError> + From<diesel::result::Error>>(
    conn: &mut Conn,
    request: &IdempotentRequest,
    now: Timestamp,
) -> Result<Option<T>, E> {
    let stored: Option<(Vec<u8>, String)> = idempotency::table
        .filter(idempotency::scope.eq(&request.scope))
        .filter(idempotency::key.eq(request.key.as_str()))
        .filter(idempotency::created_at.gt(now.saturating_sub(RESPONSE_TTL)))
        .select((idempotency::fingerprint, idempotency::reply))
        .first(conn)
        .optional()?;
    let Some((fingerprint, reply)) = stored else { return Ok(None) };
    if fingerprint != request.fingerprint.0 || reply == ERASED {
        return Err(CommonError::IdempotencyKeyReused.into());
    }
    serde_json::from_str(&reply).map(Some).map_err(|error| {
        log::error!("idempotency: a stored response cannot be decoded: {error}");
        CommonError::Internal.into()
    })
}

/// Blanks the responses to a user, and to others where they contain the user's id. The keys stay taken: a repetition is
/// refused, it neither shows the erased person nor does the work again.
///
/// `among_all` looks through the responses to others, which reads the whole table.
pub fn erase_responses(conn: &mut Conn, user: UserId, among_all: bool) -> QueryResult<usize> {
    let own = diesel::update(idempotency::table.filter(idempotency::scope.eq(user_scope(user))));
    let mut erased = own.set(idempotency::reply.eq(ERASED)).execute(conn)?;
    if among_all {
        let of_others = diesel::update(idempotency::table.filter(idempotency::reply.like(format!("%{user}%"))));
        erased += of_others.set(idempotency::reply.eq(ERASED)).execute(conn)?;
    }
    Ok(erased)
}

/// Deletes the oldest responses to callers without an account, all but the last `keep`.
pub fn delete_oldest_of_strangers(conn: &mut Conn, keep: i64) -> QueryResult<usize> {
    // The scopes that begin with the prefix; `;` follows `:`.
    let of_strangers = || idempotency::scope.ge("a:").and(idempotency::scope.lt("a;"));
    let count: i64 = idempotency::table.filter(of_strangers()).count().get_result(conn)?;
    if count <= keep {
        return Ok(0);
    }
    let newest_to_delete: Timestamp = idempotency::table
        .filter(of_strangers())
        .select(idempotency::created_at)
        .order(idempotency::created_at)
        .offset(count - keep - 1)
        .first(conn)?;
    diesel::delete(idempotency::table.filter(of_strangers()).filter(idempotency::created_at.le(newest_to_delete)))
        .execute(conn)
}

/// Stores a response under the request's key, in the place of an expired one.
///
/// # Errors
///
/// `Internal` when the response has no JSON form.
pub fn save_response<T: Serialize, E: From<CommonError> + From<diesel::result::Error>>(
    conn: &mut Conn,
    request: &IdempotentRequest,
    response: &T,
    now: Timestamp,
) -> Result<(), E> {
    let reply = serde_json::to_string(response).map_err(|error| {
        log::error!("idempotency: a response cannot be encoded as JSON: {error}");
        E::from(CommonError::Internal)
    })?;
    diesel::insert_into(idempotency::table)
        .values((
            idempotency::scope.eq(&request.scope),
            idempotency::key.eq(request.key.as_str()),
            idempotency::fingerprint.eq(&request.fingerprint.0),
            idempotency::reply.eq(reply),
            idempotency::created_at.eq(now),
        ))
        .on_conflict((idempotency::scope, idempotency::key))
        .do_update()
        .set((
            idempotency::fingerprint.eq(excluded(idempotency::fingerprint)),
            idempotency::reply.eq(excluded(idempotency::reply)),
            idempotency::created_at.eq(excluded(idempotency::created_at)),
        ))
        .prepared()
        .execute(conn)?;
    Ok(())
}

/// Deletes expired responses.
pub fn delete_expired(conn: &mut Conn, now: Timestamp) -> QueryResult<usize> {
    diesel::delete(idempotency::table.filter(idempotency::created_at.le(now.saturating_sub(RESPONSE_TTL))))
        .execute(conn)
}
