//! The address book of a user.

use serde::{Deserialize, Serialize};

use super::UsersError;
use crate::types::{AddressFormat, AddressId, Page, PageRequest, PostalAddress, Timestamp, UserId};

/// An address in a user's address book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAddress {
    /// Id of the entry.
    pub id: AddressId,
    /// The address.
    #[serde(flatten)]
    pub address: PostalAddress,
    /// Time it was saved.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// Lists the addresses of a user, the last saved first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListAddresses {
    /// Owner of the address book.
    pub user_id: UserId,
    /// Page to return.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Saves an address. A repeated request with the same idempotency key saves it once.
///
/// # Errors
/// [`UsersError::TooManyAddresses`] above 50 addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateAddress {
    /// Owner of the address book.
    pub user_id: UserId,
    /// Address to save.
    pub address: PostalAddress,
}

/// Reads an address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetAddress {
    /// Owner of the address book.
    pub user_id: UserId,
    /// Entry to read.
    pub address_id: AddressId,
}

/// Replaces an address. Orders keep the one they were placed with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceAddress {
    /// Owner of the address book.
    pub user_id: UserId,
    /// Entry to replace.
    pub address_id: AddressId,
    /// New address.
    pub address: PostalAddress,
}

/// Deletes an address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteAddress {
    /// Owner of the address book.
    pub user_id: UserId,
    /// Entry to delete.
    pub address_id: AddressId,
}

/// Lists how addresses are written in each country.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListCountries {}

/// Forms of the addresses in each country.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countries {
    /// One form for each country, by code.
    pub items: Vec<AddressFormat>,
}

crate::requests! { UsersError;
    "users.ListCountries": ListCountries => Countries, read, |_| Access::Anyone;
    "users.ListAddresses": ListAddresses => Page<SavedAddress>, read, |this| Access::Owner(this.user_id);
    "users.CreateAddress": CreateAddress => SavedAddress, once, |this| Access::Owner(this.user_id);
    "users.GetAddress": GetAddress => SavedAddress, read, |this| Access::Owner(this.user_id);
    "users.ReplaceAddress": ReplaceAddress => SavedAddress, retry, |this| Access::Owner(this.user_id);
    "users.DeleteAddress": DeleteAddress => (), retry, |this| Access::Owner(this.user_id);
}
