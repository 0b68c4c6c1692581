-- A repetition finds the checkout that was begun under its key, also one that ended before its answer was kept.
CREATE INDEX checkout_by_key ON checkout (scope, key);
