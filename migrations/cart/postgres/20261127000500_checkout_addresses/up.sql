-- Addresses and message that the invoice is created with, as JSON; cleared when the buyer is erased.
ALTER TABLE checkout ADD COLUMN details TEXT COLLATE "C";
