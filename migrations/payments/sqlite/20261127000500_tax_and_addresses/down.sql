ALTER TABLE invoice DROP COLUMN note;
ALTER TABLE invoice DROP COLUMN billing_address;
ALTER TABLE invoice DROP COLUMN shipping_address;
ALTER TABLE invoice DROP COLUMN tax_included;
ALTER TABLE invoice DROP COLUMN tax;
ALTER TABLE invoice DROP COLUMN shipping;
