-- Process that works on what is unfinished, where several have the database open.
ALTER TABLE checkout ADD COLUMN process BIGINT;
