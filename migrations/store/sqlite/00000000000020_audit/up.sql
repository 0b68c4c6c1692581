-- Actions of staff in this domain, each recorded in the transaction of its effect. Nothing changes or removes an entry.
CREATE TABLE audit (
    id         TEXT   PRIMARY KEY NOT NULL,
    at         BIGINT NOT NULL,
    user_id    TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    -- `session`, or `api_key` with the id of the key.
    credential TEXT   NOT NULL,
    network    TEXT,
    request_id TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    -- JSON object: the ids in the request.
    subject    TEXT   NOT NULL,
    -- JSON object: `before` and `after`, for actions that record them.
    change     TEXT
) WITHOUT ROWID;
CREATE INDEX audit_by_age ON audit (at, id);
CREATE INDEX audit_by_user ON audit (user_id, at, id);
CREATE TRIGGER audit_keeps_entries BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'entries of the audit log stay'); END;
CREATE TRIGGER audit_keeps_texts BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'entries of the audit log stay'); END;
