-- What each user is told: a stream whose places count 1, 2, 3, ... without a gap.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;
-- The name of this history. Made with the database, so it is another one if and only if the history was lost.
INSERT INTO meta (key, value) VALUES ('epoch', lower(hex(randomblob(8))));

-- Where each stream stands. An erased user stays as a mark, so that news still under way make no new stream.
CREATE TABLE stream (
    user_id TEXT    PRIMARY KEY NOT NULL,
    seq     BIGINT  NOT NULL,
    erased  BOOLEAN NOT NULL DEFAULT FALSE
) WITHOUT ROWID;

CREATE TABLE notification (
    user_id    TEXT    NOT NULL,
    seq        BIGINT  NOT NULL,
    id         TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    data       TEXT    NOT NULL,
    read       BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT  NOT NULL,
    PRIMARY KEY (user_id, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX notification_by_id ON notification (id);
CREATE INDEX notification_unread ON notification (user_id) WHERE read = FALSE;
