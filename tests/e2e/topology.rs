//! A whole shop of this run's shape (`tests/run`), as real processes on a folder, schemas and a broker's room of its own.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::multi_process::{ALL, Part, TOKEN, free, place};
use super::support::{Shop, Visitor};
use crate::run;

const ADMIN: (&str, &str) = ("boss@example.com", "correct horse battery");

/// What a shop stands on. It outlives the shop's processes.
pub struct Ground {
    dir: TempDir,
    /// The data folder. The processes of a split shop share it, each with files of its own in it.
    data: PathBuf,
    /// What every process is told.
    told: Vec<(String, String)>,
    /// Where each domain is, in a split shop.
    places: Vec<(&'static str, String)>,
}

impl Ground {
    /// Of this run's shape.
    pub async fn new() -> Self {
        static SHOPS: AtomicU32 = AtomicU32::new(0);
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut told = vec![("MERCAT_SECRET".to_owned(), "the secret of all processes of one shop".to_owned())];
        if let Some(server) = run::server() {
            let prefix = format!("p{}_{}_", std::process::id(), SHOPS.fetch_add(1, Ordering::Relaxed));
            told.extend([("MERCAT_DATABASE".to_owned(), server), ("MERCAT_STORE__SCHEMA_PREFIX".to_owned(), prefix)]);
        }
        let mut places = Vec::new();
        if run::is_split() {
            told.push(("MERCAT_PEERS__TOKEN".to_owned(), TOKEN.to_owned()));
            places = ALL.iter().map(|domain| (*domain, free())).collect();
        }
        if let Some(broker) = run::broker() {
            told.push(("MERCAT_EVENTS".to_owned(), run::virtual_host(&broker, dir.path()).await));
        }
        Self { dir, data, told, places }
    }

    /// Starts the shop, with what it left behind.
    pub fn open(&self) -> Whole {
        let mut told = self.told.clone();
        told.extend(self.places.iter().map(|(domain, address)| place(domain, address)));
        let start = |(domain, address): &(&'static str, String)| Part::start(&self.data, domain, address, &told);
        let parts = self.places.iter().map(start).collect();
        let arguments: &[&str] = if self.places.is_empty() { &["--no-demo"] } else { &["--domains", "gateway"] };
        let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (&**name, &**value)).collect();
        Whole { gateway: Shop::start(&self.data, arguments, &told), parts }
    }

    /// Runs a command on the shop's databases, whether the shop runs or not.
    fn mercat(&self, arguments: &[&str]) {
        let ran = Command::new(env!("CARGO_BIN_EXE_mercat"))
            .args(arguments)
            .env("MERCAT_DATA", &self.data)
            .env("MERCAT_ADMIN_PASSWORD", ADMIN.1)
            .envs(self.told.iter().cloned())
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{arguments:?}: {said}{wrong}");
    }

    /// Makes an administrator, who signs in.
    pub async fn admin(&self, shop: &Whole) -> Visitor {
        self.mercat(&["admin", "create", "--email", ADMIN.0, "--name", "Boss"]);
        let mut admin = shop.visitor();
        admin.sign_in(ADMIN.0, ADMIN.1).await;
        admin
    }

    /// Has all books looked at; nothing may be wrong with them. The shop may run meanwhile.
    pub fn books_agree(&self) {
        self.mercat(&["check"]);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        run::is_over(self.dir.path());
    }
}

/// A running shop, asked at its gateway. Dropped, it is killed.
pub struct Whole {
    gateway: Shop,
    parts: Vec<Part>,
}

impl Whole {
    /// kill -9 of every process.
    pub fn kill(self) {
        self.gateway.kill();
        self.parts.into_iter().for_each(Part::kill);
    }

    /// SIGTERM to every process, each of which must end well.
    pub fn terminate(self) {
        assert_eq!(self.gateway.terminate(), Some(0));
        for part in self.parts {
            assert_eq!(part.terminate(), Some(0));
        }
    }
}

impl Deref for Whole {
    type Target = Shop;

    fn deref(&self) -> &Shop {
        &self.gateway
    }
}
