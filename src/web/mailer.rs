//! `/send_email`, `/emails`.

use super::asked::{ApiRequest, ApiResult, BASE};
use super::input::{Query, ServerSetFields, UnreadBody};
use crate::contract::mailer::{GetEmail, ListEmails, MailerError, SendEmail};

impl ServerSetFields for SendEmail {}

/// POST `/send_email/`.
pub async fn send(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    asked.may(&ListEmails::default())?;
    let request: SendEmail = sent.json(&asked).await?;
    let accepted = asked.clients().mailer.call(asked.ctx(), request).await?;
    let mut answer = asked.accepted(&accepted)?;
    asked.locate(&mut answer, &format!("{BASE}/emails/{}", accepted.id));
    Ok(answer)
}

/// GET `/emails/{id}`.
pub async fn get(asked: ApiRequest) -> ApiResult {
    let email_id = asked.id("id", MailerError::EmailNotFound)?;
    asked.ok(&asked.clients().mailer.call(asked.ctx(), GetEmail { email_id }).await?)
}

/// GET `/emails/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = ListEmails {
        status: query.word("status", "must be queued, sent, kept or failed"),
        to: query.text("to"),
        page: query.page(),
    };
    query.done()?;
    let page = asked.clients().mailer.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}
