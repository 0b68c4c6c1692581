DROP TABLE search_rebuild;
DROP TABLE product_fts;
CREATE VIRTUAL TABLE product_fts USING fts5 (
    name, labels, description,
    tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3', content = '', contentless_delete = 1
);
