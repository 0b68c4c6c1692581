//! Every setting: what it is called, what it may be, where its value came from.
//!
//! Lives here: the table of all settings ([`spec`]), their layers ([`layers`]), and the typed result. Never enters:
//! what a domain does with a setting. Nothing outside this room reads the environment or a configuration file.

mod database;
mod layers;
mod schema;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};

pub use database::{Database, Postgres};
pub use layers::{Layer, Origin, SettingError, Values};
pub use schema::{SETTINGS, Spec, example};

use crate::types::{Address, Currency, EmailAddress, hex};

/// The eight domains, by the names that settings, files and messages use.
pub const DOMAINS: [&str; 8] = ["users", "catalog", "cart", "payments", "mailer", "stats", "comments", "notifications"];

/// What the edge of the shop is called where parts of it are named.
pub const GATEWAY: &str = "gateway";
/// The file of the data folder that says where domains were moved while the shop ran.
pub const PLACES_FILE: &str = "places.toml";
/// What a prefix of schemas may be.
const PREFIX_RULE: &str = "must be small letters, digits and _, at most 40";
/// Where files may be.
const ONE_FOLDER_RULE: &str =
    "must be postgres://...: databases that are files are all in one folder, which `database` or `data` names";

/// The most webhook secrets that may hold at once.
const WEBHOOK_SECRETS_MAX: usize = 10;

/// The effective settings of one process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the gateway listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Whether somebody said where to listen. A process without the gateway listens to HTTP only then.
    pub listen_told: bool,
    /// Whether the gateway is in this process.
    pub gateway: bool,
    /// Whether this process was told which parts of the shop it runs: it has those and no others.
    pub partial: bool,
    /// Where other processes ask the domains of this one, if they may.
    pub grpc: Option<SocketAddr>,
    /// How the processes of the shop know each other.
    pub peers: PeersSettings,
    /// The data folder.
    pub data: PathBuf,
    /// The folder of the databases that are files; the data folder when not said.
    pub database: PathBuf,
    /// Whether databases are brought to this version at start.
    pub migrate: bool,
    /// Whether real money may move: refuses the test provider.
    pub production: bool,
    /// What tokens are signed with; made and kept in the data folder when not given.
    pub secret: Option<String>,
    /// The address people reach the shop at, for links in mails, without a slash at its end.
    pub public_url: Option<String>,
    /// Whether a first start with an empty data folder loads the demo shop.
    pub demo: bool,
    /// The log.
    pub log: LogSettings,
    /// The shop.
    pub shop: ShopSettings,
    /// The databases' writers.
    pub store: StoreSettings,
    /// The gateway.
    pub http: HttpSettings,
    /// The users domain.
    pub users: UsersSettings,
    /// The catalog.
    pub catalog: CatalogSettings,
    /// PaymentsSettings.
    pub payments: PaymentsSettings,
    /// The mailer.
    pub mailer: MailerSettings,
    /// The statistics.
    pub stats: StatsSettings,
    /// The notifications.
    pub notifications: NotificationsSettings,
    /// How events travel between domains.
    pub events: EventTransport,
    /// Where each domain is, in the order of [`DOMAINS`].
    pub domains: Vec<DomainSettings>,
}

/// How the processes of one shop know each other.
#[derive(Debug, Clone, Default)]
pub struct PeersSettings {
    /// What they all know and nobody else does.
    pub token: Option<String>,
}

/// How events travel between domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTransport {
    /// From each outbox to its subscribers.
    Direct,
    /// Over RabbitMQ, which keeps them until they are heard.
    RabbitMq(AMQPUri),
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// What is logged, as `env_logger` takes it.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

/// The shop's own face.
#[derive(Debug, Clone)]
pub struct ShopSettings {
    /// What it is called.
    pub name: String,
    /// The currency of an empty cart and of the statistics.
    pub currency: Currency,
}

/// The databases' writers.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// How many changes may share one commit.
    pub batch_max: usize,
    /// What stands before the names of schemas.
    pub schema_prefix: String,
    /// How many connections each domain may have to a server.
    pub connections: u32,
}

/// The gateway.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Bytes of a request's body, uploads of pictures apart.
    pub body_max: usize,
    /// How long a request may take before it is answered with 504.
    pub request_timeout: Duration,
    /// How long a stop waits for requests under way.
    pub drain_timeout: Duration,
    /// Threads that serve HTTP; as many as there are cores when 0.
    pub workers: usize,
    /// Whether cookies are for HTTPS only.
    pub secure_cookies: bool,
    /// Whether `X-Forwarded-For` is believed: only behind a proxy that sets it.
    pub trust_proxy: bool,
    /// Whether too many requests are refused.
    pub limits: bool,
}

/// The users domain.
#[derive(Debug, Clone)]
pub struct UsersSettings {
    /// How long a sign-in lasts.
    pub session: Duration,
    /// How many passwords are hashed at once.
    pub hashers: usize,
}

/// The catalog.
#[derive(Debug, Clone)]
pub struct CatalogSettings {
    /// How many products are kept ready in memory.
    pub cache_max: usize,
    /// At how many pieces left staff are told.
    pub low_stock: i64,
    /// Bytes of an uploaded picture.
    pub image_bytes_max: usize,
    /// Pixels of an uploaded picture.
    pub image_pixels_max: u64,
}

/// PaymentsSettings.
#[derive(Debug, Clone)]
pub struct PaymentsSettings {
    /// Who takes the money.
    pub provider: Provider,
    /// How Stripe is reached, for when it is Stripe.
    pub stripe: StripeSettings,
    /// How long an invoice can be paid.
    pub invoice_lifetime: Duration,
}

/// How Stripe is reached.
#[derive(Debug, Clone)]
pub struct StripeSettings {
    /// The base address of its interface, without a slash at its end.
    pub url: String,
    /// The key that the shop is known by there; empty when another provider takes the money.
    pub secret_key: String,
    /// What its webhooks are signed with: several while one is being replaced.
    pub webhook_secrets: Vec<String>,
}

/// Who takes the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Nobody: the built-in provider for trying out.
    Test,
    /// Stripe.
    Stripe,
}

/// The mailer.
#[derive(Debug, Clone)]
pub struct MailerSettings {
    /// The mail server, as `smtp://` or `smtps://user:password@host:port`; without one mail is kept, not sent.
    pub smtp: Option<String>,
    /// Who mail comes from.
    pub from: EmailAddress,
    /// Whether only people with an account may get mail.
    pub known_recipients_only: bool,
    /// How many mails one person may get within an hour.
    pub per_recipient_hour: u32,
}

/// The statistics.
#[derive(Debug, Clone)]
pub struct StatsSettings {
    /// Who may read the action log: networks as `10.0.0.0/8`.
    pub internal_networks: Vec<Network>,
    /// How many days actions are kept.
    pub keep_days: u32,
}

/// The notifications.
#[derive(Debug, Clone)]
pub struct NotificationsSettings {
    /// How many entries of a user's stream are kept.
    pub keep: i64,
}

/// One domain's place and means.
#[derive(Debug, Clone)]
pub struct DomainSettings {
    /// Which.
    pub name: &'static str,
    /// Where it is.
    pub place: DomainLocation,
    /// Where its database is.
    pub database: Database,
    /// How many requests it may have in hand.
    pub in_flight_max: usize,
}

/// Where a domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainLocation {
    /// In this process.
    Local,
    /// In another process, behind gRPC.
    Remote(Address),
    /// In another process, nobody said which: this one was told which parts of the shop it runs, and this is none.
    RemoteUnspecified,
    /// Not yet here: this process waits for it to be moved in.
    Standby,
    /// Nowhere.
    Off,
}

impl FromStr for DomainLocation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "off" => Ok(Self::Off),
            "standby" => Ok(Self::Standby),
            _ => text.parse().map(Self::Remote),
        }
    }
}

/// Which parts of the shop a process runs.
#[derive(Debug, Clone)]
enum DomainSelection {
    /// Every domain whose place is `local`, and the gateway.
    All,
    /// Only domains alone, and the gateway if it is among them.
    Only { domains: Vec<&'static str>, gateway: bool },
}

impl FromStr for DomainSelection {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::All);
        }
        let (mut domains, mut gateway) = (Vec::new(), false);
        for word in text.split(',').map(str::trim) {
            match DOMAINS.into_iter().find(|domain| *domain == word) {
                Some(domain) if !domains.contains(&domain) => domains.push(domain),
                Some(_) => {}
                None if word == GATEWAY => gateway = true,
                None => {
                    return Err(format!("must be domains with commas between: {GATEWAY}, {}", DOMAINS.join(", ")));
                }
            }
        }
        Ok(Self::Only { domains, gateway })
    }
}

/// A range of network addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: std::net::IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether the address is in this range. An IPv4 address written as IPv6 counts as what it is.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address, address.to_canonical()) {
            (V4(net), V4(host)) => {
                let shift = 32 - u32::from(self.prefix);
                u32::from(net).checked_shr(shift).unwrap_or(0) == u32::from(host).checked_shr(shift).unwrap_or(0)
            }
            (V6(net), V6(host)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(net).checked_shr(shift).unwrap_or(0) == u128::from(host).checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not a network such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: std::net::IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(widest), |p| p.trim().parse().map_err(|_| wrong()))?;
        if prefix > widest { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }
}

impl Settings {
    /// Makes settings of values, or says which value cannot work, where it came from and what would.
    pub fn read(values: &Values) -> Result<Self, SettingError> {
        let data: PathBuf = values.get("data", |text| match text {
            "" => Err("must name a folder".to_owned()),
            folder => Ok(PathBuf::from(folder)),
        })?;
        let prefix = values.get("store.schema_prefix", |text| {
            let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if plain && text.len() <= 40 { Ok(text.to_owned()) } else { Err(PREFIX_RULE.to_owned()) }
        })?;
        let everywhere =
            values.get("database", |text| Database::read(text, &prefix, Database::Folder(data.clone())))?;
        let database = everywhere.folder().map_or_else(|| data.clone(), std::path::Path::to_owned);
        let seconds = |text: &str| number(text, 1, 86_400).map(Duration::from_secs);
        let production =
            values.get("environment", |text| choice(text, &[("development", false), ("production", true)]))?;
        let parts: DomainSelection = values.get("domains", str::parse)?;
        let standby = values.get("standby", boolean)?;
        if standby && matches!(parts, DomainSelection::All) {
            let reason = "needs the names of the domains that wait to be moved here: --domains NAMES".to_owned();
            return Err(values.complain("standby", reason));
        }
        let gateway = matches!(parts, DomainSelection::All | DomainSelection::Only { gateway: true, .. });
        let settings = Self {
            listen: values.get("listen", |text| {
                text.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8080".to_owned())
            })?,
            listen_told: values.is_told("listen"),
            gateway,
            partial: matches!(parts, DomainSelection::Only { .. }),
            grpc: values.get("grpc", |text| match text {
                "" => Ok(None),
                address => address
                    .parse()
                    .map(Some)
                    .map_err(|_| "must be an address and a port, such as 127.0.0.1:50051".into()),
            })?,
            peers: PeersSettings {
                token: values.get("peers.token", |text| match text.len() {
                    0 => Ok(None),
                    16.. if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(text.to_owned())),
                    _ => Err("must have at least 16 characters, printable ASCII without spaces".to_owned()),
                })?,
            },
            migrate: values.get("migrate", |text| choice(text, &[("auto", true), ("manual", false)]))?,
            production,
            secret: values.get("secret", |text| match text.len() {
                0 => Ok(None),
                32.. => Ok(Some(text.to_owned())),
                _ => Err("must have at least 32 characters".to_owned()),
            })?,
            public_url: values.get("public_url", |text| match text.trim_end_matches('/') {
                "" => Ok(None),
                url if url.starts_with("http://") || url.starts_with("https://") => Ok(Some(url.to_owned())),
                _ => Err("must begin with http:// or https://".to_owned()),
            })?,
            demo: values.get("demo", boolean)?,
            log: LogSettings {
                filter: values.get("log", log_filter)?,
                json: values.get("log_format", |text| choice(text, &[("text", false), ("json", true)]))?,
            },
            shop: ShopSettings {
                name: values.get("shop.name", |text| Ok(text.to_owned()))?,
                currency: values.get("shop.currency", |text| text.parse().map_err(|e| format!("is {e}")))?,
            },
            store: StoreSettings {
                batch_max: values.get("store.batch_max", |text| number(text, 1, 4_096))?,
                schema_prefix: prefix.clone(),
                connections: values.get("store.connections", |text| number(text, 3, 1_000))?,
            },
            http: HttpSettings {
                body_max: values.get("http.body_max", |text| number(text, 1_024, 1 << 30))?,
                request_timeout: values.get("http.request_timeout", seconds)?,
                drain_timeout: values.get("http.drain_timeout", seconds)?,
                workers: values.get("http.workers", |text| number(text, 0, 1_024))?,
                secure_cookies: values
                    .get("http.secure_cookies", |text| if text == "auto" { Ok(production) } else { boolean(text) })?,
                trust_proxy: values.get("http.trust_proxy", boolean)?,
                limits: values.get("limits.enabled", boolean)?,
            },
            users: UsersSettings {
                session: values
                    .get("users.session_days", |text| number(text, 1, 3_650))
                    .map(|days: u64| Duration::from_secs(days * 86_400))?,
                hashers: values.get("users.hashers", |text| number(text, 1, 64))?,
            },
            catalog: CatalogSettings {
                cache_max: values.get("catalog.cache_max", |text| number(text, 0, 10_000_000))?,
                low_stock: values.get("catalog.low_stock", |text| number(text, 0, 1_000_000))?,
                image_bytes_max: values.get("catalog.image_bytes_max", |text| number(text, 1_024, 1 << 30))?,
                image_pixels_max: values.get("catalog.image_pixels_max", |text| number(text, 1_024, 1 << 32))?,
            },
            payments: PaymentsSettings {
                provider: values.get("payments.provider", |text| {
                    choice(text, &[("test", Provider::Test), ("stripe", Provider::Stripe)])
                })?,
                stripe: StripeSettings {
                    url: values.get("payments.stripe_url", stripe_url)?,
                    secret_key: values.get("payments.stripe_secret_key", stripe_key)?,
                    webhook_secrets: values.get("payments.stripe_webhook_secrets", webhook_secrets)?,
                },
                invoice_lifetime: values
                    .get("payments.invoice_minutes", |text| number(text, 1, 527_040))
                    .map(|minutes: u64| Duration::from_secs(minutes * 60))?,
            },
            mailer: MailerSettings {
                smtp: values.get("mailer.smtp", |text| {
                    let known = text.starts_with("smtp://") || text.starts_with("smtps://");
                    match text {
                        "" => Ok(None),
                        _ if known => Ok(Some(text.to_owned())),
                        _ => Err("must be smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT".to_owned()),
                    }
                })?,
                from: values.get("mailer.from", |text| text.parse().map_err(|e| format!("is {e}")))?,
                known_recipients_only: values.get("mailer.known_recipients_only", boolean)?,
                per_recipient_hour: values.get("mailer.per_recipient_hour", |text| number(text, 1, 1_000_000))?,
            },
            stats: StatsSettings {
                internal_networks: values
                    .get("stats.internal_networks", |text| text.split(',').map(|net| net.trim().parse()).collect())?,
                keep_days: values.get("stats.keep_days", |text| number(text, 1, 36_500))?,
            },
            notifications: NotificationsSettings {
                keep: values.get("notifications.keep", |text| number(text, 10, 1_000_000))?,
            },
            domains: DOMAINS
                .into_iter()
                .map(|name| {
                    let key = format!("{name}.place");
                    let told: DomainLocation = values.get(&key, str::parse)?;
                    let place = match &parts {
                        _ if values.is_moved(&key) => told,
                        DomainSelection::All => told,
                        DomainSelection::Only { domains, .. } if domains.contains(&name) && standby => {
                            DomainLocation::Standby
                        }
                        // Named here, it is here: all processes may share the settings that say where each domain is.
                        DomainSelection::Only { domains, .. } if domains.contains(&name) => DomainLocation::Local,
                        DomainSelection::Only { .. } if told == DomainLocation::Local => {
                            DomainLocation::RemoteUnspecified
                        }
                        DomainSelection::Only { .. } => told,
                    };
                    Ok(DomainSettings {
                        name,
                        place,
                        database: values.get(&format!("{name}.database"), |text| {
                            let found = Database::read(text, &prefix, everywhere.clone())?;
                            let elsewhere = found.folder().is_some_and(|folder| folder != database);
                            if elsewhere { Err(ONE_FOLDER_RULE.to_owned()) } else { Ok(found) }
                        })?,
                        in_flight_max: values
                            .get(&format!("{name}.in_flight_max"), |text| number(text, 1, 1_000_000))?,
                    })
                })
                .collect::<Result<_, _>>()?,
            events: values.get("events", events)?,
            data,
            database,
        };
        if settings.production && settings.payments.provider == Provider::Test {
            return Err(values.complain(
                "payments.provider",
                "test takes no real money and is refused when environment = \"production\"".to_owned(),
            ));
        }
        if settings.payments.provider == Provider::Stripe {
            let StripeSettings { url, secret_key, .. } = &settings.payments.stripe;
            if secret_key.is_empty() {
                let reason = "must be set when payments.provider is stripe: the secret key (sk_...) of your account";
                return Err(values.complain("payments.stripe_secret_key", reason.to_owned()));
            }
            if settings.production && !url.starts_with("https://") {
                let reason = "must begin with https:// when environment = \"production\": the key travels there";
                return Err(values.complain("payments.stripe_url", reason.to_owned()));
            }
        }
        if !settings.gateway && settings.grpc.is_none() {
            let reason = "leaves out the gateway, so nobody could ask this process: say where it answers the others with --grpc ADDRESS:PORT";
            return Err(values.complain("domains", reason.to_owned()));
        }
        if let Some(address) = settings.grpc
            && !address.ip().is_loopback()
            && settings.peers.token.is_none()
        {
            let reason = format!(
                "{address} can be reached from other machines, and whoever reaches it would be believed to be a part of the shop: \
                 set peers.token (MERCAT_PEERS__TOKEN) to the same secret in every process of it"
            );
            return Err(values.complain("grpc", reason));
        }
        Ok(settings)
    }

    /// The place and means of a domain.
    #[must_use]
    pub fn domain(&self, name: &str) -> &DomainSettings {
        self.domains.iter().find(|domain| domain.name == name).expect("every domain is in DOMAINS")
    }

    /// The database at an address, as the setting `database` takes it.
    #[must_use]
    pub fn database_at(&self, address: &str) -> Option<Database> {
        let nowhere = Database::Folder(PathBuf::new());
        Database::read(address, &self.store.schema_prefix, nowhere.clone()).ok().filter(|found| *found != nowhere)
    }

    /// The defaults with everything under `data`, on a free port and without the demo shop: what tests start from.
    #[must_use]
    pub fn for_test(data: &std::path::Path) -> Self {
        let mut settings = Self::read(&Values::defaults()).expect("the defaults are valid, which a test checks");
        settings.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.data = data.to_owned();
        settings.database = data.to_owned();
        for domain in &mut settings.domains {
            domain.database = Self::test_database(data);
        }
        // Enough for two to meet; hundreds of tests share one server, and few close what they opened.
        settings.store.connections = 4;
        settings.demo = false;
        settings.http.limits = false;
        settings
    }
}

impl Settings {
    /// Where a process with these settings is asked on its own machine: an address that stands for all of the machine's
    /// can be listened at, not asked.
    #[must_use]
    pub fn own_address(&self) -> SocketAddr {
        let mut address = self.listen;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    /// Where tests have their databases: files in `data`, or schemas of a server named for it when
    /// `MERCAT_TEST_DATABASE` names one.
    #[must_use]
    pub fn test_database(data: &std::path::Path) -> Database {
        use sha2::Digest as _;
        let Ok(address) = std::env::var("MERCAT_TEST_DATABASE") else { return Database::Folder(data.to_owned()) };
        let hash = sha2::Sha256::digest(data.as_os_str().as_encoded_bytes());
        let name = hex(&hash[..8]);
        let server = Postgres::new(&address, &format!("t{name}_"));
        // Hundreds of tests open connections at once, beside whatever else the machine does.
        Database::Postgres(server.with_connection_timeout(Duration::from_secs(60)))
    }
}

fn number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Result<T, String> {
    let wrong = || format!("must be a whole number from {min} to {max}");
    let number = text.parse::<u64>().ok().filter(|n| (min..=max).contains(n)).ok_or_else(wrong)?;
    T::try_from(number).map_err(|_| wrong())
}

fn stripe_url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let plain = host.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'@' | b'"' | b'<' | b'>'));
    if host.is_empty() || host.starts_with('/') || !plain {
        return Err("must be an address such as https://api.stripe.com".to_owned());
    }
    Ok(text.to_owned())
}

/// What a header can carry and nobody mistook for another key.
fn stripe_key(text: &str) -> Result<String, String> {
    let known = text.starts_with("sk_") || text.starts_with("rk_");
    if text.is_empty() || (known && text.len() >= 8 && text.bytes().all(|b| b.is_ascii_graphic())) {
        Ok(text.to_owned())
    } else {
        Err("must be a secret key of Stripe, sk_... or rk_...; a publishable one (pk_...) takes no money".to_owned())
    }
}

fn webhook_secrets(text: &str) -> Result<Vec<String>, String> {
    let secrets: Vec<String> = text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if secrets.iter().any(|secret| !secret.starts_with("whsec_") || secret.len() < 14) {
        return Err("must be signing secrets of Stripe's webhook endpoints, whsec_..., with commas between".to_owned());
    }
    if secrets.len() > WEBHOOK_SECRETS_MAX {
        return Err(format!("must be at most {WEBHOOK_SECRETS_MAX} secrets: each is tried on every message"));
    }
    Ok(secrets)
}

/// Checks what the logger would only grumble about: a misspelt level would log everything or nothing.
fn log_filter(text: &str) -> Result<String, String> {
    let level = |word: &str| word.trim().parse::<log::LevelFilter>().is_ok();
    let plain = |word: &str| !word.trim().is_empty() && !word.contains(['=', '/']);
    let fits = |part: &str| match part.split_once('=') {
        None => level(part) || (part.contains("::") && plain(part)),
        Some((target, after)) => plain(target) && level(after),
    };
    if text.split(',').all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be error, warn, info, debug or trace, or filters such as info,mercat::web=debug".to_owned())
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    choice(text, &[("true", true), ("false", false)])
}

fn events(text: &str) -> Result<EventTransport, String> {
    if text == "direct" {
        return Ok(EventTransport::Direct);
    }
    let wrong = || "must be direct, or amqp://USER:PASSWORD@HOST:PORT/VHOST for RabbitMQ".to_owned();
    let uri: AMQPUri = text.parse().map_err(|_| wrong())?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(EventTransport::RabbitMq(uri)),
        AMQPScheme::AMQPS => Err(
            "cannot be amqps://: RabbitMQ's TLS is not built in; use amqp:// in a private network or through a tunnel"
                .to_owned(),
        ),
    }
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        format!("must be {}", words.join(" or "))
    })
}

#[cfg(test)]
mod tests;
