//! What must hold of carts and checkouts, and the facts that other domains must agree with.

use crate::contract::cart::CheckoutFacts;
use crate::domains::cart::schema::checkout;
use crate::messaging::{FACTS_PAGE_SIZE, Selection};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{CheckoutId, HoldId, InvoiceId};

/// What must always hold here.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("cart lines", "cart_item"), ("checkouts", "checkout")],
    rules: &[
        Invariant {
            what: "a checkout freezes a cart it must not, or not the one it must",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state || ' and freezes ' || COALESCE(freezes, 'none') AS found FROM checkout
                  WHERE (state IN ('started', 'held', 'invoiced')) <> (freezes IS NOT NULL) OR freezes <> user_id"),
        },
        Invariant {
            what: "a checkout has ended and does not say when, or the other way round",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM checkout
                  WHERE (state IN ('started', 'held', 'invoiced')) <> (ended_at IS NULL)"),
        },
        Invariant {
            what: "a checkout stands with an invoice that it does not know, or is held without prices",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM checkout
                  WHERE (state = 'invoiced' AND invoice_id IS NULL) OR (state IN ('held', 'invoiced') AND invoice_lines IS NULL)"),
        },
        Invariant {
            what: "a checkout is stuck long past its time",
            remedy: "the shop takes it up by itself while catalog and payments answer: look at its log",
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM checkout
                  WHERE state IN ('started', 'held') AND expires_at < {now} - 600000000"),
        },
        Invariant {
            what: "a line of a cart has an impossible quantity",
            remedy: "delete the line",
            sql: Sql::Shared("SELECT id || ' of user ' || user_id || ' has ' || quantity AS found FROM cart_item
                  WHERE quantity NOT BETWEEN 1 AND 10000"),
        },
    ],
};

type Row = (CheckoutId, String, HoldId, Option<InvoiceId>, bool);

/// Facts about checkouts.
pub fn checkouts(conn: &mut Conn, which: Selection<CheckoutId>) -> QueryResult<Vec<CheckoutFacts>> {
    let columns = (checkout::id, checkout::state, checkout::hold, checkout::invoice_id, checkout::release_due);
    let rows: Vec<Row> = match which {
        Selection::These(ids) => checkout::table.filter(checkout::id.eq_any(ids)).select(columns).load(conn)?,
        Selection::After(after) => {
            let page = checkout::table.select(columns).order(checkout::id).limit(FACTS_PAGE_SIZE as i64);
            match after {
                Some(after) => page.filter(checkout::id.gt(after)).load(conn)?,
                None => page.load(conn)?,
            }
        }
    };
    let facts = |(checkout, state, hold, invoice_id, release_due): Row| CheckoutFacts {
        checkout,
        state,
        hold,
        invoice_id,
        release_due,
    };
    Ok(rows.into_iter().map(facts).collect())
}
