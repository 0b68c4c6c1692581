//! Handlers of `/notifications`, `/ws` and `/events`.

use actix_web::web;

use super::extract::ApiRequest;
use super::live;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::notifications::{ListNotifications, MarkRead, NotificationsError};

/// GET `/notifications/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListNotifications { after: query.number("after"), page: query.page() };
    query.finish()?;
    let page = request.clients().notifications.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}

/// POST `/notifications/{id}/read`.
pub async fn mark_read(request: ApiRequest) -> ApiResult {
    let notification_id = request.path_id("id", NotificationsError::NotificationNotFound)?;
    request.clients().notifications.call(request.ctx(), MarkRead { notification_id }).await?;
    request.no_content()
}

/// GET `/ws`: turns the connection into a live session over WebSocket.
pub async fn websocket(request: ApiRequest, payload: web::Payload) -> ApiResult {
    let hub = request.state().hub.clone();
    Ok(live::start_websocket(request.http().clone(), payload, hub, request.principal(), request.ctx().network).await?)
}

/// GET `/events`: sends the same stream as server-sent events, for clients without WebSocket.
pub async fn sse(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let events = live::EventsQuery {
        topics: query.text("topics").unwrap_or_default(),
        epoch: query.text("epoch"),
        after: query.number("after"),
    };
    query.finish()?;
    let hub = request.state().hub.clone();
    Ok(live::start_sse(request.http().clone(), hub, request.principal(), request.ctx().network, events).await?)
}
