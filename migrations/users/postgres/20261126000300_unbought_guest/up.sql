-- Guests that have bought nothing yet: they are erased after a while. Guests of before this table are kept.
CREATE TABLE unbought_guest (
    user_id    TEXT   PRIMARY KEY NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);
CREATE INDEX unbought_guest_by_age ON unbought_guest (created_at);
