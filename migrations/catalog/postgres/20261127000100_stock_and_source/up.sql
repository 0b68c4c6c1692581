-- Products whose stock is not counted: always for sale.
ALTER TABLE product ADD COLUMN track_stock BOOLEAN NOT NULL DEFAULT TRUE;
-- What the system that a product was imported from calls it: its handle and options, or its id. Empty without one.
ALTER TABLE product ADD COLUMN source_key TEXT COLLATE "C";
CREATE UNIQUE INDEX product_by_source ON product (source_key) WHERE source_key IS NOT NULL;
-- The reason that staff gave for a change of stock.
ALTER TABLE stock_move ADD COLUMN note TEXT COLLATE "C";
