-- `tally` and its columns get the names that the API has for what they count.
ALTER TABLE tally RENAME TO facet_count;
ALTER TABLE facet_count RENAME COLUMN mode TO scope;
ALTER TABLE facet_count RENAME COLUMN kind TO facet;
ALTER TABLE facet_count RENAME COLUMN n TO count;
ALTER TABLE facet_count RENAME CONSTRAINT tally_pkey TO facet_count_pkey;
ALTER INDEX tally_by_n RENAME TO facet_count_by_count;
-- PostgreSQL's own word for what a text search looks at.
ALTER TABLE product_fts RENAME COLUMN sought TO document;
ALTER INDEX product_fts_sought RENAME TO product_fts_document;
