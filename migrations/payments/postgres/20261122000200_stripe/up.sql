-- The goods that come back with a refund, as JSON: written once, read whole.
ALTER TABLE refund ADD COLUMN lines TEXT COLLATE "C" ;

-- Money that came for an invoice which could not take it any more: it goes back by itself, under `refund_key`.
CREATE TABLE stray (
    payment_id TEXT COLLATE "C" PRIMARY KEY NOT NULL REFERENCES payment (id),
    invoice_id TEXT COLLATE "C" NOT NULL REFERENCES invoice (id),
    refund_key TEXT COLLATE "C" NOT NULL UNIQUE,
    amount     BIGINT NOT NULL,
    currency   TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at   BIGINT
);
CREATE INDEX stray_unended ON stray (created_at) WHERE ended_at IS NULL;

-- What the provider told by itself, by its own ids: told twice, it has one effect.
CREATE TABLE provider_news (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX provider_news_by_age ON provider_news (at);

-- Stripe's name for a try to take money, written before the try is confirmed there. Without a name the try was given
-- up before it was confirmed, and never will be.
CREATE TABLE stripe_charge (
    key    TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    intent TEXT COLLATE "C",
    at     BIGINT NOT NULL
);

-- A try to give money back that Stripe was or is about to be asked for. `turn` is one more after each certain no, so
-- that the next asking is a new one for Stripe; `refund` is its name for one that is on its way.
CREATE TABLE stripe_return (
    key    TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    turn   BIGINT NOT NULL DEFAULT 0,
    refund TEXT COLLATE "C",
    at     BIGINT NOT NULL
);
