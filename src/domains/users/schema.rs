//! Tables of this domain as diesel sees them; defined by `migrations/users`.

diesel::table! {
    account (id) {
        id -> Text,
        email -> Nullable<Text>,
        pending_email -> Nullable<Text>,
        name -> Text,
        role -> Text,
        email_verified -> Bool,
        password_hash -> Nullable<Text>,
        totp_id -> Nullable<Text>,
        totp_step -> Nullable<BigInt>,
        search_text -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
    }
}

diesel::table! {
    session (id) {
        id -> Text,
        user_id -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
        last_used_at -> BigInt,
    }
}

diesel::table! {
    api_key (id) {
        id -> Text,
        user_id -> Text,
        name -> Text,
        scopes -> Text,
        created_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        last_used_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    link (id) {
        id -> Text,
        user_id -> Text,
        purpose -> Text,
        email -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
        used_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    unbought_guest (user_id) {
        user_id -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    recovery_code (user_id, hash) {
        user_id -> Text,
        hash -> Text,
    }
}

diesel::table! {
    address (id) {
        id -> Text,
        user_id -> Text,
        content -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
    }
}

diesel::joinable!(session -> account (user_id));
diesel::joinable!(api_key -> account (user_id));
diesel::allow_tables_to_appear_in_same_query!(account, session, api_key, link);
