//! `/domains/{name}/move`.

use std::time::Duration;

use serde::Deserialize;

use super::asked::{Answer, Asked};
use super::input::{ReadOnly, Sent};
use crate::app::MoveDomain;

/// How long a move may take. A large database is copied while everybody waits.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where a domain is to go; which one says the path.
#[derive(Deserialize)]
pub struct Destination {
    to: String,
}

impl ReadOnly for Destination {}

/// POST `/domains/{name}/move`.
pub async fn move_domain(asked: Asked, sent: Sent) -> Answer {
    let domain = asked.request().match_info().get("name").unwrap_or_default().to_owned();
    asked.may(&MoveDomain { domain: domain.clone(), to: String::new() })?;
    let Destination { to } = sent.json(&asked).await?;
    let moved = asked.clients().placement.call(asked.ctx().within(PATIENCE), MoveDomain { domain, to }).await?;
    asked.ok(&moved)
}
