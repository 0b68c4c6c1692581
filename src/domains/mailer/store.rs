//! The only SQL of the mailer.

pub mod invariants;

use diesel_migrations::embed_migrations;

use super::model::{DeliveryState, ERASED_SUBJECT, EmailContent, MESSAGE, RECIPIENT_GONE, nobody};
use super::schema::{email, erased, pending_email, recipient};
use super::smtp::OutgoingMessage;
use super::{Email, EmailStatus};
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Migrations, Prepare};
use crate::types::{EmailAddress, EmailId, Timestamp, UserId};

crate::impl_from_storage_error!(crate::contract::mailer::MailerError);

/// The tables of this domain.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/mailer/sqlite"),
    postgres: embed_migrations!("migrations/mailer/postgres"),
};

/// A mail as it is accepted.
#[derive(Debug, Insertable)]
#[diesel(table_name = email)]
pub struct NewEmail {
    /// Selection.
    pub id: EmailId,
    /// Where to.
    pub recipient: EmailAddress,
    /// Whose address that is, if it is a user's.
    pub user_id: Option<UserId>,
    /// Its subject.
    pub subject: String,
    /// What kind of mail.
    pub template: &'static str,
    /// The occasion: there is one mail of a kind for each.
    pub reference: Option<String>,
    /// How it stands, as a word.
    pub status: EmailStatus,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// Its plain text.
    pub text: Option<String>,
    /// Its HTML.
    pub html: Option<String>,
}

/// Writes a mail, unless there is one for its occasion; says whether it was written.
pub fn insert(conn: &mut Conn, mail: &NewEmail) -> QueryResult<bool> {
    diesel::insert_into(email::table).values(mail).on_conflict_do_nothing().execute(conn).map(|rows| rows == 1)
}

/// A mail without its content.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = email)]
struct Head {
    id: EmailId,
    recipient: EmailAddress,
    subject: String,
    template: String,
    status: EmailStatus,
    attempts: i32,
    last_error: Option<String>,
    created_at: Timestamp,
    sent_at: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
}

impl Head {
    fn with(self, text: Option<String>, html: Option<String>) -> Email {
        let Self { id, recipient: to, subject, template, status, attempts, last_error, created_at, sent_at, .. } = self;
        let next_attempt_at = self.next_attempt_at;
        Email {
            id,
            to,
            subject,
            template,
            text,
            html,
            status,
            attempts,
            last_error,
            created_at,
            sent_at,
            next_attempt_at,
        }
    }
}

/// The next mails before `before`, newest first, without their content.
pub fn list(
    conn: &mut Conn,
    status: Option<EmailStatus>,
    to: Option<EmailAddress>,
    before: Option<(Timestamp, EmailId)>,
    limit: i64,
) -> Result<Vec<Email>, CommonError> {
    let heads: Vec<Head> = on!(conn, c => {
        let mut query = email::table.select(Head::as_select()).into_boxed();
        if let Some(status) = status {
            query = query.filter(email::status.eq(status));
        }
        if let Some(to) = &to {
            query = query.filter(email::recipient.eq(to));
        }
        if let Some((at, id)) = before {
            // The first condition says nothing new; it is what lets the index find the place.
            query = query.filter(email::created_at.le(at)).filter(email::created_at.lt(at).or(email::id.lt(id)));
        }
        let query = query.order((email::created_at.desc(), email::id.desc())).limit(limit);
        diesel::RunQueryDsl::load(query, c)?
    });
    Ok(heads.into_iter().map(|head| head.with(None, None)).collect())
}

/// A mail with its content.
pub fn find(conn: &mut Conn, id: EmailId) -> Result<Option<Email>, CommonError> {
    let row: Option<(Head, Option<String>, Option<String>)> =
        email::table.find(id).select((Head::as_select(), email::text, email::html)).first(conn).optional()?;
    Ok(row.map(|(head, text, html)| head.with(text, html)))
}

/// When the `nth` newest mail that a person wrote to this address since `since` was accepted, if there are as many.
pub fn nth_newest_message(
    conn: &mut Conn,
    to: &EmailAddress,
    since: Timestamp,
    nth: u32,
) -> QueryResult<Option<Timestamp>> {
    email::table
        .filter(email::recipient.eq(to))
        .filter(email::created_at.gt(since))
        .filter(email::template.eq(MESSAGE))
        .order(email::created_at.desc())
        .offset(i64::from(nth.saturating_sub(1)))
        .select(email::created_at)
        .first(conn)
        .optional()
}

/// Whether any mail is to be tried now.
pub fn is_due(conn: &mut Conn, now: Timestamp) -> QueryResult<bool> {
    diesel::select(diesel::dsl::exists(email::table.filter(email::next_attempt_at.le(now)))).get_result(conn)
}

/// Takes the mail that has waited longest: nobody else gets it before `until`.
pub fn claim(conn: &mut Conn, now: Timestamp, until: Timestamp) -> QueryResult<Option<OutgoingMessage>> {
    type Row = (EmailId, EmailAddress, String, Option<String>, Option<String>, Timestamp);
    let row: Option<Row> = email::table
        .filter(email::next_attempt_at.le(now))
        .filter(email::status.eq(EmailStatus::Queued))
        .order(email::next_attempt_at)
        .select((email::id, email::recipient, email::subject, email::text, email::html, email::created_at))
        .first(conn)
        .optional()?;
    let Some((id, to, subject, text, html, created_at)) = row else { return Ok(None) };
    diesel::update(email::table.find(id)).set(email::next_attempt_at.eq(until)).prepared().execute(conn)?;
    Ok(Some(OutgoingMessage { id, to, subject, text: text.unwrap_or_default(), html, created_at }))
}

/// Writes down how a mail stands.
pub fn stand(conn: &mut Conn, id: EmailId, standing: &DeliveryState) -> QueryResult<()> {
    diesel::update(email::table.find(id))
        .set((
            email::status.eq(standing.status),
            email::attempts.eq(standing.attempts),
            email::last_error.eq(&standing.last_error),
            email::sent_at.eq(standing.sent_at),
            email::next_attempt_at.eq(standing.next_attempt_at),
        ))
        .prepared()
        .execute(conn)
        .map(drop)
}

/// Somebody who can be written to.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = recipient)]
pub struct Recipient {
    /// Who.
    pub user_id: UserId,
    /// Where.
    pub email: EmailAddress,
    /// What they are called.
    pub name: String,
}

/// Notes where a user can be written to.
pub fn put_recipient(conn: &mut Conn, who: &Recipient) -> QueryResult<()> {
    diesel::insert_into(recipient::table)
        .values(who)
        .on_conflict(recipient::user_id)
        .do_update()
        .set((recipient::email.eq(&who.email), recipient::name.eq(&who.name)))
        .execute(conn)
        .map(drop)
}

/// Forgets where a user can be written to.
pub fn forget_recipient(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::delete(recipient::table.find(user)).execute(conn).map(drop)
}

/// Where a user can be written to.
pub fn recipient(conn: &mut Conn, user: UserId) -> QueryResult<Option<Recipient>> {
    recipient::table.find(user).first(conn).optional()
}

/// Whose address this is.
pub fn recipient_at(conn: &mut Conn, address: &EmailAddress) -> QueryResult<Option<UserId>> {
    recipient::table.filter(recipient::email.eq(address)).select(recipient::user_id).first(conn).optional()
}

/// Lets a letter wait until the user's address is known.
pub fn wait(conn: &mut Conn, user: UserId, letter: &EmailContent, reference: &str, now: Timestamp) -> QueryResult<()> {
    let text = serde_json::to_string(letter).map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))?;
    diesel::insert_into(pending_email::table)
        .values((
            pending_email::template.eq(letter.template()),
            pending_email::reference.eq(reference),
            pending_email::user_id.eq(user),
            pending_email::content.eq(text),
            pending_email::created_at.eq(now),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .map(drop)
}

/// Takes the letters that wait for the user's address, in the order of their occasions.
pub fn take_waiting(conn: &mut Conn, user: UserId) -> QueryResult<Vec<(String, EmailContent)>> {
    let rows: Vec<(String, String)> = pending_email::table
        .filter(pending_email::user_id.eq(user))
        .order((pending_email::created_at, pending_email::reference))
        .select((pending_email::reference, pending_email::content))
        .load(conn)?;
    diesel::delete(pending_email::table.filter(pending_email::user_id.eq(user))).execute(conn)?;
    rows.into_iter()
        .map(|(reference, text)| {
            let letter = serde_json::from_str(&text);
            Ok((reference, letter.map_err(|e| diesel::result::Error::DeserializationError(Box::new(e)))?))
        })
        .collect()
}

/// Forgets letters that have waited since before `until`.
pub fn forget_waiting(conn: &mut Conn, until: Timestamp) -> QueryResult<usize> {
    diesel::delete(pending_email::table.filter(pending_email::created_at.lt(until))).execute(conn)
}

/// Whether a user was erased: news of them may still be on its way.
pub fn is_erased(conn: &mut Conn, user: UserId) -> QueryResult<bool> {
    diesel::select(diesel::dsl::exists(erased::table.find(user))).get_result(conn)
}

/// Erases a person who had these addresses: of mails to them there stay id, kind, status and times. Gives the mails
/// that were still to be sent and no longer are.
pub fn erase(conn: &mut Conn, user: UserId, addresses: &[EmailAddress]) -> Result<Vec<Email>, CommonError> {
    diesel::insert_into(erased::table).values(erased::user_id.eq(user)).on_conflict_do_nothing().execute(conn)?;
    forget_recipient(conn, user)?;
    diesel::delete(pending_email::table.filter(pending_email::user_id.eq(user))).execute(conn)?;
    let by_address = email::table.filter(email::recipient.eq_any(addresses)).select(email::id).load(conn)?;
    let by_user = email::table.filter(email::user_id.eq(user)).select(email::id).load(conn)?;
    let mut stopped = Vec::new();
    let mails: std::collections::BTreeSet<EmailId> = by_address.into_iter().chain(by_user).collect();
    for id in mails {
        diesel::update(email::table.find(id))
            .set((
                email::recipient.eq(nobody()),
                email::user_id.eq(None::<UserId>),
                email::subject.eq(ERASED_SUBJECT),
                // A mail server's words often repeat the address.
                email::last_error.eq(None::<String>),
                email::text.eq(None::<String>),
                email::html.eq(None::<String>),
            ))
            .execute(conn)?;
        let given_up = diesel::update(email::table.find(id))
            .filter(email::status.eq(EmailStatus::Queued))
            .set((
                email::status.eq(EmailStatus::Failed),
                email::last_error.eq(RECIPIENT_GONE),
                email::next_attempt_at.eq(None::<Timestamp>),
            ))
            .execute(conn)?;
        if given_up == 1 {
            stopped.extend(find(conn, id)?);
        }
    }
    Ok(stopped)
}
