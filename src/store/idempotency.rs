//! Answers that are given once: what a request under an idempotency key gave back, kept in the transaction of its
//! change, so that there is never the one without the other.

use std::time::Duration;

use diesel::upsert::excluded;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::query::*;
use super::schema::idempotency;
use super::{Conn, Prepare};
use crate::messaging::{CommonError, IdempotencyKey, Request, RequestContext};
use crate::types::Timestamp;

/// How long an answer is kept.
pub const RESPONSE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// By what two requests under one key are told apart: a SHA-256 of the request's name and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// The fingerprint of a whole request.
    pub fn of<R: Request>(request: &R) -> Result<Self, CommonError> {
        Self::of_parts(R::NAME, request)
    }

    /// The fingerprint of what counts of a request.
    pub fn of_parts(name: &str, content: &impl Serialize) -> Result<Self, CommonError> {
        let json = serde_json::to_vec(content).map_err(|error| {
            log::error!("{name} has no JSON form: {error}");
            CommonError::Internal
        })?;
        Ok(Self(Sha256::new().chain_update(name).chain_update([0]).chain_update(json).finalize().to_vec()))
    }

    /// The fingerprint that has these bytes, from a column.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a column.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What somebody wants under an idempotency key. ErasedJob of several steps keeps it beside its state, so that whoever
/// ends the work, after a crash too, can keep the answer in the transaction of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// Whose key it is.
    pub scope: String,
    /// The key.
    pub key: IdempotencyKey,
    /// What is wanted under it.
    pub fingerprint: Fingerprint,
}

impl IdempotentRequest {
    /// The wish of this request, when its caller gave it a key.
    pub fn of<R: Request>(ctx: &RequestContext, request: &R) -> Result<Option<Self>, CommonError> {
        let Some(key) = ctx.key.clone() else { return Ok(None) };
        Ok(Some(Self { scope: ctx.caller.scope(), key, fingerprint: Fingerprint::of(request)? }))
    }
}

/// The answer kept under the key, if there is one that is not too old and is of the same request.
pub fn find<T: DeserializeOwned, E: From<CommonError> + From<diesel::result::Error>>(
    conn: &mut Conn,
    scope: &str,
    key: &IdempotencyKey,
    fingerprint: &Fingerprint,
    now: Timestamp,
) -> Result<Option<T>, E> {
    let kept: Option<(Vec<u8>, String)> = idempotency::table
        .filter(idempotency::scope.eq(scope))
        .filter(idempotency::key.eq(key.as_str()))
        .filter(idempotency::created_at.gt(now.minus(RESPONSE_TTL)))
        .select((idempotency::fingerprint, idempotency::reply))
        .first(conn)
        .optional()?;
    let Some((first, reply)) = kept else { return Ok(None) };
    if first != fingerprint.0 {
        return Err(CommonError::IdempotencyKeyReused.into());
    }
    serde_json::from_str(&reply).map(Some).map_err(|error| {
        log::error!("an answer kept under an idempotency key cannot be read: {error}");
        CommonError::Internal.into()
    })
}

/// Keeps an answer under its key, in the place of one that is too old.
pub fn keep<T: Serialize, E: From<CommonError> + From<diesel::result::Error>>(
    conn: &mut Conn,
    scope: &str,
    key: &IdempotencyKey,
    fingerprint: &Fingerprint,
    answer: &T,
    now: Timestamp,
) -> Result<(), E> {
    let reply = serde_json::to_string(answer).map_err(|error| {
        log::error!("an answer has no JSON form: {error}");
        E::from(CommonError::Internal)
    })?;
    diesel::insert_into(idempotency::table)
        .values((
            idempotency::scope.eq(scope),
            idempotency::key.eq(key.as_str()),
            idempotency::fingerprint.eq(&fingerprint.0),
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

/// Forgets answers that have served their time.
pub fn forget_old(conn: &mut Conn, now: Timestamp) -> QueryResult<usize> {
    diesel::delete(idempotency::table.filter(idempotency::created_at.le(now.minus(RESPONSE_TTL)))).execute(conn)
}
