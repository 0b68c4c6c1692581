DROP TABLE waiting;
DROP TABLE recipient;
DROP TABLE email;
