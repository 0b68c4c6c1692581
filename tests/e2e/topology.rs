//! A whole shop in the deployment of this run (`tests/common`): real processes on a data folder, database schemas and a
//! broker virtual host of its own.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mercat::settings::DOMAIN_NAMES;
use tempfile::TempDir;

use super::multi_process::{DomainProcess, TOKEN, free_address, place_variable};
use super::support::{HttpClient, Shop};
use crate::common;

const ADMIN_CREDENTIALS: (&str, &str) = ("boss@example.com", "correct horse battery");

/// Data folder, databases and broker of a shop. Outlives the shop's processes.
pub struct TestEnvironment {
    dir: TempDir,
    /// Data folder. The processes of a split shop share it, each with files of its own.
    data: PathBuf,
    /// Environment variables of every process.
    variables: Vec<(String, String)>,
    /// Address of each domain in a split shop.
    places: Vec<(&'static str, String)>,
}

impl TestEnvironment {
    /// Prepares the deployment of this run.
    pub async fn new() -> Self {
        static SHOPS: AtomicU32 = AtomicU32::new(0);
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut variables = vec![("MERCAT_SECRET".to_owned(), "the secret of all processes of one shop".to_owned())];
        if let Some(server) = common::postgres_url() {
            let prefix = format!("p{}_{}_", std::process::id(), SHOPS.fetch_add(1, Ordering::Relaxed));
            variables
                .extend([("MERCAT_DATABASE".to_owned(), server), ("MERCAT_STORE__SCHEMA_PREFIX".to_owned(), prefix)]);
        }
        let mut places = Vec::new();
        if common::is_split() {
            variables.push(("MERCAT_PEERS__TOKEN".to_owned(), TOKEN.to_owned()));
            places = DOMAIN_NAMES.iter().map(|domain| (*domain, free_address())).collect();
        }
        if let Some(broker) = common::rabbitmq_url() {
            variables.push(("MERCAT_EVENTS".to_owned(), common::virtual_host(&broker, dir.path()).await));
        }
        Self { dir, data, variables, places }
    }

    /// Starts the shop on the data it left behind.
    pub fn open(&self) -> RunningShop {
        let mut variables = self.variables.clone();
        variables.extend(self.places.iter().map(|(domain, address)| place_variable(domain, address)));
        let start =
            |(domain, address): &(&'static str, String)| DomainProcess::start(&self.data, domain, address, &variables);
        let processes = self.places.iter().map(start).collect();
        let arguments: &[&str] = if self.places.is_empty() { &["--no-demo"] } else { &["--domains", "gateway"] };
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        RunningShop { gateway: Shop::start(&self.data, arguments, &variables), processes }
    }

    /// Runs a command on the shop's databases, whether the shop is running or not.
    fn mercat(&self, arguments: &[&str]) {
        let run = Command::new(env!("CARGO_BIN_EXE_mercat"))
            .args(arguments)
            .env("MERCAT_DATA", &self.data)
            .env("MERCAT_ADMIN_PASSWORD", ADMIN_CREDENTIALS.1)
            .envs(self.variables.iter().cloned())
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let (output, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{arguments:?}: {output}{errors}");
    }

    /// Creates an administrator, and signs in.
    pub async fn admin(&self, shop: &RunningShop) -> HttpClient {
        self.mercat(&["admin", "create", "--email", ADMIN_CREDENTIALS.0, "--name", "Boss"]);
        let mut admin = shop.client();
        admin.sign_in(ADMIN_CREDENTIALS.0, ADMIN_CREDENTIALS.1).await;
        admin
    }

    /// Asserts that all invariants hold. The shop may be running.
    pub fn assert_consistent(&self) {
        self.mercat(&["check"]);
    }
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        common::release_virtual_host(self.dir.path());
    }
}

/// A running shop, reached at its gateway. Dropped, it is killed.
pub struct RunningShop {
    gateway: Shop,
    processes: Vec<DomainProcess>,
}

impl RunningShop {
    /// kill -9 of every process.
    pub fn kill(self) {
        self.gateway.kill();
        self.processes.into_iter().for_each(DomainProcess::kill);
    }

    /// Sends SIGTERM to every process; each must exit with code 0.
    pub fn terminate(self) {
        assert_eq!(self.gateway.terminate(), Some(0));
        for part in self.processes {
            assert_eq!(part.terminate(), Some(0));
        }
    }
}

impl Deref for RunningShop {
    type Target = Shop;

    fn deref(&self) -> &Shop {
        &self.gateway
    }
}
