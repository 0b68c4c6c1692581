//! The settings of a process: their names, values and origins.
//!
//! Contains: the table of all settings ([`schema`]), their layers ([`layers`]), the typed result ([`Settings`]). Does
//! not contain: what a domain does with a setting. Nothing else reads a configuration file, and only the command line
//! reads the environment.
//!
//! A secret is declared where the setting is ([`Spec::secret`]); `mercat config` and error messages never show its value.

mod database;
mod layers;
mod limits;
mod location;
mod parse;
mod payments;
mod schema;
mod sections;
#[cfg(feature = "test-hooks")]
mod testing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use location::{DomainDefaults, DomainSelection};
use parse::{boolean, choice, signing_secret, socket_address};

pub use database::{Database, Postgres};
pub use layers::{Layer, Origin, SettingError, Values};
pub use limits::{LimitStore, LimitsSettings, Quota};
pub use location::{DomainLocation, DomainSettings};
pub use payments::{PaymentsSettings, Provider, StripeSettings};
pub use schema::{SETTINGS, Spec, example};
pub use sections::{
    BackupSettings, CatalogSettings, EventTransport, HttpSettings, LogSettings, MailerSettings, NotificationsSettings,
    PeersSettings, ShopSettings, StatsSettings, StoreSettings, UsersSettings,
};

/// Names of the domains, as settings, files and messages use them; each after those that it calls. The registry of the
/// domains (`app::registry`) has an entry for each, which the compiler checks.
pub const DOMAIN_NAMES: [&str; 8] =
    ["users", "catalog", "payments", "cart", "mailer", "stats", "comments", "notifications"];

/// Name of the HTTP gateway where parts of the shop are selected.
pub const GATEWAY: &str = "gateway";
/// File of the data folder that records where domains were moved while the shop ran.
pub const PLACES_FILE: &str = "places.toml";

/// Effective settings of one process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address that the gateway listens on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Whether the address was configured. A process without the gateway serves HTTP only then.
    pub listen_is_explicit: bool,
    /// Whether this process runs the gateway.
    pub gateway: bool,
    /// Whether the domains of this process were selected by name; it runs no others.
    pub domains_selected: bool,
    /// Address at which other processes call the domains of this one, if they may.
    pub grpc: Option<SocketAddr>,
    /// Authentication between the processes of the shop.
    pub peers: PeersSettings,
    /// Data folder.
    pub data: PathBuf,
    /// Folder of the databases that are files; the data folder by default.
    pub database: PathBuf,
    /// Whether pending migrations are applied at start.
    pub migrate: bool,
    /// Whether this is a production environment, in which the test provider is refused.
    pub production: bool,
    /// Token signing secret; by default one is generated and kept in the data folder.
    pub secret: Option<String>,
    /// Public address of the shop for links in e-mails, without a trailing slash.
    pub public_url: Option<String>,
    /// Whether the first start with an empty data folder loads the sample data.
    pub demo: bool,
    /// Log filters and format.
    pub log: LogSettings,
    /// Name and currency.
    pub shop: ShopSettings,
    /// Section `backup`.
    pub backup: BackupSettings,
    /// Limits of the databases.
    pub store: StoreSettings,
    /// Limits and cookies of the gateway.
    pub http: HttpSettings,
    /// Rates at which callers may send requests.
    pub limits: LimitsSettings,
    /// Sessions and password hashing.
    pub users: UsersSettings,
    /// Cache, stock level and images.
    pub catalog: CatalogSettings,
    /// Provider and invoices.
    pub payments: PaymentsSettings,
    /// Mail server and limits.
    pub mailer: MailerSettings,
    /// Access to the action log and its retention.
    pub stats: StatsSettings,
    /// Retention.
    pub notifications: NotificationsSettings,
    /// Transport of events between domains.
    pub events: EventTransport,
    /// Authority that signs the broker's certificate, as PEM; the public ones if there is none.
    pub events_ca: Option<String>,
    /// Settings of each domain, in the order of [`DOMAIN_NAMES`].
    pub domains: Vec<DomainSettings>,
}

impl Settings {
    /// Reads settings from values.
    ///
    /// # Errors
    /// If a value is invalid; the error names the setting, its origin and what is expected.
    pub fn from_values(values: &Values) -> Result<Self, SettingError> {
        let data: PathBuf = values.get("data", |text| match text {
            "" => Err("must name a folder".to_owned()),
            folder => Ok(PathBuf::from(folder)),
        })?;
        let production =
            values.get("environment", |text| choice(text, &[("development", false), ("production", true)]))?;
        let selection: DomainSelection = values.get("domains", str::parse)?;
        let standby = values.get("standby", boolean)?;
        if standby && matches!(selection, DomainSelection::All) {
            let reason = "needs the names of the domains that wait to be moved to this process: --domains NAMES";
            return Err(values.error_for("standby", reason.to_owned()));
        }
        let store = StoreSettings::read(values)?;
        let main_database = values
            .get("database", |text| Database::read(text, &store.schema_prefix, Database::Folder(data.clone())))?;
        let database = main_database.folder().map_or_else(|| data.clone(), Path::to_owned);
        let defaults = DomainDefaults {
            selection: &selection,
            standby,
            database: &main_database,
            folder: &database,
            schema_prefix: &store.schema_prefix,
        };
        let domains = DOMAIN_NAMES
            .into_iter()
            .map(|name| DomainSettings::read(values, name, &defaults))
            .collect::<Result<_, _>>()?;
        let public_url = values.get("public_url", parse::public_url)?;
        let has_https = production || public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        let settings = Self {
            listen: values.get("listen", |text| socket_address(text, "127.0.0.1:8080"))?,
            listen_is_explicit: values.is_set("listen"),
            gateway: matches!(selection, DomainSelection::All | DomainSelection::Only { gateway: true, .. }),
            domains_selected: matches!(selection, DomainSelection::Only { .. }),
            grpc: values.get("grpc", |text| match text {
                "" => Ok(None),
                address => socket_address(address, "127.0.0.1:50051").map(Some),
            })?,
            peers: PeersSettings::read(values)?,
            migrate: values.get("migrate", |text| choice(text, &[("auto", true), ("manual", false)]))?,
            production,
            secret: values.get("secret", signing_secret)?,
            public_url,
            demo: values.get("demo", boolean)?,
            log: LogSettings::read(values)?,
            shop: ShopSettings::read(values)?,
            http: HttpSettings::read(values, has_https)?,
            limits: LimitsSettings::read(values)?,
            users: UsersSettings::read(values)?,
            catalog: CatalogSettings::read(values)?,
            payments: PaymentsSettings::read(values)?,
            mailer: MailerSettings::read(values)?,
            stats: StatsSettings::read(values)?,
            notifications: NotificationsSettings::read(values)?,
            events: EventTransport::read(values)?,
            events_ca: values.get("events_ca", parse::text_of_file)?,
            backup: BackupSettings::read(values, &data)?,
            store,
            domains,
            data,
            database,
        };
        settings.payments.validate(values, production)?;
        settings.validate_addresses(values)?;
        Ok(settings)
    }

    /// Checks that the process can be reached, and that only parts of the shop can reach its gRPC address.
    fn validate_addresses(&self, values: &Values) -> Result<(), SettingError> {
        if !self.gateway && self.grpc.is_none() {
            let reason = "excludes the gateway and no gRPC address is set, so the process would be unreachable; set one \
                          with --grpc ADDRESS:PORT";
            return Err(values.error_for("domains", reason.to_owned()));
        }
        let places = self.domains.iter().filter_map(|domain| match &domain.place {
            DomainLocation::Remote(address) => Some((format!("{}.place", domain.name), address)),
            _ => None,
        });
        let further = self.peers.addresses.iter().map(|address| ("peers.addresses".to_owned(), address));
        if self.peers.tls.is_none()
            && let Some((name, _)) = places.chain(further).find(|(_, address)| address.is_tls)
        {
            let reason = "is an https address, which needs the certificates peers.tls_ca, peers.tls_certificate and \
                          peers.tls_key";
            return Err(values.error_for(&name, reason.to_owned()));
        }
        if let Some(address) = self.grpc
            && !address.ip().is_loopback()
            && self.peers.token.is_none()
        {
            let reason = format!(
                "{address} can be reached from other machines and would be unauthenticated; set peers.token \
                 (MERCAT_PEERS__TOKEN) to the same secret in every process of the shop"
            );
            return Err(values.error_for("grpc", reason));
        }
        Ok(())
    }

    /// Returns what is missing for mail that reaches people and leads them back: problems of a shop with a mail server.
    #[must_use]
    pub fn mail_gaps(&self) -> Vec<&'static str> {
        let mut gaps = Vec::new();
        if self.mailer.smtp.is_some() && self.public_url.is_none() {
            gaps.push("public_url is not set, so links in e-mails lead to the address that the shop listens on");
        }
        if self.mailer.smtp.is_some() && self.mailer.from.as_str().ends_with("@example.com") {
            gaps.push("mailer.from is not set, so e-mails come from an address of example.com");
        }
        gaps
    }

    /// Returns the settings of a domain.
    ///
    /// # Panics
    /// If there is no domain of this name.
    #[must_use]
    pub fn domain(&self, name: &str) -> &DomainSettings {
        self.domains.iter().find(|domain| domain.name == name).expect("every domain is in DOMAIN_NAMES")
    }

    /// Parses an address of a database as the setting `database` does; `None` if it is invalid.
    #[must_use]
    pub fn database_at(&self, address: &str) -> Option<Database> {
        let empty = Database::Folder(PathBuf::new());
        Database::read(address, &self.store.schema_prefix, empty.clone()).ok().filter(|found| *found != empty)
    }

    /// Returns the address at which the gateway is reached on its own machine: an unspecified address can be listened
    /// on, but not connected to.
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
}

#[cfg(test)]
mod tests;
