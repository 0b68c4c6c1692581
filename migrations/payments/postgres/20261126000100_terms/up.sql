-- Names in the field's own terms; no row changes.
ALTER TABLE invoice RENAME COLUMN past TO imported;

-- Whatever the code believes: one attempt at a time, and one capture per invoice.
ALTER INDEX payment_alive RENAME TO payment_active;
ALTER INDEX payment_unended RENAME TO payment_unfinished;
ALTER INDEX payment_wish RENAME TO payment_idempotency;
ALTER INDEX refund_unended RENAME TO refund_unfinished;
ALTER INDEX refund_wish RENAME TO refund_idempotency;

-- Captured money that no invoice could take; it is refunded under `refund_key`.
ALTER TABLE stray RENAME TO unapplied_payment;
ALTER INDEX stray_unended RENAME TO unapplied_payment_unfinished;

-- Webhook events of the provider by its own ids: delivered twice, one has one effect.
ALTER TABLE provider_news RENAME TO provider_event;
ALTER INDEX provider_news_by_age RENAME TO provider_event_by_age;

-- Refund attempts at Stripe. `attempt` grows by one after each definitive failure, so that the next request is a new
-- one for Stripe; `refund` is Stripe's id of a refund in progress.
ALTER TABLE stripe_return RENAME COLUMN turn TO attempt;
