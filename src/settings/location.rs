//! Locations of the domains, and the selection of those that one process runs.

use std::str::FromStr;

use super::parse::number;
use super::{DOMAIN_NAMES, Database, GATEWAY, SettingError, Values};
use crate::types::Address;

/// The rule for databases that are files.
const ONE_FOLDER_RULE: &str =
    "must be postgres://...: databases that are files are all in one folder, which `database` or `data` names";

/// Location of a domain, its database and its limits.
#[derive(Debug, Clone)]
pub struct DomainSettings {
    /// Name of the domain.
    pub name: &'static str,
    /// Location of the domain.
    pub place: DomainLocation,
    /// Location of its database.
    pub database: Database,
    /// Most requests to it that may be in flight; more are rejected as unavailable.
    pub in_flight_max: usize,
}

/// Values that the settings of one domain depend on.
pub(super) struct DomainDefaults<'a> {
    pub selection: &'a DomainSelection,
    pub standby: bool,
    /// Database of the domains that name none.
    pub database: &'a Database,
    /// Folder of the databases that are files.
    pub folder: &'a std::path::Path,
    pub schema_prefix: &'a str,
}

impl DomainSettings {
    pub(super) fn read(
        values: &Values,
        name: &'static str,
        defaults: &DomainDefaults<'_>,
    ) -> Result<Self, SettingError> {
        let key = format!("{name}.place");
        let configured: DomainLocation = values.get(&key, str::parse)?;
        let place = match defaults.selection {
            _ if values.is_relocated(&key) => configured,
            DomainSelection::All => configured,
            DomainSelection::Only { domains, .. } if domains.contains(&name) && defaults.standby => {
                DomainLocation::Standby
            }
            // Selected domains are local whatever their place says: all processes may share one configuration file.
            DomainSelection::Only { domains, .. } if domains.contains(&name) => DomainLocation::Local,
            DomainSelection::Only { .. } if configured == DomainLocation::Local => DomainLocation::RemoteUnspecified,
            DomainSelection::Only { .. } => configured,
        };
        let database = values.get(&format!("{name}.database"), |text| {
            let found = Database::read(text, defaults.schema_prefix, defaults.database.clone())?;
            let is_elsewhere = found.folder().is_some_and(|folder| folder != defaults.folder);
            if is_elsewhere { Err(ONE_FOLDER_RULE.to_owned()) } else { Ok(found) }
        })?;
        let in_flight_max = values.get(&format!("{name}.in_flight_max"), |text| number(text, 1, 1_000_000))?;
        Ok(Self { name, place, database, in_flight_max })
    }
}

/// Location of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainLocation {
    /// In this process.
    Local,
    /// In another process, behind gRPC.
    Remote(Address),
    /// In another process without a known address: not among the domains selected for this process, and its place is not
    /// set.
    RemoteUnspecified,
    /// In another process so far: this one waits for it to be moved here.
    Standby,
    /// In no process.
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

/// Parts of the shop that a process runs.
#[derive(Debug, Clone)]
pub(super) enum DomainSelection {
    /// Every domain whose place is `local`, and the gateway.
    All,
    /// The selected parts and no others.
    Only { domains: Vec<&'static str>, gateway: bool },
}

impl FromStr for DomainSelection {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::All);
        }
        let (mut domains, mut gateway) = (Vec::new(), false);
        for name in text.split(',').map(str::trim) {
            match DOMAIN_NAMES.into_iter().find(|domain| *domain == name) {
                Some(domain) if !domains.contains(&domain) => domains.push(domain),
                Some(_) => {}
                None if name == GATEWAY => gateway = true,
                None => {
                    return Err(format!("must be names separated by commas: {GATEWAY}, {}", DOMAIN_NAMES.join(", ")));
                }
            }
        }
        Ok(Self::Only { domains, gateway })
    }
}
