-- Every mail, from the moment it was accepted. The large columns come last, so that lists do not read them.
CREATE TABLE email (
    id              TEXT   PRIMARY KEY NOT NULL,
    recipient       TEXT   NOT NULL,
    user_id         TEXT,
    subject         TEXT   NOT NULL,
    template        TEXT   NOT NULL,
    reference       TEXT,
    status          TEXT   NOT NULL,
    attempts        INTEGER NOT NULL,
    last_error      TEXT,
    created_at      BIGINT NOT NULL,
    sent_at         BIGINT,
    next_attempt_at BIGINT,
    text            TEXT,
    html            TEXT
);
-- One mail for one occasion: one receipt for one invoice, however often its being paid is told.
CREATE UNIQUE INDEX email_by_occasion ON email (template, reference) WHERE reference IS NOT NULL;
CREATE INDEX email_due ON email (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX email_by_age ON email (created_at, id);
CREATE INDEX email_by_status ON email (status, created_at, id);
CREATE INDEX email_by_recipient ON email (recipient, created_at, id);
CREATE INDEX email_by_user ON email (user_id) WHERE user_id IS NOT NULL;

-- Who can be written to: the mailer's own copy of what the users domain announced.
CREATE TABLE recipient (
    user_id TEXT PRIMARY KEY NOT NULL,
    email   TEXT NOT NULL,
    name    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX recipient_by_email ON recipient (email);

-- Letters to users whose address has not been heard of yet: two domains' events come at their own pace.
CREATE TABLE waiting (
    template   TEXT   NOT NULL,
    reference  TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    letter     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (template, reference)
) WITHOUT ROWID;
CREATE INDEX waiting_by_user ON waiting (user_id);
CREATE INDEX waiting_by_age ON waiting (created_at);
