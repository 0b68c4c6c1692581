-- Products. `seq` is the row's own number: the search index, the tags and the cursors of lists go by it.
-- Long texts stand last, so that what lists look at is at the front of a row.
CREATE TABLE product (
    seq              INTEGER PRIMARY KEY NOT NULL,
    id               TEXT    NOT NULL UNIQUE,
    sku              TEXT    NOT NULL UNIQUE,
    slug             TEXT    NOT NULL UNIQUE,
    name             TEXT    NOT NULL,
    name_key         TEXT    NOT NULL,
    price            BIGINT  NOT NULL CHECK (price >= 0),
    currency         TEXT    NOT NULL,
    compare_at_price BIGINT,
    stock            BIGINT  NOT NULL CHECK (stock >= 0),
    category         TEXT,
    group_name       TEXT,
    is_lead          BOOLEAN NOT NULL,
    deleted          BOOLEAN NOT NULL,
    rating_sum       BIGINT  NOT NULL,
    rating_count     BIGINT  NOT NULL,
    created_at       BIGINT  NOT NULL,
    updated_at       BIGINT  NOT NULL,
    tags             TEXT    NOT NULL,
    options          TEXT    NOT NULL,
    attributes       TEXT    NOT NULL,
    description      TEXT    NOT NULL
);
-- The whole list, one item a group, in each order.
CREATE INDEX product_lead_created ON product (created_at, seq) WHERE is_lead = 1;
CREATE INDEX product_lead_price   ON product (price, seq)      WHERE is_lead = 1;
CREATE INDEX product_lead_name    ON product (name_key, seq)   WHERE is_lead = 1;
-- Every variant on its own, or narrowed by what has no index here.
CREATE INDEX product_all_created  ON product (created_at, seq) WHERE deleted = 0;
CREATE INDEX product_all_price    ON product (price, seq)      WHERE deleted = 0;
CREATE INDEX product_all_name     ON product (name_key, seq)   WHERE deleted = 0;
-- One category.
CREATE INDEX product_category_created ON product (category, created_at, seq) WHERE deleted = 0;
CREATE INDEX product_category_price   ON product (category, price, seq)      WHERE deleted = 0;
CREATE INDEX product_category_name    ON product (category, name_key, seq)   WHERE deleted = 0;
-- Siblings.
CREATE INDEX product_group ON product (group_name, seq) WHERE group_name IS NOT NULL;

-- The tags of products that are for sale.
CREATE TABLE product_tag (
    tag TEXT   NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (tag, seq)
) WITHOUT ROWID;

-- How many items the whole list has, and how many with each category and tag: kept in step by every change, so that
-- the facets of a million products cost as much as those of ten. `mode` 0: one item a group; 1: every variant.
CREATE TABLE tally (
    mode  INTEGER NOT NULL,
    kind  TEXT    NOT NULL,
    value TEXT    NOT NULL,
    n     BIGINT  NOT NULL,
    PRIMARY KEY (mode, kind, value)
) WITHOUT ROWID;
CREATE INDEX tally_by_n ON tally (mode, kind, n DESC, value);

-- Words of the products that are for sale. It keeps no copy of the texts.
CREATE VIRTUAL TABLE product_fts USING fts5 (
    name, labels, description,
    tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3', content = '', contentless_delete = 1
);

-- Stock set aside, and what became of it: held, sold, released, returned.
CREATE TABLE hold (
    id         TEXT   PRIMARY KEY NOT NULL,
    state      TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    answer     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX hold_by_expiry ON hold (expires_at) WHERE state = 'held';

-- What a hold is of, one line a product; kept for ever, so that a late payment can be served from the shelf.
CREATE TABLE hold_line (
    hold_id    TEXT   NOT NULL,
    product_id TEXT   NOT NULL,
    quantity   BIGINT NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (hold_id, product_id)
) WITHOUT ROWID;

-- Every change of a product's `stock`, so that it can be proved: the sum of a product's moves is its stock.
CREATE TABLE stock_move (
    seq        INTEGER PRIMARY KEY NOT NULL,
    product_id TEXT   NOT NULL,
    delta      BIGINT NOT NULL,
    reason     TEXT   NOT NULL,
    ref        TEXT,
    at         BIGINT NOT NULL
);
CREATE INDEX stock_move_by_product ON stock_move (product_id, seq);

CREATE TABLE image (
    id         TEXT    PRIMARY KEY NOT NULL,
    product_id TEXT    NOT NULL,
    position   BIGINT  NOT NULL,
    alt        TEXT    NOT NULL,
    width      INTEGER NOT NULL,
    height     INTEGER NOT NULL,
    sizes      TEXT    NOT NULL
) WITHOUT ROWID;
CREATE INDEX image_by_product ON image (product_id, position);

CREATE TABLE image_file (
    image_id     TEXT    NOT NULL,
    width        INTEGER NOT NULL,
    height       INTEGER NOT NULL,
    content_type TEXT    NOT NULL,
    data         BLOB    NOT NULL,
    PRIMARY KEY (image_id, width)
);
