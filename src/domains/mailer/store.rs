//! SQL of the mailer.

pub mod invariants;

use diesel_migrations::embed_migrations;
use uuid::Uuid;

use super::model::{DeliveryState, ERASED_SUBJECT, EmailContent, MESSAGE, RECIPIENT_GONE, erased_address};
use super::schema::{delivery_stall, email, erased, pending_email, recipient};
use super::smtp::OutgoingMessage;
use super::{Email, EmailStatus};
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Migrations, Prepare};
use crate::types::{EmailAddress, EmailId, Timestamp, UserId};

crate::impl_from_storage_error!(crate::contract::mailer::MailerError);

/// Migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/mailer/sqlite"),
    postgres: embed_migrations!("migrations/mailer/postgres"),
};

/// A new row of `email`.
#[derive(Debug, Insertable)]
#[diesel(table_name = email)]
pub struct NewEmailRow {
    /// Id of the email.
    pub id: EmailId,
    /// Recipient.
    pub recipient: EmailAddress,
    /// User who has that address.
    pub user_id: Option<UserId>,
    /// Subject line.
    pub subject: String,
    /// Template of the email.
    pub template: String,
    /// Occasion of the email, such as an invoice id. Unique per template.
    pub reference: Option<String>,
    /// Delivery state.
    pub status: EmailStatus,
    /// Number of delivery attempts.
    pub attempts: i32,
    /// Time of acceptance.
    pub created_at: Timestamp,
    /// Earliest time of the next attempt.
    pub next_attempt_at: Option<Timestamp>,
    /// Plain-text body.
    pub text: Option<String>,
    /// HTML body.
    pub html: Option<String>,
    /// Id of the link in the bodies.
    pub link_id: Option<String>,
}

/// Inserts an email. Returns `false` if its occasion has one already.
pub fn insert(conn: &mut Conn, email: &NewEmailRow) -> QueryResult<bool> {
    diesel::insert_into(email::table).values(email).on_conflict_do_nothing().execute(conn).map(|rows| rows == 1)
}

/// A row of `email` without the bodies.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = email)]
struct EmailHeadRow {
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

impl EmailHeadRow {
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

/// Lists emails before the position `before`, newest first, without their bodies.
pub fn list(
    conn: &mut Conn,
    status: Option<EmailStatus>,
    to: Option<EmailAddress>,
    before: Option<(Timestamp, EmailId)>,
    limit: i64,
) -> Result<Vec<Email>, CommonError> {
    let heads: Vec<EmailHeadRow> = for_backend!(conn, c => {
        let mut query = email::table.select(EmailHeadRow::as_select()).into_boxed();
        if let Some(status) = status {
            query = query.filter(email::status.eq(status));
        }
        if let Some(to) = &to {
            query = query.filter(email::recipient.eq(to));
        }
        if let Some((at, id)) = before {
            // The index can only search by the first condition, which the second one implies.
            query = query.filter(email::created_at.le(at)).filter(email::created_at.lt(at).or(email::id.lt(id)));
        }
        let query = query.order((email::created_at.desc(), email::id.desc())).limit(limit);
        diesel::RunQueryDsl::load(query, c)?
    });
    Ok(heads.into_iter().map(|head| head.with(None, None)).collect())
}

/// Reads an email with its bodies.
pub fn find(conn: &mut Conn, id: EmailId) -> Result<Option<Email>, CommonError> {
    let row: Option<(EmailHeadRow, Option<String>, Option<String>)> =
        email::table.find(id).select((EmailHeadRow::as_select(), email::text, email::html)).first(conn).optional()?;
    Ok(row.map(|(head, text, html)| head.with(text, html)))
}

/// Returns the acceptance time of the `nth` newest email that staff wrote to this address after `since`.
pub fn nth_newest_message_at(
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

/// Returns `true` if an email is due for an attempt.
pub fn is_due(conn: &mut Conn, now: Timestamp) -> QueryResult<bool> {
    diesel::select(diesel::dsl::exists(email::table.filter(email::next_attempt_at.le(now)))).get_result(conn)
}

/// A row of `email` that is due.
#[derive(Queryable, Selectable)]
#[diesel(table_name = email)]
struct ClaimedRow {
    id: EmailId,
    recipient: EmailAddress,
    subject: String,
    template: String,
    text: Option<String>,
    html: Option<String>,
    created_at: Timestamp,
    link_id: Option<String>,
}

/// Claims the email that is due for longest: no other worker gets it before `until`.
pub fn claim(conn: &mut Conn, now: Timestamp, until: Timestamp) -> QueryResult<Option<OutgoingMessage>> {
    let row: Option<ClaimedRow> = email::table
        .filter(email::next_attempt_at.le(now))
        .filter(email::status.eq(EmailStatus::Queued))
        .order(email::next_attempt_at)
        .select(ClaimedRow::as_select())
        .first(conn)
        .optional()?;
    let Some(ClaimedRow { id, recipient: to, subject, template, text, html, created_at, link_id }) = row else {
        return Ok(None);
    };
    postpone(conn, id, until)?;
    let (text, link_id) = (text.unwrap_or_default(), link_id.and_then(|link| link.parse().ok()));
    Ok(Some(OutgoingMessage { id, to, subject, template, text, html, created_at, link_id }))
}

/// Sets the earliest time of the next attempt.
pub fn postpone(conn: &mut Conn, id: EmailId, until: Timestamp) -> QueryResult<()> {
    diesel::update(email::table.find(id)).set(email::next_attempt_at.eq(until)).prepared().execute(conn).map(drop)
}

/// Returns the time at which the `nth` newest automatic email to an address was sent, if that is after `since`.
pub fn nth_newest_automatic_at(
    conn: &mut Conn,
    to: &EmailAddress,
    since: Timestamp,
    nth: u32,
) -> QueryResult<Option<Timestamp>> {
    let sent: Option<Option<Timestamp>> = email::table
        .filter(email::recipient.eq(to))
        .filter(email::sent_at.gt(since))
        .filter(email::template.ne(MESSAGE))
        .order(email::sent_at.desc())
        .offset(i64::from(nth.saturating_sub(1)))
        .select(email::sent_at)
        .first(conn)
        .optional()?;
    Ok(sent.flatten())
}

/// Updates the delivery state of an email.
pub fn update_status(conn: &mut Conn, id: EmailId, state: &DeliveryState) -> QueryResult<()> {
    diesel::update(email::table.find(id))
        .set((
            email::status.eq(state.status),
            email::attempts.eq(state.attempts),
            email::last_error.eq(&state.last_error),
            email::sent_at.eq(state.sent_at),
            email::next_attempt_at.eq(state.next_attempt_at),
        ))
        .prepared()
        .execute(conn)
        .map(drop)
}

/// Queues an email for an immediate attempt, with all attempts left.
pub fn requeue(conn: &mut Conn, id: EmailId, now: Timestamp) -> QueryResult<()> {
    diesel::update(email::table.find(id))
        .set((
            email::status.eq(EmailStatus::Queued),
            email::attempts.eq(0),
            email::last_error.eq(None::<String>),
            email::next_attempt_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}

/// Returns the id of the link in an email.
pub fn link_of(conn: &mut Conn, id: EmailId) -> QueryResult<Option<Uuid>> {
    let link: Option<String> = email::table.find(id).select(email::link_id).first(conn)?;
    Ok(link.and_then(|link| link.parse().ok()))
}

/// Returns the user to whom an email was sent.
pub fn user_of(conn: &mut Conn, id: EmailId) -> QueryResult<Option<UserId>> {
    email::table.find(id).select(email::user_id).first(conn)
}

/// Counts the queued emails.
pub fn count_queued(conn: &mut Conn) -> QueryResult<i64> {
    email::table.filter(email::status.eq(EmailStatus::Queued)).count().get_result(conn)
}

/// Records that mail is not delivered. Returns the time since which it is so if staff have not been alerted since
/// `alerted_before`.
pub fn record_stall(conn: &mut Conn, now: Timestamp, alerted_before: Timestamp) -> QueryResult<Option<Timestamp>> {
    let known: Option<(Timestamp, Timestamp)> =
        delivery_stall::table.select((delivery_stall::since, delivery_stall::alerted_at)).first(conn).optional()?;
    match known {
        Some((_, alerted_at)) if alerted_at > alerted_before => Ok(None),
        Some((since, _)) => {
            diesel::update(delivery_stall::table).set(delivery_stall::alerted_at.eq(now)).execute(conn)?;
            Ok(Some(since))
        }
        None => {
            let row = (delivery_stall::id.eq(1), delivery_stall::since.eq(now), delivery_stall::alerted_at.eq(now));
            diesel::insert_into(delivery_stall::table).values(row).execute(conn)?;
            Ok(Some(now))
        }
    }
}

/// Records that mail is delivered again.
pub fn end_stall(conn: &mut Conn) -> QueryResult<()> {
    diesel::delete(delivery_stall::table).execute(conn).map(drop)
}

/// A row of `recipient`: a user with the address announced by the users domain.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = recipient)]
pub struct Recipient {
    /// Id of the user.
    pub user_id: UserId,
    /// Address of the user.
    pub email: EmailAddress,
    /// Name of the user.
    pub name: String,
}

/// Inserts or updates a user's address.
pub fn upsert_recipient(conn: &mut Conn, recipient: &Recipient) -> QueryResult<()> {
    diesel::insert_into(recipient::table)
        .values(recipient)
        .on_conflict(recipient::user_id)
        .do_update()
        .set((recipient::email.eq(&recipient.email), recipient::name.eq(&recipient.name)))
        .execute(conn)
        .map(drop)
}

/// Deletes a user's address.
pub fn delete_recipient(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::delete(recipient::table.find(user)).execute(conn).map(drop)
}

/// Reads a user's address.
pub fn recipient(conn: &mut Conn, user: UserId) -> QueryResult<Option<Recipient>> {
    recipient::table.find(user).first(conn).optional()
}

/// Returns the user who has this address.
pub fn recipient_at(conn: &mut Conn, address: &EmailAddress) -> QueryResult<Option<UserId>> {
    recipient::table.filter(recipient::email.eq(address)).select(recipient::user_id).first(conn).optional()
}

/// Stores an email until the user's address is known, unless its occasion has one already.
pub fn hold_for_address(
    conn: &mut Conn,
    user: UserId,
    content: &EmailContent,
    reference: &str,
    now: Timestamp,
) -> QueryResult<()> {
    let text = to_text(content)?;
    diesel::insert_into(pending_email::table)
        .values((
            pending_email::template.eq(content.template()),
            pending_email::reference.eq(reference),
            pending_email::user_id.eq(user),
            pending_email::content.eq(text),
            pending_email::created_at.eq(now),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .map(drop)
}

/// Removes and returns the emails that wait for the user's address, oldest first.
pub fn take_pending(conn: &mut Conn, user: UserId) -> QueryResult<Vec<(String, EmailContent)>> {
    let rows: Vec<(String, String)> = pending_email::table
        .filter(pending_email::user_id.eq(user))
        .order((pending_email::created_at, pending_email::reference))
        .select((pending_email::reference, pending_email::content))
        .load(conn)?;
    diesel::delete(pending_email::table.filter(pending_email::user_id.eq(user))).execute(conn)?;
    rows.into_iter().map(|(reference, text)| Ok((reference, from_text(&text)?))).collect()
}

/// Deletes emails that have waited since before `until`, and returns their number.
pub fn delete_expired_pending(conn: &mut Conn, until: Timestamp) -> QueryResult<usize> {
    diesel::delete(pending_email::table.filter(pending_email::created_at.lt(until))).execute(conn)
}

/// Returns `true` if a user was erased; events about the user may still arrive.
pub fn is_erased(conn: &mut Conn, user: UserId) -> QueryResult<bool> {
    diesel::select(diesel::dsl::exists(erased::table.find(user))).get_result(conn)
}

/// Erases a user who had these addresses: of the emails to the user only id, template, state and times remain. Returns
/// the queued emails that this abandons.
pub fn erase(conn: &mut Conn, user: UserId, addresses: &[EmailAddress]) -> Result<Vec<Email>, CommonError> {
    diesel::insert_into(erased::table).values(erased::user_id.eq(user)).on_conflict_do_nothing().execute(conn)?;
    delete_recipient(conn, user)?;
    diesel::delete(pending_email::table.filter(pending_email::user_id.eq(user))).execute(conn)?;
    let by_address = email::table.filter(email::recipient.eq_any(addresses)).select(email::id).load(conn)?;
    let by_user = email::table.filter(email::user_id.eq(user)).select(email::id).load(conn)?;
    let mut abandoned_emails = Vec::new();
    let emails: std::collections::BTreeSet<EmailId> = by_address.into_iter().chain(by_user).collect();
    for id in emails {
        diesel::update(email::table.find(id))
            .set((
                email::recipient.eq(erased_address()),
                email::user_id.eq(None::<UserId>),
                email::subject.eq(ERASED_SUBJECT),
                // The mail server's reply often repeats the address.
                email::last_error.eq(None::<String>),
                email::text.eq(None::<String>),
                email::html.eq(None::<String>),
            ))
            .execute(conn)?;
        let abandoned = diesel::update(email::table.find(id))
            .filter(email::status.eq(EmailStatus::Queued))
            .set((
                email::status.eq(EmailStatus::Failed),
                email::last_error.eq(RECIPIENT_GONE),
                email::next_attempt_at.eq(None::<Timestamp>),
            ))
            .execute(conn)?;
        if abandoned == 1 {
            abandoned_emails.extend(find(conn, id)?);
        }
    }
    Ok(abandoned_emails)
}
