//! The tables of this domain; see `migrations/mailer`.

diesel::table! {
    delivery_stall (id) {
        id -> Integer,
        since -> BigInt,
        alerted_at -> BigInt,
    }
}

diesel::table! {
    email (id) {
        id -> Text,
        recipient -> Text,
        user_id -> Nullable<Text>,
        subject -> Text,
        template -> Text,
        reference -> Nullable<Text>,
        status -> Text,
        attempts -> Integer,
        last_error -> Nullable<Text>,
        created_at -> BigInt,
        sent_at -> Nullable<BigInt>,
        next_attempt_at -> Nullable<BigInt>,
        text -> Nullable<Text>,
        html -> Nullable<Text>,
        link_id -> Nullable<Text>,
    }
}

diesel::table! {
    erased (user_id) {
        user_id -> Text,
    }
}

diesel::table! {
    recipient (user_id) {
        user_id -> Text,
        email -> Text,
        name -> Text,
    }
}

diesel::table! {
    pending_email (template, reference) {
        template -> Text,
        reference -> Text,
        user_id -> Text,
        content -> Text,
        created_at -> BigInt,
    }
}
