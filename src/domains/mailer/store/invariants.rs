//! Invariants of emails, and the facts that other domains must agree with.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::contract::mailer::EmailFacts;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::InvoiceId;

/// Invariants of this domain's database.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("emails", "email")],
    rules: &[
        Invariant {
            violation: "unknown email status",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT id || ' is ' || status AS found FROM email WHERE status NOT IN ('queued', 'sent', 'kept', 'failed')",
            ),
        },
        Invariant {
            violation: "email must have a next attempt exactly if it is queued",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT id || ' is ' || status AS found FROM email
                  WHERE (status = 'queued') <> (next_attempt_at IS NOT NULL)",
            ),
        },
        Invariant {
            violation: "email must have a sending time exactly if it was sent",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT id || ' is ' || status AS found FROM email WHERE (status = 'sent') <> (sent_at IS NOT NULL)",
            ),
        },
    ],
};

#[derive(QueryableByName)]
struct EmailCountsRow {
    #[diesel(sql_type = BigInt)]
    receipts: i64,
    #[diesel(sql_type = BigInt)]
    refunds: i64,
    #[diesel(sql_type = BigInt)]
    waiting: i64,
}

/// Counts the emails per invoice, in the order of `invoices`.
pub fn emails(conn: &mut Conn, invoices: &[InvoiceId]) -> QueryResult<Vec<EmailFacts>> {
    let mut facts = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        // `;` follows `:` in ASCII, so the range contains all references that start with the id and `:`.
        let id = invoice.to_string();
        let row: EmailCountsRow = sql_query(
            "SELECT (SELECT COUNT(*) FROM email WHERE template = 'receipt' AND reference = $1) AS receipts,
             (SELECT COUNT(*) FROM email WHERE template = 'refund' AND reference >= $1 || ':' AND reference < $1 || ';')
             + (SELECT COUNT(*) FROM pending_email WHERE template = 'refund' AND reference >= $1 || ':'
                AND reference < $1 || ';') AS refunds,
             (SELECT COUNT(*) FROM pending_email WHERE template = 'receipt' AND reference = $1) AS waiting",
        )
        .bind::<Text, _>(id)
        .get_result(conn)?;
        facts.push(EmailFacts { receipts: row.receipts, refunds: row.refunds, waiting: row.waiting });
    }
    Ok(facts)
}
