//! Settings as people get them wrong.

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Result<Layer, SettingError> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Layer::environment(pairs, Origin::Environment)
}

#[test]
fn the_defaults_are_valid() {
    let settings = Settings::read(&Values::defaults()).unwrap();
    assert_eq!(settings.database, settings.data);
}

#[test]
fn the_nearest_layer_wins_and_is_remembered() {
    let values = Values::of(vec![
        environment(&[("MERCAT_LISTEN", "127.0.0.1:1"), ("MERCAT_SHOP__NAME", "Corner")]).unwrap(),
        Layer::flags(vec![("listen", "127.0.0.1:2".to_owned(), "--listen")]),
    ]);
    let settings = Settings::read(&values).unwrap();
    assert_eq!((settings.listen.port(), settings.shop.name.as_str()), (2, "Corner"));
    let origin = values.shown().find(|(key, ..)| *key == "listen").map(|(_, _, origin)| origin.to_string());
    assert_eq!(origin.as_deref(), Some("flag --listen"));
}

#[test]
fn what_cannot_work_is_said_with_name_origin_and_way_out() {
    let cases = [
        ("MERCAT_LISTEN", "nonsense", "127.0.0.1:8080"),
        ("MERCAT_MIGRATE", "perhaps", "auto or manual"),
        ("MERCAT_DATABASE", "mysql://u:secret-host@x", "sqlite:FOLDER"),
        ("MERCAT_DATABASE", "postgres://u:secret-host@x/y?sslmode=require", "TLS"),
        ("MERCAT_PAYMENTS__DATABASE", "sqlite:elsewhere", "one folder"),
        ("MERCAT_STORE__SCHEMA_PREFIX", "Shop-", "small letters"),
        ("MERCAT_PAYMENTS__PLACE", "elsewhere", "must be local, standby or off"),
        ("MERCAT_PAYMENTS__PLACE", "http://payments", "http://HOST:PORT"),
        ("MERCAT_PAYMENTS__PLACE", "http://pay/ments:1", "http://HOST:PORT"),
        ("MERCAT_PAYMENTS__PLACE", "https://payments:1", "no TLS"),
        ("MERCAT_STANDBY", "true", "--domains NAMES"),
        ("MERCAT_DOMAINS", "payments,till", "gateway, users"),
        ("MERCAT_DOMAINS", "payments", "--grpc"),
        ("MERCAT_GRPC", "50051", "127.0.0.1:50051"),
        ("MERCAT_GRPC", "0.0.0.0:50051", "MERCAT_PEERS__TOKEN"),
        ("MERCAT_PEERS__TOKEN", "secret-host", "at least 16"),
        ("MERCAT_HTTP__BODY_MAX", "-1", "whole number"),
        ("MERCAT_STATS__INTERNAL_NETWORKS", "10.0.0.0/99", "10.0.0.0/8"),
        ("MERCAT_MAILER__SMTP", "secret-host", "smtp://"),
        ("MERCAT_ENVIRONMENT", "production", "refused"),
        ("MERCAT_SHOP__CURRENCY", "euro", "ISO 4217"),
        ("MERCAT_LOG", "verbose", "error, warn, info"),
        ("MERCAT_LOG", "info,mercat=loud", "error, warn, info"),
        ("MERCAT_LOG_FORMAT", "xml", "text or json"),
        ("MERCAT_EVENTS", "amqps://u:secret-host@localhost", "amqp://"),
        ("MERCAT_EVENTS", "kafka://secret-host", "must be direct"),
        ("MERCAT_PAYMENTS__PROVIDER", "paypal", "test or stripe"),
        ("MERCAT_PAYMENTS__STRIPE_URL", "api.stripe.com", "https://api.stripe.com"),
        ("MERCAT_PAYMENTS__STRIPE_SECRET_KEY", "pk_secret-host", "sk_..."),
        ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", "whsec_0123456789,secret-host", "whsec_..."),
    ];
    for (variable, value, way_out) in cases {
        let bad = Settings::read(&Values::of(vec![environment(&[(variable, value)]).unwrap()])).unwrap_err();
        let text = bad.to_string();
        assert!(text.contains(way_out), "{text}");
        assert!(variable == "MERCAT_ENVIRONMENT" || text.contains(variable), "{text}");
        assert!(!text.contains("secret-host"), "a secret is shown: {text}");
    }
}

#[test]
fn a_misspelt_setting_is_an_error_with_the_right_spelling() {
    let bad = environment(&[("MERCAT_LISTNE", "127.0.0.1:1")]).unwrap_err();
    assert!(bad.to_string().contains("did you mean `listen`"), "{bad}");
}

#[test]
fn secrets_are_masked() {
    let given = [
        ("MERCAT_MAILER__SMTP", "smtp://u:p@h"),
        ("MERCAT_PAYMENTS__STRIPE_SECRET_KEY", "sk_live_u:p"),
        ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", "whsec_u:p,whsec_2u:p"),
    ];
    let values = Values::of(vec![environment(&given).unwrap()]);
    assert!(values.shown().all(|(_, value, _)| !value.contains("u:p")));
}

#[test]
fn stripe_needs_its_key_and_in_production_a_safe_way_there() {
    let read = |given: &[(&str, &str)]| Settings::read(&Values::of(vec![environment(given).unwrap()]));
    let key = ("MERCAT_PAYMENTS__STRIPE_SECRET_KEY", "sk_live_0123");
    let stripe = ("MERCAT_PAYMENTS__PROVIDER", "stripe");
    let production = ("MERCAT_ENVIRONMENT", "production");
    let bad = read(&[stripe]).unwrap_err();
    assert_eq!(bad.key, "payments.stripe_secret_key");
    let plain = ("MERCAT_PAYMENTS__STRIPE_URL", "http://127.0.0.1:8420/");
    assert_eq!(read(&[stripe, key, production, plain]).unwrap_err().key, "payments.stripe_url");
    assert_eq!(read(&[stripe, key, plain]).unwrap().payments.stripe.url, "http://127.0.0.1:8420");
    let secrets = ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", " whsec_newnewnew, whsec_oldoldold ");
    let settings = read(&[stripe, key, production, secrets]).unwrap();
    assert_eq!(settings.payments.provider, Provider::Stripe);
    assert_eq!(settings.payments.stripe.webhook_secrets, ["whsec_newnewnew", "whsec_oldoldold"]);
}

#[test]
fn networks_hold_what_they_say() {
    let cases = [
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("::1", "::1", true),
        ("fc00::/7", "fd00::1", true),
        ("fc00::/7", "2001:db8::1", false),
    ];
    for (network, address, inside) in cases {
        let network: Network = network.parse().unwrap();
        assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
    }
}

#[test]
fn the_example_file_is_as_printed() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    assert_eq!(std::fs::read_to_string(file).unwrap(), example(), "run `mercat config --example > .env.example`");
}

#[test]
fn a_domain_that_is_named_is_here_and_the_others_are_where_their_places_say() {
    let values = environment(&[
        ("MERCAT_DOMAINS", "payments, gateway"),
        ("MERCAT_GRPC", "127.0.0.1:0"),
        ("MERCAT_PAYMENTS__PLACE", "http://payments:1"),
        ("MERCAT_CATALOG__PLACE", "http://[::1]:2"),
        ("MERCAT_STATS__PLACE", "off"),
    ]);
    let settings = Settings::read(&Values::of(vec![values.unwrap()])).unwrap();
    let place = |name: &str| settings.domain(name).place.clone();
    assert_eq!(place("payments"), DomainLocation::Local);
    assert_eq!(place("catalog"), DomainLocation::Remote(Address { host: "[::1]".to_owned(), port: 2 }));
    assert_eq!((place("users"), place("stats")), (DomainLocation::RemoteUnspecified, DomainLocation::Off));
    assert!(settings.gateway && settings.partial && !settings.listen_told);
}
