//! Tables of this domain as diesel sees them; defined by `migrations/catalog`.

diesel::table! {
    product (seq) {
        seq -> BigInt,
        id -> Text,
        sku -> Text,
        slug -> Text,
        name -> Text,
        name_key -> Text,
        price -> BigInt,
        currency -> Text,
        compare_at_price -> Nullable<BigInt>,
        stock -> BigInt,
        category -> Nullable<Text>,
        group_name -> Nullable<Text>,
        is_lead -> Bool,
        deleted -> Bool,
        rating_sum -> BigInt,
        rating_count -> BigInt,
        created_at -> BigInt,
        updated_at -> BigInt,
        tags -> Text,
        options -> Text,
        attributes -> Text,
        description -> Text,
        track_stock -> Bool,
        source_key -> Nullable<Text>,
    }
}

diesel::table! {
    product_tag (tag, seq) {
        tag -> Text,
        seq -> BigInt,
    }
}

diesel::table! {
    search_rebuild (after_seq) {
        after_seq -> BigInt,
    }
}

diesel::table! {
    facet_count (scope, facet, value) {
        scope -> Integer,
        facet -> Text,
        value -> Text,
        count -> BigInt,
    }
}

diesel::table! {
    hold (id) {
        id -> Text,
        state -> Text,
        expires_at -> BigInt,
        answer -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
    }
}

diesel::table! {
    hold_line (hold_id, product_id) {
        hold_id -> Text,
        product_id -> Text,
        quantity -> BigInt,
        returned -> BigInt,
    }
}

diesel::table! {
    stock_move (seq) {
        seq -> BigInt,
        product_id -> Text,
        delta -> BigInt,
        reason -> Text,
        #[sql_name = "ref"]
        reference -> Nullable<Text>,
        at -> BigInt,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    image (id) {
        id -> Text,
        product_id -> Text,
        position -> BigInt,
        alt -> Text,
        width -> Integer,
        height -> Integer,
        sizes -> Text,
    }
}

diesel::table! {
    image_file (image_id, width) {
        image_id -> Text,
        width -> Integer,
        height -> Integer,
        content_type -> Text,
        data -> Binary,
    }
}

diesel::allow_tables_to_appear_in_same_query!(hold, hold_line);
