//! The merge of a guest's cart into that of the account which the guest signs in to.

use std::sync::Arc;

use super::actor::cart_lock;
use super::checkout::CartState;
use super::model;
use super::store::{self, ItemRow};
use super::{CartError, MergeCart, MergedCart};
use crate::messaging::RequestContext;
use crate::store::Tx;
use crate::types::CartItemId;

pub(super) async fn merge_cart(
    state: Arc<CartState>,
    ctx: RequestContext,
    request: MergeCart,
) -> Result<MergedCart, CartError> {
    let MergeCart { guest_id, user_id } = request;
    let locks = cart_lock(guest_id).with("cart", user_id);
    state.store.idempotent(&ctx, &request)?.locks(locks).run(move |tx| merge(tx, &request)).await
}

/// Moves what fits. A line that does not stays in the guest's cart.
fn merge(tx: &mut Tx<'_>, MergeCart { guest_id, user_id }: &MergeCart) -> Result<MergedCart, CartError> {
    // The lines of an order that awaits its payment are those of its invoice.
    if store::freezing_invoice(tx.conn, *guest_id)?.is_some() || guest_id == user_id {
        return Ok(MergedCart::default());
    }
    let is_frozen = store::freezing_invoice(tx.conn, *user_id)?.is_some();
    let mut lines = store::items(tx.conn, *user_id)?;
    let mut merged = MergedCart::default();
    for line in store::items(tx.conn, *guest_id)? {
        if is_frozen || !fits(&lines, &line) {
            merged.left.push(line.name);
            continue;
        }
        let guest_line = line.id;
        let moved = ItemRow { id: CartItemId::new(), user_id: *user_id, ..line };
        store::add(tx.conn, &moved)?;
        store::remove(tx.conn, *guest_id, guest_line)?;
        lines.push(moved);
        merged.moved += 1;
    }
    Ok(merged)
}

/// Returns `true` if a line can be added to a cart with these lines, within the limits of a cart.
fn fits(lines: &[ItemRow], line: &ItemRow) -> bool {
    let quantity = lines.iter().filter(|other| other.product_id == line.product_id).map(|other| other.quantity).sum();
    let is_new = quantity == 0;
    lines.iter().all(|other| other.currency == line.currency)
        && line.quantity.saturating_add(quantity) <= model::QUANTITY_MAX
        && (!is_new || lines.len() < model::LINES_MAX as usize)
}
