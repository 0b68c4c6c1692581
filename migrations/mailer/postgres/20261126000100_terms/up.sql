-- Emails to users whose address has not been announced yet: events of two domains arrive at their own pace.
-- `content` is JSON: written once, read whole.
ALTER TABLE waiting RENAME TO pending_email;
ALTER TABLE pending_email RENAME COLUMN letter TO content;
ALTER INDEX waiting_by_user RENAME TO pending_email_by_user;
ALTER INDEX waiting_by_age RENAME TO pending_email_by_age;
