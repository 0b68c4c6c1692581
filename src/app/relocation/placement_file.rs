//! Traces of a move in the data folder: the present location of each moved domain, and a database that was uploaded but
//! not opened yet.
//!
//! The record decides which process owns the domain. A process that gives a domain away writes it last; a process that
//! takes one writes it after the database is safe. So exactly one process would start the domain at every instant.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::settings::{DOMAIN_NAMES, DomainLocation, PLACES_FILE, Settings};
use crate::store::files::{fsync_dir, remove, rename, with_suffix, write_atomic};
use crate::store::mark_moved_away;

const HEAD: &str = "# Domains that were moved while the shop ran. Written by mercat; overrides every other setting.\n";

/// Reads the recorded locations; empty if no domain was ever moved.
pub fn read(settings: &Settings) -> Result<BTreeMap<String, DomainLocation>, String> {
    let file = settings.data.join(PLACES_FILE);
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| format!("{}: {error}", file.display()))?;
    let place = |domain: &str| table.get(domain)?.get("place")?.as_str()?.parse().ok();
    Ok(DOMAIN_NAMES.into_iter().filter_map(|domain| Some((domain.to_owned(), place(domain)?))).collect())
}

/// Records the location of a domain durably.
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
    write_atomic(&file, text.as_bytes()).map_err(|error| format!("{} cannot be written: {error}", file.display()))
}

/// Returns the file of a domain's database; `None` if the database is on a server.
pub fn file(settings: &Settings, domain: &str) -> Option<PathBuf> {
    Some(settings.domain(domain).database.folder()?.join(format!("{domain}.db")))
}

/// Returns the path of a database whose upload is not complete.
pub fn partial_path(file: &Path) -> PathBuf {
    with_suffix(file, ".arriving")
}

/// Returns the path of a database that was uploaded completely and is not opened yet.
pub fn uploaded_path(file: &Path) -> PathBuf {
    with_suffix(file, ".arrived")
}

/// Replaces the present database by an uploaded one. Has no effect if there is none, so it may be repeated.
pub fn install_upload(file: &Path) -> io::Result<()> {
    let new = uploaded_path(file);
    if !new.exists() {
        return Ok(());
    }
    // The journal first: SQLite would apply the old one to the new file.
    remove(&with_suffix(file, "-wal"))?;
    remove(&with_suffix(file, "-shm"))?;
    fsync_dir(file.parent().unwrap_or(Path::new(".")))?;
    rename(&new, file)?;
    fsync_dir(file.parent().unwrap_or(Path::new(".")))
}

/// Completes moves that were recorded and then interrupted by a crash: installs what arrived, marks what was left behind.
pub fn finish(settings: &Settings, places: &BTreeMap<String, DomainLocation>) -> Result<(), String> {
    for (domain, place) in places {
        let Some(file) = file(settings, domain) else { continue };
        match place {
            DomainLocation::Local => {
                install_upload(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            _ => mark_left_behind(&file),
        }
    }
    Ok(())
}

/// Marks the database of a domain that another process owns, so that it is not opened if the record of the move is lost.
/// The move does not depend on it.
pub fn mark_left_behind(file: &Path) {
    if let Err(error) = mark_moved_away(file, true) {
        log::warn!("relocation: what the domain left behind cannot be marked as old: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_places_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        assert!(read(&settings).unwrap().is_empty());
        let remote: DomainLocation = "http://payments:50051".parse().unwrap();
        write(&settings, "payments", &remote).unwrap();
        write(&settings, "mailer", &DomainLocation::Standby).unwrap();
        write(&settings, "mailer", &DomainLocation::Local).unwrap();
        let places = read(&settings).unwrap();
        assert_eq!((places.len(), &places["payments"], &places["mailer"]), (2, &remote, &DomainLocation::Local));
    }

    #[test]
    fn upload_is_installed_only_after_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        let file = dir.path().join("payments.db");
        std::fs::write(&file, "old").unwrap();
        std::fs::write(with_suffix(&file, "-wal"), "old journal").unwrap();
        std::fs::write(uploaded_path(&file), "new").unwrap();
        let standby = BTreeMap::from([("payments".to_owned(), DomainLocation::Standby)]);
        finish(&settings, &standby).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        let local = BTreeMap::from([("payments".to_owned(), DomainLocation::Local)]);
        for _ in 0..2 {
            if super::file(&settings, "payments").is_some() {
                finish(&settings, &local).unwrap();
                assert_eq!(std::fs::read(&file).unwrap(), b"new");
                assert!(!with_suffix(&file, "-wal").exists() && !uploaded_path(&file).exists());
            }
        }
    }
}
