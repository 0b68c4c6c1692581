-- The time since which mail is not delivered, and of the last alert of staff about it: one row, or none.
CREATE TABLE delivery_stall (
    id         INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    since      BIGINT  NOT NULL,
    alerted_at BIGINT  NOT NULL
);
