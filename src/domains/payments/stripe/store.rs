//! SQL of the Stripe provider: Stripe's ids of charges and refunds, by the shop's keys.

use crate::domains::payments::provider::RefundRequest;
use crate::domains::payments::schema::{stripe_charge, stripe_return};
use crate::store::Conn;
use crate::store::query::*;
use crate::types::Timestamp;

/// Progress of a refund at Stripe.
#[derive(Debug, Clone)]
pub struct StripeRefundState {
    /// Id of the payment intent to refund.
    pub intent: String,
    /// Whether this call recorded the refund, so that Stripe cannot know it yet.
    pub is_first: bool,
    /// Number of attempts that failed definitively.
    pub attempt: i64,
    /// Stripe's id of the refund, while it is pending.
    pub refund: Option<String>,
}

/// Records the payment intent of a charge, once. Returns `false` if the charge is void or has another intent.
pub fn set_charge_intent(conn: &mut Conn, key: &str, intent: &str, now: Timestamp) -> QueryResult<bool> {
    let values = (stripe_charge::key.eq(key), stripe_charge::intent.eq(intent), stripe_charge::at.eq(now));
    diesel::insert_into(stripe_charge::table).values(values).on_conflict_do_nothing().execute(conn)?;
    Ok(charge_intent(conn, key)?.flatten().as_deref() == Some(intent))
}

fn charge_intent(conn: &mut Conn, key: &str) -> QueryResult<Option<Option<String>>> {
    stripe_charge::table.find(key).select(stripe_charge::intent).first(conn).optional()
}

/// Returns the key of the charge that a payment intent belongs to.
pub fn charge_of_intent(conn: &mut Conn, intent: &str) -> QueryResult<Option<String>> {
    stripe_charge::table.filter(stripe_charge::intent.eq(intent)).select(stripe_charge::key).first(conn).optional()
}

/// Returns the payment intent of a charge; voids a charge that has none, so that it never gets one.
pub fn void_unconfirmed_charge(conn: &mut Conn, key: &str, now: Timestamp) -> QueryResult<Option<String>> {
    let values = (stripe_charge::key.eq(key), stripe_charge::at.eq(now));
    diesel::insert_into(stripe_charge::table).values(values).on_conflict_do_nothing().execute(conn)?;
    Ok(charge_intent(conn, key)?.flatten())
}

/// Records that a refund is about to be requested. Returns `None` if Stripe never captured the charge.
pub fn begin_refund_request(
    conn: &mut Conn,
    request: &RefundRequest,
    now: Timestamp,
) -> QueryResult<Option<StripeRefundState>> {
    let Some(intent) = charge_intent(conn, &request.charge)?.flatten() else { return Ok(None) };
    let values = (stripe_return::key.eq(&request.key), stripe_return::at.eq(now));
    let is_first =
        diesel::insert_into(stripe_return::table).values(values).on_conflict_do_nothing().execute(conn)? == 1;
    let (attempt, refund) = stripe_return::table
        .find(&request.key)
        .select((stripe_return::attempt, stripe_return::refund))
        .first::<(i64, Option<String>)>(conn)?;
    Ok(Some(StripeRefundState { intent, is_first, attempt, refund }))
}

/// Records Stripe's id of a pending refund.
pub fn set_refund_id(conn: &mut Conn, key: &str, id: &str) -> QueryResult<()> {
    diesel::update(stripe_return::table.find(key)).set(stripe_return::refund.eq(id)).execute(conn)?;
    Ok(())
}

/// Records that a refund failed definitively, so that the next request is a new one for Stripe.
pub fn next_refund_attempt(conn: &mut Conn, key: &str) -> QueryResult<()> {
    diesel::update(stripe_return::table.find(key))
        .set((stripe_return::attempt.eq(stripe_return::attempt + 1), stripe_return::refund.eq(None::<String>)))
        .execute(conn)?;
    Ok(())
}
