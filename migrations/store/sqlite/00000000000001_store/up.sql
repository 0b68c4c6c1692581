-- What every domain's database has, whatever the domain: answers given under an idempotency key, the outbox of
-- events with a cursor for each subscriber, the inbox of events whose effect is done, and those given up.
CREATE TABLE idempotency (
    scope       TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    fingerprint BLOB   NOT NULL,
    reply       TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE outbox (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id   TEXT    NOT NULL,
    name TEXT    NOT NULL,
    at   BIGINT  NOT NULL,
    data TEXT    NOT NULL
);

CREATE TABLE outbox_cursor (
    subscriber TEXT   PRIMARY KEY NOT NULL,
    seq        BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE inbox (
    event_id TEXT   PRIMARY KEY NOT NULL,
    at       BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX inbox_by_age ON inbox (at);

CREATE TABLE dead_letter (
    event_id TEXT   PRIMARY KEY NOT NULL,
    name     TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    data     TEXT   NOT NULL,
    reason   TEXT   NOT NULL
) WITHOUT ROWID;
