//! Tables of the stats database; see `migrations/stats`.

diesel::table! {
    action (at, id) {
        at -> BigInt,
        id -> Text,
        user_id -> Nullable<Text>,
        kind -> Text,
        subject -> Nullable<Text>,
        data -> Nullable<Text>,
        reported_bytes -> Nullable<BigInt>,
    }
}

diesel::table! {
    hourly (start) {
        start -> BigInt,
        revenue -> BigInt,
        orders -> BigInt,
        sign_ups -> BigInt,
        carts -> BigInt,
    }
}

diesel::table! {
    daily (start) {
        start -> BigInt,
        revenue -> BigInt,
        orders -> BigInt,
        sign_ups -> BigInt,
        carts -> BigInt,
    }
}

diesel::table! {
    product_sales (day, product_id) {
        day -> BigInt,
        product_id -> Text,
        quantity -> BigInt,
        revenue -> BigInt,
    }
}

diesel::table! {
    product_name (product_id) {
        product_id -> Text,
        name -> Text,
        sold_at -> BigInt,
    }
}

diesel::table! {
    counter (name) {
        name -> Text,
        value -> BigInt,
    }
}

diesel::table! {
    erased (user_id) {
        user_id -> Text,
    }
}
