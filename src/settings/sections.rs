//! The sections of the settings, each with the parsing of its values. Payments have a file of their own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use lapin::uri::AMQPUri;

use super::parse::{
    addresses, boolean, choice, interval, log_filter, networks, number, origins, seconds, text_of_file,
};
use super::{SettingError, Values};
use crate::types::{Address, Currency, EmailAddress, PeerTls};

/// The rule for schema prefixes.
const SCHEMA_PREFIX_RULE: &str = "must be lower-case letters, digits and _, at most 40";

const MISSING_FILE: &str =
    "must be set: TLS between processes needs peers.tls_ca, peers.tls_certificate and peers.tls_key";

/// The section `peers`: how the processes of one shop authenticate each other.
#[derive(Debug, Clone, Default)]
pub struct PeersSettings {
    /// Secret that all processes of the shop share.
    pub token: Option<String>,
    /// Further secret that callers may present, while one is replaced.
    pub other_token: Option<String>,
    /// Addresses of processes that an administrator may move domains to, besides the configured places.
    pub addresses: Vec<Address>,
    /// Certificates for TLS between the processes.
    pub tls: Option<PeerTls>,
}

impl PeersSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        let token = |text: &str| match text.len() {
            0 => Ok(None),
            16.. if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(text.to_owned())),
            _ => Err("must have at least 16 characters, printable ASCII without spaces".to_owned()),
        };
        let other_token = values.get("peers.other_token", token)?;
        Ok(Self {
            token: values.get("peers.token", token)?,
            other_token,
            addresses: values.get("peers.addresses", addresses)?,
            tls: Self::read_tls(values)?,
        })
    }

    fn read_tls(values: &Values) -> Result<Option<PeerTls>, SettingError> {
        let authority = values.get("peers.tls_ca", text_of_file)?;
        let certificate = values.get("peers.tls_certificate", text_of_file)?;
        let key = values.get("peers.tls_key", text_of_file)?;
        match (authority, certificate, key) {
            (None, None, None) => Ok(None),
            (Some(authority), Some(certificate), Some(key)) => Ok(Some(PeerTls { authority, certificate, key })),
            (None, ..) => Err(values.error_for("peers.tls_ca", MISSING_FILE.to_owned())),
            (_, None, _) => Err(values.error_for("peers.tls_certificate", MISSING_FILE.to_owned())),
            (.., None) => Err(values.error_for("peers.tls_key", MISSING_FILE.to_owned())),
        }
    }
}

/// Transport of events between domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTransport {
    /// From each outbox directly to its subscribers.
    Direct,
    /// RabbitMQ, which retains them until they are acknowledged.
    RabbitMq(AMQPUri),
}

impl EventTransport {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        values.get("events", |text| {
            if text == "direct" {
                return Ok(Self::Direct);
            }
            let invalid = || {
                "must be direct, or amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps:// with TLS) for RabbitMQ".to_owned()
            };
            text.parse().map(Self::RabbitMq).map_err(|_| invalid())
        })
    }
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Filters in the syntax of `env_logger`.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

impl LogSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            filter: values.get("log", log_filter)?,
            json: values.get("log_format", |text| choice(text, &[("text", false), ("json", true)]))?,
        })
    }
}

/// The section `shop`.
#[derive(Debug, Clone)]
pub struct ShopSettings {
    /// Name in pages and e-mails.
    pub name: String,
    /// Currency of an empty cart and of the statistics.
    pub currency: Currency,
}

impl ShopSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            name: values.get("shop.name", |text| Ok(text.to_owned()))?,
            currency: values.get("shop.currency", |text| text.parse().map_err(|e| format!("is {e}")))?,
        })
    }
}

/// The section `store`.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Most write jobs that share one commit.
    pub batch_max: usize,
    /// Prefix of the schema names on a PostgreSQL server.
    pub schema_prefix: String,
    /// Connections of each domain to a PostgreSQL server.
    pub connections: u32,
}

impl StoreSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            batch_max: values.get("store.batch_max", |text| number(text, 1, 4_096))?,
            schema_prefix: values.get("store.schema_prefix", |text| {
                let is_valid = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
                let fits = text.len() <= 40 && text.bytes().all(is_valid);
                if fits { Ok(text.to_owned()) } else { Err(SCHEMA_PREFIX_RULE.to_owned()) }
            })?,
            connections: values.get("store.connections", |text| number(text, 3, 1_000))?,
        })
    }
}

/// The section `backup`: backups at intervals.
#[derive(Debug, Clone)]
pub struct BackupSettings {
    /// Interval; none are taken without one.
    pub every: Option<Duration>,
    /// Folder of the backups.
    pub folder: PathBuf,
    /// Number of backups that are kept.
    pub keep: usize,
}

impl BackupSettings {
    pub(super) fn read(values: &Values, data: &Path) -> Result<Self, SettingError> {
        let folder =
            values.get("backup.folder", |text| Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)))?;
        Ok(Self {
            every: values.get("backup.every", interval)?,
            folder: folder.unwrap_or_else(|| data.join("backups")),
            keep: values.get("backup.keep", |text| number(text, 1, 10_000))?,
        })
    }
}

/// The section `http`.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Largest request body in bytes, image uploads excepted.
    pub body_max: usize,
    /// Time after which a request is answered with 504.
    pub request_timeout: Duration,
    /// Time that requests in flight have to end when the process stops.
    pub drain_timeout: Duration,
    /// Time for which a process that stops still takes connections, while its readiness check fails.
    pub lame_duck: Duration,
    /// Threads that serve HTTP; 0 for one per core.
    pub workers: usize,
    /// Whether cookies are marked `Secure`.
    pub secure_cookies: bool,
    /// Origins of other sites whose pages may call the API, in lower case.
    pub cors_origins: Vec<String>,
    /// Networks of the proxies whose `Forwarded` and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl HttpSettings {
    pub(super) fn read(values: &Values, has_https: bool) -> Result<Self, SettingError> {
        Ok(Self {
            body_max: values.get("http.body_max", |text| number(text, 1_024, 1 << 30))?,
            request_timeout: values.get("http.request_timeout", seconds)?,
            drain_timeout: values.get("http.drain_timeout", seconds)?,
            lame_duck: values.get("http.lame_duck", |text| number(text, 0, 300).map(Duration::from_secs))?,
            workers: values.get("http.workers", |text| number(text, 0, 1_024))?,
            secure_cookies: values
                .get("http.secure_cookies", |text| if text == "auto" { Ok(has_https) } else { boolean(text) })?,
            cors_origins: values.get("http.cors_origins", origins)?,
            trusted_proxies: values.get("http.trusted_proxies", networks)?,
        })
    }
}

/// The section `users`.
#[derive(Debug, Clone)]
pub struct UsersSettings {
    /// Lifetime of a session.
    pub session: Duration,
    /// Age at which guests that bought nothing are erased.
    pub guest: Duration,
    /// Whether staff need a second factor.
    pub staff_second_factor: bool,
    /// Lifetime of a session of staff.
    pub staff_session: Duration,
    /// Time without a request after which a session of staff ends.
    pub staff_idle: Duration,
    /// Password hashes that are computed at a time.
    pub hashers: usize,
}

impl UsersSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            session: values
                .get("users.session_days", |text| number(text, 1, 3_650))
                .map(|days: u64| Duration::from_secs(days * 86_400))?,
            staff_second_factor: values.get("users.staff_second_factor", boolean)?,
            staff_session: values
                .get("users.staff_session_hours", |text| number(text, 1, 24 * 365))
                .map(|hours: u64| Duration::from_secs(hours * 3_600))?,
            staff_idle: values
                .get("users.staff_idle_minutes", |text| number(text, 5, 60 * 24 * 365))
                .map(|minutes: u64| Duration::from_secs(minutes * 60))?,
            guest: values
                .get("users.guest_days", |text| number(text, 1, 3_650))
                .map(|days: u64| Duration::from_secs(days * 86_400))?,
            hashers: values.get("users.hashers", |text| number(text, 1, 64))?,
        })
    }
}

/// The section `catalog`.
#[derive(Debug, Clone)]
pub struct CatalogSettings {
    /// Most products that are cached in memory.
    pub cache_max: usize,
    /// Stock level at which staff is notified.
    pub low_stock: i64,
    /// Largest uploaded image in bytes.
    pub image_bytes_max: usize,
    /// Largest uploaded image in pixels.
    pub image_pixels_max: u64,
    /// Whether an import may fetch images from addresses that are not public.
    pub private_image_addresses: bool,
}

impl CatalogSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            cache_max: values.get("catalog.cache_max", |text| number(text, 0, 10_000_000))?,
            low_stock: values.get("catalog.low_stock", |text| number(text, 0, 1_000_000))?,
            image_bytes_max: values.get("catalog.image_bytes_max", |text| number(text, 1_024, 1 << 30))?,
            image_pixels_max: values.get("catalog.image_pixels_max", |text| number(text, 1_024, 1 << 32))?,
            private_image_addresses: values.get("catalog.private_image_addresses", boolean)?,
        })
    }
}

/// The section `mailer`.
#[derive(Debug, Clone)]
pub struct MailerSettings {
    /// Mail server as `smtp://` or `smtps://USER:PASSWORD@HOST:PORT`; without one, e-mails are kept and not sent.
    pub smtp: Option<String>,
    /// Sender address.
    pub from: EmailAddress,
    /// Whether only people with an account may be sent e-mails.
    pub known_recipients_only: bool,
    /// Most e-mails per recipient and hour.
    pub per_recipient_hour: u32,
    /// Most automatic e-mails per recipient and hour; further ones are sent later.
    pub automatic_per_recipient_hour: u32,
}

impl MailerSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            smtp: values.get("mailer.smtp", |text| match text {
                "" => Ok(None),
                _ if text.starts_with("smtp://") || text.starts_with("smtps://") => Ok(Some(text.to_owned())),
                _ => Err("must be smtp://HOST:PORT or smtps://USER:PASSWORD@HOST:PORT".to_owned()),
            })?,
            from: values.get("mailer.from", |text| text.parse().map_err(|e| format!("is {e}")))?,
            known_recipients_only: values.get("mailer.known_recipients_only", boolean)?,
            per_recipient_hour: values.get("mailer.per_recipient_hour", |text| number(text, 1, 1_000_000))?,
            automatic_per_recipient_hour: values
                .get("mailer.automatic_per_recipient_hour", |text| number(text, 1, 1_000_000))?,
        })
    }
}

/// The section `stats`.
#[derive(Debug, Clone)]
pub struct StatsSettings {
    /// Networks that may read the action log and the metrics.
    pub internal_networks: Vec<IpNet>,
    /// Days for which actions are kept.
    pub keep_days: u32,
    /// Most bytes of the entries that callers reported.
    pub log_bytes_max: i64,
}

impl StatsSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            internal_networks: values.get("stats.internal_networks", networks)?,
            keep_days: values.get("stats.keep_days", |text| number(text, 1, 36_500))?,
            log_bytes_max: values.get("stats.log_bytes_max", |text| number(text, 1_024, 1 << 40))?,
        })
    }

    /// Returns whether an address is in an internal network. An IPv4 address mapped to IPv6 counts as IPv4.
    #[must_use]
    pub fn is_internal(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.internal_networks.iter().any(|network| network.contains(&address))
    }
}

/// The section `notifications`.
#[derive(Debug, Clone)]
pub struct NotificationsSettings {
    /// Most notifications that are kept per user.
    pub keep: i64,
}

impl NotificationsSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self { keep: values.get("notifications.keep", |text| number(text, 10, 1_000_000))? })
    }
}
