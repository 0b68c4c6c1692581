//! The audit log of a domain: each action of staff, recorded in the transaction of its effect.
//!
//! Contains: what is recorded of a request, the table `audit`. An entry holds ids and no personal data of customers, so it
//! stays when a customer is erased.

use serde_json::{Map, Value, json};

use super::query::*;
use super::schema::audit;
use super::text_enum;
use super::{Conn, Store, Tx};
use crate::messaging::{Access, AuditEntry, CommonError, Credential, ListAuditEntries, Request, RequestContext, Role};
use crate::types::{AuditEntryId, Timestamp, UserId};

/// Requests that staff send as every user does, and that are not worth an entry.
const UNRECORDED: [&str; 1] = ["notifications.MarkRead"];
/// Maximum number of entries per reply.
const ENTRIES_MAX: i64 = 1_000;

/// Record of a request of staff.
#[derive(Debug, Clone)]
pub struct StaffAction {
    user_id: UserId,
    role: Role,
    credential: String,
    network: Option<String>,
    request_id: String,
    name: &'static str,
    subject: Value,
}

impl StaffAction {
    /// Returns the action of a request, or none if it is a read, not of staff, or about what staff do as customers.
    pub fn of<R: Request>(ctx: &RequestContext, request: &R) -> Option<Self> {
        let identity = ctx.identity().filter(|identity| identity.role.is_staff())?;
        if R::IS_READ || UNRECORDED.contains(&R::NAME) || matches!(request.access(), Access::Anyone | Access::Owner(_))
        {
            return None;
        }
        Some(Self {
            user_id: identity.user_id,
            role: identity.role,
            credential: match identity.credential {
                Credential::Session(_) => "session".to_owned(),
                Credential::ApiKey(key) => format!("api_key {key}"),
            },
            network: ctx.network.map(|network| network.to_string()),
            request_id: ctx.request_id.to_string(),
            name: R::NAME,
            subject: ids_of(request),
        })
    }
}

/// The ids in a request: the fields whose name ends in `id` and that are texts.
fn ids_of<R: Request>(request: &R) -> Value {
    let Ok(Value::Object(fields)) = serde_json::to_value(request) else { return json!({}) };
    let is_id = |name: &str, value: &Value| (name == "id" || name.ends_with("_id")) && value.is_string();
    Value::Object(fields.into_iter().filter(|(name, value)| is_id(name, value)).collect::<Map<_, _>>())
}

text_enum!(@columns Role);

/// A row of `audit`.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = audit)]
struct AuditRow {
    id: AuditEntryId,
    at: Timestamp,
    user_id: UserId,
    role: Role,
    credential: String,
    network: Option<String>,
    request_id: String,
    action: String,
    subject: String,
    change: Option<String>,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, at, user_id, role, credential, network, request_id, action, subject, change } = row;
        let parse = |text: &str| serde_json::from_str(text).unwrap_or_default();
        let (subject, change) = (parse(&subject), change.as_deref().map(parse));
        Self { id, at, user_id, role, credential, network, request_id, action, subject, change }
    }
}

impl Tx<'_> {
    /// Notes what an action changes, for the audit log if the action is one of staff. Must hold no personal data of
    /// customers, no secret and no long text.
    pub fn describe_change(&mut self, before: Value, after: Value) {
        self.change = Some(json!({ "before": before, "after": after }));
    }

    /// Records an action of staff with the change that was described, if there is one.
    pub fn record_action(&mut self, action: Option<&StaffAction>) -> Result<(), diesel::result::Error> {
        let change = self.change.take();
        let Some(action) = action.cloned() else { return Ok(()) };
        let StaffAction { user_id, role, credential, network, request_id, name, subject } = action;
        let row = AuditRow {
            id: AuditEntryId::new(),
            at: self.now,
            user_id,
            role,
            credential,
            network,
            request_id,
            action: name.to_owned(),
            subject: subject.to_string(),
            change: change.map(|change| change.to_string()),
        };
        diesel::insert_into(audit::table).values(row).execute(self.conn).map(drop)
    }
}

impl Store {
    /// Reads entries of the audit log, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn audit_entries(&self, request: ListAuditEntries) -> Result<Vec<AuditEntry>, CommonError> {
        let rows: Vec<AuditRow> = self.read(move |conn| Ok::<_, CommonError>(list(conn, &request)?)).await?;
        Ok(rows.into_iter().map(AuditEntry::from).collect())
    }
}

fn list(conn: &mut Conn, request: &ListAuditEntries) -> QueryResult<Vec<AuditRow>> {
    for_backend!(conn, c => {
        let mut query = audit::table.select(AuditRow::as_select()).into_boxed();
        if let Some(user) = request.user_id {
            query = query.filter(audit::user_id.eq(user));
        }
        if let Some((at, id)) = request.before {
            // `<=` first, so that the scan of the index starts there.
            query = query.filter(audit::at.le(at)).filter(audit::at.lt(at).or(audit::id.lt(id)));
        }
        let query = query.order((audit::at.desc(), audit::id.desc())).limit(request.limit.clamp(1, ENTRIES_MAX));
        diesel::RunQueryDsl::load(query, c)
    })
}
