-- What happens at the provider's side: money that came too late and was sent back, and disputes.
ALTER TABLE invoice ADD COLUMN returned_late BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoice ADD COLUMN dispute TEXT;
UPDATE invoice SET returned_late = (SELECT COALESCE(SUM(u.amount), 0) FROM unapplied_payment u
    WHERE u.invoice_id = invoice.id AND u.ended_at IS NOT NULL)
  WHERE id IN (SELECT invoice_id FROM unapplied_payment WHERE ended_at IS NOT NULL);
-- Finds the charge that an event of Stripe is about.
CREATE INDEX stripe_charge_by_intent ON stripe_charge (intent) WHERE intent IS NOT NULL;
-- Finds the failure that a repeated request is answered with.
CREATE INDEX payment_failed_by_key ON payment (scope, key, id) WHERE failure IS NOT NULL;
