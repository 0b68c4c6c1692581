ALTER TABLE checkout DROP COLUMN details;
