-- What each user is told: a stream whose places count 1, 2, 3, ... without a gap.
CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    value TEXT COLLATE "C" NOT NULL
);
-- The name of this history. Made with the database, so it is another one if and only if the history was lost.
INSERT INTO meta (key, value) VALUES ('epoch', substr(replace(CAST(gen_random_uuid() AS TEXT), '-', ''), 1, 16));

-- Where each stream stands. An erased user stays as a mark, so that news still under way make no new stream.
CREATE TABLE stream (
    user_id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    seq     BIGINT  NOT NULL,
    erased  BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE notification (
    user_id    TEXT COLLATE "C" NOT NULL,
    seq        BIGINT  NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    title      TEXT COLLATE "C" NOT NULL,
    body       TEXT COLLATE "C" NOT NULL,
    data       TEXT COLLATE "C" NOT NULL,
    read       BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT  NOT NULL,
    PRIMARY KEY (user_id, seq)
);
CREATE UNIQUE INDEX notification_by_id ON notification (id);
CREATE INDEX notification_unread ON notification (user_id) WHERE NOT read;
