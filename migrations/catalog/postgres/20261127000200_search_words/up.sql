-- Words are folded in another way now.
TRUNCATE product_fts;
-- Progress of a rebuild of the search index and the sort keys: one row while it runs, with the last product that is done.
CREATE TABLE search_rebuild (after_seq BIGINT PRIMARY KEY NOT NULL);
INSERT INTO search_rebuild SELECT 0 WHERE EXISTS (SELECT 1 FROM product);
