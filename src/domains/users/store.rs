//! The SQL of the users domain, apart from its invariants.

mod addresses;
pub mod invariants;

use diesel::dsl::{count_star, sql};
use diesel::result::{DatabaseErrorKind, Error as DbError};
use diesel::sql_types::Bool;
use uuid::Uuid;

use super::model::{self, EmailLinkKind, SESSIONS_MAX};
use super::schema::{account, api_key, link, recovery_code, session, unbought_guest};
use super::{User, UsersError};
use crate::messaging::{Role, Scopes};
use crate::store::Conn;
use crate::store::query::*;
use crate::types::{ApiKeyId, EmailAddress, SessionId, Timestamp, UserId};

pub use addresses::*;

/// A row of `account`, with the password hash. Not `Debug`, so that no log shows the hash.
#[derive(Clone, Queryable, Selectable)]
#[diesel(table_name = account)]
pub struct Account {
    pub id: UserId,
    pub email: Option<EmailAddress>,
    pub pending_email: Option<EmailAddress>,
    pub name: String,
    pub role: Role,
    pub email_verified: bool,
    pub password_hash: Option<String>,
    /// Id that the secret of the second factor is made from.
    pub totp_id: Option<String>,
    /// Time step of the last accepted code; none until the second factor is confirmed.
    pub totp_step: Option<i64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Account {
    /// The public part of the account.
    pub fn user(&self) -> User {
        User {
            id: self.id,
            email: self.email.clone(),
            name: self.name.clone(),
            role: self.role,
            email_verified: self.email_verified,
            pending_email: self.pending_email.clone(),
            second_factor: self.totp_step.is_some(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub fn find_by_id(conn: &mut Conn, id: UserId) -> QueryResult<Option<Account>> {
    account::table.find(id).select(Account::as_select()).first(conn).optional()
}

/// Finds the account of an address. Accounts of shops made before addresses were normalized may have a domain in Unicode.
pub fn find_by_email(conn: &mut Conn, email: &EmailAddress) -> QueryResult<Option<Account>> {
    let spellings = [email.as_str().to_owned(), email.to_unicode()];
    account::table.filter(account::email.eq_any(spellings)).select(Account::as_select()).first(conn).optional()
}

/// All columns of an account except its id. A macro, because the type of such a tuple cannot be named.
macro_rules! columns {
    ($account:expr) => {{
        // Destructured, so that a field that is forgotten here does not compile.
        let Account {
            id: _,
            email,
            pending_email,
            name,
            role,
            email_verified,
            password_hash,
            totp_id,
            totp_step,
            created_at,
            updated_at,
        } = $account;
        (
            account::email.eq(email.as_ref()),
            account::pending_email.eq(pending_email.as_ref()),
            account::name.eq(name),
            account::role.eq(role),
            account::email_verified.eq(email_verified),
            account::password_hash.eq(password_hash.as_ref()),
            account::totp_id.eq(totp_id.as_ref()),
            account::totp_step.eq(totp_step),
            account::search_text.eq(model::search_text(name, email.as_ref())),
            account::created_at.eq(created_at),
            account::updated_at.eq(updated_at),
        )
    }};
}

/// Inserts an account.
///
/// # Errors
/// [`UsersError::EmailTaken`].
pub fn insert(conn: &mut Conn, new: &Account) -> Result<(), UsersError> {
    refuse_other_spelling(conn, new)?;
    diesel::insert_into(account::table)
        .values((account::id.eq(new.id), columns!(new)))
        .execute(conn)
        .map(drop)
        .map_err(map_unique_violation)
}

/// Updates all columns of an account.
///
/// # Errors
/// [`UsersError::EmailTaken`].
pub fn update(conn: &mut Conn, changed: &Account) -> Result<(), UsersError> {
    refuse_other_spelling(conn, changed)?;
    diesel::update(account::table.find(changed.id))
        .set(columns!(changed))
        .execute(conn)
        .map(drop)
        .map_err(map_unique_violation)
}

/// Checks an address with a Unicode domain against accounts that were stored before addresses were normalized, which the
/// unique index cannot compare.
fn refuse_other_spelling(conn: &mut Conn, account: &Account) -> Result<(), UsersError> {
    let Some(email) = account.email.as_ref().filter(|email| email.to_unicode() != email.as_str()) else {
        return Ok(());
    };
    match find_by_email(conn, email)? {
        Some(found) if found.id != account.id => Err(UsersError::EmailTaken),
        _ => Ok(()),
    }
}

/// Maps a violation of the unique index to [`UsersError::EmailTaken`]; the index decides, not a query before the write.
fn map_unique_violation(error: DbError) -> UsersError {
    match error {
        // Ids are generated and unique, so the conflict is the address.
        DbError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => UsersError::EmailTaken,
        other => other.into(),
    }
}

/// Records a new guest, who has bought nothing yet.
pub fn insert_unbought_guest(conn: &mut Conn, id: UserId, now: Timestamp) -> QueryResult<usize> {
    diesel::insert_into(unbought_guest::table)
        .values((unbought_guest::user_id.eq(id), unbought_guest::created_at.eq(now)))
        .execute(conn)
}

/// Lists guests that were made before `until` and bought nothing, oldest first.
pub fn unbought_guests(conn: &mut Conn, until: Timestamp, limit: i64) -> QueryResult<Vec<UserId>> {
    unbought_guest::table
        .filter(unbought_guest::created_at.lt(until))
        .order(unbought_guest::created_at)
        .limit(limit)
        .select(unbought_guest::user_id)
        .load(conn)
}

/// Forgets that a guest bought nothing.
pub fn keep_guest(conn: &mut Conn, id: UserId) -> QueryResult<()> {
    diesel::delete(unbought_guest::table.find(id)).execute(conn).map(drop)
}

/// Deletes a user with all sessions, keys and links.
pub fn delete(conn: &mut Conn, id: UserId) -> QueryResult<usize> {
    diesel::delete(account::table.find(id)).execute(conn)
}

/// Returns `true` if there is an administrator other than `id`.
pub fn has_another_admin(conn: &mut Conn, id: UserId) -> QueryResult<bool> {
    // The role as a literal, so that the planner can use the partial index of administrators.
    let others = account::table.filter(sql::<Bool>("role = 'admin'")).filter(account::id.ne(id));
    others.select(account::id).first::<UserId>(conn).optional().map(|found| found.is_some())
}

/// Lists accounts after `after`, newest first.
pub fn list(
    conn: &mut Conn,
    pattern: Option<&str>,
    after: Option<(i64, UserId)>,
    limit: i64,
) -> QueryResult<Vec<Account>> {
    for_backend!(conn, c => {
        let mut query = account::table.filter(account::email.is_not_null()).select(Account::as_select()).into_boxed();
        if let Some(pattern) = pattern {
            query = query.filter(account::search_text.like(pattern).escape('\\'));
        }
        if let Some((at, id)) = after {
            let at = Timestamp::from_micros(at);
            // `<=` first, so that the scan of the index starts at the cursor.
            query = query.filter(account::created_at.le(at)).filter(account::created_at.lt(at).or(account::id.lt(id)));
        }
        let query = query.order((account::created_at.desc(), account::id.desc())).limit(limit);
        diesel::RunQueryDsl::load(query, c)
    })
}

/// Inserts a session, deletes the user's oldest ones beyond [`SESSIONS_MAX`], and returns the deleted.
pub fn begin_session(
    conn: &mut Conn,
    id: SessionId,
    user: UserId,
    now: Timestamp,
    expires_at: Timestamp,
) -> QueryResult<Vec<SessionId>> {
    diesel::insert_into(session::table)
        .values((
            session::id.eq(id),
            session::user_id.eq(user),
            session::created_at.eq(now),
            session::expires_at.eq(expires_at),
            session::last_used_at.eq(now),
        ))
        .execute(conn)?;
    let too_many: Vec<SessionId> = session::table
        .filter(session::user_id.eq(user))
        .order(session::id.desc())
        .offset(SESSIONS_MAX)
        .limit(SESSIONS_MAX)
        .select(session::id)
        .load(conn)?;
    if !too_many.is_empty() {
        diesel::delete(session::table.filter(session::id.eq_any(&too_many))).execute(conn)?;
    }
    Ok(too_many)
}

/// Deletes a session; returns `false` if there was none.
pub fn end_session(conn: &mut Conn, id: SessionId) -> QueryResult<bool> {
    diesel::delete(session::table.find(id)).execute(conn).map(|ended| ended > 0)
}

/// Deletes all sessions of a user except one.
pub fn end_sessions(conn: &mut Conn, user: UserId, except: Option<SessionId>) -> QueryResult<usize> {
    let of_user = session::table.filter(session::user_id.eq(user));
    match except {
        Some(kept) => diesel::delete(of_user.filter(session::id.ne(kept))).execute(conn),
        None => diesel::delete(of_user).execute(conn),
    }
}

/// A session with its user.
#[derive(Queryable)]
pub struct SessionRow {
    pub user_id: UserId,
    pub role: Role,
    pub totp_step: Option<i64>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub last_used_at: Timestamp,
}

/// Finds a session and its user.
pub fn find_session(conn: &mut Conn, id: SessionId) -> QueryResult<Option<SessionRow>> {
    session::table
        .find(id)
        .inner_join(account::table)
        .select((
            account::id,
            account::role,
            account::totp_step,
            session::created_at,
            session::expires_at,
            session::last_used_at,
        ))
        .first(conn)
        .optional()
}

/// A row of `api_key`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = api_key)]
pub struct ApiKeyRow {
    pub id: ApiKeyId,
    pub name: String,
    pub scopes: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

impl ApiKeyRow {
    /// The scopes of the key.
    pub fn scopes(&self) -> Scopes {
        scopes_of(&self.scopes)
    }
}

/// Text of scopes in a column.
pub fn scopes_text(scopes: Scopes) -> String {
    scopes.names().join(" ")
}

/// Scopes in a column; none if a newer version of the program wrote one that this one does not know.
fn scopes_of(text: &str) -> Scopes {
    Scopes::parse(&text.split(' ').collect::<Vec<_>>()).unwrap_or(Scopes::NONE)
}

/// An API key with its user.
pub struct KeyHolder {
    pub user_id: UserId,
    pub role: Role,
    pub has_second_factor: bool,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
}

/// Finds the user of an API key, and what the key may do.
pub fn find_key_holder(conn: &mut Conn, id: ApiKeyId) -> QueryResult<Option<KeyHolder>> {
    type KeyHolderRow = (UserId, Role, Option<i64>, String, Option<Timestamp>);
    let row: Option<KeyHolderRow> = api_key::table
        .find(id)
        .inner_join(account::table)
        .select((account::id, account::role, account::totp_step, api_key::scopes, api_key::expires_at))
        .first(conn)
        .optional()?;
    let holder = |(user_id, role, totp_step, scopes, expires_at): KeyHolderRow| KeyHolder {
        user_id,
        role,
        has_second_factor: totp_step.is_some(),
        scopes: scopes_of(&scopes),
        expires_at,
    };
    Ok(row.map(holder))
}

/// Notes when a session was last used. Never backwards.
pub fn record_session_use(conn: &mut Conn, id: SessionId, at: Timestamp) -> QueryResult<usize> {
    diesel::update(session::table.find(id).filter(session::last_used_at.lt(at)))
        .set(session::last_used_at.eq(at))
        .execute(conn)
}

pub fn count_keys(conn: &mut Conn, user: UserId) -> QueryResult<i64> {
    api_key::table.filter(api_key::user_id.eq(user)).select(count_star()).first(conn)
}

/// Inserts an API key of a user.
pub fn insert_key(conn: &mut Conn, user: UserId, key: &ApiKeyRow) -> QueryResult<usize> {
    let ApiKeyRow { id, name, scopes, created_at, expires_at, last_used_at } = key;
    diesel::insert_into(api_key::table)
        .values((
            api_key::id.eq(id),
            api_key::user_id.eq(user),
            api_key::name.eq(name),
            api_key::scopes.eq(scopes),
            api_key::created_at.eq(created_at),
            api_key::expires_at.eq(expires_at),
            api_key::last_used_at.eq(last_used_at),
        ))
        .execute(conn)
}

/// Lists the API keys of a user, newest first.
pub fn list_keys(conn: &mut Conn, user: UserId) -> QueryResult<Vec<ApiKeyRow>> {
    api_key::table
        .filter(api_key::user_id.eq(user))
        .order(api_key::id.desc())
        .limit(model::API_KEYS_MAX)
        .select(ApiKeyRow::as_select())
        .load(conn)
}

/// Deletes an API key of this user; returns `false` if there was none.
pub fn delete_key(conn: &mut Conn, id: ApiKeyId, user: UserId) -> QueryResult<bool> {
    diesel::delete(api_key::table.find(id).filter(api_key::user_id.eq(user))).execute(conn).map(|gone| gone > 0)
}

/// Deletes all API keys of a user.
pub fn delete_keys(conn: &mut Conn, user: UserId) -> QueryResult<usize> {
    diesel::delete(api_key::table.filter(api_key::user_id.eq(user))).execute(conn)
}

/// Notes when a key was last used. Never backwards.
pub fn record_key_use(conn: &mut Conn, id: ApiKeyId, at: Timestamp) -> QueryResult<usize> {
    let earlier = api_key::last_used_at.is_null().or(api_key::last_used_at.lt(at));
    diesel::update(api_key::table.find(id).filter(earlier)).set(api_key::last_used_at.eq(at)).execute(conn)
}

/// Replaces the recovery codes of a user by those with these hashes.
pub fn replace_recovery_codes(conn: &mut Conn, user: UserId, hashes: &[String]) -> QueryResult<()> {
    diesel::delete(recovery_code::table.filter(recovery_code::user_id.eq(user))).execute(conn)?;
    for hash in hashes {
        let row = (recovery_code::user_id.eq(user), recovery_code::hash.eq(hash));
        diesel::insert_into(recovery_code::table).values(row).execute(conn)?;
    }
    Ok(())
}

/// Uses up a recovery code; returns `false` if the user has none with this hash.
pub fn use_recovery_code(conn: &mut Conn, user: UserId, hash: &str) -> QueryResult<bool> {
    diesel::delete(recovery_code::table.find((user, hash))).execute(conn).map(|used| used > 0)
}

/// A row of `link`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = link)]
pub struct EmailLinkRow {
    pub user_id: UserId,
    pub email: EmailAddress,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// Inserts a link for a user, bound to the address it is sent to.
pub fn insert_link(
    conn: &mut Conn,
    id: Uuid,
    purpose: EmailLinkKind,
    user: UserId,
    email: &EmailAddress,
    now: Timestamp,
) -> QueryResult<usize> {
    diesel::insert_into(link::table)
        .values((
            link::id.eq(id.to_string()),
            link::user_id.eq(user),
            link::purpose.eq(purpose),
            link::email.eq(email),
            link::created_at.eq(now),
            link::expires_at.eq(now.saturating_add(purpose.lifetime())),
        ))
        .execute(conn)
}

/// Finds an unused link that has not expired, whatever it is for.
pub fn find_open_link(conn: &mut Conn, id: Uuid, now: Timestamp) -> QueryResult<Option<EmailLinkKind>> {
    link::table
        .find(id.to_string())
        .filter(link::used_at.is_null())
        .filter(link::expires_at.gt(now))
        .select(link::purpose)
        .first(conn)
        .optional()
}

pub fn find_link(conn: &mut Conn, id: Uuid, purpose: EmailLinkKind) -> QueryResult<Option<EmailLinkRow>> {
    link::table
        .find(id.to_string())
        .filter(link::purpose.eq(purpose))
        .select(EmailLinkRow::as_select())
        .first(conn)
        .optional()
}

/// Marks a link as used.
pub fn consume_link(conn: &mut Conn, id: Uuid, now: Timestamp) -> QueryResult<usize> {
    diesel::update(link::table.find(id.to_string())).set(link::used_at.eq(now)).execute(conn)
}

/// Marks all unused links of a user for a purpose as used.
pub fn consume_links(conn: &mut Conn, user: UserId, purpose: EmailLinkKind, now: Timestamp) -> QueryResult<usize> {
    let open =
        link::table.filter(link::user_id.eq(user)).filter(link::purpose.eq(purpose)).filter(link::used_at.is_null());
    diesel::update(open).set(link::used_at.eq(now)).execute(conn)
}

/// Counts the links for a purpose that were sent to a user after `since`.
pub fn count_links(conn: &mut Conn, user: UserId, purpose: EmailLinkKind, since: Timestamp) -> QueryResult<i64> {
    link::table
        .filter(link::user_id.eq(user))
        .filter(link::purpose.eq(purpose))
        .filter(link::created_at.gt(since))
        .select(count_star())
        .first(conn)
}

/// Deletes at most `limit` expired sessions and `limit` expired links; returns the number of both.
pub fn purge(conn: &mut Conn, now: Timestamp, limit: i64) -> QueryResult<usize> {
    let sessions: Vec<SessionId> =
        session::table.filter(session::expires_at.le(now)).limit(limit).select(session::id).load(conn)?;
    let links: Vec<String> = link::table.filter(link::expires_at.le(now)).limit(limit).select(link::id).load(conn)?;
    if !sessions.is_empty() {
        diesel::delete(session::table.filter(session::id.eq_any(&sessions))).execute(conn)?;
    }
    if !links.is_empty() {
        diesel::delete(link::table.filter(link::id.eq_any(&links))).execute(conn)?;
    }
    Ok(sessions.len() + links.len())
}
