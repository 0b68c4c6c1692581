//! The queue: how mails enter it, and the few workers who take them to the mail server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::model::{self, DeliveryState, EmailContent, SendOutcome};
use super::smtp::{OutgoingMessage, Sender, Smtp, SmtpConnection};
use super::store::{self, NewEmail, Recipient};
use super::templates::TemplateRenderer;
use super::{Email, EmailChanged, EmailFailed, EmailStatus, MailerError};
use crate::messaging::CommonError;
use crate::settings::Settings;
use crate::store::{Store, Tx};
use crate::types::{EmailAddress, EmailId, UserId};

/// How many mails are on their way at once.
const WORKERS: u32 = 4;
/// How long one mail may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a claimed mail is its worker's own: longer than a send can take, and how long a mail waits whose worker died.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(40);
/// How long to wait before what came of a send is written down again, when the database would not.
const RECORD_RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// How long a letter waits for an address.
const PENDING_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What the actor's handlers and the workers share.
pub struct MailerState {
    pub(super) store: Store,
    pub(super) settings: Arc<Settings>,
    pub(super) letters: TemplateRenderer,
    sender: Sender,
    smtp: Option<Smtp>,
    workers: Arc<Semaphore>,
}

/// A mail about to be accepted.
pub(super) struct NewOutgoing {
    pub to: EmailAddress,
    pub user_id: Option<UserId>,
    pub subject: String,
    pub template: &'static str,
    /// The occasion: there is one mail of a kind for each.
    pub reference: Option<String>,
    pub text: String,
    pub html: Option<String>,
}

impl MailerState {
    pub(super) fn new(
        store: Store,
        settings: Arc<Settings>,
        letters: TemplateRenderer,
        sender: Sender,
        smtp: Option<Smtp>,
    ) -> Self {
        Self { store, settings, letters, sender, smtp, workers: Arc::new(Semaphore::new(WORKERS as usize)) }
    }

    /// Accepts a mail: to be sent, or without a mail server to be kept. `None` when its occasion has one already.
    pub(super) fn accept(
        &self,
        tx: &mut Tx<'_>,
        draft: NewOutgoing,
    ) -> Result<Option<(EmailId, EmailStatus)>, diesel::result::Error> {
        let status = if self.smtp.is_some() { EmailStatus::Queued } else { EmailStatus::Kept };
        let mail = NewEmail {
            id: EmailId::new(),
            recipient: draft.to,
            user_id: draft.user_id,
            subject: draft.subject,
            template: draft.template,
            reference: draft.reference,
            status,
            attempts: 0,
            created_at: tx.now,
            next_attempt_at: status.is_open().then_some(tx.now),
            text: Some(draft.text),
            html: draft.html,
        };
        if !store::insert(tx.conn, &mail)? {
            return Ok(None);
        }
        let NewEmail { id, recipient: to, subject, template, .. } = mail;
        tx.emit(&EmailChanged { email_id: id, to, subject, template: template.to_owned(), status, attempts: 0 })?;
        Ok(Some((id, status)))
    }

    /// Writes a letter for an occasion and accepts it.
    pub(super) fn post(
        &self,
        tx: &mut Tx<'_>,
        who: &Recipient,
        letter: &EmailContent,
        reference: &str,
    ) -> Result<(), MailerError> {
        let written = self.letters.write(letter, &who.name).map_err(|error| {
            log::error!("mailer: the letter {} cannot be written: {error}", letter.template());
            CommonError::Internal
        })?;
        let draft = NewOutgoing {
            to: who.email.clone(),
            user_id: Some(who.user_id),
            subject: written.subject,
            template: letter.template(),
            reference: Some(reference.to_owned()),
            text: written.text,
            html: Some(written.html),
        };
        self.accept(tx, draft)?;
        Ok(())
    }

    /// Sees to it that mails which are due are sent: one more worker looks, if one is free. All being busy is fine,
    /// because each looks again after its mail.
    pub(super) fn wake(self: &Arc<Self>) {
        if self.smtp.is_none() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.workers).try_acquire_owned() else { return };
        let state = Arc::clone(self);
        actix::spawn(async move {
            if let Err(failure) = state.work().await {
                log::warn!("mailer: the queue cannot be worked at: {failure}");
            }
            drop(permit);
        });
    }

    /// One worker's turn: until nothing is due.
    async fn work(self: &Arc<Self>) -> Result<(), CommonError> {
        let Some(smtp) = &self.smtp else { return Ok(()) };
        let now = self.store.now();
        // Looked at first without writing: this is asked every second of a shop that may send nothing all day.
        if !self.store.read(move |conn| Ok::<_, CommonError>(store::is_due(conn, now)?)).await? {
            return Ok(());
        }
        let mut line: Option<SmtpConnection> = None;
        let claim = |tx: &mut Tx<'_>| {
            Ok::<_, CommonError>(store::claim(tx.conn, tx.now, tx.now.saturating_add(CLAIM_TIMEOUT))?)
        };
        while let Some(post) = self.store.write(claim).await? {
            // Where one was due there may be more, and another worker need not wait for this one.
            self.wake();
            self.send_email(smtp, &mut line, post).await?;
        }
        if let Some(line) = line {
            line.close().await;
        }
        Ok(())
    }

    /// Sends one mail and writes down what came of it.
    async fn send_email(
        &self,
        smtp: &Smtp,
        line: &mut Option<SmtpConnection>,
        post: OutgoingMessage,
    ) -> Result<(), CommonError> {
        let id = post.id;
        let outcome = match self.sender.message(post) {
            Ok(message) => smtp.send(line, &message, SEND_TIMEOUT).await,
            Err(reason) => SendOutcome::Refused(reason),
        };
        match &outcome {
            SendOutcome::Sent => log::debug!("mailer: {id} is sent"),
            // The server's words are for the back office: they often repeat the address, which is not for the log.
            SendOutcome::Refused(_) => log::warn!("mailer: {id} was refused"),
            SendOutcome::NotNow(_) => log::info!("mailer: {id} could not be sent this time"),
        }
        let mut pauses = RECORD_RETRY_DELAYS.into_iter();
        loop {
            let outcome = outcome.clone();
            let failure = match self.store.write(move |tx| record(tx, id, outcome)).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // Given up here, a mail that was sent would be sent again when its claim runs out; so not at once.
            let Some(pause) = pauses.next() else { return Err(failure) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Forgets letters whose addressee has not turned up.
    pub(super) async fn purge(&self) -> Result<(), CommonError> {
        let forgotten = self
            .store
            .write(|tx| Ok::<_, CommonError>(store::forget_waiting(tx.conn, tx.now.saturating_sub(PENDING_RETENTION))?))
            .await?;
        if forgotten > 0 {
            log::warn!("mailer: {forgotten} letters had nobody to go to within seven days and are forgotten");
        }
        Ok(())
    }

    /// Sends all that is due now and waits until it is done.
    #[cfg(test)]
    pub(super) async fn round(self: &Arc<Self>) {
        loop {
            drop(self.workers.acquire_many(WORKERS).await);
            let now = self.store.now();
            if self.smtp.is_none()
                || !self.store.read(move |c| Ok::<_, CommonError>(store::is_due(c, now)?)).await.unwrap()
            {
                return;
            }
            self.wake();
            tokio::task::yield_now().await;
        }
    }
}

/// Writes down what came of a try, and tells of it. A mail that was erased meanwhile stays as it is.
fn record(tx: &mut Tx<'_>, id: EmailId, outcome: SendOutcome) -> Result<(), CommonError> {
    let Some(mail) = store::find(tx.conn, id)?.filter(|mail| mail.status.is_open()) else { return Ok(()) };
    let standing = DeliveryState::after(id, mail.attempts, outcome, tx.now);
    store::stand(tx.conn, id, &standing)?;
    if standing.status == mail.status {
        return Ok(());
    }
    let reason = standing.last_error.clone();
    let mail = Email { status: standing.status, attempts: standing.attempts, ..mail };
    tx.emit(&changed(&mail))?;
    if mail.status == EmailStatus::Failed {
        let reason = reason.unwrap_or_default();
        tx.emit(&EmailFailed { email_id: id, to: mail.to, subject: mail.subject, reason })?;
    }
    Ok(())
}

/// What is told of a mail whose status changed.
pub(super) fn changed(mail: &Email) -> EmailChanged {
    let Email { id: email_id, to, subject, template, status, attempts, .. } = mail.clone();
    EmailChanged { email_id, to, subject, template, status, attempts }
}

/// A link of this shop's that carries a token.
pub(super) fn link(state: &MailerState, page: &str, token: &str) -> String {
    model::link(state.letters.url(), page, token)
}
