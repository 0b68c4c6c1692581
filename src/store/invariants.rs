//! What a domain finds wrong with its own books: rules that each say, as one query, what would break them, and what
//! every database must be whatever the domain. Asked by `mercat check`; nothing is changed by it.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use super::outbox::BROKER_CURSOR;
use super::query::*;
use super::{Conn, Store};
use crate::messaging::{CheckInvariants, CommonError, InvariantReport, Violation};
use crate::types::Timestamp;

/// How many breaches of one rule are told one by one; the rest would say nothing new.
const REPORTED_MAX: usize = 50;
/// Where a file is broken or a promise is: there is no way to mend it by hand that is safe in general.
pub const RESTORE: &str = "keep a copy of the folder, then restore the last backup with `mercat restore`";

/// Something that must always hold, as a query for what breaks it: one text column named `found`. `{now}` in it is the
/// present instant in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// What is wrong where the query finds something.
    pub what: &'static str,
    /// What to do then.
    pub remedy: &'static str,
    /// The query.
    pub sql: Sql,
}

/// A query of a rule.
#[derive(Debug, Clone, Copy)]
pub enum Sql {
    /// The same words for either database.
    Shared(&'static str),
    /// Other words for each; where one is empty, there is no such rule.
    PerBackend {
        /// For a file.
        sqlite: &'static str,
        /// For a server.
        postgres: &'static str,
    },
}

impl Sql {
    const fn of(self, postgres: bool) -> &'static str {
        match self {
            Self::Shared(sql) | Self::PerBackend { sqlite: sql, .. } if !postgres => sql,
            Self::Shared(sql) | Self::PerBackend { postgres: sql, .. } => sql,
        }
    }
}

/// What a domain's books are checked for.
#[derive(Debug, Clone, Copy)]
pub struct Invariants {
    /// What must hold.
    pub rules: &'static [Invariant],
    /// What is counted as looked at: the word people know it by, and its table.
    pub counted: &'static [(&'static str, &'static str)],
}

/// What every domain's database must be.
const COMMON_INVARIANTS: &[Invariant] = &[
    Invariant {
        what: "the database file is damaged",
        remedy: RESTORE,
        sql: Sql::PerBackend {
            sqlite: "SELECT integrity_check AS found FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
            // The server looks after its own pages.
            postgres: "",
        },
    },
    Invariant {
        what: "a row refers to another that is not there",
        remedy: RESTORE,
        sql: Sql::PerBackend {
            sqlite: "SELECT \"table\" || ' row ' || COALESCE(rowid, '?') || ' to ' || parent AS found
                     FROM pragma_foreign_key_check",
            postgres: "",
        },
    },
    Invariant {
        what: "a subscriber has heard of events that never were",
        remedy: "the databases are of different moments: restore all of them from one backup",
        sql: Sql::PerBackend {
            sqlite: "SELECT subscriber || ' heard up to ' || seq AS found FROM outbox_cursor
                     WHERE seq > COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)",
            postgres: "SELECT subscriber || ' heard up to ' || seq AS found FROM outbox_cursor
                       WHERE seq > (SELECT last_value FROM outbox_seq)",
        },
    },
    Invariant {
        what: "an event had no effect and was set aside",
        remedy: "see its reason, then mend by hand what it should have done, and report it as a bug",
        sql: Sql::Shared("SELECT name || ' ' || event_id || ': ' || reason AS found FROM dead_letter ORDER BY at"),
    },
];

#[derive(QueryableByName)]
struct ViolationRow {
    #[diesel(sql_type = Text)]
    found: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Store {
    /// Looks at the books as `audit` asks.
    pub async fn audit(&self, audit: CheckInvariants, books: Invariants) -> Result<InvariantReport, CommonError> {
        let (domain, now) = (self.domain(), self.now());
        self.read(move |conn| {
            if conn.is_postgres() {
                return conn.transaction(|conn| look(conn, domain, now, &audit, books));
            }
            // Sums over a large shop are sorted in a file: the check must not need more memory as the shop grows.
            conn.batch_execute("PRAGMA temp_store = FILE")?;
            // One transaction, so that all is of one moment while others write.
            let audited = conn.transaction(|conn| look(conn, domain, now, &audit, books));
            conn.batch_execute("PRAGMA temp_store = MEMORY")?;
            audited
        })
        .await
    }
}

fn look(
    conn: &mut Conn,
    domain: &str,
    now: Timestamp,
    audit: &CheckInvariants,
    books: Invariants,
) -> Result<InvariantReport, CommonError> {
    let number = |conn: &mut Conn, sql: String| sql_query(sql).get_result::<Number>(conn).map(|row| row.n);
    let postgres = conn.is_postgres();
    let head = if postgres {
        // Those without a number get one that is at least so large.
        "SELECT COALESCE(MAX(seq), 0) + COUNT(*) FILTER (WHERE seq IS NULL) AS n FROM outbox"
    } else {
        "SELECT COALESCE(MAX(seq), 0) AS n FROM sqlite_sequence WHERE name = 'outbox'"
    };
    let head = number(conn, head.to_owned())?;
    let mut audited =
        InvariantReport { now, faults: Vec::new(), looked_at: BTreeMap::new(), head, heard: BTreeMap::new() };
    for subscriber in &audit.subscribers {
        // What the broker has confirmed is on its way to all of them, each by its own queue: nobody here knows more.
        let heard = sql_query("SELECT COALESCE(MAX(seq), 0) AS n FROM outbox_cursor WHERE subscriber IN ($1, $2)")
            .bind::<Text, _>(subscriber)
            .bind::<Text, _>(BROKER_CURSOR)
            .get_result::<Number>(conn)?;
        audited.heard.insert(subscriber.clone(), heard.n);
    }
    if !audit.deep {
        return Ok(audited);
    }
    for (word, table) in books.counted {
        let count = number(conn, format!("SELECT COUNT(*) AS n FROM {table}"))?;
        audited.looked_at.insert((*word).to_owned(), count);
    }
    for rule in COMMON_INVARIANTS.iter().chain(books.rules) {
        let sql = rule.sql.of(postgres);
        if sql.is_empty() {
            continue;
        }
        let sql = format!("{} LIMIT {}", sql.replace("{now}", &now.micros().to_string()), REPORTED_MAX + 1);
        let mut found: Vec<ViolationRow> = sql_query(sql).load(conn).inspect_err(|_| {
            log::error!("{domain}: it cannot be said whether {}", rule.what);
        })?;
        if found.len() > REPORTED_MAX {
            found.truncate(REPORTED_MAX);
            found.push(ViolationRow { found: "and more".to_owned() });
        }
        audited.faults.extend(found.into_iter().map(|ViolationRow { found }| Violation {
            domain: domain.to_owned(),
            what: rule.what.to_owned(),
            found,
            remedy: rule.remedy.to_owned(),
        }));
    }
    Ok(audited)
}
