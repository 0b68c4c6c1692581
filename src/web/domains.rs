//! `/domains/{name}/move`.

use std::time::Duration;

use serde::Deserialize;

use super::asked::{ApiRequest, ApiResult};
use super::input::{ServerSetFields, UnreadBody};
use crate::app::MoveDomain;

/// How long a move may take. A large database is copied while everybody waits.
const MOVE_TIMEOUT: Duration = Duration::from_secs(600);

/// Where a domain is to go; which one says the path.
#[derive(Deserialize)]
pub struct MoveDomainBody {
    to: String,
}

impl ServerSetFields for MoveDomainBody {}

/// POST `/domains/{name}/move`.
pub async fn move_domain(asked: ApiRequest, sent: UnreadBody) -> ApiResult {
    let domain = asked.request().match_info().get("name").unwrap_or_default().to_owned();
    asked.may(&MoveDomain { domain: domain.clone(), to: String::new() })?;
    let MoveDomainBody { to } = sent.json(&asked).await?;
    let moved =
        asked.clients().placement.call(asked.ctx().with_timeout(MOVE_TIMEOUT), MoveDomain { domain, to }).await?;
    asked.ok(&moved)
}
