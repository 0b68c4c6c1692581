//! The actor of the mailer: one handler per message, and the emails that each event causes.
//!
//! Does not contain: delivery, templates, SQL.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::delivery::{MailerState, NewOutgoing, changed_event, link};
use super::model::{self, EmailContent, MESSAGE, ValidatedEmail};
use super::store::{self, Recipient};
use super::*;
use crate::contract::payments::{Invoice, InvoicePaid, InvoiceRefunded, LATE_PAYMENT};
use crate::contract::users::{
    CredentialsChanged, EmailVerificationRequested, PasswordResetRequested, UserChanged, UserErased, UserRegistered,
};
use crate::messaging::{CheckInvariants, CommonError, DeliverEvents, ListAuditEntries, RequestContext, Role};
use crate::runtime::{spawn_interval, spawn_leader_interval};
use crate::store::{Conn, DomainState, Invariants, Store, Tx, check_invariants, list_audit_entries};
use crate::types::{EmailAddress, EventId, Page, Timestamp, UserId, Validator};

/// Interval at which the queue is polled for retries.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which emails without a recipient are purged.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);
/// Window of the limit per recipient.
const LIMIT_WINDOW: Duration = Duration::from_secs(3_600);

/// The actor of this domain.
pub struct MailerActor {
    pub(super) state: Arc<MailerState>,
}

impl Actor for MailerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_interval(
            ctx,
            &self.state.store,
            &self.state,
            POLL_INTERVAL,
            |state| async move { state.notify_workers() },
        );
        spawn_leader_interval(ctx, &self.state.store, &self.state, PURGE_INTERVAL, |state| async move {
            if let Err(error) = state.purge().await {
                log::warn!("mailer: purge of pending emails failed: {error}");
            }
        });
    }
}

impl Supervised for MailerActor {}

crate::handlers! { MailerActor;
    SendEmail => send_email,
    ListEmails => list_emails,
    GetEmail => get_email,
    ResendEmail => resend_email,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    ListEmailFacts => list_email_facts,
}

async fn send_email(
    state: Arc<MailerState>,
    ctx: RequestContext,
    request: SendEmail,
) -> Result<AcceptedEmail, MailerError> {
    let ValidatedEmail { to, subject, text, html } = model::validate(&request)?;
    let accepting = Arc::clone(&state);
    let accepted = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let rules = &accepting.settings.mailer;
            let user_id = store::recipient_at(tx.conn, &to)?;
            if rules.known_recipients_only && user_id.is_none() {
                return Err(MailerError::UnknownRecipient);
            }
            let (since, max) = (tx.now.saturating_sub(LIMIT_WINDOW), rules.per_recipient_hour);
            if let Some(oldest) = store::nth_newest_message_at(tx.conn, &to, since, max)? {
                let left = oldest.saturating_add(LIMIT_WINDOW).duration_since(tx.now);
                return Err(MailerError::RecipientLimit { max, retry_after: left.as_secs() + 1 });
            }
            let outgoing = NewOutgoing {
                to,
                user_id,
                subject,
                template: MESSAGE.to_owned(),
                reference: None,
                text,
                html,
                link_id: None,
            };
            let (id, status) = accepting.accept(tx, outgoing)?.ok_or(CommonError::Internal)?;
            Ok(AcceptedEmail { id, status })
        })
        .await?;
    state.notify_workers();
    Ok(accepted)
}

async fn list_emails(
    state: Arc<MailerState>,
    _: RequestContext,
    request: ListEmails,
) -> Result<Page<Email>, MailerError> {
    let mut fields = Validator::new();
    let to = request.to.as_deref().and_then(|to| fields.email("to", to));
    let limit = fields.capture(request.page.limit()).unwrap_or_default();
    let before = fields.capture(request.page.after()).flatten();
    fields.finish()?;
    let rows = state.store.read(move |conn| store::list(conn, request.status, to, before, limit + 1)).await?;
    Ok(Page::from_overfetch(rows, limit, |email| (email.created_at, email.id)))
}

async fn get_email(state: Arc<MailerState>, ctx: RequestContext, request: GetEmail) -> Result<Email, MailerError> {
    let id = request.email_id;
    let find = move |conn: &mut Conn| match store::find(conn, id)? {
        Some(email) => Ok::<_, CommonError>(Some((email, store::link_of(conn, id)?))),
        None => Ok(None),
    };
    let (mut email, link) = state.store.read(find).await?.ok_or(MailerError::EmailNotFound)?;
    // Without a mail server an administrator hands the link on. Other staff must not see it: it gives access to accounts.
    if let Some(link) = link.filter(|_| email.status == EmailStatus::Kept && ctx.has_role(Role::Admin)) {
        state.reveal_link(&mut email, link).await;
    }
    Ok(email)
}

async fn resend_email(
    state: Arc<MailerState>,
    ctx: RequestContext,
    request: ResendEmail,
) -> Result<AcceptedEmail, MailerError> {
    let (queue, id) = (Arc::clone(&state), request.email_id);
    let accepted = state.store.idempotent(&ctx, &request)?.run(move |tx| queue.resend(tx, id)).await?;
    state.notify_workers();
    Ok(accepted)
}

async fn on_events(state: Arc<MailerState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let accepting = Arc::clone(&state);
    state.store.consume(request.events, move |tx, event| apply_event(&accepting, tx, event)).await?;
    state.notify_workers();
    Ok(())
}

crate::event_handlers! {
    /// Applies an event to the recipients, and enqueues the emails that it causes.
    fn apply_event(state: &MailerState, tx: &mut Tx<'_>) -> Result<(), MailerError>;
    UserRegistered => on_user_registered(at),
    UserChanged => on_user_changed,
    UserErased => on_user_erased,
    EmailVerificationRequested => on_email_verification_requested(id),
    PasswordResetRequested => on_password_reset_requested(id),
    CredentialsChanged => on_credentials_changed(id),
    InvoicePaid => on_invoice_paid(at),
    InvoiceRefunded => on_invoice_refunded(id),
}

fn on_user_registered(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: UserRegistered,
    at: Timestamp,
) -> Result<(), MailerError> {
    let UserRegistered { user_id, email, name, created_at, email_verified, .. } = event;
    let recipient = Recipient { user_id, email, name: known_name(name, email_verified) };
    upsert_recipient(state, tx, &recipient)?;
    if model::is_welcome(created_at, at) {
        state.enqueue(tx, &recipient, &EmailContent::Welcome, &user_id.to_string())?;
    }
    Ok(())
}

fn on_user_changed(state: &MailerState, tx: &mut Tx<'_>, event: UserChanged) -> Result<(), MailerError> {
    let UserChanged { user_id, email, name, email_verified, .. } = event;
    match email {
        Some(email) => {
            let name = known_name(name, email_verified);
            upsert_recipient(state, tx, &Recipient { user_id, email, name })
        }
        None => Ok(store::delete_recipient(tx.conn, user_id)?),
    }
}

fn on_user_erased(_: &MailerState, tx: &mut Tx<'_>, event: UserErased) -> Result<(), MailerError> {
    let UserErased { user_id, email } = event;
    tx.erase_responses(user_id, email.is_some())?;
    let known = store::recipient(tx.conn, user_id)?.map(|recipient| recipient.email);
    let addresses: Vec<EmailAddress> = email.into_iter().chain(known).collect();
    erase(tx, user_id, &addresses)
}

fn on_email_verification_requested(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: EmailVerificationRequested,
    id: EventId,
) -> Result<(), MailerError> {
    let EmailVerificationRequested { user_id, email, link_id } = event;
    let content = EmailContent::Verify { link: link(state, "verify", link_id), link_id };
    // The address may be that of a stranger, who must not get a text that another person chose.
    state.enqueue(tx, &Recipient { user_id, email, name: String::new() }, &content, &id.to_string())
}

fn on_password_reset_requested(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: PasswordResetRequested,
    id: EventId,
) -> Result<(), MailerError> {
    let PasswordResetRequested { user_id, email, link_id } = event;
    let content = EmailContent::Reset { link: link(state, "reset", link_id), link_id };
    let recipient = Recipient { user_id, email, name: name_of(tx, user_id)? };
    state.enqueue(tx, &recipient, &content, &id.to_string())
}

fn on_credentials_changed(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: CredentialsChanged,
    id: EventId,
) -> Result<(), MailerError> {
    let CredentialsChanged { user_id, email, change, by_staff } = event;
    let content = EmailContent::Security { change, by_staff };
    let recipient = Recipient { user_id, email, name: name_of(tx, user_id)? };
    state.enqueue(tx, &recipient, &content, &id.to_string())
}

/// The name of a user whose address is known to be theirs; empty for others, so that no one has a stranger greeted with a
/// text of their choice.
fn known_name(name: String, email_verified: bool) -> String {
    if email_verified { name } else { String::new() }
}

fn name_of(tx: &mut Tx<'_>, user: UserId) -> Result<String, MailerError> {
    Ok(store::recipient(tx.conn, user)?.map(|recipient| recipient.name).unwrap_or_default())
}

fn on_invoice_paid(state: &MailerState, tx: &mut Tx<'_>, event: InvoicePaid, at: Timestamp) -> Result<(), MailerError> {
    if event.imported {
        return Ok(());
    }
    let invoice = event.invoice;
    let receipt = EmailContent::receipt(&invoice, invoice.paid_at.unwrap_or(at));
    email_invoice_party(state, tx, &invoice, &receipt, &invoice.id.to_string())
}

fn on_invoice_refunded(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: InvoiceRefunded,
    id: EventId,
) -> Result<(), MailerError> {
    let InvoiceRefunded { invoice, amount, reason, imported, .. } = event;
    if imported {
        return Ok(());
    }
    // An invoice can be refunded in parts, each with an email of its own: the sum refunded so far tells them apart.
    // The refund of a late payment is not part of that sum.
    let reference = match reason.as_str() {
        LATE_PAYMENT => format!("{}:{id}", invoice.id),
        _ => format!("{}:{}", invoice.id, invoice.refunded),
    };
    email_invoice_party(state, tx, &invoice, &EmailContent::refund(&invoice, amount, &reason), &reference)
}

/// Records a user's address and enqueues the emails that waited for it.
fn upsert_recipient(state: &MailerState, tx: &mut Tx<'_>, recipient: &Recipient) -> Result<(), MailerError> {
    store::upsert_recipient(tx.conn, recipient)?;
    for (reference, content) in store::take_pending(tx.conn, recipient.user_id)? {
        state.enqueue(tx, recipient, &content, &reference)?;
    }
    Ok(())
}

/// Enqueues an email about an invoice, to the address that it names, otherwise to the user's own; without either it waits.
fn email_invoice_party(
    state: &MailerState,
    tx: &mut Tx<'_>,
    invoice: &Invoice,
    content: &EmailContent,
    reference: &str,
) -> Result<(), MailerError> {
    let user_id: UserId = invoice.user_id;
    let known = store::recipient(tx.conn, user_id)?;
    let name = known.as_ref().map(|recipient| recipient.name.clone()).unwrap_or_default();
    let recipient = match &invoice.email {
        Some(email) => Some(Recipient { user_id, email: email.clone(), name }),
        None => known,
    };
    match &recipient {
        Some(recipient) => state.enqueue(tx, recipient, content, reference)?,
        None => store::hold_for_address(tx.conn, user_id, content, reference, tx.now)?,
    }
    // The buyer was erased before the invoice's event arrived: the email stays on record without name and address.
    if store::is_erased(tx.conn, user_id)? {
        erase(tx, user_id, &recipient.map(|recipient| recipient.email).into_iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Removes name and address from all emails of a user, and abandons the queued ones.
fn erase(tx: &mut Tx<'_>, user: UserId, addresses: &[EmailAddress]) -> Result<(), MailerError> {
    for email in store::erase(tx.conn, user, addresses)? {
        tx.emit(&changed_event(&email))?;
    }
    Ok(())
}

impl DomainState for MailerState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn list_email_facts(
    state: Arc<MailerState>,
    _: RequestContext,
    request: ListEmailFacts,
) -> Result<Vec<EmailFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::emails(conn, &request.invoices)?)).await
}
