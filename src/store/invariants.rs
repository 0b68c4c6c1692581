//! Invariants of a domain's database as queries that find violations, and those that all domains share. Run by
//! `mercat check`.
//!
//! Contains: the queries' form and their execution. Does not contain: the domains' own rules, see their
//! `store/invariants.rs`. A check changes nothing.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use super::outbox::BROKER_CURSOR;
use super::query::*;
use super::{Conn, Store};
use crate::messaging::{CheckInvariants, CommonError, InvariantReport, Violation};
use crate::types::Timestamp;

/// Largest number of violations that are reported per invariant.
const REPORTED_MAX: usize = 50;
/// Remedy for damage that has no safe manual repair in general.
pub const RESTORE: &str = "keep a copy of the folder, then restore the last backup with `mercat restore`";

/// A condition that must always hold, with the query for rows that violate it: one text column named `found`. `{now}` in
/// the query stands for the current time in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// Description of the violation, for operators.
    pub violation: &'static str,
    /// Instruction for operators.
    pub remedy: &'static str,
    /// The query.
    pub sql: Sql,
}

/// SQL text of an invariant.
#[derive(Debug, Clone, Copy)]
pub enum Sql {
    /// One text for both backends.
    Shared(&'static str),
    /// A text per backend. Empty where the invariant does not apply.
    PerBackend {
        /// Text for SQLite.
        sqlite: &'static str,
        /// Text for PostgreSQL.
        postgres: &'static str,
    },
}

impl Sql {
    const fn text(self, is_postgres: bool) -> &'static str {
        match self {
            Self::Shared(sql) | Self::PerBackend { sqlite: sql, .. } if !is_postgres => sql,
            Self::Shared(sql) | Self::PerBackend { postgres: sql, .. } => sql,
        }
    }
}

/// All invariants of a domain.
#[derive(Debug, Clone, Copy)]
pub struct Invariants {
    /// Invariants of its own tables.
    pub rules: &'static [Invariant],
    /// Tables whose rows the report counts: (label for people, table).
    pub counted: &'static [(&'static str, &'static str)],
}

/// Invariants of the tables that every domain has.
const COMMON_INVARIANTS: &[Invariant] = &[
    Invariant {
        violation: "the database file is damaged",
        remedy: RESTORE,
        sql: Sql::PerBackend {
            sqlite: "SELECT integrity_check AS found FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
            // PostgreSQL checks its own pages.
            postgres: "",
        },
    },
    Invariant {
        violation: "row references a missing row",
        remedy: RESTORE,
        sql: Sql::PerBackend {
            sqlite: "SELECT \"table\" || ' row ' || COALESCE(rowid, '?') || ' to ' || parent AS found
                     FROM pragma_foreign_key_check",
            postgres: "",
        },
    },
    Invariant {
        violation: "subscriber cursor is beyond the last event",
        remedy: "the databases are from different backups: restore all of them from one",
        sql: Sql::PerBackend {
            sqlite: "SELECT subscriber || ' is at ' || seq AS found FROM outbox_cursor
                     WHERE seq > COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)",
            postgres: "SELECT subscriber || ' is at ' || seq AS found FROM outbox_cursor
                       WHERE seq > (SELECT last_value FROM outbox_seq)",
        },
    },
    Invariant {
        violation: "event could not be processed and was moved to dead_letter",
        remedy: "see its reason, apply its effect manually, and report it as a bug",
        sql: Sql::Shared("SELECT name || ' ' || event_id || ': ' || reason AS found FROM dead_letter ORDER BY at"),
    },
];

#[derive(QueryableByName)]
struct ViolationRow {
    #[diesel(sql_type = Text)]
    found: String,
}

#[derive(QueryableByName)]
struct IntegerRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Store {
    /// Checks the invariants. Without `deep` only reads the outbox and its cursors.
    pub(super) async fn check_invariants(
        &self,
        request: CheckInvariants,
        invariants: Invariants,
    ) -> Result<InvariantReport, CommonError> {
        let (domain, now) = (self.domain(), self.now());
        self.read(move |conn| {
            if conn.is_postgres() {
                return conn.transaction(|conn| run_query(conn, domain, now, &request, invariants));
            }
            // Sorts in a file, so that the memory of a check does not grow with the data.
            conn.batch_execute("PRAGMA temp_store = FILE")?;
            // One transaction, so that all queries see one snapshot.
            let report = conn.transaction(|conn| run_query(conn, domain, now, &request, invariants));
            conn.batch_execute("PRAGMA temp_store = MEMORY")?;
            report
        })
        .await
    }
}

fn run_query(
    conn: &mut Conn,
    domain: &str,
    now: Timestamp,
    request: &CheckInvariants,
    invariants: Invariants,
) -> Result<InvariantReport, CommonError> {
    let integer = |conn: &mut Conn, sql: String| sql_query(sql).get_result::<IntegerRow>(conn).map(|row| row.n);
    let is_postgres = conn.is_postgres();
    let head = if is_postgres {
        // Events without a number yet will get at least these.
        "SELECT COALESCE(MAX(seq), 0) + COUNT(*) FILTER (WHERE seq IS NULL) AS n FROM outbox"
    } else {
        "SELECT COALESCE(MAX(seq), 0) AS n FROM sqlite_sequence WHERE name = 'outbox'"
    };
    let head = integer(conn, head.to_owned())?;
    let mut report =
        InvariantReport { now, violations: Vec::new(), row_counts: BTreeMap::new(), head, cursors: BTreeMap::new() };
    for subscriber in &request.subscribers {
        // Events confirmed by the broker are in the queues of all subscribers, which this database does not see.
        let cursor = sql_query("SELECT COALESCE(MAX(seq), 0) AS n FROM outbox_cursor WHERE subscriber IN ($1, $2)")
            .bind::<Text, _>(subscriber)
            .bind::<Text, _>(BROKER_CURSOR)
            .get_result::<IntegerRow>(conn)?;
        report.cursors.insert(subscriber.clone(), cursor.n);
    }
    if !request.deep {
        return Ok(report);
    }
    for (label, table) in invariants.counted {
        let count = integer(conn, format!("SELECT COUNT(*) AS n FROM {table}"))?;
        report.row_counts.insert((*label).to_owned(), count);
    }
    for rule in COMMON_INVARIANTS.iter().chain(invariants.rules) {
        let sql = rule.sql.text(is_postgres);
        if sql.is_empty() {
            continue;
        }
        let sql = format!("{} LIMIT {}", sql.replace("{now}", &now.micros().to_string()), REPORTED_MAX + 1);
        let mut found: Vec<ViolationRow> = sql_query(sql).load(conn).inspect_err(|error| {
            log::error!("{domain}: invariant query failed: {}: {error}", rule.violation);
        })?;
        if found.len() > REPORTED_MAX {
            found.truncate(REPORTED_MAX);
            found.push(ViolationRow { found: "and more".to_owned() });
        }
        report.violations.extend(found.into_iter().map(|ViolationRow { found }| Violation {
            domain: domain.to_owned(),
            description: rule.violation.to_owned(),
            found,
            remedy: rule.remedy.to_owned(),
        }));
    }
    Ok(report)
}
