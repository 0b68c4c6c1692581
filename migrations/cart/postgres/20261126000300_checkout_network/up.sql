-- Network that a checkout was begun from, kept while it counts against that network's limit of unpaid orders.
ALTER TABLE checkout ADD COLUMN network TEXT;
CREATE INDEX checkout_by_network ON checkout (network) WHERE network IS NOT NULL;
