//! API keys: list, create, delete, and the record of their use.

use std::sync::Arc;

use super::actor::{UsersState, require_user};
use super::tokens::TokenPurpose;
use super::{AccessChanged, ApiKey, CreateApiKey, DeleteApiKey, ListApiKeys, NewApiKey, UsersError, model, store};
use crate::messaging::{CommonError, Credential, RequestContext, Role};
use crate::types::{ApiKeyId, Page, Validator};

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
    fields.finish()?;
    let without_secrets = CreateApiKey { name: name.clone() };
    let (id, created_at) = state
        .store
        .idempotent(&ctx, &without_secrets)?
        .run(move |tx| {
            store::find_by_id(tx.conn, who.user_id)?.ok_or(UsersError::InvalidToken)?;
            if store::count_keys(tx.conn, who.user_id)? >= model::API_KEYS_MAX {
                return Err(UsersError::TooManyApiKeys);
            }
            let id = ApiKeyId::new();
            store::insert_key(tx.conn, id, who.user_id, &name, tx.now)?;
            Ok((id, tx.now))
        })
        .await?;
    let token = state.tokens.encode(TokenPurpose::ApiKey, id.uuid());
    let prefix = state.tokens.display_prefix(id);
    Ok(NewApiKey { api_key: ApiKey { id, name: without_secrets.name, prefix, created_at, last_used_at: None }, token })
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
