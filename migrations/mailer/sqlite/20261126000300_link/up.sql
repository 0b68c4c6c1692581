-- The link that an e-mail carries: its text has a placeholder, which the token replaces at the moment of sending, so that
-- this database holds no token. Texts from before carry theirs, and are removed.
ALTER TABLE email ADD COLUMN link_id TEXT;
UPDATE email SET text = NULL, html = NULL WHERE template IN ('verify', 'reset');
-- Sent e-mails of an address within a time, for the limit per recipient.
CREATE INDEX email_sent ON email (recipient, sent_at) WHERE sent_at IS NOT NULL;
