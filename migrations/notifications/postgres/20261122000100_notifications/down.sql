DROP TABLE notification;
DROP TABLE stream;
DROP TABLE meta;
