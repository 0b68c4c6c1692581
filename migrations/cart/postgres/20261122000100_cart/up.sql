-- The lines of all carts. Price, currency and names are those of when the line last changed: for telling what is
-- different today, and for showing a product that is gone.
CREATE TABLE cart_item (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL,
    product_id TEXT COLLATE "C" NOT NULL,
    quantity   BIGINT NOT NULL CHECK (quantity >= 1),
    unit_price BIGINT NOT NULL,
    currency   TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    slug       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (user_id, product_id)
);

-- One walk from cart to invoice. `lines` are the frozen products and quantities, `invoice_lines` the same with the
-- prices of the hold; both JSON, written once and read whole. `freezes` is the user whose cart cannot be changed
-- meanwhile, and none once that is over, so that there is one at a time whatever the code believes. `release_due`: the
-- checkout ended without an invoice and its stock is yet to be let go.
CREATE TABLE checkout (
    id            TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    user_id       TEXT COLLATE "C" NOT NULL,
    freezes       TEXT COLLATE "C" UNIQUE,
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN ('started', 'held', 'invoiced', 'paid', 'cancelled', 'failed')),
    hold          TEXT COLLATE "C" NOT NULL,
    lines         TEXT COLLATE "C" NOT NULL,
    invoice_lines TEXT COLLATE "C",
    currency      TEXT COLLATE "C",
    email         TEXT COLLATE "C",
    invoice_id    TEXT COLLATE "C",
    scope         TEXT COLLATE "C" NOT NULL,
    key           TEXT COLLATE "C" NOT NULL,
    fingerprint   BYTEA NOT NULL,
    release_due   BOOLEAN NOT NULL DEFAULT FALSE,
    created_at    BIGINT  NOT NULL,
    expires_at    BIGINT  NOT NULL,
    ended_at      BIGINT
);
CREATE INDEX checkout_by_user ON checkout (user_id);
CREATE INDEX checkout_unfinished ON checkout (created_at) WHERE state IN ('started', 'held') OR release_due;
