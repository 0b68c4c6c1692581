//! What a move leaves in the data folder: where the domain is now, and a database that has come and is not opened yet.
//!
//! The record decides whose the domain is. It is written last where a domain is given away and after the database is
//! safe where one is taken, so that at every instant exactly one process would open it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::settings::{DOMAINS, DomainLocation, PLACES_FILE, Settings};
use crate::store::files::{fsync_dir, remove, rename, with_suffix, write_atomic};

const HEAD: &str =
    "# Where domains were moved while the shop ran. Written by mercat; it outweighs every other setting.\n";

/// Where domains were moved.
pub fn read(settings: &Settings) -> Result<BTreeMap<String, DomainLocation>, String> {
    let file = settings.data.join(PLACES_FILE);
    let text = match std::fs::read_to_string(&file) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(|why| format!("{}: {why}", file.display()))?,
    };
    let table: toml::Table = text.parse().map_err(|why: toml::de::Error| format!("{}: {why}", file.display()))?;
    let place = |domain: &str| table.get(domain)?.get("place")?.as_str()?.parse().ok();
    Ok(DOMAINS.into_iter().filter_map(|domain| Some((domain.to_owned(), place(domain)?))).collect())
}

/// Records durably where a domain is from now on.
pub fn write(settings: &Settings, domain: &str, place: &DomainLocation) -> Result<(), String> {
    let mut places = read(settings)?;
    places.insert(domain.to_owned(), place.clone());
    let mut text = HEAD.to_owned();
    for (domain, place) in &places {
        let place = match place {
            DomainLocation::Local => "local".to_owned(),
            DomainLocation::Remote(address) => address.to_string(),
            DomainLocation::Standby | DomainLocation::RemoteUnspecified | DomainLocation::Off => "standby".to_owned(),
        };
        text.push_str(&format!("\n[{domain}]\nplace = \"{place}\"\n"));
    }
    let file = settings.data.join(PLACES_FILE);
    write_atomic(&file, text.as_bytes()).map_err(|why| format!("{} cannot be written: {why}", file.display()))
}

/// The file of a domain's database, when it is one.
pub fn file(settings: &Settings, domain: &str) -> Option<PathBuf> {
    Some(settings.domain(domain).database.folder()?.join(format!("{domain}.db")))
}

/// Where a database is that is being sent.
pub fn arriving(file: &Path) -> PathBuf {
    with_suffix(file, ".arriving")
}

/// Where a database is that was sent whole and is not opened yet.
pub fn arrived(file: &Path) -> PathBuf {
    with_suffix(file, ".arrived")
}

/// Puts a database that was sent whole in the place of whatever was there. Done again, it does nothing.
pub fn adopt(file: &Path) -> io::Result<()> {
    let new = arrived(file);
    if !new.exists() {
        return Ok(());
    }
    // The journal first: beside the new file the old one's would destroy it.
    remove(&with_suffix(file, "-wal"))?;
    remove(&with_suffix(file, "-shm"))?;
    fsync_dir(file.parent().unwrap_or(Path::new(".")))?;
    rename(&new, file)?;
    fsync_dir(file.parent().unwrap_or(Path::new(".")))
}

/// Finishes what a crash cut short after it was decided.
pub fn finish(settings: &Settings, places: &BTreeMap<String, DomainLocation>) -> Result<(), String> {
    for (domain, _) in places.iter().filter(|(_, place)| **place == DomainLocation::Local) {
        if let Some(file) = file(settings, domain) {
            adopt(&file).map_err(|why| format!("{}: {why}", file.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_again_and_outweighs_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        assert!(read(&settings).unwrap().is_empty());
        let there: DomainLocation = "http://payments:50051".parse().unwrap();
        write(&settings, "payments", &there).unwrap();
        write(&settings, "mailer", &DomainLocation::Standby).unwrap();
        write(&settings, "mailer", &DomainLocation::Local).unwrap();
        let places = read(&settings).unwrap();
        assert_eq!((places.len(), &places["payments"], &places["mailer"]), (2, &there, &DomainLocation::Local));
    }

    #[test]
    fn a_database_that_has_come_is_taken_once_it_is_decided_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        let file = dir.path().join("payments.db");
        std::fs::write(&file, "old").unwrap();
        std::fs::write(with_suffix(&file, "-wal"), "old journal").unwrap();
        std::fs::write(arrived(&file), "new").unwrap();
        let standby = BTreeMap::from([("payments".to_owned(), DomainLocation::Standby)]);
        finish(&settings, &standby).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        let local = BTreeMap::from([("payments".to_owned(), DomainLocation::Local)]);
        for _ in 0..2 {
            if super::file(&settings, "payments").is_some() {
                finish(&settings, &local).unwrap();
                assert_eq!(std::fs::read(&file).unwrap(), b"new");
                assert!(!with_suffix(&file, "-wal").exists() && !arrived(&file).exists());
            }
        }
    }
}
