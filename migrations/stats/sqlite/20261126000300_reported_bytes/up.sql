-- Size of an entry that a caller reported, counted in the counter `reported_bytes`. NULL for the shop's own entries.
ALTER TABLE action ADD COLUMN reported_bytes BIGINT;
CREATE INDEX action_reported ON action (at) WHERE reported_bytes IS NOT NULL;
