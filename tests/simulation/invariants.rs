//! The books of all rooms, side by side, and what must be true of them together. Read from the files, past the
//! domains: what they say of themselves is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use mercat::store::Prepare;
use mercat::types::{ProductId, Quantity};

use super::customer_workload::{CartStep, People, Want};
use super::fake_provider::Entry;
use super::fault_injector::FaultInjector;

/// The databases, and the short names they have here.
const ROOMS: [(&str, &str); 7] = [
    ("payments", "p"),
    ("catalog", "c"),
    ("cart", "k"),
    ("mailer", "m"),
    ("stats", "s"),
    ("notifications", "n"),
    ("comments", "o"),
];

/// What is not over: nobody may be told anything of it yet.
const UNDONE: &str = "
    SELECT 'payment ' || id AS what FROM p.payment WHERE ended_at IS NULL
    UNION ALL SELECT 'refund ' || id FROM p.refund WHERE ended_at IS NULL
    UNION ALL SELECT 'checkout ' || id FROM k.checkout WHERE state IN ('started', 'held') OR release_due";

/// Each gives a row for everything that breaks it. `paid` is an invoice that was paid, also one whose money went back.
const LAWS: &[(&str, &str)] = &[
    ("P13: invoice numbers have no gap", "
        SELECT count(*) || ' invoices, the last is ' || coalesce(max(number), 0) AS what FROM p.invoice
        HAVING count(*) <> coalesce(max(number), 0) OR count(*) <> (SELECT value FROM p.counter WHERE name = 'invoice')"),
    ("P9: the total is the sum of the lines", "
        SELECT id AS what FROM p.invoice WHERE total <> (SELECT sum(json_extract(value, '$.quantity')
            * json_extract(value, '$.unit_price')) FROM json_each(lines))"),
    ("P14: an invoice is paid by exactly one capture", "
        SELECT id || ' ' || status AS what FROM p.invoice i WHERE (status IN ('paid', 'refunded'))
            <> ((SELECT count(*) FROM p.payment y WHERE y.invoice_id = i.id AND y.state = 'captured') = 1)"),
    ("P9: what is captured is the total", "
        SELECT y.id AS what FROM p.payment y JOIN p.invoice i ON i.id = y.invoice_id WHERE y.amount <> i.total"),
    ("P11: the provider has taken no money that the shop does not know of", "
        SELECT b.key || ' ' || b.about AS what FROM bank b LEFT JOIN p.payment y ON y.id = b.key AND y.state = 'captured'
        WHERE b.kind = 'capture' AND (y.id IS NULL OR y.amount <> b.amount OR y.invoice_id <> b.about)"),
    ("P14: what the shop calls paid the provider has taken", "
        SELECT y.id AS what FROM p.payment y WHERE y.state = 'captured'
            AND NOT EXISTS (SELECT 1 FROM bank b WHERE b.key = y.id AND b.kind = 'capture')"),
    ("P14: an invoice has one capture in the provider's books", "
        SELECT about AS what FROM bank WHERE kind = 'capture' GROUP BY about HAVING count(*) > 1"),
    ("P13: what went back is in the provider's books and in the shop's", "
        SELECT b.key AS what FROM bank b LEFT JOIN p.refund r ON r.id = b.key AND r.state = 'done'
        WHERE b.kind = 'refund' AND (r.id IS NULL OR r.amount <> b.amount)
        UNION ALL SELECT r.id FROM p.refund r WHERE r.state = 'done'
            AND NOT EXISTS (SELECT 1 FROM bank b WHERE b.key = r.id AND b.kind = 'refund')"),
    ("P13: not more goes back than was captured", "
        SELECT t.key AS what FROM bank t JOIN bank b ON b.about = t.key AND b.kind = 'refund'
        WHERE t.kind = 'capture' GROUP BY t.key HAVING sum(b.amount) > t.amount"),
    ("P13: the sum of an invoice's refunds is what it says went back", "
        SELECT id AS what FROM p.invoice i WHERE refunding <> 0 OR (status = 'refunded') <> (refunded = total AND total > 0)
            OR refunded <> (SELECT coalesce(sum(amount), 0) FROM p.refund r WHERE r.invoice_id = i.id AND r.state = 'done')"),
    ("P7: no stock is below nothing", "SELECT id AS what FROM c.product WHERE stock < 0"),
    ("P14: stock is what its moves say", "
        SELECT id || ' has ' || stock AS what FROM c.product o
        WHERE stock <> (SELECT coalesce(sum(delta), 0) FROM c.stock_move v WHERE v.product_id = o.id)"),
    ("P14: on hand, reserved and sold: each hold has moved what it holds, once", "
        SELECT h.id || ' ' || h.state AS what FROM c.hold h JOIN c.hold_line l ON l.hold_id = h.id
        WHERE (SELECT coalesce(sum(delta), 0) FROM c.stock_move v WHERE v.ref = h.id AND v.product_id = l.product_id)
            <> CASE WHEN h.state IN ('held', 'sold') THEN -l.quantity ELSE 0 END"),
    ("P14: what is paid is sold, or its money went back", "
        SELECT i.id || ' ' || i.status || ' ' || coalesce(h.state, 'no hold') AS what
        FROM p.invoice i LEFT JOIN c.hold h ON h.id = i.hold
        WHERE i.hold IS NOT NULL AND i.status IN ('paid', 'refunded') AND coalesce(h.state, '') NOT IN ('sold', 'returned')
            AND i.status <> 'refunded'"),
    ("P14: what is sold is paid", "
        SELECT h.id || ' ' || h.state AS what FROM c.hold h WHERE h.state IN ('sold', 'returned')
            AND NOT EXISTS (SELECT 1 FROM p.invoice i WHERE i.hold = h.id AND i.status IN ('paid', 'refunded'))"),
    ("P14: what is reserved is reserved for an open invoice", "
        SELECT h.id AS what FROM c.hold h WHERE h.state = 'held'
            AND NOT EXISTS (SELECT 1 FROM p.invoice i WHERE i.hold = h.id AND i.status = 'open')"),
    ("P13: what came back on the shelf was refunded so, and the other way round", "
        SELECT h.id || ' ' || h.state AS what FROM c.hold h JOIN p.invoice i ON i.hold = h.id
        WHERE (h.state = 'returned') <> EXISTS (SELECT 1 FROM p.refund r
            WHERE r.invoice_id = i.id AND r.state = 'done' AND r.restock) AND h.state IN ('sold', 'returned')"),
    ("P9: what is held is what is owed for", "
        SELECT i.id AS what FROM p.invoice i, json_each(i.lines) l
        WHERE i.hold IS NOT NULL AND NOT EXISTS (SELECT 1 FROM c.hold_line h WHERE h.hold_id = i.hold
            AND h.product_id = json_extract(l.value, '$.product_id') AND h.quantity = json_extract(l.value, '$.quantity'))"),
    ("P14: a checkout stands as its invoice does", "
        SELECT k.id || ' ' || k.state || ' ' || coalesce(i.status, 'no invoice') AS what
        FROM k.checkout k LEFT JOIN p.invoice i ON i.checkout = k.id
        WHERE k.state <> CASE coalesce(i.status, '') WHEN '' THEN 'failed' WHEN 'open' THEN 'invoiced' WHEN 'paid' THEN 'paid'
            WHEN 'refunded' THEN 'paid' ELSE 'cancelled' END"),
    ("P14: one receipt for each paid invoice", "
        SELECT i.id || ' ' || i.status || ' has ' || count(e.id) AS what FROM p.invoice i
        LEFT JOIN m.email e ON e.template = 'receipt' AND e.reference = i.id
        GROUP BY i.id HAVING count(e.id) > 1 OR (i.user_id NOT IN (SELECT user_id FROM erased)
            AND count(e.id) <> (i.status IN ('paid', 'refunded')))"),
    ("P14: one letter for each refund", "
        SELECT i.id AS what FROM p.invoice i WHERE i.user_id NOT IN (SELECT user_id FROM erased)
            AND (SELECT count(*) FROM m.email e WHERE e.template = 'refund' AND e.reference LIKE i.id || ':%')
                <> (SELECT count(*) FROM p.refund r WHERE r.invoice_id = i.id AND r.state = 'done')"),
    ("P14: one entry in the statistics for each paid invoice", "
        SELECT i.id AS what FROM p.invoice i WHERE (i.status IN ('paid', 'refunded'))
            <> (SELECT count(*) FROM s.action a WHERE a.kind = 'order_paid' AND a.subject = i.id)"),
    ("P14: one entry in the statistics for each refund", "
        SELECT i.id AS what FROM p.invoice i WHERE (SELECT count(*) FROM p.refund r WHERE r.invoice_id = i.id AND r.state = 'done')
            <> (SELECT count(*) FROM s.action a WHERE a.kind = 'order_refunded' AND a.subject = i.id)"),
    ("P14: the figures are the sums of the invoices", "
        SELECT 'orders, revenue' AS what FROM
            (SELECT count(*) AS orders, coalesce(sum(total - refunded), 0) AS revenue FROM p.invoice WHERE status IN ('paid', 'refunded')) i,
            (SELECT coalesce(sum(orders), 0) AS orders, coalesce(sum(revenue), 0) AS revenue FROM s.daily) d,
            (SELECT coalesce(sum(orders), 0) AS orders, coalesce(sum(revenue), 0) AS revenue FROM s.hourly) h
        WHERE i.orders <> d.orders OR i.revenue <> d.revenue OR i.orders <> h.orders OR i.revenue <> h.revenue"),
    ("P14: what products brought is what was paid for", "
        SELECT 'pieces' AS what WHERE (SELECT coalesce(sum(quantity), 0) FROM s.product_sales)
            <> (SELECT coalesce(sum(json_extract(l.value, '$.quantity')), 0) FROM p.invoice i, json_each(i.lines) l
                WHERE i.status IN ('paid', 'refunded'))"),
    ("P14: one notification for each thing that happened to an invoice", "
        SELECT i.id || ' ' || i.status || ' ' || w.kind || ' ' || w.times AS what FROM p.invoice i JOIN (
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
        SELECT t.user_id AS what FROM n.stream t WHERE NOT t.erased
            AND t.seq <> (SELECT count(*) FROM n.notification o WHERE o.user_id = t.user_id)"),
    ("N2: no event is set aside", "
        SELECT name || ' ' || reason AS what FROM p.dead_letter UNION ALL SELECT name || ' ' || reason FROM c.dead_letter
        UNION ALL SELECT name || ' ' || reason FROM k.dead_letter UNION ALL SELECT name || ' ' || reason FROM m.dead_letter
        UNION ALL SELECT name || ' ' || reason FROM s.dead_letter UNION ALL SELECT name || ' ' || reason FROM n.dead_letter
        UNION ALL SELECT name || ' ' || reason FROM o.dead_letter"),
    ("erased is erased", "
        SELECT 'cart of ' || user_id AS what FROM k.cart_item WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'notification of ' || user_id FROM n.notification WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'address on ' || id FROM p.invoice WHERE email IS NOT NULL AND user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'address on ' || id FROM k.checkout WHERE email IS NOT NULL AND user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'letter to ' || user_id FROM m.email WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'comment by ' || user_id FROM o.comment WHERE user_id IN (SELECT user_id FROM erased)
        UNION ALL SELECT 'action of ' || user_id FROM s.action WHERE user_id IN (SELECT user_id FROM erased)"),
    ("P14: a product shows the ratings of its comments", "
        SELECT d.id AS what FROM c.product d LEFT JOIN
            (SELECT product_id, sum(rating) AS sum, count(*) AS count FROM o.comment GROUP BY product_id) r ON r.product_id = d.id
        WHERE d.rating_sum <> coalesce(r.sum, 0) OR d.rating_count <> coalesce(r.count, 0)"),
    ("P14: an answered comment is there, once", "
        SELECT a.about AS what FROM answered a WHERE a.want = 'comment'
            AND (SELECT count(*) FROM o.comment m WHERE m.id = a.about)
                <> NOT EXISTS (SELECT 1 FROM answered d WHERE d.want = 'uncomment' AND d.about = a.about)"),
    ("P14: an answered checkout is there", "
        SELECT a.about AS what FROM answered a LEFT JOIN p.invoice i ON i.id = a.about
        WHERE a.want = 'checkout' AND (i.id IS NULL OR i.total <> a.amount)"),
    ("P14: an answered payment is there, under its key", "
        SELECT a.key AS what FROM answered a WHERE a.want = 'pay' AND NOT EXISTS (SELECT 1 FROM p.payment y
            WHERE y.invoice_id = a.about AND y.key = a.key AND y.state = 'captured')"),
    ("P14: an answered refund is there, under its key, once", "
        SELECT a.key AS what FROM answered a WHERE a.want = 'refund' AND (SELECT count(*) FROM p.refund r
            WHERE r.invoice_id = a.about AND r.key = a.key AND r.state = 'done') <> 1"),
    ("P3: no key has given money back twice", "
        SELECT key AS what FROM p.refund WHERE state = 'done' AND key IS NOT NULL GROUP BY scope, key HAVING count(*) > 1"),
    ("P14: an answered cancellation holds", "
        SELECT a.key || ' ' || i.status AS what FROM answered a JOIN p.invoice i ON i.id = a.about
        WHERE a.want IN ('cancel', 'void') AND i.status NOT IN ('void', 'expired')"),
    ("P1: what paid knows that it paid", "
        SELECT y.key AS what FROM p.payment y WHERE y.state = 'captured' AND y.key IN (SELECT key FROM paid_by_another)"),
    ("P8: a cart holds what was put in and not bought", "
        SELECT w.user_id || ' ' || w.product_id || ' ' || w.quantity || ' but ' || coalesce(i.quantity, 0) AS what
        FROM wanted w LEFT JOIN k.cart_item i ON i.user_id = w.user_id AND i.product_id = w.product_id
        WHERE w.quantity <> coalesce(i.quantity, 0)
        UNION ALL SELECT i.user_id || ' ' || i.product_id || ' 0 but ' || i.quantity FROM k.cart_item i
        WHERE i.user_id IN (SELECT user_id FROM certain)
            AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.user_id = i.user_id AND w.product_id = i.product_id)"),
];

#[derive(QueryableByName)]
struct What {
    #[diesel(sql_type = Text)]
    what: String,
}

/// A look into all files at once.
pub struct Books(SqliteConnection);

impl Books {
    pub fn open(dir: &Path) -> Result<Self, String> {
        let mut conn = SqliteConnection::establish(":memory:").map_err(|e| e.to_string())?;
        let attached: String = ROOMS
            .iter()
            .map(|(room, name)| format!("ATTACH '{}' AS {name};", dir.join(format!("{room}.db")).display()))
            .collect();
        conn.batch_execute(&attached).map_err(|e| e.to_string())?;
        conn.batch_execute(
            "CREATE TEMP TABLE bank (key TEXT PRIMARY KEY, kind TEXT, about TEXT, amount BIGINT);
             CREATE TEMP TABLE erased (user_id TEXT PRIMARY KEY);
             CREATE TEMP TABLE certain (user_id TEXT PRIMARY KEY);
             CREATE TEMP TABLE answered (key TEXT PRIMARY KEY, want TEXT, about TEXT, amount BIGINT);
             CREATE TEMP TABLE paid_by_another (key TEXT PRIMARY KEY);
             CREATE TEMP TABLE wanted (user_id TEXT, product_id TEXT, quantity BIGINT);",
        )
        .map_err(|e| e.to_string())?;
        Ok(Self(conn))
    }

    fn rows(&mut self, query: &str) -> Result<Vec<String>, String> {
        let rows: Vec<What> = sql_query(query).prepared().load(&mut self.0).map_err(|e| format!("{e}: {query}"))?;
        Ok(rows.into_iter().map(|row| row.what).collect())
    }

    pub fn undone(&mut self) -> Result<Vec<String>, String> {
        self.rows(UNDONE)
    }

    /// Whether nothing is under way; that all events are told is the relays' to say.
    pub fn is_at_rest(&mut self) -> Result<bool, String> {
        Ok(self.undone()?.is_empty())
    }

    /// Compares all books with each other, with the provider's and with what people were told.
    pub fn check(&mut self, people: &People, world: &FaultInjector) -> Result<(), String> {
        if let Some(wrong) = world.bank(|bank, _, _| bank.wrongs.first().cloned()) {
            return Err(format!("P13: the provider was asked for {wrong}"));
        }
        self.write_down(people, world)?;
        for (law, query) in LAWS {
            let broken = self.rows(query)?;
            if !broken.is_empty() {
                return Err(format!("{law}: {}", broken.join("; ")));
            }
        }
        Ok(())
    }

    /// At the end of time nothing is owed or held.
    pub fn check_end(&mut self) -> Result<(), String> {
        let left = self.rows(
            "SELECT 'invoice ' || id AS what FROM p.invoice WHERE status = 'open'
             UNION ALL SELECT 'hold ' || id FROM c.hold WHERE state = 'held'",
        )?;
        if left.is_empty() { Ok(()) } else { Err(format!("left for ever: {}", left.join(", "))) }
    }

    /// Adds to the tally what this history had in it.
    pub fn count(&mut self, world: &FaultInjector) -> Result<(), String> {
        let paid = self.rows("SELECT id AS what FROM p.invoice WHERE status IN ('paid', 'refunded')")?.len() as u64;
        let refunds = self.rows("SELECT reason AS what FROM p.refund WHERE state = 'done'")?;
        let late = self.rows("SELECT DISTINCT ref AS what FROM c.stock_move WHERE reason = 'sold'")?.len() as u64;
        let expired = self.rows("SELECT id AS what FROM p.invoice WHERE status = 'expired'")?.len() as u64;
        world.count(|tally| {
            tally.paid += paid;
            tally.late_sales += late;
            tally.expired += expired;
            tally.refunds += refunds.len() as u64;
            tally.refused_sales += refunds.iter().filter(|reason| *reason == "out_of_stock").count() as u64;
        });
        Ok(())
    }

    /// Puts what the bank and the people know beside the shop's own books.
    fn write_down(&mut self, people: &People, world: &FaultInjector) -> Result<(), String> {
        let mut sql = ["bank", "erased", "certain", "answered", "paid_by_another", "wanted"]
            .map(|table| format!("DELETE FROM temp.{table};"))
            .concat();
        world.bank(|bank, _, _| {
            for (key, entry) in &bank.books {
                let (kind, about, amount) = match entry {
                    Entry::Capture(invoice, amount) => ("capture", invoice.to_string(), *amount),
                    Entry::Refund(of, amount) => ("refund", of.clone(), *amount),
                    Entry::Refused(_) => ("refused", String::new(), 0),
                };
                sql += &format!("INSERT INTO bank VALUES ('{key}', '{kind}', '{about}', {amount});");
            }
        });
        let busy =
            |n: Option<usize>| n.and_then(|n| people.buyers.get(n)).is_some_and(|buyer| !buyer.pending.is_empty());
        for (key, (ask, answer)) in &people.answers {
            let amount = answer["total"].as_i64().unwrap_or_default();
            let (want, about) = match &ask.want {
                Want::Checkout => ("checkout", answer["id"].as_str().unwrap_or_default().to_owned()),
                Want::Pay { invoice, .. } => ("pay", invoice.to_string()),
                Want::Refund { invoice, .. } => ("refund", invoice.to_string()),
                Want::Void { invoice } => ("void", invoice.to_string()),
                Want::Cancel { invoice } => ("cancel", invoice.map(|invoice| invoice.to_string()).unwrap_or_default()),
                // One may be about to take it away.
                Want::Comment { .. } if busy(ask.buyer) => continue,
                Want::Comment { .. } => ("comment", answer["id"].as_str().unwrap_or_default().to_owned()),
                Want::Uncomment { comment, .. } => ("uncomment", comment.to_string()),
                _ => continue,
            };
            sql += &format!("INSERT INTO answered VALUES ('{key}', '{want}', '{about}', {amount});");
        }
        for key in &people.paid_by_another {
            sql += &format!("INSERT INTO paid_by_another VALUES ('{key}');");
        }
        let paid = self.rows("SELECT id AS what FROM p.invoice WHERE status IN ('paid', 'refunded')")?;
        for buyer in &people.buyers {
            if buyer.erased {
                sql += &format!("INSERT INTO erased VALUES ('{}');", buyer.user);
            } else if buyer.pending.is_empty() {
                sql += &format!("INSERT INTO certain VALUES ('{}');", buyer.user);
                for (product, quantity) in cart(&buyer.steps, &paid)? {
                    sql += &format!("INSERT INTO wanted VALUES ('{}', '{product}', {quantity});", buyer.user);
                }
            }
        }
        self.0.batch_execute(&sql).map_err(|e| e.to_string())
    }
}

/// What a cart holds after these steps, when these invoices are paid. Two that were wanted at once may have been done in
/// the other order than they were heard of.
fn cart(steps: &[(u64, CartStep)], paid: &[String]) -> Result<BTreeMap<ProductId, Quantity>, String> {
    let (mut steps, mut turned) = (steps.to_vec(), BTreeSet::new());
    loop {
        let (at, broken) = match walk(&steps, paid) {
            Ok(cart) => return Ok(cart),
            Err(broken) => broken,
        };
        let pair = (at.saturating_sub(1)..=at).find(|&first| {
            steps.get(first + 1).is_some_and(|(at_once, _)| *at_once == steps[first].0 && turned.insert(*at_once))
        });
        match pair {
            Some(first) => steps.swap(first, first + 1),
            None => return Err(broken),
        }
    }
}

/// What a cart holds after these steps in this order, or the first of them that cannot have been.
fn walk(steps: &[(u64, CartStep)], paid: &[String]) -> Result<BTreeMap<ProductId, Quantity>, (usize, String)> {
    let mut cart: BTreeMap<ProductId, Quantity> = BTreeMap::new();
    let mut last = None;
    let leave = |cart: &mut BTreeMap<_, _>, last: &mut Option<String>| {
        if last.take().is_some_and(|invoice| paid.contains(&invoice)) {
            cart.clear();
        }
    };
    for (at, (_, step)) in steps.iter().enumerate() {
        // The cart could be changed again, so its invoice had ended, one way or the other.
        leave(&mut cart, &mut last);
        match step {
            CartStep::Put(product, quantity) => *cart.entry(*product).or_default() += quantity,
            CartStep::Set(product, quantity) => drop(cart.insert(*product, *quantity)),
            CartStep::CheckedOut(invoice, lines) => {
                cart.retain(|_, quantity| *quantity > 0);
                if *lines != cart {
                    return Err((at, format!("P9: invoice {invoice} is over {lines:?}, and the cart was {cart:?}")));
                }
                last = Some(invoice.to_string());
            }
        }
    }
    leave(&mut cart, &mut last);
    Ok(cart)
}
