DROP TABLE rating;
DROP TABLE person;
DROP TABLE comment;
