DROP TABLE stripe_return;
DROP TABLE stripe_charge;
DROP TABLE provider_news;
DROP TABLE stray;
ALTER TABLE refund DROP COLUMN lines;
