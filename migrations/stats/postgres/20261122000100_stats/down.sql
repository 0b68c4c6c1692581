DROP TABLE counter;
DROP TABLE product_name;
DROP TABLE product_sales;
DROP TABLE daily;
DROP TABLE hourly;
DROP TABLE action;
