//! The address book: list, save, replace and delete the addresses of a user.

use std::sync::Arc;

use super::actor::UsersState;
use super::store::{self, AddressRow};
use super::{
    Countries, CreateAddress, DeleteAddress, GetAddress, ListAddresses, ListCountries, ReplaceAddress, SavedAddress,
    UsersError,
};
use crate::messaging::RequestContext;
use crate::store::LockSet;
use crate::types::{AddressId, CountryCode, Page, PostalAddress, Timestamp, UserId, Validator};

/// Most addresses of a user.
const ADDRESSES_MAX: i64 = 50;

/// Locks the address book of a user, so that concurrent requests cannot exceed its limit.
fn address_book_lock(user: UserId) -> LockSet {
    LockSet::key("addresses", user)
}

fn validated(address: &PostalAddress) -> Result<PostalAddress, UsersError> {
    let address = address.clone().normalized();
    let mut fields = Validator::new();
    address.validate("", &mut fields);
    fields.finish()?;
    Ok(address)
}

pub(super) async fn list_countries(
    _: Arc<UsersState>,
    _: RequestContext,
    _: ListCountries,
) -> Result<Countries, UsersError> {
    Ok(Countries { items: CountryCode::formats().to_vec() })
}

pub(super) async fn list_addresses(
    state: Arc<UsersState>,
    _: RequestContext,
    request: ListAddresses,
) -> Result<Page<SavedAddress>, UsersError> {
    let (limit, after) = (request.page.limit()?, request.page.after::<(Timestamp, AddressId)>()?);
    let rows = state
        .store
        .read(move |conn| {
            let rows = store::list_addresses(conn, request.user_id, after, limit + 1)?;
            Ok::<_, UsersError>(rows.iter().map(AddressRow::to_saved).collect::<Result<Vec<_>, _>>()?)
        })
        .await?;
    Ok(Page::from_overfetch(rows, limit, |saved| (saved.created_at, saved.id)))
}

pub(super) async fn create_address(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: CreateAddress,
) -> Result<SavedAddress, UsersError> {
    let (user, address) = (request.user_id, validated(&request.address)?);
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(address_book_lock(user))
        .run(move |tx| {
            // The user may have been deleted while this request was running.
            store::find_by_id(tx.conn, user)?.ok_or(UsersError::UserNotFound)?;
            if store::count_addresses(tx.conn, user)? >= ADDRESSES_MAX {
                return Err(UsersError::TooManyAddresses);
            }
            let saved = SavedAddress { id: AddressId::new(), address, created_at: tx.now, updated_at: tx.now };
            store::insert_address(tx.conn, &AddressRow::new(user, &saved)?)?;
            Ok(saved)
        })
        .await
}

pub(super) async fn get_address(
    state: Arc<UsersState>,
    _: RequestContext,
    request: GetAddress,
) -> Result<SavedAddress, UsersError> {
    let GetAddress { user_id, address_id } = request;
    let row = state.store.read(move |conn| Ok::<_, UsersError>(store::address(conn, user_id, address_id)?)).await?;
    Ok(row.ok_or(UsersError::AddressNotFound)?.to_saved()?)
}

pub(super) async fn replace_address(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: ReplaceAddress,
) -> Result<SavedAddress, UsersError> {
    let (user, id, address) = (request.user_id, request.address_id, validated(&request.address)?);
    let versions = ctx.clone();
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(address_book_lock(user))
        .run(move |tx| {
            let before = store::address(tx.conn, user, id)?.ok_or(UsersError::AddressNotFound)?;
            versions.check_version(before.updated_at)?;
            let saved = SavedAddress { id, address, created_at: before.created_at, updated_at: tx.now };
            store::update_address(tx.conn, &AddressRow::new(user, &saved)?)?;
            Ok(saved)
        })
        .await
}

pub(super) async fn delete_address(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: DeleteAddress,
) -> Result<(), UsersError> {
    let DeleteAddress { user_id, address_id } = request.clone();
    let versions = ctx.clone();
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(address_book_lock(user_id))
        .run(move |tx| {
            let before = store::address(tx.conn, user_id, address_id)?.ok_or(UsersError::AddressNotFound)?;
            versions.check_version(before.updated_at)?;
            Ok(store::delete_address(tx.conn, address_id)?)
        })
        .await
}
