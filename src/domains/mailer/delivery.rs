//! The queue of emails, and the workers that deliver them to the mail server.
//!
//! Does not contain: SQL, SMTP, the rules of retries (`model`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use super::model::{self, DeliveryState, EmailContent, SendOutcome};
use super::smtp::{OutgoingMessage, Sender, Smtp, SmtpConnection};
use super::store::{self, NewEmailRow, Recipient};
use super::templates::TemplateRenderer;
use super::{AcceptedEmail, DeliveryStalled, Email, EmailChanged, EmailFailed, EmailStatus, MailerError};
use crate::contract::users::{IssueLinkToken, UsersError};
use crate::domains::users::UsersActor;
use crate::messaging::{Client, CommonError, RequestContext};
use crate::settings::Settings;
use crate::store::{Conn, Store, Tx};
use crate::types::{EmailAddress, EmailId, UserId};

/// Window of the limit of automatic emails per recipient.
const RECIPIENT_WINDOW: Duration = Duration::from_secs(3_600);
/// Time limit of the call that issues the token of a link.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Error of an email whose link ended before it could be sent.
const LINK_GONE: &str = "its link was used or expired before the e-mail could be sent";
/// Maximum number of concurrent deliveries.
const WORKERS: u32 = 4;
/// Time limit of one delivery.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which a claimed email belongs to its worker: longer than a delivery can take. After a crash it is redelivered
/// that much later.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(40);
/// Delays before the outcome of a delivery is recorded again, while the database fails.
const RECORD_RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// Time for which an email waits for its recipient's address.
const PENDING_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// State shared by the handlers and the workers.
pub struct MailerState {
    pub(super) store: Store,
    pub(super) settings: Arc<Settings>,
    pub(super) renderer: TemplateRenderer,
    sender: Sender,
    smtp: Option<Smtp>,
    /// Issues the tokens of links.
    users: Client<UsersActor>,
    workers: Arc<Semaphore>,
}

/// An email to accept.
pub(super) struct NewOutgoing {
    pub to: EmailAddress,
    pub user_id: Option<UserId>,
    pub subject: String,
    pub template: String,
    /// Occasion of the email, such as an invoice id. Unique per template.
    pub reference: Option<String>,
    pub text: String,
    pub html: Option<String>,
    /// Id of the link in the bodies.
    pub link_id: Option<Uuid>,
}

impl MailerState {
    pub(super) fn new(
        store: Store,
        settings: Arc<Settings>,
        renderer: TemplateRenderer,
        sender: Sender,
        smtp: Option<Smtp>,
        users: Client<UsersActor>,
    ) -> Self {
        Self { store, settings, renderer, sender, smtp, users, workers: Arc::new(Semaphore::new(WORKERS as usize)) }
    }

    /// Accepts an email, as queued, or as kept without a mail server. Returns `None` if its occasion has one already.
    pub(super) fn accept(
        &self,
        tx: &mut Tx<'_>,
        outgoing: NewOutgoing,
    ) -> Result<Option<(EmailId, EmailStatus)>, diesel::result::Error> {
        let status = if self.smtp.is_some() { EmailStatus::Queued } else { EmailStatus::Kept };
        let email = NewEmailRow {
            id: EmailId::new(),
            recipient: outgoing.to,
            user_id: outgoing.user_id,
            subject: outgoing.subject,
            template: outgoing.template,
            reference: outgoing.reference,
            status,
            attempts: 0,
            created_at: tx.now,
            next_attempt_at: status.is_open().then_some(tx.now),
            text: Some(outgoing.text),
            html: outgoing.html,
            link_id: outgoing.link_id.map(|link| link.to_string()),
        };
        if !store::insert(tx.conn, &email)? {
            return Ok(None);
        }
        let NewEmailRow { id, recipient: to, subject, template, .. } = email;
        tx.emit(&EmailChanged { email_id: id, to, subject, template, status, attempts: 0 })?;
        Ok(Some((id, status)))
    }

    /// Renders an automatic email for an occasion and accepts it.
    pub(super) fn enqueue(
        &self,
        tx: &mut Tx<'_>,
        recipient: &Recipient,
        content: &EmailContent,
        reference: &str,
    ) -> Result<(), MailerError> {
        let rendered = self.renderer.render(content, &recipient.name).map_err(|error| {
            log::error!("mailer: template {} failed: {error}", content.template());
            CommonError::Internal
        })?;
        let outgoing = NewOutgoing {
            to: recipient.email.clone(),
            user_id: Some(recipient.user_id),
            subject: rendered.subject,
            template: content.template().to_owned(),
            reference: Some(reference.to_owned()),
            text: rendered.text,
            html: Some(rendered.html),
            link_id: content.link_id(),
        };
        self.accept(tx, outgoing)?;
        Ok(())
    }

    /// Queues an email again, or a copy of it if it was sent.
    pub(super) fn resend(&self, tx: &mut Tx<'_>, id: EmailId) -> Result<AcceptedEmail, MailerError> {
        let Some(email) = store::find(tx.conn, id)? else { return Err(MailerError::EmailNotFound) };
        if self.smtp.is_none() {
            return Err(MailerError::NoMailServer);
        }
        let Some(text) = email.text.clone().filter(|_| model::is_resendable(&email.template)) else {
            return Err(MailerError::EmailNotResendable);
        };
        if email.status == EmailStatus::Sent {
            let (user_id, Email { to, subject, template, html, .. }) = (store::user_of(tx.conn, id)?, email);
            let copy = NewOutgoing { to, user_id, subject, template, reference: None, text, html, link_id: None };
            let (id, status) = self.accept(tx, copy)?.ok_or(CommonError::Internal)?;
            return Ok(AcceptedEmail { id, status });
        }
        store::requeue(tx.conn, id, tx.now)?;
        let email = Email { status: EmailStatus::Queued, attempts: 0, ..email };
        tx.emit(&changed_event(&email))?;
        Ok(AcceptedEmail { id, status: email.status })
    }

    /// Starts one more worker, if one is free. If all are busy, the due emails are found by them: each one queries the
    /// queue after each delivery.
    pub(super) fn notify_workers(self: &Arc<Self>) {
        if self.smtp.is_none() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.workers).try_acquire_owned() else { return };
        let state = Arc::clone(self);
        actix::spawn(async move {
            if let Err(error) = state.run_worker().await {
                log::warn!("mailer: queue query failed: {error}");
            }
            drop(permit);
        });
    }

    /// Delivers due emails until there are none.
    async fn run_worker(self: &Arc<Self>) -> Result<(), CommonError> {
        let Some(smtp) = &self.smtp else { return Ok(()) };
        let now = self.store.now();
        // A read comes first: the queue is polled every second, and mostly empty.
        if !self.store.read(move |conn| Ok::<_, CommonError>(store::is_due(conn, now)?)).await? {
            return Ok(());
        }
        let mut connection: Option<SmtpConnection> = None;
        let claim = |tx: &mut Tx<'_>| {
            Ok::<_, CommonError>(store::claim(tx.conn, tx.now, tx.now.saturating_add(CLAIM_TIMEOUT))?)
        };
        while let Some(message) = self.store.write(claim).await? {
            // More emails may be due; another worker can deliver them meanwhile.
            self.notify_workers();
            self.send_email(smtp, &mut connection, message).await?;
        }
        if let Some(connection) = connection {
            connection.close().await;
        }
        Ok(())
    }

    /// Delivers one email and records the outcome.
    async fn send_email(
        &self,
        smtp: &Smtp,
        connection: &mut Option<SmtpConnection>,
        message: OutgoingMessage,
    ) -> Result<(), CommonError> {
        let id = message.id;
        if self.is_postponed(&message).await? {
            return Ok(());
        }
        let message = self.with_link_token(message).await;
        let outcome = match message.map(|message| self.sender.message(message).map_err(SendOutcome::Rejected)) {
            Ok(Ok(message)) => smtp.send(connection, &message, SEND_TIMEOUT).await,
            Ok(Err(outcome)) | Err(outcome) => outcome,
        };
        match &outcome {
            SendOutcome::Sent => log::debug!("mailer: email {id} sent"),
            // The server's reply is not logged, because it often repeats the address; the back office shows it.
            SendOutcome::Rejected(_) => log::warn!("mailer: email {id} rejected by the mail server"),
            SendOutcome::Refused(_) => log::warn!(
                "mailer: the mail server refuses this shop's mail; see the error of email {id}; retrying later"
            ),
            SendOutcome::Transient(_) => log::info!("mailer: email {id} not sent; retrying later"),
        }
        let mut delays = RECORD_RETRY_DELAYS.into_iter();
        loop {
            let outcome = outcome.clone();
            let error = match self.store.write(move |tx| record_outcome(tx, id, outcome)).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // Without a recorded outcome the email is sent again when its claim expires, so recording is retried first.
            let Some(delay) = delays.next() else { return Err(error) };
            tokio::time::sleep(delay).await;
        }
    }

    /// Postpones an automatic email if its recipient has got many within the hour: everyone can cause e-mails to an address
    /// that is not theirs.
    async fn is_postponed(&self, message: &OutgoingMessage) -> Result<bool, CommonError> {
        if message.template == model::MESSAGE {
            return Ok(false);
        }
        let (id, to, max) = (message.id, message.to.clone(), self.settings.mailer.automatic_per_recipient_hour);
        let postpone = move |tx: &mut Tx<'_>| {
            let since = tx.now.saturating_sub(RECIPIENT_WINDOW);
            let Some(sent_at) = store::nth_newest_automatic_at(tx.conn, &to, since, max)? else { return Ok(false) };
            store::postpone(tx.conn, id, sent_at.saturating_add(RECIPIENT_WINDOW))?;
            Ok::<_, CommonError>(true)
        };
        let (to, now) = (message.to.clone(), self.store.now());
        let is_over = move |conn: &mut Conn| {
            let since = now.saturating_sub(RECIPIENT_WINDOW);
            Ok::<_, CommonError>(store::nth_newest_automatic_at(conn, &to, since, max)?.is_some())
        };
        // Mostly it is not, which a read tells without a write.
        Ok(self.store.read(is_over).await? && self.store.write(postpone).await?)
    }

    /// Puts the token of the link into the bodies.
    async fn with_link_token(&self, mut message: OutgoingMessage) -> Result<OutgoingMessage, SendOutcome> {
        let Some(link_id) = message.link_id else { return Ok(message) };
        let token = self.link_token(link_id).await.map_err(|error| match error {
            UsersError::InvalidLink => SendOutcome::Rejected(LINK_GONE.to_owned()),
            error => SendOutcome::Transient(error.to_string()),
        })?;
        fill_in_token(link_id, &token, &mut message.text, message.html.as_mut());
        Ok(message)
    }

    async fn link_token(&self, link_id: Uuid) -> Result<String, UsersError> {
        let ctx = RequestContext::internal(self.store.domain()).with_timeout(TOKEN_TIMEOUT);
        Ok(self.users.call(ctx, IssueLinkToken { link_id }).await?.token)
    }

    /// Puts the token into the link of an email that is kept for the back office, if the link still works.
    pub(super) async fn reveal_link(&self, email: &mut Email, link_id: Uuid) {
        if let (Ok(token), Some(text)) = (self.link_token(link_id).await, email.text.as_mut()) {
            fill_in_token(link_id, &token, text, email.html.as_mut());
        }
    }

    /// Deletes pending emails whose recipient did not become known in time.
    pub(super) async fn purge(&self) -> Result<(), CommonError> {
        let deleted = self
            .store
            .write(|tx| {
                Ok::<_, CommonError>(store::delete_expired_pending(tx.conn, tx.now.saturating_sub(PENDING_RETENTION))?)
            })
            .await?;
        if deleted > 0 {
            log::warn!("mailer: dropped {deleted} emails without a recipient after 7 days");
        }
        Ok(())
    }

    /// Delivers all due emails and waits for the end.
    #[cfg(test)]
    pub(super) async fn run_once(self: &Arc<Self>) {
        loop {
            drop(self.workers.acquire_many(WORKERS).await);
            let now = self.store.now();
            if self.smtp.is_none()
                || !self.store.read(move |c| Ok::<_, CommonError>(store::is_due(c, now)?)).await.unwrap()
            {
                return;
            }
            self.notify_workers();
            tokio::task::yield_now().await;
        }
    }
}

/// Records the outcome of an attempt and publishes it. An email that was erased meanwhile stays unchanged.
fn record_outcome(tx: &mut Tx<'_>, id: EmailId, outcome: SendOutcome) -> Result<(), CommonError> {
    let Some(email) = store::find(tx.conn, id)?.filter(|email| email.status.is_open()) else { return Ok(()) };
    let is_held_up = model::is_held_up(&outcome, email.attempts.saturating_add(1));
    let state = DeliveryState::next_state(id, email.attempts, outcome, tx.now);
    store::update_status(tx.conn, id, &state)?;
    if state.status == EmailStatus::Sent {
        store::end_stall(tx.conn)?;
    } else if is_held_up {
        alert_staff(tx, state.last_error.as_deref().unwrap_or_default())?;
    }
    if state.status == email.status {
        return Ok(());
    }
    let reason = state.last_error.clone();
    let email = Email { status: state.status, attempts: state.attempts, ..email };
    tx.emit(&changed_event(&email))?;
    if email.status == EmailStatus::Failed {
        let reason = reason.unwrap_or_default();
        tx.emit(&EmailFailed { email_id: id, to: email.to, subject: email.subject, reason })?;
    }
    Ok(())
}

/// Publishes that mail is held up, at most once in a day.
fn alert_staff(tx: &mut Tx<'_>, reason: &str) -> Result<(), CommonError> {
    let alerted_before = tx.now.saturating_sub(model::ALERT_INTERVAL);
    if let Some(since) = store::record_stall(tx.conn, tx.now, alerted_before)? {
        let queued = store::count_queued(tx.conn)?;
        log::warn!("mailer: mail is not being delivered since {since}; {queued} emails wait");
        tx.emit(&DeliveryStalled { since, queued, reason: reason.to_owned() })?;
    }
    Ok(())
}

/// Builds the event of an email whose status changed.
pub(super) fn changed_event(email: &Email) -> EmailChanged {
    let Email { id: email_id, to, subject, template, status, attempts, .. } = email.clone();
    EmailChanged { email_id, to, subject, template, status, attempts }
}

/// Replaces the placeholder of a link's token.
fn fill_in_token(link_id: Uuid, token: &str, text: &mut String, html: Option<&mut String>) {
    let placeholder = model::token_placeholder(link_id);
    *text = text.replace(&placeholder, token);
    if let Some(html) = html {
        *html = html.replace(&placeholder, token);
    }
}

/// Builds a link to a page of this shop, with the placeholder of its token.
pub(super) fn link(state: &MailerState, page: &str, link_id: Uuid) -> String {
    model::link(state.renderer.url(), page, &model::token_placeholder(link_id))
}
