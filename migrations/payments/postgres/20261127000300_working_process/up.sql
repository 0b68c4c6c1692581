-- Process that works on what is unfinished, where several have the database open.
ALTER TABLE payment ADD COLUMN process BIGINT;
ALTER TABLE refund ADD COLUMN process BIGINT;
ALTER TABLE unapplied_payment ADD COLUMN process BIGINT;
