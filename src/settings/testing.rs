//! Settings for tests. Compiled for tests only (feature `test-hooks`).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{Database, Postgres, Settings, Values};
use crate::types::hex;

impl Settings {
    /// Returns the defaults with all data under `data`, a free port and no sample data.
    #[must_use]
    pub fn for_test(data: &Path) -> Self {
        let mut settings = Self::from_values(&Values::defaults()).expect("the defaults are valid, which a test checks");
        settings.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.data = data.to_owned();
        settings.database = data.to_owned();
        settings.backup.folder = data.join("backups");
        for domain in &mut settings.domains {
            domain.database = Self::test_database(data);
        }
        // Enough for two writers to meet; hundreds of tests share one server, and few of them close what they opened.
        settings.store.connections = 4;
        settings.demo = false;
        settings.limits.enabled = false;
        settings
    }

    /// Returns the database of a test: files in `data`, or schemas named after it on the server that
    /// `MERCAT_TEST_DATABASE` names.
    #[must_use]
    pub fn test_database(data: &Path) -> Database {
        use sha2::Digest as _;
        let Ok(address) = std::env::var("MERCAT_TEST_DATABASE") else { return Database::Folder(data.to_owned()) };
        let hash = sha2::Sha256::digest(data.as_os_str().as_encoded_bytes());
        let name = hex(&hash[..8]);
        let server = Postgres::new(&address, &format!("t{name}_"));
        // A server that the whole test run shares may be slow; a test of an outage makes one that refuses.
        Database::Postgres(server.with_connection_timeout(Duration::from_secs(60)))
    }
}
