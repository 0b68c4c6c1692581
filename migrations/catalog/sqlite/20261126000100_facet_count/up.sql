-- `tally` and its columns get the names that the API has for what they count.
ALTER TABLE tally RENAME TO facet_count;
ALTER TABLE facet_count RENAME COLUMN mode TO scope;
ALTER TABLE facet_count RENAME COLUMN kind TO facet;
ALTER TABLE facet_count RENAME COLUMN n TO count;
DROP INDEX tally_by_n;
CREATE INDEX facet_count_by_count ON facet_count (scope, facet, count DESC, value);
