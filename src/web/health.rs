//! Handlers of `/healthz`, `/readyz` and `/health`: liveness, readiness and the state of each domain.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::json;

use super::problem::Problem;
use super::rate_limit::WithinLimits;
use super::state::GatewayState;
use crate::messaging::{Health, HealthStatus};
use crate::settings::DomainLocation;

/// Health of the shop and of each domain.
#[derive(Serialize)]
pub struct HealthReport {
    status: &'static str,
    /// State of the broker, if one carries the events.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<BrokerHealth>,
    domains: BTreeMap<&'static str, Health>,
}

/// State of the broker. While it is down, events wait in the outboxes and the shop sells on.
#[derive(Serialize)]
pub struct BrokerHealth {
    status: HealthStatus,
}

/// GET `/healthz`: 200 as long as the process runs.
pub async fn healthz(_: WithinLimits) -> HttpResponse {
    HttpResponse::Ok().insert_header(NO_STORE).json(json!({ "status": "up" }))
}

/// GET `/readyz`: 200 if the process may get traffic. A local domain that is down stays down until the process is
/// restarted, so its traffic belongs elsewhere; so does that of a process most of whose databases cannot be read. A domain
/// that is down in another process is down for every gateway alike, and recovers without a restart of this one.
pub async fn readyz(_: WithinLimits, state: web::Data<GatewayState>) -> Result<HttpResponse, Problem> {
    let not_ready = |detail| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail));
    if state.is_draining() {
        return not_ready("this process is on its way out");
    }
    if state.clients.health().iter().any(|(_, health)| health.is_local() && health.status == HealthStatus::Down) {
        return not_ready("a part of the shop is down; see /health");
    }
    // Most, because a domain that nothing has been asked of does not know. One alone leaves the process in service.
    let local: Vec<bool> = state
        .clients
        .health()
        .into_iter()
        .filter(|(_, health)| health.is_local())
        .map(|(_, health)| health.unreadable)
        .collect();
    if 2 * local.iter().filter(|unreadable| **unreadable).count() > local.len() {
        return not_ready("most databases of this process cannot be read; see /health");
    }
    // A domain that cannot write still answers reads, so it does not take the process out of service.
    let read_only: Vec<_> =
        state.clients.health().into_iter().filter(|(_, health)| health.read_only).map(|(name, _)| name).collect();
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(json!({ "status": "ready", "read_only": read_only })))
}

/// GET `/health`: each domain. The status is `down` only if no enabled domain answers.
pub async fn health(_: WithinLimits, state: web::Data<GatewayState>) -> HttpResponse {
    // A domain without a known place is not part of this process's health.
    let has_place = |name: &&'static str| state.settings.domain(name).place != DomainLocation::RemoteUnspecified;
    let domains: BTreeMap<_, _> = state.clients.health().into_iter().filter(|(name, _)| has_place(name)).collect();
    let broker = state.outboxes.is_broker_up();
    let on = || domains.values().map(|health| health.status).filter(|status| *status != HealthStatus::Off);
    let is_up = broker != Some(false) && on().all(|status| status == HealthStatus::Up);
    let status = match (is_up, on().all(|status| status == HealthStatus::Down)) {
        (true, _) => "up",
        (_, true) => "down",
        _ => "degraded",
    };
    let health_of = |is_up| if is_up { HealthStatus::Up } else { HealthStatus::Down };
    let broker = broker.map(|is_up| BrokerHealth { status: health_of(is_up) });
    let code = if status == "down" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    HttpResponse::build(code).insert_header(NO_STORE).json(HealthReport { status, broker, domains })
}

const NO_STORE: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
