-- Numbers without gaps: incremented in the transaction that uses the number, so a failed one takes none.
CREATE TABLE counter (
    name  TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('invoice', 0);

-- What a buyer owes, owed or got back. `lines` is JSON: written once, read whole, never searched.
-- `processing` is the payment the provider was asked for and has not answered; `refunding` is reserved for refunds
-- under way. The last check is a second lock on the rule that never more goes back than came.
CREATE TABLE invoice (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    number     BIGINT  NOT NULL UNIQUE,
    user_id    TEXT COLLATE "C" NOT NULL,
    status     TEXT COLLATE "C" NOT NULL CHECK (status IN ('open', 'paid', 'expired', 'void', 'refunded')),
    lines      TEXT COLLATE "C" NOT NULL,
    total      BIGINT  NOT NULL CHECK (total >= 0),
    refunded   BIGINT  NOT NULL DEFAULT 0,
    refunding  BIGINT  NOT NULL DEFAULT 0,
    currency   TEXT COLLATE "C" NOT NULL,
    email      TEXT COLLATE "C",
    checkout   TEXT COLLATE "C" UNIQUE,
    hold       TEXT COLLATE "C",
    processing TEXT COLLATE "C",
    past       BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL,
    paid_at    BIGINT,
    CHECK (refunded >= 0 AND refunding >= 0 AND refunded + refunding <= total)
);
CREATE INDEX invoice_by_age ON invoice (created_at, id);
CREATE INDEX invoice_by_user ON invoice (user_id, created_at, id);
CREATE INDEX invoice_by_status ON invoice (status, created_at, id);
CREATE INDEX invoice_overdue ON invoice (status, expires_at);

-- One row a try to take money; its id is the key the provider knows the try by. Never the buyer's token.
CREATE TABLE payment (
    id          TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    invoice_id  TEXT COLLATE "C" NOT NULL REFERENCES invoice (id),
    state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('processing', 'captured', 'failed')),
    amount      BIGINT NOT NULL,
    currency    TEXT COLLATE "C" NOT NULL,
    scope       TEXT COLLATE "C",
    key         TEXT COLLATE "C",
    fingerprint BYTEA,
    failure     TEXT COLLATE "C",
    created_at  BIGINT NOT NULL,
    ended_at    BIGINT
);
CREATE INDEX payment_by_invoice ON payment (invoice_id);
-- Whatever the code believes: one try at a time, and one capture for ever.
CREATE UNIQUE INDEX payment_alive ON payment (invoice_id) WHERE state IN ('processing', 'captured');
-- A partial index serves a query that says its condition in the same words; a bound value for the state would not.
CREATE INDEX payment_unended ON payment (created_at) WHERE ended_at IS NULL;
CREATE INDEX payment_wish ON payment (scope, key) WHERE ended_at IS NULL;

-- One row a try to give money back; its id is the key the provider knows the try by.
CREATE TABLE refund (
    id          TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    invoice_id  TEXT COLLATE "C" NOT NULL REFERENCES invoice (id),
    state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('processing', 'done', 'failed')),
    amount      BIGINT  NOT NULL,
    restock     BOOLEAN NOT NULL,
    reason      TEXT COLLATE "C" NOT NULL,
    scope       TEXT COLLATE "C",
    key         TEXT COLLATE "C",
    fingerprint BYTEA,
    created_at  BIGINT  NOT NULL,
    ended_at    BIGINT
);
CREATE INDEX refund_by_invoice ON refund (invoice_id);
CREATE INDEX refund_unended ON refund (created_at) WHERE ended_at IS NULL;
CREATE INDEX refund_wish ON refund (scope, key) WHERE ended_at IS NULL;

-- The books of the built-in provider for trying out, which stand for those of a bank: what it took and gave back by
-- our keys, which keys it will never take money for (`void`), and which failures it has played (`failure`).
-- `about` is the invoice, or for a refund the key of the capture.
CREATE TABLE test_provider_book (
    key      TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    kind     TEXT COLLATE "C" NOT NULL CHECK (kind IN ('capture', 'refund', 'void', 'failure')),
    about    TEXT COLLATE "C" NOT NULL,
    amount   BIGINT NOT NULL,
    currency TEXT COLLATE "C",
    at       BIGINT NOT NULL
);
CREATE INDEX test_provider_book_about ON test_provider_book (about, kind);
