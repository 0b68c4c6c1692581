ALTER TABLE checkout DROP COLUMN process;
