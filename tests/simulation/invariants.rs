//! Invariants across the databases of all domains, the provider's ledger and the replies that callers observed.
//!
//! Queries read the database files directly and not through the domains, so that no domain vouches for its own data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use mercat::store::Prepare;
use mercat::types::{ProductId, Quantity};

use super::customer_workload::{CartStep, Operation, Population};
use super::fake_provider::LedgerEntry;
use super::fault_injector::SimFaults;

/// Databases with the schema names that the queries use.
const DATABASES: [(&str, &str); 7] = [
    ("payments", "p"),
    ("catalog", "c"),
    ("cart", "k"),
    ("mailer", "m"),
    ("stats", "s"),
    ("notifications", "n"),
    ("comments", "o"),
];

/// Selects workflows that have not reached a final state.
const UNFINISHED: &str = "
    SELECT 'payment ' || id AS evidence FROM p.payment WHERE ended_at IS NULL
    UNION ALL SELECT 'refund ' || id FROM p.refund WHERE ended_at IS NULL
    UNION ALL SELECT 'checkout ' || id FROM k.checkout WHERE state IN ('started', 'held') OR release_due";

/// Names and queries; a query returns one row per violation. A refunded invoice counts as paid.
const INVARIANTS: &[(&str, &str)] = &[
    ("P13: invoice numbers have no gap", "
        SELECT count(*) || ' invoices, the last is ' || coalesce(max(number), 0) AS evidence FROM p.invoice
        HAVING count(*) <> coalesce(max(number), 0) OR count(*) <> (SELECT value FROM p.counter WHERE name = 'invoice')"),
    ("P9: the total is the sum of the lines", "
        SELECT id AS evidence FROM p.invoice WHERE total <> (SELECT sum(json_extract(value, '$.quantity')
            * json_extract(value, '$.unit_price')) FROM json_each(lines))"),
    ("P14: an invoice is paid by exactly one capture", "
        SELECT id || ' ' || status AS evidence FROM p.invoice i WHERE (status IN ('paid', 'refunded'))
            <> ((SELECT count(*) FROM p.payment y WHERE y.invoice_id = i.id AND y.state = 'captured') = 1)"),
    ("P9: what is captured is the total", "
        SELECT y.id AS evidence FROM p.payment y JOIN p.invoice i ON i.id = y.invoice_id WHERE y.amount <> i.total"),
    ("P11: every capture at the provider is known to the shop", "
        SELECT b.key || ' ' || b.about AS evidence FROM provider b LEFT JOIN p.payment y ON y.id = b.key AND y.state = 'captured'
        WHERE b.kind = 'capture' AND (y.id IS NULL OR y.amount <> b.amount OR y.invoice_id <> b.about)"),
    ("P14: every captured payment is captured at the provider", "
        SELECT y.id AS evidence FROM p.payment y WHERE y.state = 'captured'
            AND NOT EXISTS (SELECT 1 FROM provider b WHERE b.key = y.id AND b.kind = 'capture')"),
    ("P14: an invoice has at most one capture at the provider", "
        SELECT about AS evidence FROM provider WHERE kind = 'capture' GROUP BY about HAVING count(*) > 1"),
    ("P13: refunds of the provider and of the shop are the same", "
        SELECT b.key AS evidence FROM provider b LEFT JOIN p.refund r ON r.id = b.key AND r.state = 'done'
        WHERE b.kind = 'refund' AND (r.id IS NULL OR r.amount <> b.amount)
        UNION ALL SELECT r.id FROM p.refund r WHERE r.state = 'done'
            AND NOT EXISTS (SELECT 1 FROM provider b WHERE b.key = r.id AND b.kind = 'refund')"),
    ("P13: refunds do not exceed the capture", "
        SELECT t.key AS evidence FROM provider t JOIN provider b ON b.about = t.key AND b.kind = 'refund'
        WHERE t.kind = 'capture' GROUP BY t.key HAVING sum(b.amount) > t.amount"),
    ("P13: an invoice's refunded amount is the sum of its refunds", "
        SELECT id AS evidence FROM p.invoice i WHERE refunding <> 0 OR (status = 'refunded') <> (refunded = total AND total > 0)
            OR refunded <> (SELECT coalesce(sum(amount), 0) FROM p.refund r WHERE r.invoice_id = i.id AND r.state = 'done')"),
    ("P7: stock is not negative", "SELECT id AS evidence FROM c.product WHERE stock < 0"),
    ("P14: stock is the sum of its movements", "
        SELECT id || ' has ' || stock AS evidence FROM c.product o
        WHERE stock <> (SELECT coalesce(sum(delta), 0) FROM c.stock_move v WHERE v.product_id = o.id)"),
    ("P14: each hold has moved its quantities exactly once", "
        SELECT h.id || ' ' || h.state AS evidence FROM c.hold h JOIN c.hold_line l ON l.hold_id = h.id
        WHERE (SELECT coalesce(sum(delta), 0) FROM c.stock_move v WHERE v.ref = h.id AND v.product_id = l.product_id)
            <> CASE WHEN h.state IN ('held', 'sold') THEN -l.quantity ELSE 0 END"),
    ("P14: a paid invoice's stock is sold, or the invoice is refunded", "
        SELECT i.id || ' ' || i.status || ' ' || coalesce(h.state, 'no hold') AS evidence
        FROM p.invoice i LEFT JOIN c.hold h ON h.id = i.hold
        WHERE i.hold IS NOT NULL AND i.status IN ('paid', 'refunded') AND coalesce(h.state, '') NOT IN ('sold', 'returned')
            AND i.status <> 'refunded'"),
    ("P14: sold stock belongs to a paid invoice", "
        SELECT h.id || ' ' || h.state AS evidence FROM c.hold h WHERE h.state IN ('sold', 'returned')
            AND NOT EXISTS (SELECT 1 FROM p.invoice i WHERE i.hold = h.id AND i.status IN ('paid', 'refunded'))"),
    ("P14: held stock belongs to an open invoice", "
        SELECT h.id AS evidence FROM c.hold h WHERE h.state = 'held'
            AND NOT EXISTS (SELECT 1 FROM p.invoice i WHERE i.hold = h.id AND i.status = 'open')"),
    ("P13: stock is returned exactly if its refund restocks", "
        SELECT h.id || ' ' || h.state AS evidence FROM c.hold h JOIN p.invoice i ON i.hold = h.id
        WHERE (h.state = 'returned') <> EXISTS (SELECT 1 FROM p.refund r
            WHERE r.invoice_id = i.id AND r.state = 'done' AND r.restock) AND h.state IN ('sold', 'returned')"),
    ("P9: held quantities equal the invoice's lines", "
        SELECT i.id AS evidence FROM p.invoice i, json_each(i.lines) l
        WHERE i.hold IS NOT NULL AND NOT EXISTS (SELECT 1 FROM c.hold_line h WHERE h.hold_id = i.hold
            AND h.product_id = json_extract(l.value, '$.product_id') AND h.quantity = json_extract(l.value, '$.quantity'))"),
    ("P14: a checkout's state follows its invoice", "
        SELECT k.id || ' ' || k.state || ' ' || coalesce(i.status, 'no invoice') AS evidence
        FROM k.checkout k LEFT JOIN p.invoice i ON i.checkout = k.id
        WHERE k.state <> CASE coalesce(i.status, '') WHEN '' THEN 'failed' WHEN 'open' THEN 'invoiced' WHEN 'paid' THEN 'paid'
            WHEN 'refunded' THEN 'paid' ELSE 'cancelled' END"),
    ("P14: one receipt per paid invoice", "
        SELECT i.id || ' ' || i.status || ' has ' || count(e.id) AS evidence FROM p.invoice i
        LEFT JOIN m.email e ON e.template = 'receipt' AND e.reference = i.id
        GROUP BY i.id HAVING count(e.id) > 1 OR (i.user_id NOT IN (SELECT user_id FROM erased)
            AND count(e.id) <> (i.status IN ('paid', 'refunded')))"),
    ("P14: one email per refund", "
        SELECT i.id AS evidence FROM p.invoice i WHERE i.user_id NOT IN (SELECT user_id FROM erased)
            AND (SELECT count(*) FROM m.email e WHERE e.template = 'refund' AND e.reference LIKE i.id || ':%')
                <> (SELECT count(*) FROM p.refund r WHERE r.invoice_id = i.id AND r.state = 'done')"),
    ("P14: one logged action per paid invoice", "
        SELECT i.id AS evidence FROM p.invoice i WHERE (i.status IN ('paid', 'refunded'))
            <> (SELECT count(*) FROM s.action a WHERE a.kind = 'order_paid' AND a.subject = i.id)"),
    ("P14: one logged action per refund", "
        SELECT i.id AS evidence FROM p.invoice i WHERE (SELECT count(*) FROM p.refund r WHERE r.invoice_id = i.id AND r.state = 'done')
            <> (SELECT count(*) FROM s.action a WHERE a.kind = 'order_refunded' AND a.subject = i.id)"),
    ("P14: statistics are the sums of the invoices", "
        SELECT 'orders, revenue' AS evidence FROM
            (SELECT count(*) AS orders, coalesce(sum(total - refunded), 0) AS revenue FROM p.invoice WHERE status IN ('paid', 'refunded')) i,
            (SELECT coalesce(sum(orders), 0) AS orders, coalesce(sum(revenue), 0) AS revenue FROM s.daily) d,
            (SELECT coalesce(sum(orders), 0) AS orders, coalesce(sum(revenue), 0) AS revenue FROM s.hourly) h
        WHERE i.orders <> d.orders OR i.revenue <> d.revenue OR i.orders <> h.orders OR i.revenue <> h.revenue"),
    ("P14: product sales are the sums of the paid invoices", "
        SELECT 'quantity' AS evidence WHERE (SELECT coalesce(sum(quantity), 0) FROM s.product_sales)
            <> (SELECT coalesce(sum(json_extract(l.value, '$.quantity')), 0) FROM p.invoice i, json_each(i.lines) l
                WHERE i.status IN ('paid', 'refunded'))"),
    ("P14: one notification per invoice event", "
        SELECT i.id || ' ' || i.status || ' ' || w.kind || ' ' || w.times AS evidence FROM p.invoice i JOIN (
            SELECT id, 'invoice_created' AS kind, 1 AS times FROM p.invoice
            UNION ALL SELECT id, 'invoice_paid', status IN ('paid', 'refunded') FROM p.invoice
            UNION ALL SELECT id, 'invoice_expired', status = 'expired' FROM p.invoice
            UNION ALL SELECT i.id, 'payment_failed', count(y.id) FROM p.invoice i
                LEFT JOIN p.payment y ON y.invoice_id = i.id AND y.state = 'failed' GROUP BY i.id
            UNION ALL SELECT i.id, 'invoice_refunded', count(r.id) FROM p.invoice i
                LEFT JOIN p.refund r ON r.invoice_id = i.id AND r.state = 'done' GROUP BY i.id
        ) w ON w.id = i.id
        WHERE i.user_id NOT IN (SELECT user_id FROM erased) AND w.times <> (SELECT count(*) FROM n.notification t
            WHERE t.user_id = i.user_id AND t.kind = w.kind AND json_extract(t.data, '$.invoice_id') = i.id)"),
    ("N1: a stream has no gap", "
        SELECT t.user_id AS evidence FROM n.stream t WHERE NOT t.erased
            AND t.seq <> (SELECT count(*) FROM n.notification o WHERE o.user_id = t.user_id)"),
    ("N2: no event is dead-lettered", "
        SELECT name || ' ' || reason AS evidence FROM p.dead_letter UNION ALL SELECT name || ' ' || reason FROM c.dead_letter
        UNION ALL SELECT name || ' ' || reason FROM k.dead_letter UNION ALL SELECT name || ' ' || reason FROM m.dead_letter
        UNION ALL SELECT name || ' ' || reason FROM s.dead_letter UNION ALL SELECT name || ' ' || reason FROM n.dead_letter
        UNION ALL SELECT name || ' ' || reason FROM o.dead_letter"),
    ("an erased user leaves no personal data", "
        SELECT 'cart of ' || user_id AS evidence FROM k.cart_item WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'notification of ' || user_id FROM n.notification WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'address on ' || id FROM p.invoice WHERE email IS NOT NULL AND user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'address on ' || id FROM k.checkout WHERE email IS NOT NULL AND user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'email to ' || user_id FROM m.email WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'comment by ' || user_id FROM o.comment WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'action of ' || user_id FROM s.action WHERE user_id IN (SELECT user_id FROM erased)"),
    ("P14: a product's rating is that of its comments", "
        SELECT d.id AS evidence FROM c.product d LEFT JOIN
            (SELECT product_id, sum(rating) AS sum, count(*) AS count FROM o.comment GROUP BY product_id) r ON r.product_id = d.id
        WHERE d.rating_sum <> coalesce(r.sum, 0) OR d.rating_count <> coalesce(r.count, 0)"),
    ("P14: an accepted comment exists exactly once", "
        SELECT a.about AS evidence FROM accepted a WHERE a.operation = 'comment'
            AND (SELECT count(*) FROM o.comment m WHERE m.id = a.about)
                <> NOT EXISTS (SELECT 1 FROM accepted d WHERE d.operation = 'uncomment' AND d.about = a.about)"),
    ("P14: an accepted checkout has its invoice", "
        SELECT a.about AS evidence FROM accepted a LEFT JOIN p.invoice i ON i.id = a.about
        WHERE a.operation = 'checkout' AND (i.id IS NULL OR i.total <> a.amount)"),
    ("P14: an accepted payment exists under its key", "
        SELECT a.key AS evidence FROM accepted a WHERE a.operation = 'pay' AND NOT EXISTS (SELECT 1 FROM p.payment y
            WHERE y.invoice_id = a.about AND y.key = a.key AND y.state = 'captured')"),
    ("P14: an accepted refund exists exactly once under its key", "
        SELECT a.key AS evidence FROM accepted a WHERE a.operation = 'refund' AND (SELECT count(*) FROM p.refund r
            WHERE r.invoice_id = a.about AND r.key = a.key AND r.state = 'done') <> 1"),
    ("P3: no key has refunded twice", "
        SELECT key AS evidence FROM p.refund WHERE state = 'done' AND key IS NOT NULL GROUP BY scope, key HAVING count(*) > 1"),
    ("P14: an accepted cancellation is final", "
        SELECT a.key || ' ' || i.status AS evidence FROM accepted a JOIN p.invoice i ON i.id = a.about
        WHERE a.operation IN ('cancel', 'void') AND i.status NOT IN ('void', 'expired')"),
    ("P1: a payment that captured is not reported as paid by another", "
        SELECT y.key AS evidence FROM p.payment y WHERE y.state = 'captured' AND y.key IN (SELECT key FROM already_paid)"),
    ("P8: a cart has the items that were added and not bought", "
        SELECT w.user_id || ' ' || w.product_id || ' ' || w.quantity || ' but ' || coalesce(i.quantity, 0) AS evidence
        FROM expected_cart w LEFT JOIN k.cart_item i ON i.user_id = w.user_id AND i.product_id = w.product_id
        WHERE w.quantity <> coalesce(i.quantity, 0)
        UNION ALL SELECT i.user_id || ' ' || i.product_id || ' 0 but ' || i.quantity FROM k.cart_item i
        WHERE i.user_id IN (SELECT user_id FROM settled)
            AND NOT EXISTS (SELECT 1 FROM expected_cart w WHERE w.user_id = i.user_id AND w.product_id = i.product_id)"),
];

#[derive(QueryableByName)]
struct Evidence {
    #[diesel(sql_type = Text)]
    evidence: String,
}

/// A connection with all database files attached.
pub struct CrossDomainInvariants(SqliteConnection);

impl CrossDomainInvariants {
    pub fn open(dir: &Path) -> Result<Self, String> {
        let mut conn = SqliteConnection::establish(":memory:").map_err(|e| e.to_string())?;
        let attached: String = DATABASES
            .iter()
            .map(|(domain, schema)| format!("ATTACH '{}' AS {schema};", dir.join(format!("{domain}.db")).display()))
            .collect();
        conn.batch_execute(&attached).map_err(|e| e.to_string())?;
        conn.batch_execute(
            "CREATE TEMP TABLE provider (key TEXT PRIMARY KEY, kind TEXT, about TEXT, amount BIGINT);
             CREATE TEMP TABLE erased (user_id TEXT PRIMARY KEY);
             CREATE TEMP TABLE settled (user_id TEXT PRIMARY KEY);
             CREATE TEMP TABLE accepted (key TEXT PRIMARY KEY, operation TEXT, about TEXT, amount BIGINT);
             CREATE TEMP TABLE already_paid (key TEXT PRIMARY KEY);
             CREATE TEMP TABLE expected_cart (user_id TEXT, product_id TEXT, quantity BIGINT);",
        )
        .map_err(|e| e.to_string())?;
        Ok(Self(conn))
    }

    fn rows(&mut self, query: &str) -> Result<Vec<String>, String> {
        let rows: Vec<Evidence> = sql_query(query).prepared().load(&mut self.0).map_err(|e| format!("{e}: {query}"))?;
        Ok(rows.into_iter().map(|row| row.evidence).collect())
    }

    pub fn unfinished(&mut self) -> Result<Vec<String>, String> {
        self.rows(UNFINISHED)
    }

    /// Whether no workflow is in progress. Undelivered events are not considered.
    pub fn is_quiescent(&mut self) -> Result<bool, String> {
        Ok(self.unfinished()?.is_empty())
    }

    /// Compares all databases with each other, with the provider's ledger and with the replies that callers observed.
    ///
    /// # Errors
    /// Names the first violated invariant with its evidence.
    pub fn check(&mut self, population: &Population, faults: &SimFaults) -> Result<(), String> {
        if let Some(violation) = faults.provider(|provider, _, _| provider.protocol_violations.first().cloned()) {
            return Err(format!("P13: the provider received an invalid call: {violation}"));
        }
        self.insert_evidence(population, faults)?;
        for (name, query) in INVARIANTS {
            let violations = self.rows(query)?;
            if !violations.is_empty() {
                return Err(format!("{name}: {}", violations.join("; ")));
            }
        }
        Ok(())
    }

    /// Checks that no invoice is open and no stock is held after everything has expired.
    pub fn check_end(&mut self) -> Result<(), String> {
        let left = self.rows(
            "SELECT 'invoice ' || id AS evidence FROM p.invoice WHERE status = 'open'
             UNION ALL SELECT 'hold ' || id FROM c.hold WHERE state = 'held'",
        )?;
        if left.is_empty() { Ok(()) } else { Err(format!("left open after expiry: {}", left.join(", "))) }
    }

    /// Adds the scenario's outcomes to the coverage counters.
    pub fn count(&mut self, faults: &SimFaults) -> Result<(), String> {
        let paid = self.rows("SELECT id AS evidence FROM p.invoice WHERE status IN ('paid', 'refunded')")?.len() as u64;
        let refunds = self.rows("SELECT reason AS evidence FROM p.refund WHERE state = 'done'")?;
        let late = self.rows("SELECT DISTINCT ref AS evidence FROM c.stock_move WHERE reason = 'sold'")?.len() as u64;
        let expired = self.rows("SELECT id AS evidence FROM p.invoice WHERE status = 'expired'")?.len() as u64;
        faults.count(|counters| {
            counters.paid += paid;
            counters.late_sales += late;
            counters.expired += expired;
            counters.refunds += refunds.len() as u64;
            counters.refused_sales += refunds.iter().filter(|reason| *reason == "out_of_stock").count() as u64;
        });
        Ok(())
    }

    /// Inserts the provider's ledger and the callers' observations into temporary tables.
    fn insert_evidence(&mut self, population: &Population, faults: &SimFaults) -> Result<(), String> {
        let mut sql = ["provider", "erased", "settled", "accepted", "already_paid", "expected_cart"]
            .map(|table| format!("DELETE FROM temp.{table};"))
            .concat();
        faults.provider(|provider, _, _| {
            for (key, entry) in &provider.ledger {
                let (kind, about, amount) = match entry {
                    LedgerEntry::Capture(invoice, amount) => ("capture", invoice.to_string(), *amount),
                    LedgerEntry::Refund(of, amount) => ("refund", of.clone(), *amount),
                    LedgerEntry::Refused(_) => ("refused", String::new(), 0),
                };
                sql += &format!("INSERT INTO provider VALUES ('{key}', '{kind}', '{about}', {amount});");
            }
        });
        let has_pending = |n: Option<usize>| {
            n.and_then(|n| population.customers.get(n)).is_some_and(|customer| !customer.pending.is_empty())
        };
        for (key, (pending, answer)) in &population.accepted {
            let amount = answer["total"].as_i64().unwrap_or_default();
            let (operation, about) = match &pending.operation {
                Operation::Checkout => ("checkout", answer["id"].as_str().unwrap_or_default().to_owned()),
                Operation::Pay { invoice, .. } => ("pay", invoice.to_string()),
                Operation::Refund { invoice, .. } => ("refund", invoice.to_string()),
                Operation::Void { invoice } => ("void", invoice.to_string()),
                Operation::Cancel { invoice } => {
                    ("cancel", invoice.map(|invoice| invoice.to_string()).unwrap_or_default())
                }
                // A pending operation may delete it.
                Operation::Comment { .. } if has_pending(pending.customer) => continue,
                Operation::Comment { .. } => ("comment", answer["id"].as_str().unwrap_or_default().to_owned()),
                Operation::Uncomment { comment, .. } => ("uncomment", comment.to_string()),
                _ => continue,
            };
            sql += &format!("INSERT INTO accepted VALUES ('{key}', '{operation}', '{about}', {amount});");
        }
        for key in &population.already_paid {
            sql += &format!("INSERT INTO already_paid VALUES ('{key}');");
        }
        let paid = self.rows("SELECT id AS evidence FROM p.invoice WHERE status IN ('paid', 'refunded')")?;
        for customer in &population.customers {
            if customer.erased {
                sql += &format!("INSERT INTO erased VALUES ('{}');", customer.user);
            } else if customer.pending.is_empty() {
                sql += &format!("INSERT INTO settled VALUES ('{}');", customer.user);
                for (product, quantity) in expected_cart(&customer.steps, &paid)? {
                    sql += &format!("INSERT INTO expected_cart VALUES ('{}', '{product}', {quantity});", customer.user);
                }
            }
        }
        self.0.batch_execute(&sql).map_err(|e| e.to_string())
    }
}

/// Expected content of a cart after these steps, given the paid invoices. Two steps of one batch may have been executed
/// in the other order.
fn expected_cart(steps: &[(u64, CartStep)], paid: &[String]) -> Result<BTreeMap<ProductId, Quantity>, String> {
    let (mut steps, mut swapped) = (steps.to_vec(), BTreeSet::new());
    loop {
        let (at, violation) = match replay_cart(&steps, paid) {
            Ok(cart) => return Ok(cart),
            Err(failure) => failure,
        };
        let pair = (at.saturating_sub(1)..=at).find(|&first| {
            steps.get(first + 1).is_some_and(|(batch, _)| *batch == steps[first].0 && swapped.insert(*batch))
        });
        match pair {
            Some(first) => steps.swap(first, first + 1),
            None => return Err(violation),
        }
    }
}

/// Replays steps in this order. Returns the content of the cart, or the first step that contradicts it.
fn replay_cart(steps: &[(u64, CartStep)], paid: &[String]) -> Result<BTreeMap<ProductId, Quantity>, (usize, String)> {
    let mut cart: BTreeMap<ProductId, Quantity> = BTreeMap::new();
    let mut last = None;
    let close_invoice = |cart: &mut BTreeMap<_, _>, last: &mut Option<String>| {
        if last.take().is_some_and(|invoice| paid.contains(&invoice)) {
            cart.clear();
        }
    };
    for (at, (_, step)) in steps.iter().enumerate() {
        // The cart could be changed again, so its invoice was final.
        close_invoice(&mut cart, &mut last);
        match step {
            CartStep::Put(product, quantity) => *cart.entry(*product).or_default() += quantity,
            CartStep::Set(product, quantity) => drop(cart.insert(*product, *quantity)),
            CartStep::CheckedOut(invoice, lines) => {
                cart.retain(|_, quantity| *quantity > 0);
                if *lines != cart {
                    return Err((
                        at,
                        format!("P9: invoice {invoice} has the lines {lines:?}, but the cart had {cart:?}"),
                    ));
                }
                last = Some(invoice.to_string());
            }
        }
    }
    close_invoice(&mut cart, &mut last);
    Ok(cart)
}
