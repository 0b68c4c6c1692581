-- Staff have roles, a second factor and audited actions; a new address waits until it is confirmed; keys have scopes and
-- an end. SQLite cannot change the CHECK of a column, so the tables are copied, children with their parent: to drop the
-- parent alone would delete the rows of its children.
CREATE TABLE new_account (
    id               TEXT    PRIMARY KEY NOT NULL,
    -- In lower case. NULL for guests, so that "has an address" and "is an account" are one question.
    email            TEXT,
    -- The address that replaces `email` once it is confirmed.
    pending_email    TEXT,
    name             TEXT    NOT NULL,
    role             TEXT    NOT NULL CHECK (role IN ('guest', 'customer', 'read_only', 'support', 'manager', 'admin')),
    email_verified   BOOLEAN NOT NULL,
    password_hash    TEXT,
    -- Second factor (RFC 6238): its secret is made from this id and the shop's secret, which is in no database.
    totp_id          TEXT,
    -- Time step of the last accepted code, which cannot be used again. NULL until a code confirms the secret.
    totp_step        BIGINT,
    -- Name and address in lower case, as the search for users reads them.
    search_text      TEXT    NOT NULL,
    created_at       BIGINT  NOT NULL,
    updated_at       BIGINT  NOT NULL
) WITHOUT ROWID;
INSERT INTO new_account
    SELECT id, email, NULL, name, role, email_verified, password_hash, NULL, NULL, search_text,
           created_at, updated_at FROM account;

CREATE TABLE new_session (
    id           TEXT   PRIMARY KEY NOT NULL,
    user_id      TEXT   NOT NULL REFERENCES new_account (id) ON DELETE CASCADE,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    -- Recorded for sessions of staff only, which end when they are idle.
    last_used_at BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO new_session SELECT id, user_id, created_at, expires_at, created_at FROM session;

CREATE TABLE new_api_key (
    id           TEXT   PRIMARY KEY NOT NULL,
    user_id      TEXT   NOT NULL REFERENCES new_account (id) ON DELETE CASCADE,
    name         TEXT   NOT NULL,
    -- Separated by spaces; * for all.
    scopes       TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT
) WITHOUT ROWID;
INSERT INTO new_api_key SELECT id, user_id, name, '*', created_at, NULL, last_used_at FROM api_key;

CREATE TABLE new_link (
    id         TEXT   PRIMARY KEY NOT NULL,
    user_id    TEXT   NOT NULL REFERENCES new_account (id) ON DELETE CASCADE,
    purpose    TEXT   NOT NULL CHECK (purpose IN ('reset', 'verify')),
    email      TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
) WITHOUT ROWID;
INSERT INTO new_link SELECT id, user_id, purpose, email, created_at, expires_at, used_at FROM link;

CREATE TABLE new_unbought_guest (
    user_id    TEXT   PRIMARY KEY NOT NULL REFERENCES new_account (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO new_unbought_guest SELECT user_id, created_at FROM unbought_guest;

DROP TABLE unbought_guest;
DROP TABLE link;
DROP TABLE api_key;
DROP TABLE session;
DROP TABLE account;
ALTER TABLE new_account RENAME TO account;
ALTER TABLE new_session RENAME TO session;
ALTER TABLE new_api_key RENAME TO api_key;
ALTER TABLE new_link RENAME TO link;
ALTER TABLE new_unbought_guest RENAME TO unbought_guest;

-- Also what keeps one address to one account when twenty register it at once.
CREATE UNIQUE INDEX account_by_email ON account (email);
CREATE INDEX account_by_age ON account (created_at, id) WHERE email IS NOT NULL;
CREATE INDEX account_admins ON account (id) WHERE role = 'admin';
CREATE INDEX session_by_user ON session (user_id, id);
CREATE INDEX session_by_end ON session (expires_at);
CREATE INDEX api_key_by_user ON api_key (user_id, id);
CREATE INDEX link_by_user ON link (user_id, purpose, created_at);
CREATE INDEX link_by_end ON link (expires_at);
CREATE INDEX unbought_guest_by_age ON unbought_guest (created_at);

-- SHA-256 of the codes that replace the second factor once each.
CREATE TABLE recovery_code (
    user_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    hash    TEXT NOT NULL,
    PRIMARY KEY (user_id, hash)
) WITHOUT ROWID;
