-- Staff who are notified of the shop's orders and stock: since they have looked at their notifications with their rights.
CREATE TABLE follower (
    user_id    TEXT    PRIMARY KEY NOT NULL,
    sees_email BOOLEAN NOT NULL
);
