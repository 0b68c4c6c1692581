-- Who people are. Nothing here can be used to sign in: passwords are argon2id hashes, and a session, a key or a link
-- is an id whose token is made from the shop's secret, which is not in any database.
CREATE TABLE account (
    id             TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    -- In lower case. NULL for guests, so that "has an address" and "is an account" are one question.
    email          TEXT COLLATE "C",
    name           TEXT COLLATE "C" NOT NULL,
    role           TEXT COLLATE "C" NOT NULL CHECK (role IN ('guest', 'customer', 'admin')),
    email_verified BOOLEAN NOT NULL,
    password_hash  TEXT COLLATE "C",
    -- Name and address in lower case: what a search looks at.
    sought         TEXT COLLATE "C" NOT NULL,
    created_at     BIGINT  NOT NULL,
    updated_at     BIGINT  NOT NULL
);
-- Also what keeps one address to one account when twenty register it at once.
CREATE UNIQUE INDEX account_by_email ON account (email);
CREATE INDEX account_by_age ON account (created_at, id) WHERE email IS NOT NULL;
CREATE INDEX account_admins ON account (id) WHERE role = 'admin';

CREATE TABLE session (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX session_by_user ON session (user_id, id);
CREATE INDEX session_by_end ON session (expires_at);

CREATE TABLE api_key (
    id           TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name         TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX api_key_by_user ON api_key (user_id, id);

-- What was mailed to prove an address or to set a password anew. A used one stays until its end, so that it is known
-- to be used and counts against the limit of mails an hour.
CREATE TABLE link (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    purpose    TEXT COLLATE "C" NOT NULL CHECK (purpose IN ('reset', 'verify')),
    email      TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX link_by_user ON link (user_id, purpose, created_at);
CREATE INDEX link_by_end ON link (expires_at);
