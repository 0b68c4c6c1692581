DROP INDEX action_reported;
ALTER TABLE action DROP COLUMN reported_bytes;
