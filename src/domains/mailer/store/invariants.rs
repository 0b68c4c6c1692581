//! What must hold of mails, and the facts that other domains must agree with.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::contract::mailer::EmailFacts;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::InvoiceId;

/// What must always hold here.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("mails", "email")],
    rules: &[
        Invariant {
            what: "a mail is in a state that there is not",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT id || ' is ' || status AS found FROM email WHERE status NOT IN ('queued', 'sent', 'kept', 'failed')",
            ),
        },
        Invariant {
            what: "a mail waits and nobody will ever send it, or is to be sent though it has ended",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT id || ' is ' || status AS found FROM email
                  WHERE (status = 'queued') <> (next_attempt_at IS NOT NULL)",
            ),
        },
        Invariant {
            what: "a mail was sent and does not say when, or the other way round",
            remedy: RESTORE,
            sql: Sql::Shared(
                "SELECT id || ' is ' || status AS found FROM email WHERE (status = 'sent') <> (sent_at IS NOT NULL)",
            ),
        },
    ],
};

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    receipts: i64,
    #[diesel(sql_type = BigInt)]
    refunds: i64,
    #[diesel(sql_type = BigInt)]
    waiting: i64,
}

/// Selection letters there are for invoices, in their order.
pub fn letters(conn: &mut Conn, invoices: &[InvoiceId]) -> QueryResult<Vec<EmailFacts>> {
    let mut facts = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        // `;` follows `:` in the order of texts, so this is all that begins with the id and `:`.
        let id = invoice.to_string();
        let row: Row = sql_query(
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
