DROP TABLE unbought_guest;
