-- Actions of staff in this domain, each recorded in the transaction of its effect. Nothing changes or removes an entry.
CREATE TABLE audit (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    at         BIGINT NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL,
    role       TEXT COLLATE "C" NOT NULL,
    -- `session`, or `api_key` with the id of the key.
    credential TEXT COLLATE "C" NOT NULL,
    network    TEXT COLLATE "C",
    request_id TEXT COLLATE "C" NOT NULL,
    action     TEXT COLLATE "C" NOT NULL,
    -- JSON object: the ids in the request.
    subject    TEXT COLLATE "C" NOT NULL,
    -- JSON object: `before` and `after`, for actions that record them.
    change     TEXT COLLATE "C"
);
CREATE INDEX audit_by_age ON audit (at, id);
CREATE INDEX audit_by_user ON audit (user_id, at, id);
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'entries of the audit log stay'; END $$;
CREATE TRIGGER audit_keeps_entries BEFORE DELETE OR UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
