//! Handlers of `/log`, `/stats/summary` and `/counter`.

use serde_json::json;

use super::body::{ServerSetFields, UnreadBody};
use super::extract::{ApiRequest, PublicApiRequest};
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::stats::{GetSummary, ListActions, LogAction};

impl ServerSetFields for LogAction {}

/// POST `/log`.
pub async fn log(PublicApiRequest(request): PublicApiRequest, body: UnreadBody) -> ApiResult {
    let message: LogAction = body.json(&request).await?;
    request.clients().stats.call(request.ctx(), message).await?;
    request.accepted(&json!({ "status": "accepted" }))
}

/// GET `/log`.
pub async fn actions(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = ListActions {
        from: query.time("from"),
        to: query.time("to"),
        action: query.text("action"),
        user_id: query.id("user_id"),
        page: query.page(),
    };
    query.finish()?;
    let page = request.clients().stats.call(request.ctx(), message).await?;
    request.page(page.next.as_ref(), &page)
}

/// GET `/stats/summary`.
pub async fn summary(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let message = GetSummary {
        from: query.time("from"),
        to: query.time("to"),
        bucket: query.one_of("bucket", "must be hour, day, week or month"),
    };
    query.finish()?;
    request.ok(&request.clients().stats.call(request.ctx(), message).await?)
}

/// GET `/counter`.
pub async fn counter(request: ApiRequest) -> ApiResult {
    let count = request.state().served.total(request.ctx()).await?;
    request.ok(&json!({ "count": count }))
}
