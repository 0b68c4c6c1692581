DROP INDEX checkout_by_network;
ALTER TABLE checkout DROP COLUMN network;
