-- Emails to users whose address has not been announced yet: events of two domains arrive at their own pace.
-- `content` is JSON: written once, read whole.
ALTER TABLE waiting RENAME TO pending_email;
ALTER TABLE pending_email RENAME COLUMN letter TO content;
DROP INDEX waiting_by_user;
DROP INDEX waiting_by_age;
CREATE INDEX pending_email_by_user ON pending_email (user_id);
CREATE INDEX pending_email_by_age ON pending_email (created_at);
