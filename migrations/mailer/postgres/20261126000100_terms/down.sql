ALTER INDEX pending_email_by_age RENAME TO waiting_by_age;
ALTER INDEX pending_email_by_user RENAME TO waiting_by_user;
ALTER TABLE pending_email RENAME COLUMN content TO letter;
ALTER TABLE pending_email RENAME TO waiting;
