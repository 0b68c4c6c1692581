//! Invariants of invoices and money, and the facts that other domains must agree with.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::BigInt;

use super::InvoiceRow;
use crate::contract::payments::OUT_OF_STOCK;
use crate::contract::payments::{InvoiceFacts, InvoiceLine, InvoiceSelection, ReturnLine};
use crate::domains::payments::model::{RefundState, format_number};
use crate::domains::payments::schema::{invoice, refund, unapplied_payment};
use crate::messaging::FACTS_PAGE_SIZE;
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{InvoiceId, ProductId, Quantity, Timestamp};

/// Remedy for a mismatch that may involve real money.
const COMPARE_WITH_PROVIDER: &str = "compare with the provider's records before anything is paid or refunded manually";

/// Invariants of this domain's database.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("invoices", "invoice"), ("payments", "payment"), ("refunds", "refund")],
    rules: &[
        Invariant {
            violation: "invoice total must equal the sum of its lines, delivery and added tax",
            remedy: RESTORE,
            sql: Sql::PerBackend {
                sqlite: "SELECT id || ' has total ' || total AS found FROM invoice
                    WHERE total - COALESCE(json_extract(shipping, '$.price'), 0) - CASE WHEN tax_included THEN 0 ELSE tax END <> (
                    SELECT COALESCE(SUM(json_extract(value, '$.unit_price') * json_extract(value, '$.quantity')), 0)
                    FROM json_each(lines))",
                postgres: "SELECT id || ' has total ' || total AS found FROM invoice
                    WHERE total - COALESCE(CAST(CAST(shipping AS jsonb) ->> 'price' AS BIGINT), 0)
                    - CASE WHEN tax_included THEN 0 ELSE tax END <> (
                    SELECT COALESCE(SUM(CAST(l ->> 'unit_price' AS BIGINT) * CAST(l ->> 'quantity' AS BIGINT)), 0)
                    FROM jsonb_array_elements(CAST(lines AS jsonb)) l)",
            },
        },
        Invariant {
            violation: "invoice numbers must be consecutive",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT i.number || ' of ' || i.id AS found FROM invoice i
                  WHERE i.number <> 1 AND NOT EXISTS (SELECT 1 FROM invoice b WHERE b.number = i.number - 1)"),
        },
        Invariant {
            violation: "the invoice counter must equal the highest invoice number",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT 'counter ' || value || ', highest number ' || (SELECT COALESCE(MAX(number), 0) FROM invoice)
                  AS found FROM counter WHERE name = 'invoice' AND value <> (SELECT COALESCE(MAX(number), 0) FROM invoice)"),
        },
        Invariant {
            violation: "paid invoice must have exactly one captured payment",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT id || ' has ' || n AS found FROM (SELECT i.id, COUNT(p.id) AS n FROM invoice i
                  LEFT JOIN payment p ON p.invoice_id = i.id AND p.state = 'captured'
                  WHERE i.status IN ('paid', 'refunded') AND i.imported IS NOT TRUE GROUP BY i.id HAVING COUNT(p.id) <> 1) x"),
        },
        Invariant {
            violation: "unpaid invoice must not have a captured payment",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT i.id || ' is ' || i.status || ', payment ' || p.id AS found FROM payment p
                  JOIN invoice i ON i.id = p.invoice_id
                  WHERE p.state = 'captured' AND i.status NOT IN ('paid', 'refunded')"),
        },
        Invariant {
            violation: "payment must have the amount and currency of its invoice",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT p.id || ' over ' || p.amount || ' of ' || i.total || ' for ' || i.id AS found FROM payment p
                  JOIN invoice i ON i.id = p.invoice_id WHERE p.amount <> i.total OR p.currency <> i.currency"),
        },
        Invariant {
            violation: "late money of an invoice must equal what was sent back of it",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT i.id || ' has ' || i.returned_late || ' of ' || COALESCE(u.amount, 0) AS found FROM invoice i
                  LEFT JOIN (SELECT invoice_id, SUM(amount) AS amount FROM unapplied_payment WHERE ended_at IS NOT NULL
                             GROUP BY invoice_id) u ON u.invoice_id = i.id
                  WHERE i.returned_late <> COALESCE(u.amount, 0)"),
        },
        Invariant {
            violation: "invoice must have a payment time exactly if it is paid",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || status AS found FROM invoice
                  WHERE (status IN ('paid', 'refunded')) <> (paid_at IS NOT NULL)"),
        },
        Invariant {
            violation: "refunded amount must equal the sum of the refunds",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT i.id || ' has ' || i.refunded || ' and ' || i.refunding || ' in progress, its refunds '
                         || COALESCE(r.done, 0) || ' and ' || COALESCE(r.open, 0) AS found FROM invoice i
                  LEFT JOIN (SELECT invoice_id, SUM(CASE WHEN state = 'done' THEN amount ELSE 0 END) AS done,
                             SUM(CASE WHEN state = 'processing' THEN amount ELSE 0 END) AS open
                             FROM refund GROUP BY invoice_id) r ON r.invoice_id = i.id
                  WHERE i.refunding <> COALESCE(r.open, 0) OR (i.refunded <> COALESCE(r.done, 0)
                  AND NOT (i.imported IS TRUE AND i.status = 'refunded' AND r.invoice_id IS NULL))"),
        },
        Invariant {
            violation: "refunded more than was captured",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT id || ' of ' || total || ': ' || refunded || ' and ' || refunding AS found FROM invoice
                  WHERE refunded + refunding > total OR refunded < 0 OR refunding < 0
                  OR (status NOT IN ('paid', 'refunded') AND refunded + refunding > 0)"),
        },
        Invariant {
            violation: "invoice must be refunded exactly if its whole total is",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT id || ' is ' || status || ', ' || refunded || ' of ' || total AS found FROM invoice
                  WHERE (status = 'refunded' AND refunded <> total)
                  OR (status = 'paid' AND total > 0 AND refunded = total)"),
        },
        Invariant {
            violation: "invoice and payment must agree on the attempt in progress",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT i.id AS found FROM invoice i LEFT JOIN payment p ON p.id = i.processing
                  WHERE i.processing IS NOT NULL
                  AND (p.id IS NULL OR p.state <> 'processing' OR p.invoice_id <> i.id OR i.status <> 'open')
                  UNION ALL SELECT p.invoice_id FROM payment p JOIN invoice i ON i.id = p.invoice_id
                  WHERE p.state = 'processing' AND i.processing IS DISTINCT FROM p.id"),
        },
        Invariant {
            violation: "payment or refund must have an end time exactly if it has ended",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM payment WHERE (state = 'processing') <> (ended_at IS NULL)
                  UNION ALL
                  SELECT id || ' is ' || state FROM refund WHERE (state = 'processing') <> (ended_at IS NULL)"),
        },
        Invariant {
            violation: "the test provider captured money without a payment",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT b.key || ' over ' || b.amount || ' for ' || b.about AS found FROM test_provider_book b
                  LEFT JOIN payment p ON p.id = b.key
                  WHERE b.kind = 'capture' AND (p.id IS NULL OR p.state = 'failed' OR p.amount <> b.amount
                  OR p.currency <> b.currency OR p.invoice_id <> b.about)"),
        },
        Invariant {
            violation: "the test provider captured an invoice more than once",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT about || ': ' || COUNT(*) || ' times' AS found FROM test_provider_book
                  WHERE kind = 'capture' GROUP BY about HAVING COUNT(*) > 1"),
        },
        Invariant {
            violation: "the test provider refunded money without a capture or a refund",
            remedy: COMPARE_WITH_PROVIDER,
            sql: Sql::Shared("SELECT b.key || ' over ' || b.amount AS found FROM test_provider_book b
                  LEFT JOIN refund r ON r.id = b.key LEFT JOIN test_provider_book c ON c.key = b.about AND c.kind = 'capture'
                  WHERE b.kind = 'refund' AND (c.key IS NULL OR r.id IS NULL OR r.state = 'failed' OR r.amount <> b.amount)
                  UNION ALL
                  SELECT b.about || ': ' || SUM(b.amount) || ' back' FROM test_provider_book b
                  JOIN test_provider_book c ON c.key = b.about AND c.kind = 'capture' WHERE b.kind = 'refund'
                  GROUP BY b.about, c.amount HAVING SUM(b.amount) > c.amount"),
        },
    ],
};

/// Lists facts of invoices.
pub fn invoices(conn: &mut Conn, which: InvoiceSelection) -> QueryResult<Vec<InvoiceFacts>> {
    let query = invoice::table.select(InvoiceRow::as_select());
    let rows: Vec<InvoiceRow> = match which {
        InvoiceSelection::These(ids) => query.filter(invoice::id.eq_any(ids)).load(conn)?,
        InvoiceSelection::OfHolds(holds) => {
            query.filter(invoice::hold.eq_any(holds.into_iter().map(Some))).load(conn)?
        }
        InvoiceSelection::After(None) => query.order(invoice::id).limit(FACTS_PAGE_SIZE as i64).load(conn)?,
        InvoiceSelection::After(Some(after)) => {
            query.filter(invoice::id.gt(after)).order(invoice::id).limit(FACTS_PAGE_SIZE as i64).load(conn)?
        }
    };
    let ids: Vec<InvoiceId> = rows.iter().map(|row| row.id).collect();
    let refunds: Vec<(InvoiceId, RefundState, bool, String, Option<String>)> = refund::table
        .filter(refund::invoice_id.eq_any(ids))
        .select((refund::invoice_id, refund::state, refund::restock, refund::reason, refund::lines))
        .load(conn)?;
    let late: Vec<InvoiceId> = unapplied_payment::table
        .filter(unapplied_payment::invoice_id.eq_any(rows.iter().map(|row| row.id)))
        .filter(unapplied_payment::ended_at.is_not_null())
        .select(unapplied_payment::invoice_id)
        .load(conn)?;
    let mut facts = Vec::with_capacity(rows.len());
    for row in rows {
        let lines: Vec<InvoiceLine> = from_text(&row.lines)?;
        let mut sold: BTreeMap<ProductId, Quantity> = BTreeMap::new();
        for line in lines {
            if let Some(product) = line.product_id {
                *sold.entry(product).or_default() += line.quantity;
            }
        }
        let own = || refunds.iter().filter(|(id, ..)| *id == row.id);
        let done = || own().filter(|(_, state, ..)| *state == RefundState::Done);
        let mut returned: BTreeMap<ProductId, Quantity> = BTreeMap::new();
        for (.., lines) in done().filter(|(_, _, restock, ..)| *restock) {
            let lines =
                lines.as_deref().map(serde_json::from_str::<Vec<ReturnLine>>).transpose().map_err(malformed_row)?;
            for line in lines.unwrap_or_default() {
                *returned.entry(line.product_id).or_default() += line.quantity;
            }
        }
        facts.push(InvoiceFacts {
            id: row.id,
            number: format_number(row.number),
            user_id: row.user_id,
            status: row.status,
            imported: row.imported,
            has_email: row.email.is_some(),
            hold: row.hold,
            checkout: row.checkout,
            restocked: !sold.is_empty() && returned == sold,
            goods: sold.into_iter().collect(),
            expires_at: row.expires_at,
            paid_at: row.paid_at,
            refunds: i64::try_from(done().count() + late.iter().filter(|id| **id == row.id).count())
                .unwrap_or(i64::MAX),
            unkept: own().any(|(_, _, _, reason, _)| reason == OUT_OF_STOCK),
        });
    }
    Ok(facts)
}

/// Counts the paid invoices per UTC day.
pub fn paid_by_day(conn: &mut Conn) -> QueryResult<Vec<(Timestamp, i64)>> {
    #[derive(QueryableByName)]
    struct DayRow {
        #[diesel(sql_type = BigInt)]
        day: Timestamp,
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let days: Vec<DayRow> = sql_query(
        "SELECT paid_at - paid_at % 86400000000 AS day, COUNT(*) AS n FROM invoice WHERE paid_at IS NOT NULL GROUP BY 1",
    )
    .load(conn)?;
    Ok(days.into_iter().map(|DayRow { day, n }| (day, n)).collect())
}
