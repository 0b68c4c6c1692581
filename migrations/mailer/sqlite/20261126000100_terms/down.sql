DROP INDEX pending_email_by_age;
DROP INDEX pending_email_by_user;
ALTER TABLE pending_email RENAME COLUMN content TO letter;
ALTER TABLE pending_email RENAME TO waiting;
CREATE INDEX waiting_by_user ON waiting (user_id);
CREATE INDEX waiting_by_age ON waiting (created_at);
