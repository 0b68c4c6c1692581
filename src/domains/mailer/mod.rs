//! Mailer: emails to users, stored until the mail server has accepted them.
//!
//! Contains: the queue of emails with their delivery states, the automatic emails, a copy of the users' addresses. Does
//! not contain: passwords, the meaning of an invoice, HTTP; SQL outside `store`; SMTP outside `smtp`.
//! Calls: users, for the token of a link at the moment of sending, which no database holds. Subscribes to accounts, requested
//! verifications and resets, changed credentials, paid and refunded invoices.
//! Publishes: [`EmailChanged`] with each change of an email's status, [`EmailFailed`] when one is abandoned,
//! [`DeliveryStalled`] when mail is held up.
//! While this domain is down, everything else works; its events queue, and the emails are sent when it is back.
//!
//! **Accepted means committed.** An email is accepted when its row is durable. Without a mail server it is `kept` for
//! the back office, and stays so if a server is configured later: a reset link of last month is useless. Emails that
//! are queued when the server is removed from the settings stay queued until there is one again.
//!
//! **At least once.** A worker claims an email by moving its next attempt 40 seconds ahead, sends it, and records the
//! outcome. If the process crashes in between, the email is sent again when the claim expires. This is the only
//! effect of the shop that can happen twice: the mail server accepted the email, and the process crashed before that
//! was durable. Both copies carry the same `Message-ID`, made from the email's id, by which mail clients detect
//! duplicates. The window is one commit, a fraction of a millisecond.
//!
//! **Rejected or refused.** A reply of the mail server ends an email only if it is about the email: its recipient or its
//! content. A reply about the shop (its sender, its credentials, its daily limit) keeps the email queued, and staff are
//! alerted. Attempts go on for four days; after that, staff can send the email again.
//!
//! **Once per occasion.** A receipt belongs to one invoice, by a unique key, so that redelivered events cause no second
//! one. If the buyer's address is not known yet (events of two domains arrive at their own pace), the email waits for
//! it, seven days at most.
//!
//! **Erasure.** When a user is erased, the address is deleted; of the emails to the user, by account or by address,
//! only id, template, status and times remain. A queued one is abandoned without [`EmailFailed`], since staff need not
//! act on it. Other emails are retained permanently, as the shop's record of its correspondence.

mod actor;
mod delivery;
mod model;
mod schema;
mod smtp;
mod store;
mod templates;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::domains::users::UsersActor;
use crate::messaging::Client;
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::OpenError;

use crate::contract::mailer::*;
pub use actor::{MailerActor, SUBSCRIPTIONS};
pub use store::MIGRATIONS;

/// Opens the domain.
///
/// # Errors
/// If the database cannot be opened, or a setting of the mailer is invalid.
pub fn open(runtime: &DomainRuntime, users: Client<UsersActor>) -> Result<RunningDomain<MailerActor>, OpenError> {
    let (opened, _) = open_with_state(runtime, users)?;
    Ok(opened)
}

/// Connects to a mail server, given as in the setting `mailer.smtp`, and authenticates. Sends no email.
///
/// # Errors
/// A description of the failure.
pub async fn probe_server(smtp: &str, limit: std::time::Duration) -> Result<(), String> {
    smtp::Smtp::parse(smtp)?.probe(limit).await
}

/// Opens the domain and returns its state, for tests that run the queue step by step.
fn open_with_state(
    runtime: &DomainRuntime,
    users: Client<UsersActor>,
) -> Result<(RunningDomain<MailerActor>, Arc<delivery::MailerState>), OpenError> {
    let settings = &runtime.settings;
    let smtp = settings.mailer.smtp.as_deref().map(smtp::Smtp::parse).transpose();
    let smtp = smtp.map_err(|reason| OpenError::setting("mailer", "mailer.smtp", &reason))?;
    let sender = smtp::Sender::new(&settings.shop.name, &settings.mailer.from)
        .map_err(|reason| OpenError::setting("mailer", "mailer.from", &reason))?;
    let renderer = templates::TemplateRenderer::new(settings)
        .map_err(|error| OpenError::setting("mailer", "shop.name", &format!("invalid email template: {error}")))?;
    let store = runtime.store("mailer", MIGRATIONS)?;
    let state =
        Arc::new(delivery::MailerState::new(store.clone(), Arc::clone(settings), renderer, sender, smtp, users));
    let shared = Arc::clone(&state);
    Ok((RunningDomain { client: runtime.start("mailer", move || MailerActor { state: shared }), store }, state))
}
