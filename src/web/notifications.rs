//! `/notifications`, `/ws`, `/events`.

use actix_web::web;

use super::asked::{ApiRequest, ApiResult};
use super::input::Query;
use super::live;
use crate::contract::notifications::{ListNotifications, MarkRead, NotificationsError};

/// GET `/notifications/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = ListNotifications { after: query.number("after"), page: query.page() };
    query.done()?;
    let page = asked.clients().notifications.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}

/// POST `/notifications/{id}/read`.
pub async fn mark_read(asked: ApiRequest) -> ApiResult {
    let notification_id = asked.id("id", NotificationsError::NotificationNotFound)?;
    asked.clients().notifications.call(asked.ctx(), MarkRead { notification_id }).await?;
    asked.done()
}

/// GET `/ws`: the connection becomes a live session.
pub async fn socket(asked: ApiRequest, payload: web::Payload) -> ApiResult {
    let (hub, who) = (asked.gate().hub.clone(), asked.who());
    Ok(live::socket(asked.request().clone(), payload, hub, who).await?)
}

/// GET `/events`: the same stream as server-sent events, for clients without WebSocket.
pub async fn events(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let wished = live::EventsQuery {
        topics: query.text("topics").unwrap_or_default(),
        epoch: query.text("epoch"),
        after: query.number("after"),
    };
    query.done()?;
    let (hub, who) = (asked.gate().hub.clone(), asked.who());
    Ok(live::events(asked.request().clone(), hub, who, wished).await?)
}
