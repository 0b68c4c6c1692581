-- Every mail, from the moment it was accepted. The large columns come last, so that lists do not read them.
CREATE TABLE email (
    id              TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    recipient       TEXT COLLATE "C" NOT NULL,
    user_id         TEXT COLLATE "C",
    subject         TEXT COLLATE "C" NOT NULL,
    template        TEXT COLLATE "C" NOT NULL,
    reference       TEXT COLLATE "C",
    status          TEXT COLLATE "C" NOT NULL,
    attempts        INTEGER NOT NULL,
    last_error      TEXT COLLATE "C",
    created_at      BIGINT NOT NULL,
    sent_at         BIGINT,
    next_attempt_at BIGINT,
    text            TEXT COLLATE "C",
    html            TEXT COLLATE "C"
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
    user_id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    email   TEXT COLLATE "C" NOT NULL,
    name    TEXT COLLATE "C" NOT NULL
);
CREATE INDEX recipient_by_email ON recipient (email);

-- Letters to users whose address has not been heard of yet: two domains' events come at their own pace.
CREATE TABLE waiting (
    template   TEXT COLLATE "C" NOT NULL,
    reference  TEXT COLLATE "C" NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL,
    letter     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (template, reference)
);
CREATE INDEX waiting_by_user ON waiting (user_id);
CREATE INDEX waiting_by_age ON waiting (created_at);
