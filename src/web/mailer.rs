//! Handlers of `/send_email` and `/emails`.

use super::body::{ServerSetFields, UnreadBody};
use super::extract::ApiRequest;
use super::names::API_BASE;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::mailer::{AcceptedEmail, GetEmail, ListEmails, MailerError, ResendEmail, SendEmail};

impl ServerSetFields for SendEmail {}

/// POST `/send_email/`.
pub async fn send(request: ApiRequest, body: UnreadBody) -> ApiResult {
    request.authorize(&ListEmails::default())?;
    let message: SendEmail = body.json(&request).await?;
    accepted(&request, &request.clients().mailer.call(request.ctx(), message).await?)
}

/// POST `/emails/{id}/resend`.
pub async fn resend(request: ApiRequest) -> ApiResult {
    let email_id = request.path_id("id", MailerError::EmailNotFound)?;
    accepted(&request, &request.clients().mailer.call(request.ctx(), ResendEmail { email_id }).await?)
}

/// Answers with an accepted email and its location.
fn accepted(request: &ApiRequest, email: &AcceptedEmail) -> ApiResult {
    let mut response = request.accepted(email)?;
    request.set_location(&mut response, &format!("{API_BASE}/emails/{}", email.id));
    Ok(response)
}

/// GET `/emails/{id}`.
pub async fn get(request: ApiRequest) -> ApiResult {
    let email_id = request.path_id("id", MailerError::EmailNotFound)?;
    request.ok(&request.clients().mailer.call(request.ctx(), GetEmail { email_id }).await?)
}

/// GET `/emails/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListEmails {
        status: query.one_of("status", "must be queued, sent, kept or failed"),
        to: query.text("to"),
        page: query.page(),
    };
    query.finish()?;
    let page = request.clients().mailer.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}
