//! Backup of the whole shop as of one instant, and its restore.
//!
//! Contains: the files of a shop, the manifest of a backup, the replacement of a shop's files so that a crash leaves the
//! old ones or the new ones. Does not contain: SQL (see [`crate::store`]), the content of a table.
//!
//! **A backup** consists of one compact file per domain, the token signing secret, and `backup.json`, which is written
//! last: a folder without it is not a backup. All databases are of the same instant, so every event is either still in
//! the outbox of its domain or its effect is in the databases of all its subscribers.
//!
//! **A restore** first copies everything next to the shop's own files (`*.restore`) and verifies it there, then writes
//! `restore.json`. Before that the old data are unchanged; after it the restore is completed by the next command, also
//! after a crash. The old files are kept (`*.before`) until the new ones are in place.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::app::moved_away;
use crate::domains::{notifications, users};
use crate::settings::{DOMAIN_NAMES, DomainLocation, DomainSettings, Settings};
use crate::store::files::{self, create, hash_file, with_suffix};
use crate::store::{self, BackupTarget};
use crate::types::Timestamp;

pub mod schedule;
#[cfg(test)]
mod tests;

/// Manifest, whose presence marks a complete backup.
const MANIFEST: &str = "backup.json";
/// Journal, whose presence marks a restore that must be completed.
const RESTORE_JOURNAL: &str = "restore.json";
/// Version of the backup format that this program writes and reads.
const FORMAT: u32 = 1;
/// Largest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 1 << 20;

/// Time by which a file's modification time may lag behind the clock.
const MTIME_SLACK: Duration = Duration::from_millis(10);

/// Manifest of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// Version of the program that took it.
    pub mercat: String,
    /// Instant of which it is a snapshot.
    pub taken_at: Timestamp,
    /// Files of the backup.
    pub files: Vec<ManifestEntry>,
    /// Domains of the shop that are not in it, because other processes have their data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// File name, in the backup and in the shop.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

impl ManifestEntry {
    fn compare(&self, file: &Path, bytes: u64, sha256: &str) -> BackupResult<()> {
        if (bytes, sha256) == (self.bytes, self.sha256.as_str()) {
            return Ok(());
        }
        let file = file.display();
        Err(BackupError::Unusable(format!("{file} is damaged: its size or checksum differs from the manifest")))
    }
}

/// Failure of a backup or a restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder is unusable, or the backup is incomplete.
    #[error("{0}")]
    Unusable(String),
    /// The shop is newer than the backup.
    #[error(
        "the shop in {} was changed at {changed_at}, after the backup was taken at {taken_at}; later changes \
         would be lost: take a backup of it first, then restore with --force", folder.display()
    )]
    Newer {
        /// Folder of the shop.
        folder: PathBuf,
        /// Time of its last change.
        changed_at: Timestamp,
        /// Time of the backup.
        taken_at: Timestamp,
    },
}

type BackupResult<T> = Result<T, BackupError>;

fn unusable(what: &Path, error: &io::Error) -> BackupError {
    BackupError::Unusable(format!("{}: {error}", what.display()))
}

fn database(domain: &str) -> String {
    format!("{domain}.db")
}

/// Returns the path of a file in the shop.
fn place(settings: &Settings, name: &str) -> PathBuf {
    if name == users::SECRET_FILE { settings.data.join(name) } else { settings.database.join(name) }
}

/// Returns the names of all files of a shop; a manifest with another name is rejected.
fn names() -> Vec<String> {
    DOMAIN_NAMES.into_iter().map(database).chain([users::SECRET_FILE.to_owned()]).collect()
}

fn fsync_dir(folder: &Path) -> BackupResult<()> {
    files::fsync_dir(folder).map_err(|error| unusable(folder, &error))
}

fn remove(file: &Path) -> BackupResult<()> {
    files::remove(file).map_err(|error| unusable(file, &error))
}

fn rename(from: &Path, to: &Path) -> BackupResult<()> {
    files::rename(from, to).map_err(|error| unusable(from, &error))
}

fn write_atomic(file: &Path, bytes: &[u8]) -> BackupResult<()> {
    files::write_atomic(file, bytes).map_err(|error| unusable(file, &error))
}

/// Returns `true` for a folder that [`take`] wrote.
#[must_use]
pub fn is_backup(folder: &Path) -> bool {
    folder.join(MANIFEST).exists()
}

/// Domains whose data are not in the shop's folder, because other processes have them.
fn elsewhere(settings: &Settings) -> BackupResult<Vec<String>> {
    let moved = moved_away(settings).map_err(BackupError::Unusable)?;
    let is_elsewhere = |domain: &&DomainSettings| {
        !matches!(domain.place, DomainLocation::Local | DomainLocation::Off)
            || moved.iter().any(|name| name == domain.name)
    };
    Ok(settings.domains.iter().filter(is_elsewhere).map(|domain| domain.name.to_owned()).collect())
}

/// Copies the shop into a folder that is empty or does not exist, whether the shop runs or not. With `part`, domains whose
/// data other processes have are left out.
///
/// # Errors
/// If a file or folder is unusable, or other processes have data and `part` is not given. The files written so far are
/// removed.
pub fn take(settings: &Settings, to: &Path, part: bool, now: impl Fn() -> Timestamp) -> BackupResult<Manifest> {
    reject_servers(settings)?;
    let elsewhere = elsewhere(settings)?;
    if !elsewhere.is_empty() && !part {
        return Err(BackupError::Unusable(format!(
            "other processes have the data of {}: this would be no backup of the whole shop; run `mercat backup --part` \
             for each process, this one included",
            elsewhere.join(", ")
        )));
    }
    let is_new = !to.exists();
    if !is_new {
        let mut entries = fs::read_dir(to).map_err(|error| unusable(to, &error))?;
        if entries.next().is_some() {
            let folder = to.display();
            return Err(BackupError::Unusable(format!("the folder {folder} is not empty; choose a new or empty one")));
        }
    }
    create_private(to)?;
    let taken = copy(settings, to, elsewhere, now);
    if taken.is_err() {
        for name in names().iter().map(String::as_str).chain([MANIFEST]) {
            for ending in ["", "-journal", ".part"] {
                let _ = fs::remove_file(with_suffix(&to.join(name), ending));
            }
        }
        if is_new {
            let _ = fs::remove_dir(to);
        }
    }
    taken
}

/// Creates a folder, and if it is new, makes it one that no other user of the machine can open.
fn create_private(folder: &Path) -> BackupResult<()> {
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(folder, mode).map_err(|error| unusable(folder, &error))?;
    }
    Ok(())
}

/// Rejects a shop with a database on a server, which has better tools for backups.
///
/// # Errors
/// Names a domain with such a database, and the tools.
pub fn reject_servers(settings: &Settings) -> BackupResult<()> {
    let Some(domain) = settings.domains.iter().find(|domain| domain.database.server().is_some()) else { return Ok(()) };
    Err(BackupError::Unusable(format!(
        "the database of {} is in PostgreSQL, and this command copies files only; use pg_dump and pg_restore for the \
         schemas of the shop, and keep a copy of {} too",
        domain.name,
        settings.data.join(users::SECRET_FILE).display()
    )))
}

fn copy(settings: &Settings, to: &Path, elsewhere: Vec<String>, now: impl Fn() -> Timestamp) -> BackupResult<Manifest> {
    let mut copies = Vec::new();
    for domain in settings.domains.iter().filter(|domain| !elsewhere.iter().any(|name| name == domain.name)) {
        let name = database(domain.name);
        // One that is switched off may have data from before.
        if domain.place == DomainLocation::Off && !settings.database.join(&name).exists() {
            continue;
        }
        let copy = BackupTarget { from: settings.database.join(&name), to: to.join(&name) };
        // Created beforehand, so that it is never readable by other users.
        create(&copy.to).map_err(|error| unusable(&copy.to, &error))?;
        copies.push(copy);
    }
    // The start of the copy, less a tick of the file system's clock: every later change is newer.
    let taken_at = now().saturating_sub(MTIME_SLACK);
    store::backup_all(&copies).map_err(BackupError::Unusable)?;
    let mut written: Vec<PathBuf> = Vec::new();
    for copy in copies {
        store::verify(&copy.to).map_err(BackupError::Unusable)?;
        written.push(copy.to);
    }
    let secret = settings.data.join(users::SECRET_FILE);
    if secret.exists() {
        let copy = to.join(users::SECRET_FILE);
        let copied = create(&copy).and_then(|mut out| hash_file(&secret, Some(&mut out)));
        copied.map_err(|error| unusable(&copy, &error))?;
        written.push(copy);
    }
    let mut files = Vec::with_capacity(written.len());
    for file in written {
        let synced = File::open(&file).and_then(|file| file.sync_all());
        let (bytes, sha256) = synced.and_then(|()| hash_file(&file, None)).map_err(|error| unusable(&file, &error))?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push(ManifestEntry { name, bytes, sha256 });
    }
    let manifest =
        Manifest { format: FORMAT, mercat: env!("CARGO_PKG_VERSION").to_owned(), taken_at, files, elsewhere };
    fsync_dir(to)?;
    write_atomic(&to.join(MANIFEST), &json(&manifest)?)?;
    Ok(manifest)
}

fn json(value: &impl Serialize) -> BackupResult<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| BackupError::Unusable(error.to_string()))
}

/// Reads the manifest of a backup.
fn read_manifest(folder: &Path) -> BackupResult<Manifest> {
    let file = folder.join(MANIFEST);
    let mut text = String::new();
    let read = File::open(&file).and_then(|file| file.take(MANIFEST_MAX).read_to_string(&mut text));
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            BackupError::Unusable(format!("{} is not a complete backup: {MANIFEST} is missing", folder.display()))
        }
        _ => unusable(&file, &error),
    })?;
    let reject = |error: String| BackupError::Unusable(format!("{}: {error}", file.display()));
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| reject(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(reject(format!(
            "it was taken by mercat {} in an unknown format; use that version",
            manifest.mercat
        )));
    }
    if manifest.files.is_empty() || manifest.files.iter().any(|entry| !names().contains(&entry.name)) {
        return Err(reject("it names files that are not part of a shop".to_owned()));
    }
    Ok(manifest)
}

/// Verifies a backup without changing it: every file is there with the size and checksum of the manifest, and every
/// database is one and undamaged.
///
/// # Errors
/// Names the first file that is missing or damaged.
pub fn verify(folder: &Path) -> BackupResult<Manifest> {
    let manifest = read_manifest(folder)?;
    for entry in &manifest.files {
        let file = folder.join(&entry.name);
        let (bytes, sha256) = hash_file(&file, None).map_err(|error| unusable(&file, &error))?;
        entry.compare(&file, bytes, &sha256)?;
        if entry.name != users::SECRET_FILE {
            store::verify(&file).map_err(BackupError::Unusable)?;
        }
    }
    Ok(manifest)
}

/// Returns the time of the last change of the shop's databases; `None` if there are none.
fn changed_at(settings: &Settings) -> Option<Timestamp> {
    let files = DOMAIN_NAMES.into_iter().map(|domain| settings.database.join(database(domain)));
    files.flat_map(|file| [with_suffix(&file, "-wal"), file]).filter_map(|file| modified(&file)).max()
}

fn modified(file: &Path) -> Option<Timestamp> {
    let since = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok().map(Timestamp::from_micros)
}

/// Replaces the data in the settings' folders by a backup. The caller holds the locks of the folders.
///
/// # Errors
/// If the backup is incomplete, the data are newer and `force` is not given, the backup is of a part of a shop and `part`
/// is not given, or a file is unusable. The data are unchanged then.
pub fn restore(settings: &Settings, from: &Path, force: bool, part: bool) -> BackupResult<Manifest> {
    reject_servers(settings)?;
    finish(settings)?;
    let manifest = read_manifest(from)?;
    if !manifest.elsewhere.is_empty() && !part {
        return Err(BackupError::Unusable(format!(
            "{} has no data of {}: it is of one process of a split shop, and a shop with it alone would begin those anew, \
             invoice numbers included; restore the backup of each process with --part",
            from.display(),
            manifest.elsewhere.join(", ")
        )));
    }
    let taken_at = manifest.taken_at;
    if let Some(changed_at) = changed_at(settings).filter(|at| *at > taken_at && !force) {
        return Err(BackupError::Newer { folder: settings.database.clone(), changed_at, taken_at });
    }
    for domain in DOMAIN_NAMES {
        let file = settings.database.join(database(domain));
        if file.is_file() && store::is_in_use(&file) {
            let file = file.display();
            return Err(BackupError::Unusable(format!("{file} is in use by another program; stop it first")));
        }
    }
    let staged = stage(settings, from, &manifest);
    if let Err(error) = staged {
        clean(settings)?;
        return Err(error);
    }
    write_atomic(&settings.database.join(RESTORE_JOURNAL), &json(&manifest)?)?;
    finish(settings)?;
    Ok(manifest)
}

/// Copies the backup next to the shop's files and verifies it against the manifest.
fn stage(settings: &Settings, from: &Path, manifest: &Manifest) -> BackupResult<()> {
    for entry in &manifest.files {
        let (source, draft) = (from.join(&entry.name), with_suffix(&place(settings, &entry.name), ".restore"));
        let copied = create(&draft).and_then(|mut out| hash_file(&source, Some(&mut out)));
        let (bytes, sha256) = copied.map_err(|error| unusable(&source, &error))?;
        entry.compare(&source, bytes, &sha256)?;
        if entry.name != users::SECRET_FILE {
            store::verify(&draft).map_err(BackupError::Unusable)?;
        }
        if entry.name == database("notifications") {
            // Notifications after the backup are lost; a new epoch makes clients read the rest again.
            notifications::rotate_epoch(&draft).map_err(BackupError::Unusable)?;
            File::open(&draft).and_then(|file| file.sync_all()).map_err(|error| unusable(&draft, &error))?;
        }
        // As old as the backup, so that a newer backup can be restored over it without force.
        let at = UNIX_EPOCH + Duration::from_micros(u64::try_from(manifest.taken_at.micros()).unwrap_or(0));
        set_modified(&draft, at).map_err(|error| unusable(&draft, &error))?;
    }
    fsync_dir(&settings.data)?;
    fsync_dir(&settings.database)
}

fn set_modified(file: &Path, at: SystemTime) -> io::Result<()> {
    let file = File::options().write(true).open(file)?;
    file.set_modified(at)?;
    file.sync_all()
}

/// Returns whether a restore must be completed.
#[must_use]
pub fn is_unfinished(settings: &Settings) -> bool {
    settings.database.join(RESTORE_JOURNAL).exists()
}

/// Completes a restore that was interrupted after its journal was written, and removes the files of one that was
/// interrupted before. The caller holds the locks of the shop's folders. Returns whether a restore was completed.
///
/// # Errors
/// If a file is unusable. A later call continues.
pub fn finish(settings: &Settings) -> BackupResult<bool> {
    let journal = settings.database.join(RESTORE_JOURNAL);
    let text = match fs::read(&journal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            clean(settings)?;
            return Ok(false);
        }
        read => read.map_err(|error| unusable(&journal, &error))?,
    };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| BackupError::Unusable(format!("{}: {error}", journal.display())))?;
    for name in names() {
        let (file, is_in_it) = (place(settings, &name), manifest.files.iter().any(|entry| entry.name == name));
        let draft = with_suffix(&file, ".restore");
        // A backup without a secret is of a shop with the secret in its settings; an existing file may stay.
        // Nor does a backup of a part say anything of the domains that other processes had.
        let is_elsewhere = manifest.elsewhere.iter().any(|domain| database(domain) == name);
        let may_stay = name == users::SECRET_FILE || is_elsewhere;
        let is_replaced = if may_stay { draft.exists() } else { !is_in_it || draft.exists() };
        if !is_replaced {
            continue;
        }
        // The WAL first: SQLite would apply the old one to the new file.
        rename(&with_suffix(&file, "-wal"), &with_suffix(&file, ".before-wal"))?;
        remove(&with_suffix(&file, "-shm"))?;
        rename(&file, &with_suffix(&file, ".before"))?;
        fsync_dir(file.parent().unwrap_or(Path::new(".")))?;
        rename(&draft, &file)?;
    }
    fsync_dir(&settings.data)?;
    fsync_dir(&settings.database)?;
    remove(&journal)?;
    fsync_dir(&settings.database)?;
    clean(settings)?;
    Ok(true)
}

/// Removes the temporary files of a restore.
fn clean(settings: &Settings) -> BackupResult<()> {
    for name in names() {
        let file = place(settings, &name);
        for ending in [".restore", ".restore-journal", ".before", ".before-wal", ".part"] {
            remove(&with_suffix(&file, ending))?;
        }
    }
    remove(&with_suffix(&settings.database.join(RESTORE_JOURNAL), ".part"))
}
