DROP TABLE leader;
DROP TABLE dead_letter;
DROP TABLE inbox;
DROP TABLE outbox_cursor;
DROP SEQUENCE outbox_seq;
DROP TABLE outbox;
DROP TABLE idempotency;
