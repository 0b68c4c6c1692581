-- Words of the products that are for sale, folded and cut by the shop in the same way as for PostgreSQL: here they are only
-- parted at the spaces between them. It keeps no copy of the texts.
DROP TABLE product_fts;
CREATE VIRTUAL TABLE product_fts USING fts5 (
    name, labels, description,
    tokenize = 'ascii', prefix = '2 3', content = '', contentless_delete = 1
);
-- Progress of a rebuild of the search index and the sort keys: one row while it runs, with the last product that is done.
CREATE TABLE search_rebuild (after_seq BIGINT PRIMARY KEY NOT NULL);
INSERT INTO search_rebuild SELECT 0 WHERE EXISTS (SELECT 1 FROM product);
