ALTER TABLE payment DROP COLUMN process;
ALTER TABLE refund DROP COLUMN process;
ALTER TABLE unapplied_payment DROP COLUMN process;
