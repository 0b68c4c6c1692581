//! One handler a message, and what each event has the shop write.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::delivery::{MailerState, NewOutgoing, changed, link};
use super::model::{self, EmailContent, MESSAGE, ValidatedEmail};
use super::store::{self, Recipient};
use super::*;
use crate::contract::payments::{Invoice, InvoicePaid, InvoiceRefunded, LATE_PAYMENT};
use crate::contract::users::{
    EmailVerificationRequested, PasswordResetRequested, UserChanged, UserErased, UserRegistered,
};
use crate::messaging::{CheckInvariants, CommonError, DeliverEvents, InvariantReport, RequestContext};
use crate::runtime::{spawn_interval, spawn_leader_interval};
use crate::store::Tx;
use crate::types::{EmailAddress, EventId, Page, Timestamp, UserId, Validator};

/// How often the queue is looked at when nobody wakes it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often letters without an addressee are forgotten.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);
/// Over which time a recipient's limit is counted.
const LIMIT_WINDOW: Duration = Duration::from_secs(3_600);

/// The actor of this domain.
pub struct MailerActor {
    pub(super) state: Arc<MailerState>,
}

impl Actor for MailerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_interval(ctx, &self.state.store, &self.state, POLL_INTERVAL, |state| async move { state.wake() });
        spawn_leader_interval(ctx, &self.state.store, &self.state, PURGE_INTERVAL, |state| async move {
            if let Err(failure) = state.purge().await {
                log::warn!("mailer: old letters could not be forgotten: {failure}");
            }
        });
    }
}

impl Supervised for MailerActor {}

crate::handlers! { MailerActor;
    SendEmail => send_email,
    ListEmails => list_emails,
    GetEmail => get_email,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    ListEmailFacts => audit_letters,
}

async fn send_email(
    state: Arc<MailerState>,
    ctx: RequestContext,
    request: SendEmail,
) -> Result<AcceptedEmail, MailerError> {
    let ValidatedEmail { to, subject, text, html } = model::check(&request)?;
    let own = Arc::clone(&state);
    let accepted = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let rules = &own.settings.mailer;
            let user_id = store::recipient_at(tx.conn, &to)?;
            if rules.known_recipients_only && user_id.is_none() {
                return Err(MailerError::UnknownRecipient);
            }
            let (since, max) = (tx.now.saturating_sub(LIMIT_WINDOW), rules.per_recipient_hour);
            if let Some(oldest) = store::nth_newest_message(tx.conn, &to, since, max)? {
                let left = oldest.saturating_add(LIMIT_WINDOW).duration_since(tx.now);
                return Err(MailerError::RecipientLimit { max, retry_after: left.as_secs() + 1 });
            }
            let draft = NewOutgoing { to, user_id, subject, template: MESSAGE, reference: None, text, html };
            let (id, status) = own.accept(tx, draft)?.ok_or(CommonError::Internal)?;
            Ok(AcceptedEmail { id, status })
        })
        .await?;
    state.wake();
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
    Ok(Page::from_overfetch(rows, limit, |mail| (mail.created_at, mail.id)))
}

async fn get_email(state: Arc<MailerState>, _: RequestContext, request: GetEmail) -> Result<Email, MailerError> {
    let found = state.store.read(move |conn| store::find(conn, request.email_id)).await?;
    found.ok_or(MailerError::EmailNotFound)
}

async fn on_events(state: Arc<MailerState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let own = Arc::clone(&state);
    state.store.consume(request.events, move |tx, event| apply_event(&own, tx, event)).await?;
    state.wake();
    Ok(())
}

crate::event_handlers! {
    /// Applies an event to the recipients, and queues the e-mails that it causes.
    fn apply_event(state: &MailerState, tx: &mut Tx<'_>) -> Result<(), MailerError>;
    UserRegistered => on_user_registered(at),
    UserChanged => on_user_changed,
    UserErased => on_user_erased,
    EmailVerificationRequested => on_email_verification_requested(id),
    PasswordResetRequested => on_password_reset_requested(id),
    InvoicePaid => on_invoice_paid(at),
    InvoiceRefunded => on_invoice_refunded(id),
}

fn on_user_registered(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: UserRegistered,
    at: Timestamp,
) -> Result<(), MailerError> {
    let UserRegistered { user_id, email, name, created_at, .. } = event;
    let recipient = Recipient { user_id, email, name };
    meet(state, tx, &recipient)?;
    if model::is_welcome(created_at, at) {
        state.post(tx, &recipient, &EmailContent::Welcome, &user_id.to_string())?;
    }
    Ok(())
}

fn on_user_changed(state: &MailerState, tx: &mut Tx<'_>, event: UserChanged) -> Result<(), MailerError> {
    let UserChanged { user_id, email, name, .. } = event;
    match email {
        Some(email) => meet(state, tx, &Recipient { user_id, email, name }),
        None => Ok(store::forget_recipient(tx.conn, user_id)?),
    }
}

fn on_user_erased(_: &MailerState, tx: &mut Tx<'_>, event: UserErased) -> Result<(), MailerError> {
    let UserErased { user_id, email } = event;
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
    let EmailVerificationRequested { user_id, email, name, token } = event;
    let content = EmailContent::Verify { link: link(state, "verify", &token) };
    state.post(tx, &Recipient { user_id, email, name }, &content, &id.to_string())
}

fn on_password_reset_requested(
    state: &MailerState,
    tx: &mut Tx<'_>,
    event: PasswordResetRequested,
    id: EventId,
) -> Result<(), MailerError> {
    let PasswordResetRequested { user_id, email, name, token } = event;
    let content = EmailContent::Reset { link: link(state, "reset", &token) };
    state.post(tx, &Recipient { user_id, email, name }, &content, &id.to_string())
}

fn on_invoice_paid(state: &MailerState, tx: &mut Tx<'_>, event: InvoicePaid, at: Timestamp) -> Result<(), MailerError> {
    if event.imported {
        return Ok(());
    }
    let invoice = event.invoice;
    let receipt = EmailContent::receipt(&invoice, invoice.paid_at.unwrap_or(at));
    bill(state, tx, &invoice, &receipt, &invoice.id.to_string())
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
    // An invoice can be refunded in parts, each with an e-mail of its own: the sum refunded so far tells them apart.
    // Money that no invoice could take is not part of that sum.
    let reference = match reason.as_str() {
        LATE_PAYMENT => format!("{}:{id}", invoice.id),
        _ => format!("{}:{}", invoice.id, invoice.refunded),
    };
    bill(state, tx, &invoice, &EmailContent::refund(&invoice, amount, &reason), &reference)
}

/// Notes where a user can be written to, and writes what waited for it.
fn meet(state: &MailerState, tx: &mut Tx<'_>, who: &Recipient) -> Result<(), MailerError> {
    store::put_recipient(tx.conn, who)?;
    for (reference, letter) in store::take_waiting(tx.conn, who.user_id)? {
        state.post(tx, who, &letter, &reference)?;
    }
    Ok(())
}

/// Writes to whoever an invoice concerns: to the address it names, else to the user's own; without any the letter waits.
fn bill(
    state: &MailerState,
    tx: &mut Tx<'_>,
    invoice: &Invoice,
    letter: &EmailContent,
    reference: &str,
) -> Result<(), MailerError> {
    let user_id: UserId = invoice.user_id;
    let known = store::recipient(tx.conn, user_id)?;
    let name = known.as_ref().map(|who| who.name.clone()).unwrap_or_default();
    let who = match &invoice.email {
        Some(email) => Some(Recipient { user_id, email: email.clone(), name }),
        None => known,
    };
    match &who {
        Some(who) => state.post(tx, who, letter, reference)?,
        None => store::wait(tx.conn, user_id, letter, reference, tx.now)?,
    }
    // The invoice's news was on its way while its buyer was erased: the books keep the letter, without a name.
    if store::is_erased(tx.conn, user_id)? {
        erase(tx, user_id, &who.map(|who| who.email).into_iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Takes the name and the address out of everything that is kept of a user, and stops what was still to be sent.
fn erase(tx: &mut Tx<'_>, user: UserId, addresses: &[EmailAddress]) -> Result<(), MailerError> {
    for mail in store::erase(tx.conn, user, addresses)? {
        tx.emit(&changed(&mail))?;
    }
    Ok(())
}

async fn audit(
    state: Arc<MailerState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn audit_letters(
    state: Arc<MailerState>,
    _: RequestContext,
    request: ListEmailFacts,
) -> Result<Vec<EmailFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::letters(conn, &request.invoices)?)).await
}
