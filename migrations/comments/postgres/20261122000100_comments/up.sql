-- What customers say of products, what they are called, and the ratings of each product summed up.
CREATE TABLE comment (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    product_id TEXT COLLATE "C" NOT NULL,
    user_id    TEXT COLLATE "C",
    author     TEXT COLLATE "C" NOT NULL,
    rating     INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
    text       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT  NOT NULL,
    -- One a customer and product. Former customers are NULL, and NULLs are never the same.
    UNIQUE (product_id, user_id)
);
CREATE INDEX comment_by_time ON comment (product_id, created_at, id);
CREATE INDEX comment_by_user ON comment (user_id);

-- An erased person stays as a row without a name, so that a comment under way cannot bring them back.
CREATE TABLE person (
    user_id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name    TEXT COLLATE "C"
);

CREATE TABLE rating (
    product_id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    sum        BIGINT NOT NULL,
    count      BIGINT NOT NULL
);
