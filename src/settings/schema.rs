//! The table of all settings. Everything that lists them (errors, `mercat config`, `.env.example`) iterates it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::DOMAIN_NAMES;

/// Declaration of one setting.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name in a configuration file, with its section: `payments.place`.
    pub key: String,
    /// Default value.
    pub default: &'static str,
    /// Meaning and allowed values.
    pub help: String,
    /// Whether the value must never be shown.
    pub is_secret: bool,
}

impl Spec {
    fn new(key: impl Into<String>, default: &'static str, help: impl Into<String>) -> Self {
        Self { key: key.into(), default, help: help.into(), is_secret: false }
    }

    /// Marks the value as one that must never be shown.
    fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// Returns the name of the environment variable: `MERCAT_PAYMENTS__PLACE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("MERCAT_{}", self.key.to_uppercase().replace('.', "__"))
    }
}

/// Environment variables with the prefix of the settings that are not settings.
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

/// All settings, in the order in which they are listed.
pub static SETTINGS: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    let mut settings = general();
    settings.extend(of_services());
    DOMAIN_NAMES.into_iter().for_each(|domain| settings.extend(of_domain(domain)));
    settings
});

#[rustfmt::skip]
fn general() -> Vec<Spec> {
    vec![
        Spec::new("listen", "127.0.0.1:8080", "Address that the shop listens on, as ADDRESS:PORT; port 0 picks a free one."),
        Spec::new("domains", "", "Parts of the shop that this process runs: gateway and domains, separated by commas. Empty: the gateway and every domain whose place is local."),
        Spec::new("standby", "false", "Start the domains that `domains` names in standby: wait for `mercat move` to transfer them."),
        Spec::new("grpc", "", "Address at which other processes call the domains of this one, as ADDRESS:PORT. Empty: none."),
        Spec::new("peers.token", "", "Secret by which the processes of one shop authenticate each other: at least 16 characters, the same in all of them.").secret(),
        Spec::new("peers.other_token", "", "Further secret that callers may present, while peers.token is replaced: the old one or the new one.").secret(),
        Spec::new("peers.addresses", "", "Addresses of further processes that an administrator may move domains to, as http://HOST:PORT or https://HOST:PORT, separated by commas. The places below are allowed anyway."),
        Spec::new("peers.tls_ca", "", "File (PEM) of the authority that signs the certificates of all processes of the shop. With it and the next two, the gRPC address takes only TLS with a certificate of that authority, and other processes are called at https:// addresses."),
        Spec::new("peers.tls_certificate", "", "File (PEM) of the certificate of this process, which names the hosts that others call it by."),
        Spec::new("peers.tls_key", "", "File (PEM) of the private key of that certificate."),
        Spec::new("data", "./data", "Data folder: databases, and the token signing secret."),
        Spec::new("database", "", "Location of the databases: sqlite:FOLDER, one file per domain, or postgres://..., one schema per domain. Empty: the data folder."),
        Spec::new("migrate", "auto", "auto applies pending migrations at start; manual leaves that to `mercat migrate`."),
        Spec::new("environment", "development", "development or production. In production the test payment provider is refused."),
        Spec::new("secret", "", "Token signing secret, at least 32 characters. Empty: one is generated and kept in the data folder.").secret(),
        Spec::new("public_url", "", "Public address of the shop, for links in e-mails. Empty: http:// and the listen address."),
        Spec::new("demo", "true", "Load the sample data at the first start with an empty data folder: true or false."),
        Spec::new("log", "info", "Log level: error, warn, info, debug, trace, or filters in the syntax of RUST_LOG."),
        Spec::new("log_format", "text", "Log format: text, or json with one object per line."),
        Spec::new("events", "direct", "Transport of events between domains: direct, or RabbitMQ: amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// with TLS.").secret(),
        Spec::new("events_ca", "", "File (PEM) of the authority that signs the certificate of RabbitMQ. Empty: the public ones."),
        Spec::new("backup.every", "", "Interval of the backups that the shop takes of itself, in minutes, hours or days: 30m, 12h, 7d. Empty: none."),
        Spec::new("backup.folder", "", "Folder of those backups, best on another disk. Empty: backups in the data folder."),
        Spec::new("backup.keep", "7", "Number of those backups that are kept; older ones are deleted."),
        Spec::new("shop.name", "Mercat", "Name of the shop, in pages and e-mails."),
        Spec::new("shop.currency", "EUR", "Main currency of the shop (ISO 4217): of an empty cart and of the statistics."),
        Spec::new("store.batch_max", "256", "Maximum number of waiting write jobs that share one commit. 1: one commit per job, for comparison."),
        Spec::new("store.connections", "6", "Connections per domain to a PostgreSQL server, at least 3. Eight domains use eight times as many."),
        Spec::new("store.schema_prefix", "", "Prefix of the schema names in PostgreSQL, so that several shops can share a database."),
        Spec::new("http.body_max", "1048576", "Maximum size of a request body in bytes, image uploads excepted."),
        Spec::new("http.request_timeout", "15", "Seconds after which a request is answered with 504."),
        Spec::new("http.drain_timeout", "30", "Seconds that requests in flight have to end when the process stops."),
        Spec::new("http.lame_duck", "0", "Seconds for which a process that stops still takes connections while /readyz is 503 already, so that a load balancer can turn to others."),
        Spec::new("http.workers", "0", "Threads that serve HTTP. 0: one per core."),
        Spec::new("http.secure_cookies", "auto", "Restrict cookies to HTTPS: true, false, or auto: in production, and with a public_url of https://."),
        Spec::new("http.trusted_proxies", "", "Networks of proxies whose Forwarded and X-Forwarded-For are believed, separated by commas."),
        Spec::new("http.cors_origins", "", "Origins of other sites whose pages may call the API for their visitors, such as https://shop.example, separated by commas."),
        Spec::new("limits.enabled", "true", "Reject requests of callers that exceed a rate with 429: true, or false for load tests."),
        Spec::new("limits.store", "memory", "Where rates are counted: memory, in each gateway, or redis://USER:PASSWORD@HOST:PORT/DATABASE, shared between gateways.").secret(),
        Spec::new("limits.network", "12000/60", "Requests from one address (IPv6: /64), as REQUESTS/SECONDS: so many at once, and as many again spread over each window. So are all rates below."),
        Spec::new("limits.user", "3000/60", "Requests with the sessions of one user."),
        Spec::new("limits.api_key", "12000/60", "Requests with one API key."),
        Spec::new("limits.sign_in", "30/60", "Sign-ins from one address."),
        Spec::new("limits.registration", "20/600", "Registrations from one address."),
        Spec::new("limits.guest", "60/60", "Guests made from one address; a visitor becomes one with the first product in the cart."),
        Spec::new("limits.reset", "20/600", "Password resets from one address, requested and carried out."),
        Spec::new("limits.email", "60/600", "Mailed links used, and e-mails sent through /send_email, from one address."),
        Spec::new("limits.log", "120/60", "Entries of the action log from one address."),
        Spec::new("limits.probe", "1200/60", "Health probes from one address."),
        Spec::new("limits.connections", "0", "Maximum number of HTTP connections, live sessions included; further ones are refused with 503. 0: the limit of open files less a reserve for the databases."),
        Spec::new("limits.connections_per_network", "0", "Maximum number of HTTP connections from one address; trusted proxies excepted. 0: a quarter of all."),
        Spec::new("limits.sockets_per_network", "0", "Maximum number of live sessions (WebSocket, server-sent events) from one address. 0: a quarter of all."),
        Spec::new("limits.unpaid_per_user", "5", "Maximum number of unpaid orders of one user: the open one, and those of the last 24 hours that kept stock for over five minutes."),
        Spec::new("limits.unpaid_per_network", "50", "The same from one address: open ones, and those of the last hour."),
        Spec::new("users.session_days", "30", "Session lifetime in days."),
        Spec::new("users.staff_session_hours", "12", "Hours after which staff sign in again."),
        Spec::new("users.staff_idle_minutes", "120", "Minutes without a request after which staff sign in again, at least 5."),
        Spec::new("users.staff_second_factor", "false", "Staff must sign in with a code of an app: true or false. Until they set it up in their account, they have the rights of customers."),
        Spec::new("users.guest_days", "30", "Days after which guests that bought nothing are erased with their carts, but not before two days after the end of their session."),
        Spec::new("users.hashers", "2", "Concurrent password hashes; each needs 19 MiB of memory."),
        Spec::new("catalog.cache_max", "2000", "Maximum number of products cached in memory."),
        Spec::new("catalog.low_stock", "5", "Stock level that triggers a low-stock alert."),
        Spec::new("catalog.image_bytes_max", "10485760", "Maximum size of an uploaded image in bytes."),
        Spec::new("catalog.private_image_addresses", "false", "Whether an import may fetch pictures from addresses that are not public: true or false."),
        Spec::new("catalog.image_pixels_max", "40000000", "Maximum number of pixels of an uploaded image."),
    ]
}

fn of_services() -> Vec<Spec> {
    vec![
        Spec::new("payments.provider", "test", "Payment provider: test, built in for development, or stripe."),
        Spec::new("payments.stripe_secret_key", "", "Secret key of the shop's Stripe account, sk_... or rk_...")
            .secret(),
        Spec::new(
            "payments.stripe_webhook_secrets",
            "",
            "Signing secrets of Stripe's webhooks, whsec_...; several, separated by commas, while one is replaced.",
        )
        .secret(),
        Spec::new("payments.stripe_url", "https://api.stripe.com", "Address of Stripe's API; another one for tests."),
        Spec::new(
            "payments.invoice_minutes",
            "30",
            "Minutes for which an invoice can be paid and its stock is reserved.",
        ),
        Spec::new(
            "mailer.smtp",
            "",
            "Mail server: smtp:// or smtps://USER:PASSWORD@HOST:PORT. Empty: e-mails are kept and shown, not sent.",
        )
        .secret(),
        Spec::new("mailer.from", "shop@example.com", "Sender address."),
        Spec::new(
            "mailer.known_recipients_only",
            "false",
            "Only people with an account may be sent e-mails through /send_email: true or false.",
        ),
        Spec::new(
            "mailer.per_recipient_hour",
            "30",
            "Maximum number of e-mails per recipient and hour through /send_email.",
        ),
        Spec::new(
            "mailer.automatic_per_recipient_hour",
            "20",
            "Maximum number of automatic e-mails, such as receipts, per recipient and hour; further ones are sent later.",
        ),
        Spec::new(
            "stats.internal_networks",
            "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
            "Networks that may read the action log and /metrics, separated by commas.",
        ),
        Spec::new(
            "stats.keep_days",
            "400",
            "Days for which the action log is kept. Daily totals are kept permanently.",
        ),
        Spec::new(
            "stats.log_bytes_max",
            "104857600",
            "Maximum size in bytes of the entries that callers reported through /log; above it their oldest are deleted. The shop's own entries do not count.",
        ),
        Spec::new("notifications.keep", "1000", "Number of notifications that are kept per user."),
    ]
}

fn of_domain(domain: &str) -> [Spec; 3] {
    let place = format!(
        "Location of {domain}: local, in this process; http://HOST:PORT, the gRPC address of another process (https:// with \
         TLS); standby, to be moved here; or off."
    );
    let database = format!("Location of the database of {domain}, if not that of `database`: postgres://...");
    let in_flight = format!("Maximum number of requests to {domain} in flight; more are rejected with 503.");
    [
        Spec::new(format!("{domain}.place"), "local", place),
        Spec::new(format!("{domain}.database"), "", database),
        Spec::new(format!("{domain}.in_flight_max"), "1024", in_flight),
    ]
}

/// Returns the text of `.env.example`: every setting with its default, commented out.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting with its default. Copy to .env and uncomment what you change.\n\
         # Printed by `mercat config --example`; a test compares them.\n",
    );
    for spec in SETTINGS.iter() {
        let _ = write!(text, "\n# {}\n#{}={}\n", spec.help, spec.variable(), spec.default);
    }
    text
}
