DROP INDEX checkout_by_key;
