//! Handler of `/audit`: the audit log of all domains, newest first.
//!
//! Each domain keeps the actions on its own data; here they are brought into one order.

use std::cmp::Reverse;

use actix_web::HttpResponse;
use actix_web::http::header;
use futures_util::future::try_join_all;

use super::extract::ApiRequest;
use super::query::Query;
use super::respond::ApiResult;
use crate::messaging::{AuditEntry, CommonError, HealthStatus, ListAuditEntries};
use crate::types::{AuditEntryId, Page, PageRequest, Timestamp, UserId};

/// Maximum number of entries of an export.
const EXPORT_MAX: i64 = 1_000;

/// GET `/audit`. With `Accept: text/csv` a file of the newest [`EXPORT_MAX`] entries before the cursor.
pub async fn list(request: ApiRequest) -> ApiResult {
    let mut query = Query::of(request.http());
    let (user_id, page) = (query.id("user_id"), query.page());
    query.finish()?;
    let accept = request.http().headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_csv = accept.is_some_and(|accept| accept.trim_start().starts_with("text/csv"));
    let limit = if is_csv { EXPORT_MAX } else { page.limit().map_err(CommonError::field)? };
    let page = entries(&request, user_id, &page, limit).await?;
    if is_csv { Ok(csv_file(&page.items)?) } else { request.page(page.next.as_ref(), &page) }
}

/// Reads the newest entries of every domain and merges them. A domain that is switched off has none.
async fn entries(
    request: &ApiRequest,
    user_id: Option<UserId>,
    page: &PageRequest,
    limit: i64,
) -> Result<Page<AuditEntry>, CommonError> {
    let before = page.after::<(Timestamp, AuditEntryId)>().map_err(CommonError::field)?;
    let message = ListAuditEntries { user_id, before, limit: limit + 1 };
    request.authorize(&message)?;
    let domains = request.clients().domains();
    let running = domains.into_iter().filter(|(_, client)| client.health().status != HealthStatus::Off);
    let calls = running.map(|(_, client)| client.list_audit_entries(request.ctx(), message.clone()));
    let mut entries: Vec<AuditEntry> = try_join_all(calls).await?.into_iter().flatten().collect();
    entries.sort_by_key(|entry| Reverse((entry.at, entry.id)));
    entries.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
    Ok(Page::from_overfetch(entries, limit, |entry| (entry.at, entry.id)))
}

fn csv_file(entries: &[AuditEntry]) -> Result<HttpResponse, CommonError> {
    let mut file = csv::Writer::from_writer(Vec::new());
    let failed = |error: String| {
        log::error!("web: the audit log cannot be written as CSV: {error}");
        CommonError::Internal
    };
    let columns = ["id", "at", "user_id", "role", "credential", "network", "request_id", "action", "subject", "change"];
    file.write_record(columns).map_err(|error| failed(error.to_string()))?;
    for entry in entries {
        let change = entry.change.as_ref().map(ToString::to_string).unwrap_or_default();
        let record = [
            entry.id.to_string(),
            entry.at.to_string(),
            entry.user_id.to_string(),
            entry.role.as_str().to_owned(),
            entry.credential.clone(),
            entry.network.clone().unwrap_or_default(),
            entry.request_id.clone(),
            entry.action.clone(),
            entry.subject.to_string(),
            change,
        ];
        file.write_record(record).map_err(|error| failed(error.to_string()))?;
    }
    let bytes = file.into_inner().map_err(|error| failed(error.to_string()))?;
    let name = (header::CONTENT_DISPOSITION, "attachment; filename=\"audit.csv\"");
    Ok(HttpResponse::Ok().content_type("text/csv; charset=utf-8").insert_header(name).body(bytes))
}
