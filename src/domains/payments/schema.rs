diesel::table! {
    counter (name) {
        name -> Text,
        value -> BigInt,
    }
}

diesel::table! {
    invoice (id) {
        id -> Text,
        number -> BigInt,
        user_id -> Text,
        status -> Text,
        lines -> Text,
        total -> BigInt,
        refunded -> BigInt,
        refunding -> BigInt,
        returned_late -> BigInt,
        dispute -> Nullable<Text>,
        currency -> Text,
        email -> Nullable<Text>,
        checkout -> Nullable<Text>,
        hold -> Nullable<Text>,
        processing -> Nullable<Text>,
        imported -> Bool,
        created_at -> BigInt,
        expires_at -> BigInt,
        paid_at -> Nullable<BigInt>,
        shipping -> Nullable<Text>,
        tax -> BigInt,
        tax_included -> Bool,
        shipping_address -> Nullable<Text>,
        billing_address -> Nullable<Text>,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    payment (id) {
        id -> Text,
        invoice_id -> Text,
        state -> Text,
        amount -> BigInt,
        currency -> Text,
        scope -> Nullable<Text>,
        key -> Nullable<Text>,
        fingerprint -> Nullable<Binary>,
        failure -> Nullable<Text>,
        created_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        process -> Nullable<BigInt>,
    }
}

diesel::table! {
    refund (id) {
        id -> Text,
        invoice_id -> Text,
        state -> Text,
        amount -> BigInt,
        restock -> Bool,
        lines -> Nullable<Text>,
        reason -> Text,
        scope -> Nullable<Text>,
        key -> Nullable<Text>,
        fingerprint -> Nullable<Binary>,
        created_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        process -> Nullable<BigInt>,
    }
}

diesel::table! {
    test_provider_book (key) {
        key -> Text,
        kind -> Text,
        about -> Text,
        amount -> BigInt,
        currency -> Nullable<Text>,
        at -> BigInt,
    }
}

diesel::table! {
    unapplied_payment (payment_id) {
        payment_id -> Text,
        invoice_id -> Text,
        refund_key -> Text,
        amount -> BigInt,
        currency -> Text,
        created_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        process -> Nullable<BigInt>,
    }
}

diesel::table! {
    provider_event (id) {
        id -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    stripe_charge (key) {
        key -> Text,
        intent -> Nullable<Text>,
        at -> BigInt,
    }
}

diesel::table! {
    stripe_return (key) {
        key -> Text,
        attempt -> BigInt,
        refund -> Nullable<Text>,
        at -> BigInt,
    }
}
