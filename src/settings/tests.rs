//! Layers and their precedence, invalid values and the errors they cause, secrets.

use super::parse::network;
use super::*;
use crate::types::Address;

fn environment(pairs: &[(&str, &str)]) -> Result<Layer, SettingError> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Layer::environment(pairs, Origin::Environment)
}

#[test]
fn defaults_are_valid() {
    let settings = Settings::from_values(&Values::defaults()).unwrap();
    assert_eq!(settings.database, settings.data);
}

#[test]
fn strongest_layer_wins_with_its_origin() {
    let values = Values::from_layers(vec![
        environment(&[("MERCAT_LISTEN", "127.0.0.1:1"), ("MERCAT_SHOP__NAME", "Corner")]).unwrap(),
        Layer::flags(vec![("listen", "127.0.0.1:2".to_owned(), "--listen")]),
    ]);
    let settings = Settings::from_values(&values).unwrap();
    assert_eq!((settings.listen.port(), settings.shop.name.as_str()), (2, "Corner"));
    let origin = values.masked().find(|(key, ..)| *key == "listen").map(|(_, _, origin)| origin.to_string());
    assert_eq!(origin.as_deref(), Some("flag --listen"));
}

#[test]
fn invalid_setting_error_has_name_origin_and_remedy() {
    let cases = [
        ("MERCAT_LISTEN", "nonsense", "127.0.0.1:8080"),
        ("MERCAT_MIGRATE", "perhaps", "auto or manual"),
        ("MERCAT_DATABASE", "mysql://u:secret-host@x", "sqlite:FOLDER"),
        ("MERCAT_DATABASE", "postgres://u:secret-host@x/y?sslmode=require", "TLS"),
        ("MERCAT_PAYMENTS__DATABASE", "sqlite:elsewhere", "one folder"),
        ("MERCAT_STORE__SCHEMA_PREFIX", "Shop-", "lower-case letters"),
        ("MERCAT_PAYMENTS__PLACE", "elsewhere", "expected local, standby, off"),
        ("MERCAT_PAYMENTS__PLACE", "http://payments", "http://HOST:PORT"),
        ("MERCAT_PAYMENTS__PLACE", "http://pay/ments:1", "http://HOST:PORT"),
        ("MERCAT_PAYMENTS__PLACE", "https://payments:1", "peers.tls_ca"),
        ("MERCAT_STANDBY", "true", "--domains NAMES"),
        ("MERCAT_DOMAINS", "payments,till", "gateway, users"),
        ("MERCAT_DOMAINS", "payments", "--grpc"),
        ("MERCAT_GRPC", "50051", "127.0.0.1:50051"),
        ("MERCAT_GRPC", "0.0.0.0:50051", "MERCAT_PEERS__TOKEN"),
        ("MERCAT_PEERS__TOKEN", "secret-host", "at least 16"),
        ("MERCAT_HTTP__BODY_MAX", "-1", "whole number"),
        ("MERCAT_STATS__INTERNAL_NETWORKS", "10.0.0.0/99", "10.0.0.0/8"),
        ("MERCAT_LIMITS__SIGN_IN", "30", "REQUESTS/SECONDS"),
        ("MERCAT_LIMITS__STORE", "rediss://secret-host", "TLS"),
        ("MERCAT_LIMITS__STORE", "secret-host", "redis://"),
        ("MERCAT_MAILER__SMTP", "secret-host", "smtp://"),
        ("MERCAT_ENVIRONMENT", "production", "refused"),
        ("MERCAT_SHOP__CURRENCY", "euro", "ISO 4217"),
        ("MERCAT_LOG", "verbose", "error, warn, info"),
        ("MERCAT_LOG", "info,mercat=loud", "error, warn, info"),
        ("MERCAT_LOG_FORMAT", "xml", "text or json"),
        ("MERCAT_EVENTS", "amqps://u:secret-host@localhost:port", "amqps://"),
        ("MERCAT_EVENTS_CA", "/nowhere/ca.pem", "cannot be read"),
        ("MERCAT_PEERS__TLS_KEY", "/nowhere/key.pem", "cannot be read"),
        ("MERCAT_EVENTS", "kafka://secret-host", "expected direct"),
        ("MERCAT_PAYMENTS__PROVIDER", "paypal", "test or stripe"),
        ("MERCAT_PAYMENTS__STRIPE_URL", "api.stripe.com", "https://api.stripe.com"),
        ("MERCAT_PAYMENTS__STRIPE_SECRET_KEY", "pk_secret-host", "sk_..."),
        ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", "whsec_0123456789,secret-host", "whsec_..."),
    ];
    for (variable, value, remedy) in cases {
        let error =
            Settings::from_values(&Values::from_layers(vec![environment(&[(variable, value)]).unwrap()])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(remedy), "{text}");
        assert!(variable == "MERCAT_ENVIRONMENT" || text.contains(variable), "{text}");
        assert!(!text.contains("secret-host"), "a secret is shown: {text}");
    }
}

#[test]
fn misspelt_setting_is_rejected_with_suggestion() {
    let error = environment(&[("MERCAT_LISTNE", "127.0.0.1:1")]).unwrap_err();
    assert!(error.to_string().contains("did you mean `listen`"), "{error}");
}

/// A value that every secret setting accepts somewhere inside.
const PLANTED: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

/// Invalid as every secret, and nothing in it may appear in an error.
const PLANTED_INVALID: &str = "hunter2 \u{7f}";

#[test]
fn secrets_never_appear_in_output() {
    for spec in SETTINGS.iter().filter(|spec| spec.is_secret) {
        let values = Values::from_layers(vec![environment(&[(&spec.variable(), PLANTED)]).unwrap()]);
        assert!(values.masked().all(|(_, value, _)| !value.contains("hunter2")), "{}", spec.key);
        for planted in [PLANTED, PLANTED_INVALID] {
            let values = Values::from_layers(vec![environment(&[(&spec.variable(), planted)]).unwrap()]);
            if let Err(error) = Settings::from_values(&values) {
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
    }
    let url = format!("postgres://shop:{PLANTED}@db/shop");
    for spec in SETTINGS.iter().filter(|spec| spec.key == "database" || spec.key.ends_with(".database")) {
        let values = Values::from_layers(vec![environment(&[(&spec.variable(), &url)]).unwrap()]);
        assert!(values.masked().all(|(_, value, _)| !value.contains("hunter2")), "{}", spec.key);
    }
}

#[test]
fn settings_named_like_secrets_are_secret() {
    let is_suspect = |key: &str| ["secret", "token", "password", "smtp"].iter().any(|part| key.contains(part));
    for spec in SETTINGS.iter().filter(|spec| is_suspect(&spec.key)) {
        assert!(spec.is_secret, "{} must be declared with .secret()", spec.key);
    }
}

#[test]
fn stripe_requires_key_and_in_production_https() {
    let read = |given: &[(&str, &str)]| Settings::from_values(&Values::from_layers(vec![environment(given).unwrap()]));
    let key = ("MERCAT_PAYMENTS__STRIPE_SECRET_KEY", "sk_live_0123");
    let stripe = ("MERCAT_PAYMENTS__PROVIDER", "stripe");
    let production = ("MERCAT_ENVIRONMENT", "production");
    let error = read(&[stripe]).unwrap_err();
    assert_eq!(error.key, "payments.stripe_secret_key");
    let plain = ("MERCAT_PAYMENTS__STRIPE_URL", "http://127.0.0.1:8420/");
    assert_eq!(read(&[stripe, key, production, plain]).unwrap_err().key, "payments.stripe_url");
    assert_eq!(read(&[stripe, key, plain]).unwrap().payments.stripe.url, "http://127.0.0.1:8420");
    let secrets = ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", " whsec_newnewnew, whsec_oldoldold ");
    let settings = read(&[stripe, key, production, secrets]).unwrap();
    assert_eq!(settings.payments.provider, Provider::Stripe);
    assert_eq!(settings.payments.stripe.webhook_secrets, ["whsec_newnewnew", "whsec_oldoldold"]);
}

#[test]
fn internal_network_contains_its_addresses() {
    let cases = [
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("::1", "::1", true),
        ("fc00::/7", "fd00::1", true),
        ("fc00::/7", "2001:db8::1", false),
    ];
    for (range, address, inside) in cases {
        let stats =
            StatsSettings { internal_networks: vec![network(range).unwrap()], keep_days: 1, log_bytes_max: 1_024 };
        assert_eq!(stats.is_internal(address.parse().unwrap()), inside, "{range} {address}");
    }
}

#[test]
fn secret_is_read_from_the_file_that_a_variable_names() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("token"), "the-secret-of-the-tests\n").unwrap();
    let token = |variables: &[(&str, &str)]| {
        let values = Values::from_layers(vec![environment(variables)?]);
        Settings::from_values(&values).map(|settings| settings.peers.token)
    };
    let file = path("token");
    assert_eq!(token(&[("MERCAT_PEERS__TOKEN_FILE", &file)]), Ok(Some("the-secret-of-the-tests".to_owned())));
    std::fs::write(path("large"), "x".repeat(70_000)).unwrap();
    for (variables, part) in [
        (&[("MERCAT_PEERS__TOKEN_FILE", &*path("absent"))][..], "cannot be opened"),
        (&[("MERCAT_PEERS__TOKEN_FILE", &path("large"))], "larger than"),
        (&[("MERCAT_PEERS__TOKEN", "another-secret-of-the-tests"), ("MERCAT_PEERS__TOKEN_FILE", &file)], "as a file"),
        // Only secrets come from files.
        (&[("MERCAT_SHOP__NAME_FILE", &file)], "no such setting"),
    ] {
        let error = token(variables).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(variables[variables.len() - 1].0), "{error}");
    }
}

#[test]
fn example_file_is_up_to_date() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    assert_eq!(std::fs::read_to_string(file).unwrap(), example(), "run `mercat config --example > .env.example`");
}

#[test]
fn selected_domains_are_local_whatever_their_place() {
    let values = environment(&[
        ("MERCAT_DOMAINS", "payments, gateway"),
        ("MERCAT_GRPC", "127.0.0.1:0"),
        ("MERCAT_PAYMENTS__PLACE", "http://payments:1"),
        ("MERCAT_CATALOG__PLACE", "http://[::1]:2"),
        ("MERCAT_STATS__PLACE", "off"),
    ]);
    let settings = Settings::from_values(&Values::from_layers(vec![values.unwrap()])).unwrap();
    let place = |name: &str| settings.domain(name).place.clone();
    assert_eq!(place("payments"), DomainLocation::Local);
    assert_eq!(place("catalog"), DomainLocation::Remote(Address { is_tls: false, host: "[::1]".to_owned(), port: 2 }));
    assert_eq!((place("users"), place("stats")), (DomainLocation::RemoteUnspecified, DomainLocation::Off));
    assert!(settings.gateway && settings.domains_selected && !settings.listen_is_explicit);
}
