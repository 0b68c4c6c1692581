-- In which trace an event was caused (W3C traceparent), when it was in one.
ALTER TABLE outbox ADD COLUMN trace TEXT COLLATE "C";
