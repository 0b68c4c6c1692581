-- The action log. Clustered by time, because that is how it is written, read and forgotten.
CREATE TABLE action (
    at      BIGINT NOT NULL,
    id      TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C",
    kind    TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C",
    data    TEXT COLLATE "C",
    PRIMARY KEY (at, id)
);
CREATE INDEX action_by_kind ON action (kind, at, id);
CREATE INDEX action_by_user ON action (user_id, at, id) WHERE user_id IS NOT NULL;

-- What happened in each hour and each day of UTC. An hour or day in which nothing happened has no row.
CREATE TABLE hourly (
    start    BIGINT PRIMARY KEY NOT NULL,
    revenue  BIGINT NOT NULL,
    orders   BIGINT NOT NULL,
    sign_ups BIGINT NOT NULL,
    carts    BIGINT NOT NULL
);
CREATE TABLE daily (
    start    BIGINT PRIMARY KEY NOT NULL,
    revenue  BIGINT NOT NULL,
    orders   BIGINT NOT NULL,
    sign_ups BIGINT NOT NULL,
    carts    BIGINT NOT NULL
);

-- What was sold of each product on each day, in the shop's currency.
CREATE TABLE product_sales (
    day        BIGINT NOT NULL,
    product_id TEXT COLLATE "C" NOT NULL,
    quantity   BIGINT NOT NULL,
    revenue    BIGINT NOT NULL,
    PRIMARY KEY (day, product_id)
);
CREATE TABLE product_name (
    product_id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    sold_at    BIGINT NOT NULL
);

CREATE TABLE counter (
    name  TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
