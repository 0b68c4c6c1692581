//! Invariants of carts and checkouts, and the facts that other domains must agree with.

use crate::contract::cart::CheckoutFacts;
use crate::domains::cart::schema::checkout;
use crate::messaging::{FACTS_PAGE_SIZE, Selection};
use crate::store::query::*;
use crate::store::{Conn, Invariant, Invariants, RESTORE, Sql};
use crate::types::{CheckoutId, HoldId, InvoiceId};

/// Invariants of this domain's database.
pub const INVARIANTS: Invariants = Invariants {
    counted: &[("cart lines", "cart_item"), ("checkouts", "checkout")],
    rules: &[
        Invariant {
            violation: "checkout must lock its user's cart exactly while it is in progress",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state || ' and locks ' || COALESCE(freezes, 'none') AS found FROM checkout
                  WHERE (state IN ('started', 'held', 'invoiced')) <> (freezes IS NOT NULL) OR freezes <> user_id"),
        },
        Invariant {
            violation: "checkout must have an end time exactly if it has ended",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM checkout
                  WHERE (state IN ('started', 'held', 'invoiced')) <> (ended_at IS NULL)"),
        },
        Invariant {
            violation: "held or invoiced checkout must have prices, and an invoiced one its invoice",
            remedy: RESTORE,
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM checkout
                  WHERE (state = 'invoiced' AND invoice_id IS NULL) OR (state IN ('held', 'invoiced') AND invoice_lines IS NULL)"),
        },
        Invariant {
            violation: "checkout is unfinished long after its expiry",
            remedy: "the shop resumes it automatically while catalog and payments are up: check the log",
            sql: Sql::Shared("SELECT id || ' is ' || state AS found FROM checkout
                  WHERE state IN ('started', 'held') AND expires_at < {now} - 600000000"),
        },
        Invariant {
            violation: "invalid quantity of a cart line",
            remedy: "delete the line",
            sql: Sql::Shared("SELECT id || ' of user ' || user_id || ' has ' || quantity AS found FROM cart_item
                  WHERE quantity NOT BETWEEN 1 AND 10000"),
        },
    ],
};

type CheckoutFactsRow = (CheckoutId, String, HoldId, Option<InvoiceId>, bool);

/// Lists facts of checkouts.
pub fn checkouts(conn: &mut Conn, which: Selection<CheckoutId>) -> QueryResult<Vec<CheckoutFacts>> {
    let columns = (checkout::id, checkout::state, checkout::hold, checkout::invoice_id, checkout::release_due);
    let rows: Vec<CheckoutFactsRow> = match which {
        Selection::These(ids) => checkout::table.filter(checkout::id.eq_any(ids)).select(columns).load(conn)?,
        Selection::After(after) => {
            let page = checkout::table.select(columns).order(checkout::id).limit(FACTS_PAGE_SIZE as i64);
            match after {
                Some(after) => page.filter(checkout::id.gt(after)).load(conn)?,
                None => page.load(conn)?,
            }
        }
    };
    let facts = |(checkout, state, hold, invoice_id, release_due): CheckoutFactsRow| CheckoutFacts {
        checkout,
        state,
        hold,
        invoice_id,
        release_due,
    };
    Ok(rows.into_iter().map(facts).collect())
}
