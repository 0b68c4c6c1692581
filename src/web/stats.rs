//! `/log`, `/stats/summary`, `/counter`.

use serde_json::json;

use super::asked::{ApiRequest, ApiResult, PublicApiRequest};
use super::input::{Query, ServerSetFields, UnreadBody};
use crate::contract::stats::{GetSummary, ListActions, LogAction};

impl ServerSetFields for LogAction {}

/// POST `/log`.
pub async fn log(PublicApiRequest(asked): PublicApiRequest, sent: UnreadBody) -> ApiResult {
    let request: LogAction = sent.json(&asked).await?;
    asked.clients().stats.call(asked.ctx(), request).await?;
    asked.accepted(&json!({ "status": "accepted" }))
}

/// GET `/log`.
pub async fn actions(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = ListActions {
        from: query.time("from"),
        to: query.time("to"),
        action: query.text("action"),
        user_id: query.id("user_id"),
        page: query.page(),
    };
    query.done()?;
    let page = asked.clients().stats.call(asked.ctx(), request).await?;
    asked.page(page.next.as_ref(), &page)
}

/// GET `/stats/summary`.
pub async fn summary(asked: ApiRequest) -> ApiResult {
    let mut query = Query::of(asked.request());
    let request = GetSummary {
        from: query.time("from"),
        to: query.time("to"),
        bucket: query.word("bucket", "must be hour, day, week or month").unwrap_or_default(),
    };
    query.done()?;
    asked.ok(&asked.clients().stats.call(asked.ctx(), request).await?)
}

/// GET `/counter`.
pub async fn counter(asked: ApiRequest) -> ApiResult {
    let count = asked.gate().served(asked.ctx()).await?;
    asked.ok(&json!({ "count": count }))
}
