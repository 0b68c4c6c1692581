-- Address books. `content` is JSON: written once, read whole, never searched.
CREATE TABLE address (
    id         TEXT   COLLATE "C" PRIMARY KEY NOT NULL,
    user_id    TEXT   COLLATE "C" NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    content    TEXT   COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX address_by_user ON address (user_id, created_at, id);
