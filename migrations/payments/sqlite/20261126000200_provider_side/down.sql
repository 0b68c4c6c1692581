DROP INDEX payment_failed_by_key;
DROP INDEX stripe_charge_by_intent;
ALTER TABLE invoice DROP COLUMN dispute;
ALTER TABLE invoice DROP COLUMN returned_late;
