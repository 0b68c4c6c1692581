//! The table of all settings. Everything that lists them (errors, `mercat config`, `.env.example`) reads it here.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::DOMAINS;

/// One setting.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name in a file; with a section, `payments.place`.
    pub key: String,
    /// Its value when nobody says.
    pub default: &'static str,
    /// What it does, what it may be.
    pub help: String,
    /// Whether it must never be shown.
    pub secret: bool,
}

impl Spec {
    /// Its name as an environment variable: `MERCAT_PAYMENTS__PLACE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("MERCAT_{}", self.key.to_uppercase().replace('.', "__"))
    }
}

/// Variables that begin like a setting and are none.
pub(super) const IGNORED_VARIABLES: [&str; 9] = [
    "MERCAT_ADMIN_PASSWORD",
    "MERCAT_TEST_DATABASE",
    "MERCAT_TEST_SMTP",
    "MERCAT_TEST_SMTP_MAILDIR",
    "MERCAT_TEST_STRIPE",
    "MERCAT_TEST_GRPC_PYTHON",
    "MERCAT_TEST_RABBITMQ",
    "MERCAT_TEST_AMQP_PYTHON",
    "MERCAT_TEST_DEPLOYMENT",
];

/// All settings, in the order they are shown.
pub static SETTINGS: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let plain = [
        ("listen", "127.0.0.1:8080", "Where the shop listens, as ADDRESS:PORT; port 0 picks a free one."),
        (
            "domains",
            "",
            "Which parts of the shop this process runs: gateway and domains, with commas between. Empty: the gateway and every domain whose place is local.",
        ),
        (
            "standby",
            "false",
            "Whether the domains that `domains` names wait here until `mercat move` brings them, instead of being opened.",
        ),
        ("grpc", "", "Where other processes ask the domains of this one, as ADDRESS:PORT. Empty: nowhere."),
        (
            "peers.token",
            "",
            "The secret by which the processes of one shop know each other, at least 16 characters, the same in all of them.",
        ),
        ("data", "./data", "The data folder: databases, and the secret that signs tokens."),
        (
            "database",
            "",
            "Where the databases are: sqlite:FOLDER, one file a domain, or postgres://..., one schema a domain. Empty: the data folder.",
        ),
        ("migrate", "auto", "auto brings databases to this version at start; manual leaves that to `mercat migrate`."),
        (
            "environment",
            "development",
            "development or production. In production the test payment provider is refused.",
        ),
        (
            "secret",
            "",
            "What tokens are signed with, at least 32 characters. Empty: one is made and kept in the data folder.",
        ),
        (
            "public_url",
            "",
            "The address people reach the shop at, for links in mails. Empty: http:// and the listen address.",
        ),
        ("demo", "true", "Whether a first start with an empty data folder loads the demo shop."),
        ("log", "info", "What is logged: error, warn, info, debug, trace, or filters as RUST_LOG takes them."),
        ("log_format", "text", "text for people, or json: one object a line."),
        (
            "events",
            "direct",
            "How events travel between domains: direct, or by RabbitMQ: amqp://USER:PASSWORD@HOST:PORT/VHOST.",
        ),
        ("shop.name", "Mercat", "What the shop is called, in pages and mails."),
        ("shop.currency", "EUR", "The shop's main currency (ISO 4217): of an empty cart and of the statistics."),
        ("store.batch_max", "256", "How many changes that wait may share one commit. 1: each its own, for comparison."),
        (
            "store.connections",
            "6",
            "How many connections each domain may have to a PostgreSQL server, at least 3. Eight domains: eight times.",
        ),
        (
            "store.schema_prefix",
            "",
            "What stands before the names of the schemas in PostgreSQL, so that several shops can share a database.",
        ),
        ("http.body_max", "1048576", "Bytes of a request's body, uploads of pictures apart."),
        ("http.request_timeout", "15", "Seconds a request may take before it is answered with 504."),
        ("http.drain_timeout", "30", "Seconds a stop waits for requests that are under way."),
        ("http.workers", "0", "Threads that serve HTTP. 0: as many as there are cores."),
        ("http.secure_cookies", "auto", "Whether cookies are for HTTPS only: true, false, or auto: in production."),
        ("http.trust_proxy", "false", "Whether X-Forwarded-For is believed: only behind a proxy that sets it."),
        (
            "limits.enabled",
            "true",
            "Whether callers that ask too often are refused for a while. Kept for that: this version refuses nobody for it.",
        ),
        ("users.session_days", "30", "Days a sign-in lasts."),
        ("users.hashers", "2", "How many passwords are hashed at once, 19 MiB of memory each."),
        ("catalog.cache_max", "2000", "How many products are kept ready in memory."),
        ("catalog.low_stock", "5", "At how many pieces left staff are told."),
        ("catalog.image_bytes_max", "10485760", "Bytes of an uploaded picture."),
        ("catalog.image_pixels_max", "40000000", "Pixels of an uploaded picture."),
        ("payments.provider", "test", "Who takes the money: test, the built-in one for trying out, or stripe."),
        ("payments.stripe_secret_key", "", "The secret key of the shop's account at Stripe, sk_... or rk_..."),
        (
            "payments.stripe_webhook_secrets",
            "",
            "What Stripe signs its webhooks with, whsec_...; several, with commas between, while one is replaced.",
        ),
        ("payments.stripe_url", "https://api.stripe.com", "Where Stripe's interface is; another address for tests."),
        ("payments.invoice_minutes", "30", "Minutes an invoice can be paid, while its stock is set aside."),
        (
            "mailer.smtp",
            "",
            "The mail server: smtp:// or smtps://USER:PASSWORD@HOST:PORT. Empty: mail is kept and shown, not sent.",
        ),
        ("mailer.from", "shop@example.com", "Who mail comes from."),
        (
            "mailer.known_recipients_only",
            "false",
            "Whether only people with an account may get mail through /send_email.",
        ),
        ("mailer.per_recipient_hour", "30", "How many mails one person may get within an hour through /send_email."),
        (
            "stats.internal_networks",
            "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
            "Who may read the action log and /metrics: networks, with commas between them.",
        ),
        ("stats.keep_days", "400", "Days the action log is kept. The daily figures stay."),
        ("notifications.keep", "1000", "How many notifications of each user are kept."),
    ];
    let mut settings: Vec<Spec> = plain
        .into_iter()
        .map(|(key, default, help)| Spec {
            key: key.to_owned(),
            default,
            help: help.to_owned(),
            secret: matches!(
                key,
                "secret"
                    | "peers.token"
                    | "events"
                    | "mailer.smtp"
                    | "payments.stripe_secret_key"
                    | "payments.stripe_webhook_secrets"
            ),
        })
        .collect();
    for domain in DOMAINS {
        settings.push(Spec {
            key: format!("{domain}.place"),
            default: "local",
            help: format!(
                "Where {domain} is: local, in this process; http://HOST:PORT, where another one answers gRPC; standby, to be moved here; or off."
            ),
            secret: false,
        });
        settings.push(Spec {
            key: format!("{domain}.database"),
            default: "",
            help: format!("Where the database of {domain} is, when not where `database` says: postgres://..."),
            secret: false,
        });
        settings.push(Spec {
            key: format!("{domain}.in_flight_max"),
            default: "1024",
            help: format!("How many requests {domain} may have in hand before more are refused with 503."),
            secret: false,
        });
    }
    settings
});

/// The text of `.env.example`: every setting with its default, commented out.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting with its default. Copy to .env and uncomment what you change.\n\
         # Printed by `mercat config --example`; a test keeps it so.\n",
    );
    for spec in SETTINGS.iter() {
        let _ = write!(text, "\n# {}\n#{}={}\n", spec.help, spec.variable(), spec.default);
    }
    text
}
