-- Delivery, tax and addresses of an invoice. `shipping` and the addresses are JSON: written once, read whole. The tax per
-- rate follows from the lines and `shipping`.
ALTER TABLE invoice ADD COLUMN shipping TEXT;
ALTER TABLE invoice ADD COLUMN tax BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoice ADD COLUMN tax_included BOOLEAN NOT NULL DEFAULT 1;
ALTER TABLE invoice ADD COLUMN shipping_address TEXT;
ALTER TABLE invoice ADD COLUMN billing_address TEXT;
ALTER TABLE invoice ADD COLUMN note TEXT;
