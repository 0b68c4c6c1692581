-- How many pieces of a sold line have come back. A hold all of whose pieces came back is `returned`.
ALTER TABLE hold_line ADD COLUMN returned BIGINT NOT NULL DEFAULT 0;
UPDATE hold_line SET returned = quantity WHERE hold_id IN (SELECT id FROM hold WHERE state = 'returned');
