//! SQL of the address book.

use diesel::dsl::count_star;

use crate::contract::users::SavedAddress;
use crate::domains::users::schema::address;
use crate::store::Conn;
use crate::store::query::*;
use crate::types::{AddressId, Timestamp, UserId};

/// A row of `address`.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = address)]
pub struct AddressRow {
    pub id: AddressId,
    pub user_id: UserId,
    /// The address as JSON: written once and read whole.
    pub content: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl AddressRow {
    /// Makes the row of an entry.
    pub fn new(user_id: UserId, saved: &SavedAddress) -> QueryResult<Self> {
        let content = to_text(&saved.address)?;
        Ok(Self { id: saved.id, user_id, content, created_at: saved.created_at, updated_at: saved.updated_at })
    }

    /// Converts the row to its public form.
    pub fn to_saved(&self) -> QueryResult<SavedAddress> {
        let address = from_text(&self.content)?;
        Ok(SavedAddress { id: self.id, address, created_at: self.created_at, updated_at: self.updated_at })
    }
}

/// Lists a user's addresses, the last saved first, after the one with the time and id `after`.
pub fn list_addresses(
    conn: &mut Conn,
    user: UserId,
    after: Option<(Timestamp, AddressId)>,
    limit: i64,
) -> QueryResult<Vec<AddressRow>> {
    for_backend!(conn, c => {
        let mut query = address::table.filter(address::user_id.eq(user)).into_boxed();
        if let Some((at, id)) = after {
            query = query.filter(address::created_at.lt(at).or(address::created_at.eq(at).and(address::id.lt(id))));
        }
        let query = query.order((address::created_at.desc(), address::id.desc())).limit(limit).select(AddressRow::as_select());
        diesel::RunQueryDsl::load(query, c)
    })
}

/// Counts the addresses of a user.
pub fn count_addresses(conn: &mut Conn, user: UserId) -> QueryResult<i64> {
    address::table.filter(address::user_id.eq(user)).select(count_star()).first(conn)
}

/// Reads an address of a user.
pub fn address(conn: &mut Conn, user: UserId, id: AddressId) -> QueryResult<Option<AddressRow>> {
    address::table.find(id).filter(address::user_id.eq(user)).select(AddressRow::as_select()).first(conn).optional()
}

/// Inserts an address.
pub fn insert_address(conn: &mut Conn, row: &AddressRow) -> QueryResult<()> {
    diesel::insert_into(address::table).values(row).execute(conn).map(drop)
}

/// Updates an address.
pub fn update_address(conn: &mut Conn, row: &AddressRow) -> QueryResult<()> {
    diesel::update(address::table.find(row.id))
        .set((address::content.eq(&row.content), address::updated_at.eq(row.updated_at)))
        .execute(conn)
        .map(drop)
}

/// Deletes an address.
pub fn delete_address(conn: &mut Conn, id: AddressId) -> QueryResult<()> {
    diesel::delete(address::table.find(id)).execute(conn).map(drop)
}
