DROP INDEX facet_count_by_count;
ALTER TABLE facet_count RENAME COLUMN count TO n;
ALTER TABLE facet_count RENAME COLUMN facet TO kind;
ALTER TABLE facet_count RENAME COLUMN scope TO mode;
ALTER TABLE facet_count RENAME TO tally;
CREATE INDEX tally_by_n ON tally (mode, kind, n DESC, value);
