DROP TABLE delivery_stall;
