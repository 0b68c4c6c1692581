DROP TABLE dead_letter;
DROP TABLE inbox;
DROP TABLE outbox_cursor;
DROP TABLE outbox;
DROP TABLE idempotency;
