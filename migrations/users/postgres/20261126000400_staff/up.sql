-- Staff have roles, a second factor and audited actions; a new address waits until it is confirmed; keys have scopes and
-- an end.
ALTER TABLE account DROP CONSTRAINT account_role_check;
ALTER TABLE account ADD CONSTRAINT account_role_check
    CHECK (role IN ('guest', 'customer', 'read_only', 'support', 'manager', 'admin'));
-- The address that replaces `email` once it is confirmed.
ALTER TABLE account ADD COLUMN pending_email TEXT COLLATE "C";
-- Second factor (RFC 6238): its secret is made from this id and the shop's secret, which is in no database.
ALTER TABLE account ADD COLUMN totp_id TEXT COLLATE "C";
-- Time step of the last accepted code, which cannot be used again. NULL until a code confirms the secret.
ALTER TABLE account ADD COLUMN totp_step BIGINT;
-- Recorded for sessions of staff only, which end when they are idle.
ALTER TABLE session ADD COLUMN last_used_at BIGINT;
UPDATE session SET last_used_at = created_at;
ALTER TABLE session ALTER COLUMN last_used_at SET NOT NULL;
-- Separated by spaces; * for all.
ALTER TABLE api_key ADD COLUMN scopes TEXT COLLATE "C" NOT NULL DEFAULT '*';
ALTER TABLE api_key ALTER COLUMN scopes DROP DEFAULT;
ALTER TABLE api_key ADD COLUMN expires_at BIGINT;

-- SHA-256 of the codes that replace the second factor once each.
CREATE TABLE recovery_code (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    hash    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (user_id, hash)
);
