DROP TABLE follower;
