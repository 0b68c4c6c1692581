//! Handler of `/domains/{name}/move`.

use std::time::Duration;

use serde::Deserialize;

use super::body::{ServerSetFields, UnreadBody};
use super::extract::ApiRequest;
use super::respond::ApiResult;
use crate::contract::placement::MoveDomain;

/// Timeout of a move. The domain is not available while a large database is copied.
const MOVE_TIMEOUT: Duration = Duration::from_secs(600);

/// Body of a move: the new place, `local` or an address, and the permit of the command line. The path names the domain.
#[derive(Deserialize)]
pub struct MoveDomainBody {
    to: String,
    permit: Option<String>,
}

impl ServerSetFields for MoveDomainBody {}

/// POST `/domains/{name}/move`.
pub async fn move_domain(request: ApiRequest, body: UnreadBody) -> ApiResult {
    let domain = request.http().match_info().get("name").unwrap_or_default().to_owned();
    request.authorize(&MoveDomain { domain: domain.clone(), to: String::new(), permit: None })?;
    let MoveDomainBody { to, permit } = body.json(&request).await?;
    let moved = request
        .clients()
        .placement
        .call(request.ctx().with_timeout(MOVE_TIMEOUT), MoveDomain { domain, to, permit })
        .await?;
    request.ok(&moved)
}
