//! `/healthz`, `/readyz`, `/health`: how the process is, for machines and people that watch.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::json;

use super::problem::Problem;
use super::state::GatewayState;
use crate::messaging::{Health, HealthStatus};
use crate::settings::DomainLocation;

/// How the shop is.
#[derive(Serialize)]
struct HealthReport {
    status: &'static str,
    domains: BTreeMap<&'static str, Health>,
}

/// GET `/healthz`: the process lives.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().insert_header(NO_STORE).json(json!({ "status": "up" }))
}

/// GET `/readyz`: whether it may get traffic. A domain that is down here stays down until the process is started anew,
/// so its traffic is better sent to another one. One that is down in another process is down for every gateway alike,
/// and comes back by itself.
pub async fn ready(gate: web::Data<GatewayState>) -> Result<HttpResponse, Problem> {
    let not_ready = |detail| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail));
    if gate.is_draining() {
        return not_ready("this process is on its way out");
    }
    if gate.clients.health().iter().any(|(_, health)| health.is_local() && health.status == HealthStatus::Down) {
        return not_ready("a part of the shop is down; see /health");
    }
    // One that cannot save still reads, which is more than none does.
    let read_only: Vec<_> =
        gate.clients.health().into_iter().filter(|(_, health)| health.read_only).map(|(name, _)| name).collect();
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(json!({ "status": "ready", "read_only": read_only })))
}

/// GET `/health`: each domain. The whole is down only when nothing that is switched on answers.
pub async fn report(gate: web::Data<GatewayState>) -> HttpResponse {
    // What runs elsewhere, nobody here knows where, is no matter of this process.
    let known = |name: &&'static str| gate.settings.domain(name).place != DomainLocation::RemoteUnspecified;
    let domains: BTreeMap<_, _> = gate.clients.health().into_iter().filter(|(name, _)| known(name)).collect();
    let on = || domains.values().map(|health| health.status).filter(|status| *status != HealthStatus::Off);
    let status = match (on().all(|status| status == HealthStatus::Up), on().all(|status| status == HealthStatus::Down))
    {
        (true, _) => "up",
        (_, true) => "down",
        _ => "degraded",
    };
    let code = if status == "down" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    HttpResponse::build(code).insert_header(NO_STORE).json(HealthReport { status, domains })
}

const NO_STORE: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
