DROP INDEX email_sent;
ALTER TABLE email DROP COLUMN link_id;
