//! `/log`, `/stats/summary`, `/counter`.

use serde_json::json;

use super::asked::{Answer, Asked, Open};
use super::input::{Query, ReadOnly, Sent};
use crate::contract::stats::{ListActions, LogAction, Summarize};

impl ReadOnly for LogAction {}

/// POST `/log`.
pub async fn log(Open(asked): Open, sent: Sent) -> Answer {
    let request: LogAction = sent.json(&asked).await?;
    asked.clients().stats.call(asked.ctx(), request).await?;
    asked.accepted(&json!({ "status": "accepted" }))
}

/// GET `/log`.
pub async fn actions(asked: Asked) -> Answer {
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
pub async fn summary(asked: Asked) -> Answer {
    let mut query = Query::of(asked.request());
    let request = Summarize {
        from: query.time("from"),
        to: query.time("to"),
        bucket: query.word("bucket", "must be hour, day, week or month").unwrap_or_default(),
    };
    query.done()?;
    asked.ok(&asked.clients().stats.call(asked.ctx(), request).await?)
}

/// GET `/counter`.
pub async fn counter(asked: Asked) -> Answer {
    let count = asked.gate().served(asked.ctx()).await?;
    asked.ok(&json!({ "count": count }))
}
