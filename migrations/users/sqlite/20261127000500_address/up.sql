-- Address books. `content` is JSON: written once, read whole, never searched.
CREATE TABLE address (
    id         TEXT   PRIMARY KEY NOT NULL,
    user_id    TEXT   NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    content    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX address_by_user ON address (user_id, created_at, id);
