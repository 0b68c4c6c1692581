diesel::table! {
    cart_item (id) {
        id -> Text,
        user_id -> Text,
        product_id -> Text,
        quantity -> BigInt,
        unit_price -> BigInt,
        currency -> Text,
        name -> Text,
        slug -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    checkout (id) {
        id -> Text,
        user_id -> Text,
        freezes -> Nullable<Text>,
        state -> Text,
        hold -> Text,
        lines -> Text,
        invoice_lines -> Nullable<Text>,
        currency -> Nullable<Text>,
        email -> Nullable<Text>,
        invoice_id -> Nullable<Text>,
        scope -> Text,
        key -> Text,
        fingerprint -> Binary,
        release_due -> Bool,
        created_at -> BigInt,
        expires_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        network -> Nullable<Text>,
        process -> Nullable<BigInt>,
        details -> Nullable<Text>,
    }
}
