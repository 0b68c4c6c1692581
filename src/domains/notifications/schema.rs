//! Tables of the notifications database; see `migrations/notifications`.

diesel::table! {
    meta (key) {
        key -> Text,
        value -> Text,
    }
}

diesel::table! {
    stream (user_id) {
        user_id -> Text,
        seq -> BigInt,
        erased -> Bool,
    }
}

diesel::table! {
    notification (user_id, seq) {
        user_id -> Text,
        seq -> BigInt,
        id -> Text,
        kind -> Text,
        title -> Text,
        body -> Text,
        data -> Text,
        read -> Bool,
        created_at -> BigInt,
    }
}

diesel::table! {
    follower (user_id) {
        user_id -> Text,
        sees_email -> Bool,
    }
}
