//! Locations of databases: a folder of files, or a PostgreSQL server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Location of a domain's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// File in this folder.
    Folder(PathBuf),
    /// Schema on a server.
    Postgres(Postgres),
}

/// Address of a PostgreSQL database. Its `Debug` form has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    address: String,
    prefix: String,
    connection_timeout: Duration,
}

/// Longest wait for a connection, so that requests are refused well before their own deadlines.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Parameters that require TLS, which is not supported.
const TLS_PARAMETERS: [&str; 3] = ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"];

impl Database {
    /// Parses a setting; an empty one means `default`.
    pub(super) fn read(text: &str, prefix: &str, default: Self) -> Result<Self, String> {
        let expected = "must be sqlite:FOLDER or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
        if text.is_empty() {
            return Ok(default);
        }
        if let Some(folder) = text.strip_prefix("sqlite:") {
            return if folder.is_empty() { Err(expected.to_owned()) } else { Ok(Self::Folder(PathBuf::from(folder))) };
        }
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(expected.to_owned());
        }
        if TLS_PARAMETERS.iter().any(|parameter| text.contains(parameter)) {
            return Err("TLS to PostgreSQL is not supported; remove sslmode and reach the server over a private \
                        network, a tunnel, or a socket on the same machine"
                .to_owned());
        }
        Ok(Self::Postgres(Postgres::new(text, prefix)))
    }

    /// Returns the server, if the database is on one.
    #[must_use]
    pub fn server(&self) -> Option<&Postgres> {
        match self {
            Self::Folder(_) => None,
            Self::Postgres(server) => Some(server),
        }
    }

    /// Returns the folder, if the database is a file.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Postgres(_) => None,
        }
    }
}

impl Postgres {
    /// Creates the address of a database; schema names get `prefix`.
    #[must_use]
    pub fn new(address: &str, prefix: &str) -> Self {
        Self { address: address.to_owned(), prefix: prefix.to_owned(), connection_timeout: CONNECTION_TIMEOUT }
    }

    /// Waits up to this long for a connection, in whole seconds. For tests, which must not depend on a quick server.
    #[must_use]
    pub fn with_connection_timeout(self, connection_timeout: Duration) -> Self {
        Self { connection_timeout, ..self }
    }

    /// Longest wait for a connection, new or pooled, while the server is not known to be down.
    #[must_use]
    pub const fn connection_timeout(&self) -> Duration {
        self.connection_timeout
    }

    /// Returns the address for a connection with this application name. It contains the password.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let mut url = self.address.clone();
        let timeout = self.connection_timeout.as_secs().to_string();
        for (key, value) in [("connect_timeout", &*timeout), ("tcp_user_timeout", "15000"), ("application_name", name)]
        {
            if !url.contains(key) {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!("{key}={value}"));
            }
        }
        url
    }

    /// Returns the schema of a domain.
    #[must_use]
    pub fn schema(&self, domain: &str) -> String {
        format!("{}{domain}", self.prefix)
    }

    /// Returns the address without its password.
    #[must_use]
    pub fn masked(&self) -> String {
        masked(&self.address)
    }

    /// Removes the password from a text, such as an error message.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        match password(&self.address) {
            Some(password) if !password.is_empty() => text.replace(password, MASK),
            _ => text.to_owned(),
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

const MASK: &str = "********";

/// Returns the password of an address, which is before the host or among the parameters.
fn password(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    if let Some((user, _)) = rest.rsplit_once('@')
        && let Some((_, password)) = user.split_once(':')
    {
        return Some(password);
    }
    let (_, rest) = rest.split_once("password=")?;
    Some(rest.split('&').next().unwrap_or(rest))
}

/// Masks the password of an address; other texts are returned as they are.
pub(super) fn masked(text: &str) -> String {
    match password(text) {
        Some(password) if !password.is_empty() => text
            .replacen(&format!(":{password}@"), &format!(":{MASK}@"), 1)
            .replace(&format!("password={password}"), &format!("password={MASK}")),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_password_is_masked() {
        let addresses = [
            "postgres://shop:sec:ret@db:5432/shop",
            "postgres://shop:sec:ret@db/shop?sslmode=disable",
            "postgres:///shop?host=/run&user=shop&password=sec:ret",
            "postgres:///shop?password=sec:ret&user=shop",
        ];
        for address in addresses {
            let server = Postgres::new(address, "");
            assert!(!server.masked().contains("sec:ret"), "{}", server.masked());
            assert!(!format!("{server:?}").contains("sec:ret"));
            assert_eq!(server.mask("no login with sec:ret"), "no login with ********");
            assert!(server.url("mercat").contains("sec:ret"));
        }
        assert_eq!(Postgres::new("postgres://shop@db/shop", "").masked(), "postgres://shop@db/shop");
    }
}
