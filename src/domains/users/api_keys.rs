//! API keys: list, create, delete, and the record of their use.

use std::sync::Arc;

use super::actor::{UsersState, require_user};
use super::security_notices::notify_owner;
use super::store::ApiKeyRow;
use super::tokens::TokenPurpose;
use super::{
    AccessChanged, ApiKey, CreateApiKey, CredentialChange, DeleteApiKey, ListApiKeys, NewApiKey, UsersError, model,
    store,
};
use crate::messaging::{CommonError, Credential, RequestContext, Role, Scopes};
use crate::types::{ApiKeyId, Page, Timestamp, Validator};

/// Keys whose usage is written in one transaction.
const KEY_USAGE_BATCH: usize = 500;

pub(super) async fn list_api_keys(
    state: Arc<UsersState>,
    ctx: RequestContext,
    _: ListApiKeys,
) -> Result<Page<ApiKey>, UsersError> {
    let user_id = require_user(&ctx)?.user_id;
    let keys = state.store.read(move |conn| Ok::<_, UsersError>(store::list_keys(conn, user_id)?)).await?;
    Ok(Page { items: keys.into_iter().map(|key| state.to_api_key(key)).collect(), next: None })
}

pub(super) async fn create_api_key(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: CreateApiKey,
) -> Result<NewApiKey, UsersError> {
    let who = require_user(&ctx)?;
    if who.role == Role::Guest {
        // A guest ends with its session; a key would outlive it.
        return Err(CommonError::Forbidden.into());
    }
    let mut fields = Validator::new();
    let name = model::validate_name(&mut fields, &request.name);
    let scopes = match &request.scopes {
        None => Ok(who.scopes),
        Some(names) => Scopes::parse(names).map_err(|error| error.to_string()),
    };
    let scopes = scopes.and_then(|scopes| match scopes {
        Scopes::NONE => Err("must not be empty; leave it out for all".to_owned()),
        scopes if !who.scopes.contains(scopes) => Err("must not go beyond those of the key that asks".to_owned()),
        scopes => Ok(scopes),
    });
    let scopes = scopes.unwrap_or_else(|error| {
        fields.add_error("scopes", "invalid", error);
        Scopes::NONE
    });
    if request.expires_at.is_some_and(|end| end <= state.store.now()) {
        fields.add_error("expires_at", "past", "must be in the future");
    }
    fields.finish()?;
    let (request, expires_at) = (CreateApiKey { name: name.clone(), ..request }, request.expires_at);
    let key: (ApiKeyId, Timestamp) = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let account = store::find_by_id(tx.conn, who.user_id)?.ok_or(UsersError::InvalidToken)?;
            if store::count_keys(tx.conn, who.user_id)? >= model::API_KEYS_MAX {
                return Err(UsersError::TooManyApiKeys);
            }
            let id = ApiKeyId::new();
            let scopes = store::scopes_text(scopes);
            let key = ApiKeyRow { id, name, scopes, created_at: tx.now, expires_at, last_used_at: None };
            store::insert_key(tx.conn, who.user_id, &key)?;
            notify_owner(tx, &account, CredentialChange::ApiKey, false)?;
            Ok((id, tx.now))
        })
        .await?;
    let (id, created_at) = key;
    let token = state.tokens.encode(TokenPurpose::ApiKey, id.uuid());
    let prefix = state.tokens.display_prefix(id);
    let api_key = ApiKey { id, name: request.name, prefix, scopes, created_at, expires_at, last_used_at: None };
    Ok(NewApiKey { api_key, token })
}

pub(super) async fn delete_api_key(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: DeleteApiKey,
) -> Result<(), UsersError> {
    let (user_id, id) = (require_user(&ctx)?.user_id, request.api_key_id);
    let result = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            if !store::delete_key(tx.conn, id, user_id)? {
                return Err(UsersError::ApiKeyNotFound);
            }
            // Sockets opened with the key must authenticate again.
            tx.emit(&AccessChanged { user_id, session_id: None })?;
            Ok(())
        })
        .await;
    state.token_cache.invalidate(&Credential::ApiKey(id));
    result
}

/// Writes pending API key usage, in batches. What cannot be written stays pending.
pub async fn flush_key_usage(state: Arc<UsersState>) {
    for batch in state.key_usage.all().chunks(KEY_USAGE_BATCH) {
        let uses = batch.to_vec();
        let written = state
            .store
            .write(move |tx| {
                for (key, at) in uses {
                    store::record_key_use(tx.conn, key, at)?;
                }
                Ok::<_, CommonError>(())
            })
            .await;
        match written {
            Ok(()) => state.key_usage.flushed(batch),
            Err(error) => return log::warn!("users: writing API key usage failed, will retry: {error}"),
        }
    }
}
