DROP TABLE test_provider_book;
DROP TABLE refund;
DROP TABLE payment;
DROP TABLE invoice;
DROP TABLE counter;
