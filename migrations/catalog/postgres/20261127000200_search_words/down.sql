DROP TABLE search_rebuild;
