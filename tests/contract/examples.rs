//! One example of every message with its reply, of every event, and of all variants of every error and enumeration.
//!
//! Every field is set, so that its encoding is in the golden file. Structs are written in full: a new field does not
//! compile until it has an example value.

use std::collections::BTreeMap;
use std::sync::Arc;

use mercat::contract::cart::*;
use mercat::contract::catalog::*;
use mercat::contract::comments::*;
use mercat::contract::mailer::*;
use mercat::contract::notifications::*;
use mercat::contract::payments::*;
use mercat::contract::placement::*;
use mercat::contract::stats::*;
use mercat::contract::users::*;
use mercat::domains::notifications::Push;
use mercat::messaging::{
    AuditEntry, CheckInvariants, CommonError, Credential, DeliverEvents, EventEnvelope, Identity, InvariantReport,
    ListAuditEntries, Role, Scopes, Selection, Violation,
};
use mercat::types::{
    AddressFormat, Currency, Cursor, EmailAddress, FieldError, Page, PageRequest, PostalAddress, Timestamp,
};
use serde_json::json;

use super::example::{Example, event, message, variants};

/// All examples.
pub fn all() -> Vec<Example> {
    let groups = [
        common(),
        audit(),
        users(),
        catalog(),
        stock(),
        cart(),
        payments(),
        invoice_events(),
        mailer(),
        stats(),
        comments(),
        notifications(),
        placement(),
    ];
    groups.into_iter().flatten().collect()
}

/// An id whose last byte is `n`.
fn id<T: std::str::FromStr>(n: u8) -> T {
    let parsed = format!("01970000-0000-7000-8000-0000000000{n:02x}").parse();
    parsed.unwrap_or_else(|_| panic!("not an id"))
}

fn time() -> Timestamp {
    Timestamp::parse("2026-01-02T03:04:05.678901Z").unwrap()
}

fn later() -> Timestamp {
    Timestamp::parse("2026-01-02T04:04:05Z").unwrap()
}

fn email() -> EmailAddress {
    "ada@example.com".parse().unwrap()
}

fn page() -> PageRequest {
    PageRequest { limit: Some(20), cursor: Some(cursor()) }
}

fn cursor() -> Cursor {
    Cursor::encode(&7)
}

fn page_of<T>(item: T) -> Page<T> {
    Page { items: vec![item], next: Some(cursor()) }
}

fn map(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn common() -> Vec<Example> {
    let envelope = EventEnvelope {
        id: id(1),
        name: "cart.cart_started".into(),
        at: time(),
        data: json!({ "user_id": "01970000-0000-7000-8000-000000000002" }),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    };
    let violation = Violation {
        domain: "stats".into(),
        description: "hourly statistics exist without a daily row".into(),
        found: "1790000000000000".into(),
        remedy: "report it as a bug".into(),
    };
    let report = InvariantReport {
        now: time(),
        violations: vec![violation],
        row_counts: [("logged actions".to_owned(), 3)].into(),
        head: 9,
        cursors: [("mailer".to_owned(), 8)].into(),
    };
    vec![
        message(DeliverEvents { events: vec![envelope] }, ()),
        message(CheckInvariants { deep: true, subscribers: vec!["mailer".into()] }, report),
        variants!(CommonError {
            Unauthenticated {},
            Forbidden {},
            ScopeMissing { scope: "catalog:write".into() },
            RecentSignInRequired {},
            InternalOnly {},
            ValidationFailed { errors: vec![FieldError::new("email", "invalid", "is not an e-mail address")] },
            IdempotencyKeyReused {},
            RequestInProgress {},
            PreconditionFailed {},
            IdempotencyKeyRequired {},
            RateLimited { limit: "signin".to_owned(), retry_after: 30 },
            Overloaded {},
            Unavailable {},
            DeadlineExceeded {},
            StorageUnavailable {},
            Internal {},
        }),
        variants!(Role { Guest {}, Customer {}, ReadOnly {}, Support {}, Manager {}, Admin {} }),
    ]
}

fn audit() -> Vec<Example> {
    let entry = AuditEntry {
        id: id(9),
        at: time(),
        user_id: id(2),
        role: Role::Manager,
        credential: "session".into(),
        network: Some("192.0.2.1".into()),
        request_id: "r1".into(),
        action: "catalog.UpdateProduct".into(),
        subject: json!({ "product_id": "p" }),
        change: Some(json!({ "before": { "price": 1 }, "after": { "price": 2 } })),
    };
    let list = ListAuditEntries { user_id: Some(id(2)), before: Some((time(), id(9))), limit: 50 };
    vec![message(list, vec![entry])]
}

fn user() -> User {
    User {
        id: id(2),
        email: Some(email()),
        name: "Ada".into(),
        role: Role::Customer,
        email_verified: true,
        pending_email: Some(email()),
        second_factor: true,
        created_at: time(),
        updated_at: later(),
    }
}

fn api_key() -> ApiKey {
    ApiKey {
        id: id(3),
        name: "backup".into(),
        prefix: "mk_ab".into(),
        scopes: Scopes::parse(&["catalog:read"]).unwrap(),
        created_at: time(),
        expires_at: Some(later()),
        last_used_at: Some(later()),
    }
}

fn address() -> PostalAddress {
    PostalAddress {
        name: "Ada Lovelace".into(),
        company: Some("Engines Ltd".into()),
        line1: "12 St James's Square".into(),
        line2: Some("2nd floor".into()),
        postal_code: "SW1Y 4JH".into(),
        city: "London".into(),
        region: Some("England".into()),
        country: "GB".parse().unwrap(),
        phone: Some("+44 20 7946 0000".into()),
        vat_id: Some("GB123456789".into()),
    }
}

fn saved_address() -> SavedAddress {
    SavedAddress { id: id(5), address: address(), created_at: time(), updated_at: later() }
}

fn signed_in() -> SignedIn {
    SignedIn { token: "token".into(), expires_at: later(), user: user() }
}

fn users() -> Vec<Example> {
    let (email, password, name) = ("ada@example.com".to_owned(), "a long password".to_owned(), "Ada".to_owned());
    let register = Register { email: email.clone(), password: password.clone(), name: name.clone() };
    let sign_in = SignIn { email: email.clone(), password: password.clone(), code: Some("123456".into()) };
    let identity = Identity::new(id(2), Role::Admin, Credential::Session(id(4)));
    let update = UpdateUser {
        user_id: id(2),
        name: Some(name.clone()),
        email: Some(email.clone()),
        password: Some(password.clone()),
        current_password: Some(password.clone()),
        role: Some(Role::Admin),
        keep_api_keys: true,
    };
    let create = CreateUser {
        email: email.clone(),
        password: password.clone(),
        name: name.clone(),
        role: Role::Customer,
        created_at: Some(time()),
    };
    let registration = Registration { user: user(), token: Some("token".into()), expires_at: Some(later()) };
    let create_key =
        CreateApiKey { name: "backup".into(), scopes: Some(vec!["catalog:read".into()]), expires_at: Some(later()) };
    let identity =
        Identity { scopes: Scopes::parse(&["catalog:read"]).unwrap(), signed_in_at: Some(time()), ..identity };
    let messages = [
        message(register, registration),
        message(CreateGuest {}, signed_in()),
        message(sign_in, signed_in()),
        message(SignOut {}, ()),
        message(Authenticate { token: "token".into() }, Authenticated { identity, expires_at: Some(later()) }),
        message(GetUser { user_id: id(2) }, user()),
        message(update, user()),
        message(DeleteUser { user_id: id(2) }, ()),
        message(ListUsers { q: Some("ada".into()), page: page() }, page_of(user())),
        message(ForgotPassword { email }, ()),
        message(ResetPassword { token: "token".into(), password, keep_api_keys: true }, ()),
        message(VerifyEmail { token: "token".into() }, ()),
        message(ListApiKeys {}, page_of(api_key())),
        message(create_key, NewApiKey { api_key: api_key(), token: "mk_abc".into() }),
        message(DeleteApiKey { api_key_id: id(3) }, ()),
        message(
            ListCountries {},
            Countries {
                items: vec![AddressFormat {
                    code: "AU".into(),
                    postal_code: Some("[0-9]{4}".into()),
                    example: Some("2060".into()),
                    postal_code_required: true,
                    postal_code_first: false,
                    region: Some("state".into()),
                    region_required: true,
                    city_optional: false,
                }],
            },
        ),
        message(ListAddresses { user_id: id(2), page: page() }, page_of(saved_address())),
        message(CreateAddress { user_id: id(2), address: address() }, saved_address()),
        message(GetAddress { user_id: id(2), address_id: id(5) }, saved_address()),
        message(ReplaceAddress { user_id: id(2), address_id: id(5), address: address() }, saved_address()),
        message(DeleteAddress { user_id: id(2), address_id: id(5) }, ()),
        message(create, user()),
        message(
            EnrollTotp { user_id: id(2) },
            TotpEnrolment { otpauth_url: "otpauth://totp/a".into(), secret: "ABC".into(), qr_svg: "<svg/>".into() },
        ),
        message(
            ConfirmTotp { user_id: id(2), code: "123456".into() },
            RecoveryCodes { recovery_codes: vec!["12345-67890".into()] },
        ),
        message(DisableTotp { user_id: id(2), code: Some("123456".into()) }, ()),
        message(IssueLinkToken { link_id: uuid::Uuid::nil() }, LinkToken { token: "token".into() }),
        message(FilterExistingUsers { users: vec![id(2)] }, vec![id(2)]),
        variants!(UsersError {
            UserNotFound {},
            EmailTaken {},
            BadCredentials {},
            SecondFactorRequired {},
            WrongCode {},
            SecondFactorOn {},
            SecondFactorOff {},
            InvalidToken {},
            InvalidLink {},
            LastAdmin {},
            ApiKeyNotFound {},
            TooManyApiKeys {},
            AddressNotFound {},
            TooManyAddresses {},
            Common { 0: CommonError::Forbidden },
        }),
        variants!(Credential { Session { 0: id(4) }, ApiKey { 0: id(3) } }),
    ];
    messages.into_iter().chain(user_events()).collect()
}

fn user_events() -> Vec<Example> {
    let (user_id, email, name, link_id) = (id(2), email(), "Ada".to_owned(), uuid::Uuid::nil());
    vec![
        event(UserRegistered {
            user_id,
            email: email.clone(),
            name: name.clone(),
            role: Role::Customer,
            email_verified: true,
            created_at: time(),
        }),
        event(UserChanged { user_id, email: Some(email.clone()), name, role: Role::Customer, email_verified: true }),
        event(UserErased { user_id, email: Some(email.clone()) }),
        event(AccessChanged { user_id, session_id: Some(id(4)) }),
        event(EmailVerificationRequested { user_id, email: email.clone(), link_id }),
        event(PasswordResetRequested { user_id, email: email.clone(), link_id }),
        event(CredentialsChanged { user_id, email, change: CredentialChange::Password, by_staff: true }),
        variants!(CredentialChange {
            EmailRequested {},
            Email {},
            Password {},
            ApiKey {},
            Role {},
            SecondFactorOn {},
            SecondFactorOff {},
            OfStaff {},
        }),
    ]
}

fn new_product() -> NewProduct {
    NewProduct {
        name: "Teapot".into(),
        sku: "TEA-1".into(),
        description: "For tea.".into(),
        price: 1999,
        currency: Currency::EUR,
        stock: 5,
        track_stock: true,
        compare_at_price: Some(2499),
        category: Some("kitchen".into()),
        tags: vec!["tea".into()],
        attributes: map("Material", "Steel"),
        group: Some("teapots".into()),
        options: map("Size", "Large"),
    }
}

fn image() -> Image {
    let size = ImageSize { url: "/images/1?w=320".into(), width: 320, height: 240 };
    Image { id: id(6), url: "/images/1".into(), width: 1600, height: 1200, alt: "A teapot".into(), sizes: vec![size] }
}

fn product() -> Product {
    let variant = Variant {
        id: id(7),
        sku: "TEA-2".into(),
        name: "Teapot, small".into(),
        options: map("Size", "Small"),
        price: 1499,
        compare_at_price: Some(1999),
        currency: Currency::EUR,
        stock: 0,
    };
    Product {
        id: id(5),
        name: "Teapot".into(),
        sku: "TEA-1".into(),
        slug: "teapot".into(),
        description: "For tea.".into(),
        price: 1999,
        currency: Currency::EUR,
        compare_at_price: Some(2499),
        stock: 5,
        track_stock: true,
        category: Some("kitchen".into()),
        tags: vec!["tea".into()],
        attributes: map("Material", "Steel"),
        group: Some("teapots".into()),
        options: map("Size", "Large"),
        variants: vec![variant],
        images: vec![image()],
        rating: Some(4.5),
        review_count: 2,
        deleted: false,
        created_at: time(),
        updated_at: later(),
    }
}

fn offer() -> Offer {
    Offer {
        product_id: id(5),
        name: "Teapot".into(),
        sku: "TEA-1".into(),
        slug: "teapot".into(),
        price: 1999,
        currency: Currency::EUR,
        stock: 5,
        deleted: false,
        image: Some("/images/1?w=320".into()),
    }
}

fn catalog() -> Vec<Example> {
    let query = ProductQuery {
        q: Some("tea".into()),
        category: Some("kitchen".into()),
        tag: Some("tea".into()),
        min_price: Some(100),
        max_price: Some(5000),
        in_stock: Some(true),
        sort: Some(Sort::PriceDescending),
        all_variants: true,
    };
    let count = |value: &str| FacetValue { value: value.to_owned(), count: 1 };
    let facets = Facets {
        total: 1,
        capped: true,
        categories: vec![count("kitchen")],
        tags: vec![count("tea")],
        min_price: Some(1999),
        max_price: Some(1999),
        in_stock: 1,
    };
    let products = ProductPage {
        items: vec![Arc::new(product())],
        next: Some(cursor()),
        facets: Arc::new(facets),
        suggestion: Some("teapot".into()),
    };
    let patch = ProductPatch {
        name: Some("Teapot".into()),
        sku: Some("TEA-1".into()),
        description: Some("For tea.".into()),
        price: Some(1999),
        currency: Some(Currency::EUR),
        stock: Some(5),
        track_stock: Some(true),
        compare_at_price: Some(None),
        category: Some(Some("kitchen".into())),
        tags: Some(vec!["tea".into()]),
        attributes: Some(map("Material", "Steel")),
        group: Some(None),
        options: Some(map("Size", "Large")),
    };
    let outcomes = vec![
        ImportOutcome::Created(id(5)),
        ImportOutcome::Updated { product_id: id(7), fields: vec!["price".into()] },
        ImportOutcome::Unchanged(id(7)),
        ImportOutcome::LeftOut,
        ImportOutcome::Refused("no price".into()),
    ];
    let row = ImportRow {
        source_key: Some("shopify:teapot|Size=Large".into()),
        fields: patch.clone(),
        defaults: ProductPatch { stock: Some(0), ..ProductPatch::default() },
        withdrawn: false,
    };
    let add_image = AddImage { product_id: id(5), alt: "A teapot".into(), data: vec![1, 2, 255] };
    let file = ImageFile { content_type: "image/webp".into(), data: vec![1, 2, 255] };
    let changed = ProductChanged {
        product_id: id(5),
        sku: "TEA-1".into(),
        name: "Teapot".into(),
        group: Some("teapots".into()),
        price: 1999,
        currency: Currency::EUR,
        stock: 5,
        rating: Some(4.5),
        review_count: 2,
        deleted: false,
        updated_at: later(),
    };
    vec![
        message(CreateProduct { product: new_product() }, product()),
        message(GetProduct { product_id: id(5) }, product()),
        message(GetOffers { product_ids: vec![id(5)] }, vec![offer()]),
        message(UpdateProduct { product_id: id(5), patch }, product()),
        message(ReplaceProduct { product_id: id(5), product: new_product() }, product()),
        message(DeleteProduct { product_id: id(5) }, ()),
        message(ListProducts { query, page: page() }, products),
        message(add_image, image()),
        message(DeleteImage { product_id: id(5), image_id: id(6) }, ()),
        message(ListImages { product_id: id(5) }, vec![image()]),
        message(GetImage { product_id: id(5), image_id: id(6), width: Some(320) }, file),
        message(ImportProducts { rows: vec![row], overwrite: true, dry_run: false }, outcomes),
        message(ExportProducts { after: Some(id(5)) }, ExportPage { rows: vec![new_product()], next: Some(id(7)) }),
        message(GetRatings { products: vec![id(5)] }, vec![RatingFacts { product_id: id(5), sum: 9, count: 2 }]),
        event(changed),
        variants!(Sort {
            Name {},
            Price {},
            PriceDescending {},
            CreatedAt {},
            CreatedAtDescending {},
            Relevance {},
        }),
    ]
}

fn stock() -> Vec<Example> {
    let line = HoldLine { product_id: id(5), quantity: 2 };
    let facts = HoldFacts { hold: id(8), state: "held".into(), expires_at: later(), lines: vec![line] };
    let (product_id, name) = (id(5), "Teapot".to_owned());
    vec![
        message(
            ChangeStock { product_id: id(5), change: Some(2), set: Some(7), reason: Some("delivery".into()) },
            StockedProduct { product: product(), on_hand: 7, held: 2 },
        ),
        message(
            GetStock { product_id: id(5) },
            StockLevel {
                product_id: id(5),
                track_stock: true,
                on_hand: 7,
                held: 2,
                available: 5,
                changes: vec![StockChange {
                    change: 2,
                    cause: "changed".into(),
                    reason: Some("delivery".into()),
                    at: time(),
                }],
            },
        ),
        message(
            HoldStock { hold: id(8), lines: vec![line], expires_at: later() },
            StockHold { hold: id(8), offers: vec![offer()] },
        ),
        message(ReleaseHold { hold: id(8) }, ()),
        message(ListHoldFacts { which: Selection::After(Some(id(8))) }, vec![facts]),
        event(BackInStock { product_id, name: name.clone(), stock: 5 }),
        event(LowStock { product_id, sku: "TEA-1".into(), name, stock: 1 }),
        event(SaleRefused { invoice_id: id(10), hold: id(8) }),
        variants!(CatalogError {
            ProductNotFound {},
            SkuTaken {},
            OutOfStock { product_id: id(5), left: 1 },
            HoldGone {},
            ImageNotFound {},
            TooManyImages { max: 10 },
            UnsupportedImage { reason: "it is empty".into() },
            ImageTooLarge { max_bytes: 8_000_000, max_pixels: 40_000_000 },
            Common { 0: CommonError::Forbidden },
        }),
    ]
}

fn cart_item() -> CartItem {
    CartItem {
        id: id(11),
        product_id: id(5),
        name: "Teapot".into(),
        slug: "teapot".into(),
        quantity: 2,
        unit_price: 1999,
        total: 3998,
        currency: Currency::EUR,
        image: Some("/images/1?w=320".into()),
        changed: Some(Change::Price),
        added_unit_price: 1899,
    }
}

fn cart() -> Vec<Example> {
    let (user_id, item_id, product_id, quantity) = (id(2), id(11), id(5), 2);
    let cart =
        Cart { items: vec![cart_item()], total: 3998, currency: Currency::EUR, count: 2, invoice_id: Some(id(10)) };
    let facts = CheckoutFacts {
        checkout: id(9),
        state: "invoiced".into(),
        hold: id(8),
        invoice_id: Some(id(10)),
        release_due: true,
    };
    vec![
        message(AddItem { user_id, product_id, quantity }, cart_item()),
        message(GetItem { user_id, item_id }, cart_item()),
        message(SetQuantity { user_id, item_id, quantity }, Some(cart_item())),
        message(RemoveItem { user_id, item_id }, ()),
        message(MergeCart { guest_id: id(1), user_id: id(2) }, MergedCart { moved: 2, left: vec!["Teapot".into()] }),
        message(GetCart { user_id }, cart),
        message(
            Checkout {
                user_id,
                email: Some("ada@example.com".into()),
                shipping_address: None,
                billing_address: None,
                note: None,
            },
            invoice(),
        ),
        message(CancelCheckout { user_id }, ()),
        message(ListCheckoutFacts { which: Selection::These(vec![id(9)]) }, vec![facts]),
        event(CartStarted { user_id }),
        variants!(CartError {
            ProductNotFound {},
            ItemNotFound {},
            OutOfStock { product_id: id(5), left: 1 },
            CurrencyMismatch { currency: Currency::EUR },
            CartEmpty {},
            CartFull { max: 100 },
            CheckoutInProgress { invoice_id: Some(id(10)) },
            CheckoutExpired {},
            TooManyUnpaidOrders { max: 5 },
            NoCheckout {},
            Common { 0: CommonError::Forbidden },
        }),
        variants!(Change { Price {}, Stock {}, Unavailable {} }),
    ]
}

fn invoice_line() -> InvoiceLine {
    InvoiceLine {
        description: "Teapot".into(),
        product_id: Some(id(5)),
        quantity: 2,
        unit_price: 1999,
        tax: Some(tax_rate()),
    }
}

fn tax_rate() -> TaxRate {
    TaxRate { name: "VAT".into(), rate: "5.5".parse().unwrap() }
}

fn shipping() -> ShippingCharge {
    ShippingCharge { method: "Parcel".into(), price: 490, tax: Some(tax_rate()) }
}

fn invoice() -> Invoice {
    Invoice {
        shipping: Some(shipping()),
        tax: 209,
        tax_included: true,
        taxes: vec![TaxTotal { tax: tax_rate(), base: 3789, amount: 209 }],
        shipping_address: Some(address()),
        billing_address: Some(address()),
        note: Some("Ring twice".into()),
        id: id(10),
        number: "INV-000001".into(),
        user_id: id(2),
        status: InvoiceStatus::Paid,
        lines: vec![invoice_line()],
        total: 3998,
        refunded: 100,
        refunding: 50,
        returned_late: 0,
        dispute: Some(DisputeStatus::Open),
        currency: Currency::EUR,
        email: Some(email()),
        processing: true,
        created_at: time(),
        expires_at: later(),
        paid_at: Some(later()),
    }
}

fn payments() -> Vec<Example> {
    let invoice_id = id(10);
    let create = CreateInvoice {
        shipping: Some(shipping()),
        tax_included: false,
        shipping_address: Some(address()),
        billing_address: Some(address()),
        note: Some("Ring twice".into()),
        user_id: id(2),
        lines: vec![invoice_line()],
        currency: Currency::EUR,
        email: Some(email()),
        hold: Some(id(8)),
        checkout: Some(id(9)),
        expires_at: Some(later()),
    };
    let import = ImportInvoice {
        user_id: id(2),
        lines: vec![invoice_line()],
        currency: Currency::EUR,
        status: InvoiceStatus::Paid,
        at: time(),
    };
    let lines = Some(vec![ReturnLine { product_id: id(5), quantity: 1 }]);
    let list = ListInvoices { user_id: Some(id(2)), status: Some(InvoiceStatus::Open), page: page() };
    let facts = InvoiceFacts {
        id: invoice_id,
        number: "INV-000001".into(),
        user_id: id(2),
        status: InvoiceStatus::Refunded,
        imported: false,
        has_email: true,
        hold: Some(id(8)),
        checkout: Some(id(9)),
        goods: vec![(id(5), 2)],
        expires_at: later(),
        paid_at: Some(later()),
        refunds: 1,
        restocked: true,
        unkept: true,
    };
    vec![
        message(create, invoice()),
        message(GetInvoice { invoice_id }, invoice()),
        message(list, page_of(invoice())),
        message(PayInvoice { invoice_id, token: "tok_ok".into() }, invoice()),
        message(RefundInvoice { invoice_id, amount: Some(100), restock: true, lines }, invoice()),
        message(HandleProviderWebhook { body: "{}".into(), signature: "t=1,v1=00".into() }, ()),
        message(VoidInvoice { invoice_id }, invoice()),
        message(import, invoice()),
        message(ListInvoiceFacts { which: InvoiceSelection::These(vec![invoice_id]) }, vec![facts]),
        message(CountPaidByDay {}, vec![(time(), 3)]),
        variants!(PaymentsError {
            InvoiceNotFound {},
            CardDeclined {},
            AuthenticationRequired {},
            AmountRefused {},
            BadSignature {},
            UnreadableWebhook {},
            NoWebhooks {},
            UnknownToken {},
            AlreadyPaid {},
            InvoiceExpired {},
            InvoiceVoid {},
            PaymentInProgress {},
            NotPaid {},
            NotOpen {},
            RefundTooLarge { left: 100 },
            ProviderFailed {},
            Common { 0: CommonError::Forbidden },
        }),
        variants!(InvoiceStatus { Open {}, Paid {}, Expired {}, Void {}, Refunded {} }),
        variants!(InvoiceSelection {
            After { 0: Some(id(10)) },
            These { 0: vec![id(10)] },
            OfHolds { 0: vec![id(8)] },
        }),
    ]
}

fn invoice_events() -> Vec<Example> {
    let (invoice_id, number, user_id) = (id(10), "INV-000001".to_owned(), id(2));
    let (hold, checkout) = (Some(id(8)), Some(id(9)));
    vec![
        event(InvoiceCreated { invoice: invoice() }),
        event(InvoicePaid { invoice: invoice(), hold, checkout, imported: true }),
        event(PaymentFailed { invoice_id, number: number.clone(), user_id, reason: "card_declined".into() }),
        event(InvoiceExpired { invoice_id, number: number.clone(), user_id, hold, checkout }),
        event(InvoiceVoided { invoice_id, number, user_id, hold, checkout }),
        event(InvoiceRefunded {
            invoice: invoice(),
            amount: 100,
            restock: true,
            lines: vec![ReturnLine { product_id: id(5), quantity: 1 }],
            hold,
            reason: REQUESTED.into(),
            imported: true,
        }),
        event(PaymentDisputed {
            invoice: invoice(),
            amount: 100,
            reason: "fraudulent".into(),
            respond_by: Some(later()),
        }),
        variants!(DisputeStatus { Open {}, Won {}, Lost {} }),
    ]
}

fn mailer() -> Vec<Example> {
    let (to, subject) = ("ada@example.com".to_owned(), "Your receipt".to_owned());
    let mail = Email {
        id: id(12),
        to: email(),
        subject: subject.clone(),
        template: "receipt".into(),
        text: Some("Thank you.".into()),
        html: Some("<p>Thank you.</p>".into()),
        status: EmailStatus::Sent,
        attempts: 2,
        last_error: Some("connection refused".into()),
        created_at: time(),
        sent_at: Some(later()),
        next_attempt_at: Some(later()),
    };
    let send =
        SendEmail { to: to.clone(), subject: subject.clone(), text: "Hello.".into(), html: Some("Hello.".into()) };
    let changed = EmailChanged {
        email_id: id(12),
        to: email(),
        subject: subject.clone(),
        template: "receipt".into(),
        status: EmailStatus::Queued,
        attempts: 1,
    };
    vec![
        message(send, AcceptedEmail { id: id(12), status: EmailStatus::Queued }),
        message(ListEmails { status: Some(EmailStatus::Failed), to: Some(to), page: page() }, page_of(mail.clone())),
        message(GetEmail { email_id: id(12) }, mail),
        message(ResendEmail { email_id: id(12) }, AcceptedEmail { id: id(12), status: EmailStatus::Queued }),
        message(ListEmailFacts { invoices: vec![id(10)] }, vec![EmailFacts { receipts: 1, refunds: 1, waiting: 1 }]),
        event(changed),
        event(EmailFailed { email_id: id(12), to: email(), subject, reason: "mailbox unknown".into() }),
        event(DeliveryStalled { since: time(), queued: 2, reason: "daily limit exceeded".into() }),
        variants!(MailerError {
            EmailNotFound {},
            EmailNotResendable {},
            NoMailServer {},
            RecipientLimit { max: 10, retry_after: 60 },
            UnknownRecipient {},
            Common { 0: CommonError::Forbidden },
        }),
        variants!(EmailStatus { Queued {}, Sent {}, Kept {}, Failed {} }),
    ]
}

fn stats() -> Vec<Example> {
    let (action, subject) = ("product_viewed".to_owned(), Some("TEA-1".to_owned()));
    let data = Some(json!({ "page": 1 }));
    let logged = LoggedAction {
        id: id(13),
        at: time(),
        user_id: Some(id(2)),
        action: action.clone(),
        subject: subject.clone(),
        data: data.clone(),
    };
    let list = ListActions {
        from: Some(time()),
        to: Some(later()),
        action: Some(action.clone()),
        user_id: Some(id(2)),
        page: page(),
    };
    let totals = Totals { revenue: 3898, orders: 1, sign_ups: 1, carts: 2, conversion: Some(0.5) };
    let top = TopProduct { product_id: id(5), name: "Teapot".into(), quantity: 2, revenue: 3998 };
    let summary = Summary {
        from: time(),
        to: later(),
        bucket: Bucket::Hour,
        currency: Currency::EUR,
        totals,
        buckets: vec![BucketTotals { start: time(), totals }],
        top_products: vec![top],
    };
    vec![
        message(LogAction { user_id: Some(id(2)), action, subject, data }, ()),
        message(list, page_of(logged)),
        message(GetSummary { from: Some(time()), to: Some(later()), bucket: Some(Bucket::Week) }, summary),
        message(AddServedRequests { count: 5 }, 12),
        message(GetServedRequests {}, 12),
        message(ListOrderFacts { orders: vec![(id(10), time())] }, OrderFacts { times: vec![1], kept_since: time() }),
        message(CountOrders {}, vec![(time(), 3)]),
        variants!(Bucket { Hour {}, Day {}, Week {}, Month {} }),
    ]
}

fn comments() -> Vec<Example> {
    let (product_id, rating, text) = (id(5), 5, "Holds heat well.".to_owned());
    let comment = Comment {
        id: id(14),
        product_id,
        user_id: Some(id(2)),
        author: "Ada".into(),
        rating,
        text: text.clone(),
        created_at: time(),
    };
    let import =
        ImportComment { product_id, user_id: id(2), author: "Ada".into(), rating, text: text.clone(), at: time() };
    vec![
        message(AddComment { product_id, rating, text }, comment.clone()),
        message(ListComments { product_id, page: page() }, page_of(comment.clone())),
        message(DeleteComment { product_id, comment_id: id(14) }, ()),
        message(import, comment.clone()),
        message(
            ListRatingFacts { which: Selection::After(None) },
            vec![RatingFacts { product_id: id(5), sum: 9, count: 2 }],
        ),
        event(CommentAdded { comment }),
        event(RatingChanged { product_id, sum: 9, count: 2 }),
        variants!(CommentsError {
            ProductNotFound {},
            CommentNotFound {},
            AlreadyCommented {},
            Common { 0: CommonError::Forbidden },
        }),
    ]
}

fn notifications() -> Vec<Example> {
    let (epoch, user_id) = ("00c0ffee00c0ffee".to_owned(), id(2));
    let notification = Notification {
        id: id(15),
        seq: 7,
        kind: "invoice_paid".into(),
        title: "Thank you for your order".into(),
        body: "We received 39.98 EUR for invoice INV-000001.".into(),
        data: json!({ "number": "INV-000001" }),
        read: false,
        created_at: time(),
    };
    let stream = Stream { epoch: epoch.clone(), seq: 7 };
    let listed = NotificationPage {
        items: vec![notification.clone()],
        next: Some(cursor()),
        epoch: epoch.clone(),
        seq: 7,
        unread: 1,
    };
    let missed =
        MissedNotifications { recovered: true, notifications: vec![notification.clone()], stream: stream.clone() };
    vec![
        message(ListNotifications { after: Some(6), page: page() }, listed),
        message(MarkRead { notification_id: id(15) }, ()),
        message(GetStream { user_id: Some(user_id) }, stream),
        message(ReadMissed { user_id, epoch, after: 6 }, missed),
        message(
            AuditPaidNotifications { paid: vec![(user_id, id(10))] },
            vec![NotificationFacts { times: 1, kept_since: Some(time()), erased: true }],
        ),
        variants!(NotificationsError { NotificationNotFound {}, Common { 0: CommonError::Forbidden } }),
        variants!(Push {
            Notification { user_id: user_id, notification: notification },
            Event { topic: "stats".into(), kind: "stats_changed".into(), data: json!({ "cause": "cart_started" }) },
            UserEvent { user_id: user_id, kind: "notification_read".into(), data: json!({ "id": id::<mercat::types::NotificationId>(15) }) },
            AccessChanged { user_id: user_id, session_id: Some(id(4)) },
            Resync {},
        }),
    ]
}

fn placement() -> Vec<Example> {
    let domain = "mailer".to_owned();
    let manifest = DatabaseManifest { bytes: 4096, sha256: "00ff".into() };
    let moved = MoveResult { domain: domain.clone(), place: "10.0.0.2:50051".into(), bytes: 4096, paused_ms: 12 };
    let prepare = PrepareMove {
        domain: domain.clone(),
        hands_over: true,
        version: "0.1.0".into(),
        locality_probe: "20260101000000".into(),
        schema: Some("mailer".into()),
        secret: "secret".into(),
    };
    vec![
        message(
            MoveDomain { domain: domain.clone(), to: "10.0.0.2:50051".into(), permit: Some("20260101000000".into()) },
            moved,
        ),
        message(prepare, ()),
        message(UploadChunk { domain: domain.clone(), at: 0, chunk: "AAEC".into() }, ()),
        message(FinishUpload { domain: domain.clone(), file: manifest.clone() }, ()),
        message(StartDomain { domain: domain.clone() }, ()),
        message(StopDomain { domain: domain.clone() }, manifest),
        message(DownloadChunk { domain, at: 0 }, "AAEC".to_owned()),
        variants!(PlacementError {
            DomainNotFound {},
            CannotMove { reason: "it is off".into() },
            MoveInProgress {},
            Common { 0: CommonError::Forbidden },
        }),
    ]
}
