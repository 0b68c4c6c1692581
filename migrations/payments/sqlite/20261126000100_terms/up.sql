-- Names in the field's own terms; no row changes.
ALTER TABLE invoice RENAME COLUMN past TO imported;

DROP INDEX payment_alive;
DROP INDEX payment_unended;
DROP INDEX payment_wish;
-- Whatever the code believes: one attempt at a time, and one capture per invoice.
CREATE UNIQUE INDEX payment_active ON payment (invoice_id) WHERE state IN ('processing', 'captured');
-- A partial index serves a query that repeats its condition word for word; a bound value for the state would not.
CREATE INDEX payment_unfinished ON payment (created_at) WHERE ended_at IS NULL;
CREATE INDEX payment_idempotency ON payment (scope, key) WHERE ended_at IS NULL;

DROP INDEX refund_unended;
DROP INDEX refund_wish;
CREATE INDEX refund_unfinished ON refund (created_at) WHERE ended_at IS NULL;
CREATE INDEX refund_idempotency ON refund (scope, key) WHERE ended_at IS NULL;

-- Captured money that no invoice could take; it is refunded under `refund_key`.
ALTER TABLE stray RENAME TO unapplied_payment;
DROP INDEX stray_unended;
CREATE INDEX unapplied_payment_unfinished ON unapplied_payment (created_at) WHERE ended_at IS NULL;

-- Webhook events of the provider by its own ids: delivered twice, one has one effect.
ALTER TABLE provider_news RENAME TO provider_event;
DROP INDEX provider_news_by_age;
CREATE INDEX provider_event_by_age ON provider_event (at);

-- Refund attempts at Stripe. `attempt` grows by one after each definitive failure, so that the next request is a new
-- one for Stripe; `refund` is Stripe's id of a refund in progress.
ALTER TABLE stripe_return RENAME COLUMN turn TO attempt;
