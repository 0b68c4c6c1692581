DROP INDEX product_by_source;
ALTER TABLE product DROP COLUMN source_key;
ALTER TABLE product DROP COLUMN track_stock;
ALTER TABLE stock_move DROP COLUMN note;
