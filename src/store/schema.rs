//! Diesel schema of the tables that every domain's database has; the SQL is in `migrations/store`.

diesel::table! {
    idempotency (scope, key) {
        scope -> Text,
        key -> Text,
        fingerprint -> Binary,
        reply -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    outbox (seq) {
        seq -> BigInt,
        id -> Text,
        name -> Text,
        at -> BigInt,
        data -> Text,
        trace -> Nullable<Text>,
    }
}

diesel::table! {
    outbox_cursor (subscriber) {
        subscriber -> Text,
        seq -> BigInt,
    }
}

diesel::table! {
    inbox (event_id) {
        event_id -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    audit (id) {
        id -> Text,
        at -> BigInt,
        user_id -> Text,
        role -> Text,
        credential -> Text,
        network -> Nullable<Text>,
        request_id -> Text,
        action -> Text,
        subject -> Text,
        change -> Nullable<Text>,
    }
}

diesel::table! {
    dead_letter (event_id) {
        event_id -> Text,
        name -> Text,
        at -> BigInt,
        data -> Text,
        reason -> Text,
    }
}
