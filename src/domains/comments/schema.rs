//! Tables of the comments database; see `migrations/comments`.

diesel::table! {
    comment (id) {
        id -> Text,
        product_id -> Text,
        user_id -> Nullable<Text>,
        author -> Text,
        rating -> Integer,
        text -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    person (user_id) {
        user_id -> Text,
        name -> Nullable<Text>,
    }
}

diesel::table! {
    rating (product_id) {
        product_id -> Text,
        sum -> BigInt,
        count -> BigInt,
    }
}
