ALTER INDEX product_fts_document RENAME TO product_fts_sought;
ALTER TABLE product_fts RENAME COLUMN document TO sought;
ALTER INDEX facet_count_by_count RENAME TO tally_by_n;
ALTER TABLE facet_count RENAME CONSTRAINT facet_count_pkey TO tally_pkey;
ALTER TABLE facet_count RENAME COLUMN count TO n;
ALTER TABLE facet_count RENAME COLUMN facet TO kind;
ALTER TABLE facet_count RENAME COLUMN scope TO mode;
ALTER TABLE facet_count RENAME TO tally;
