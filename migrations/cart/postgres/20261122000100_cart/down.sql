DROP TABLE checkout;
DROP TABLE cart_item;
