//! Mailer: mail to people, kept until the mail server has it.
//!
//! Lives here: the queue of mails and what became of each, the letters the shop writes by itself, a copy of who can be
//! written to. Never enters: passwords, what an invoice means, HTTP; SQL outside `store`; SMTP outside `smtp`.
//! Asks: nobody. Hears of accounts, wished-for verifications and resets, paid and refunded invoices. Announces:
//! [`EmailChanged`] with every change of a mail's status, [`EmailFailed`] when one is given up.
//! While this domain is down: everything else works; the events wait, and the mails go out when it is back.
//!
//! **AcceptedEmail is committed.** A mail is answered for when its row is durable. Without a mail server it is `kept` for
//! the back office to read, and stays so if a server is named later: nobody wants last month's reset link. What was
//! queued when the server's name is taken away stays queued until there is one again.
//!
//! **At least once.** A worker claims a mail by moving its next try 40 seconds ahead, sends it, and writes down what
//! came of it. If the process dies in between, the mail is sent again when the claim runs out. This is the one place
//! in the shop where something can happen twice: the mail server said yes and we died before that was durable. Both
//! copies carry the same `Message-ID`, made from the mail's id, by which mail programs tell that they are one. The
//! window is one commit, a fraction of a millisecond.
//!
//! **Once for one occasion.** A receipt belongs to one invoice and there is a unique key on that, so that one is
//! written however often its being paid is told. If the buyer's address has not been heard of yet (two domains'
//! events come at their own pace), the letter waits for it, seven days at most.
//!
//! **Erased.** When a user is erased, their address goes; of the mails to them, by account or by address, only id,
//! kind, status and times stay. One that was still to be sent is given up, quietly: that is no accident for staff to
//! look into, so there is no [`EmailFailed`]. Other mails are kept for ever: they are the shop's record of what it wrote.

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

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::OpenError;

use crate::contract::mailer::*;
pub use actor::{MailerActor, SUBSCRIPTIONS};
pub use store::MIGRATIONS;

/// Opens the domain. Refuses a mail server that cannot be meant.
pub fn open(ground: &DomainRuntime) -> Result<RunningDomain<MailerActor>, OpenError> {
    let (opened, _) = open_with_room(ground)?;
    Ok(opened)
}

/// Tries a mail server as the setting `mailer.smtp` names it: connects, greets, signs in. Sends nothing.
///
/// # Errors
/// Says what is wrong.
pub async fn try_server(smtp: &str, limit: std::time::Duration) -> Result<(), String> {
    smtp::Smtp::parse(smtp)?.greet(limit).await
}

/// Opens the domain; the state is for tests that run the queue by hand.
fn open_with_room(
    ground: &DomainRuntime,
) -> Result<(RunningDomain<MailerActor>, Arc<delivery::MailerState>), OpenError> {
    let settings = &ground.settings;
    let smtp = settings.mailer.smtp.as_deref().map(smtp::Smtp::parse).transpose();
    let smtp = smtp.map_err(|reason| OpenError::setting("mailer", "mailer.smtp", &reason))?;
    let sender = smtp::Sender::new(&settings.shop.name, &settings.mailer.from)
        .map_err(|reason| OpenError::setting("mailer", "mailer.from", &reason))?;
    let letters = templates::TemplateRenderer::new(settings)
        .map_err(|error| OpenError::setting("mailer", "shop.name", &format!("the letters are broken: {error}")))?;
    let store = ground.store("mailer", MIGRATIONS)?;
    let state = Arc::new(delivery::MailerState::new(store.clone(), Arc::clone(settings), letters, sender, smtp));
    let own = Arc::clone(&state);
    Ok((RunningDomain { client: ground.start("mailer", move || MailerActor { state: own }), store }, state))
}
