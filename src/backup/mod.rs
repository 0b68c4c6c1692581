//! Backup: a copy of the whole shop as it was at one moment, and the way back.
//!
//! Lives here: which files make a shop, the list that says a backup is whole, and how a shop's files are replaced so
//! that a crash leaves the old one or the new one. Never enters: SQL (that is [`crate::store`]), what is in a table.
//!
//! **A backup** is one compact file a domain, the secret that signs tokens, and `backup.json`, which is written last: a
//! folder without it is no backup. All databases are of the same instant, so an event is either still in the outbox of
//! its domain or its effect is in the books of all who heard it.
//!
//! **A restore** first copies everything beside the shop's own files (`*.restore`), verifies it there, and then writes
//! `restore.json`, which decides: before it the old shop is untouched, after it the restore is finished by whoever
//! comes next, also after a crash. The old files stay aside (`*.before`) until the new ones are in place.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::domains::{notifications, users};
use crate::settings::{DOMAINS, DomainLocation, Settings};
use crate::store::files::{self, create, hash_file, with_suffix};
use crate::store::{self, BackupTarget};
use crate::types::Timestamp;

#[cfg(test)]
mod tests;

/// What says that a folder holds a whole backup.
const MANIFEST: &str = "backup.json";
/// What says that a restore is decided and not finished.
const RESTORE_JOURNAL: &str = "restore.json";
/// The form of backups that this program writes and reads.
const FORMAT: u32 = 1;
/// The largest manifest that is read.
const MANIFEST_MAX: u64 = 1 << 20;

/// By how much a file's time of change may lag behind the clock.
const MTIME_SLACK: Duration = Duration::from_millis(10);

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the backup.
    pub format: u32,
    /// Which program took it.
    pub mercat: String,
    /// Of which instant it is.
    pub taken_at: Timestamp,
    /// Its files.
    pub files: Vec<Entry>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, in the backup and in the shop.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

/// Why there is no backup or no restore: one sentence for the person who asked.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The shop is newer than the backup.
    #[error(
        "the shop in {} was changed at {changed_at}, after the backup was taken at {taken_at}: what happened since \
         would be lost; take a backup of it first, then restore with --force", folder.display()
    )]
    Newer {
        /// Where the shop is.
        folder: PathBuf,
        /// Its last change.
        changed_at: Timestamp,
        /// When the backup was taken.
        taken_at: Timestamp,
    },
}

type BackupResult<T> = Result<T, BackupError>;

fn unusable(what: &Path, why: &io::Error) -> BackupError {
    BackupError::Unusable(format!("{}: {why}", what.display()))
}

fn database(domain: &str) -> String {
    format!("{domain}.db")
}

/// Where a file of this name has its place in the shop.
fn place(settings: &Settings, name: &str) -> PathBuf {
    if name == users::SECRET_FILE { settings.data.join(name) } else { settings.database.join(name) }
}

/// The names of all files that may make a shop. A backup that names another is none of ours.
fn names() -> Vec<String> {
    DOMAINS.into_iter().map(database).chain([users::SECRET_FILE.to_owned()]).collect()
}

fn fsync_dir(folder: &Path) -> BackupResult<()> {
    files::fsync_dir(folder).map_err(|why| unusable(folder, &why))
}

fn remove(file: &Path) -> BackupResult<()> {
    files::remove(file).map_err(|why| unusable(file, &why))
}

fn rename(from: &Path, to: &Path) -> BackupResult<()> {
    files::rename(from, to).map_err(|why| unusable(from, &why))
}

fn write_atomic(file: &Path, bytes: &[u8]) -> BackupResult<()> {
    files::write_atomic(file, bytes).map_err(|why| unusable(file, &why))
}

/// Copies the shop into a folder that is empty or not there yet, whether the shop runs or not.
///
/// # Errors
/// Says which file cannot be used. Then what was written is removed again.
pub fn take(settings: &Settings, to: &Path, now: impl Fn() -> Timestamp) -> BackupResult<Manifest> {
    refuse_servers(settings)?;
    let is_new = !to.exists();
    if !is_new {
        let mut entries = fs::read_dir(to).map_err(|why| unusable(to, &why))?;
        if entries.next().is_some() {
            let folder = to.display();
            return Err(BackupError::Unusable(format!(
                "the folder {folder} is not empty; a backup needs one of its own"
            )));
        }
    }
    fs::create_dir_all(to).map_err(|why| unusable(to, &why))?;
    #[cfg(unix)]
    if is_new {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(to, mode).map_err(|why| unusable(to, &why))?;
    }
    let taken = copy(settings, to, now);
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

/// Refuses a shop of which a part is on a server: what is there has its own tools, and they copy it better.
fn refuse_servers(settings: &Settings) -> BackupResult<()> {
    let Some(domain) = settings.domains.iter().find(|domain| domain.database.server().is_some()) else { return Ok(()) };
    Err(BackupError::Unusable(format!(
        "the database of {} is in PostgreSQL, and this command copies files only: use pg_dump and pg_restore for the \
         schemas of the shop, and keep a copy of {} too",
        domain.name,
        settings.data.join(users::SECRET_FILE).display()
    )))
}

fn copy(settings: &Settings, to: &Path, now: impl Fn() -> Timestamp) -> BackupResult<Manifest> {
    let here = settings.domains.iter().filter(|domain| domain.place == DomainLocation::Local);
    let mut copies = Vec::new();
    for domain in here {
        let name = database(domain.name);
        let copy = BackupTarget { from: settings.database.join(&name), to: to.join(&name) };
        // Made beforehand, so that it is never readable by others.
        create(&copy.to).map_err(|why| unusable(&copy.to, &why))?;
        copies.push(copy);
    }
    // Before the copies begin, and a tick of the file system's clock more: whatever changes after them is newer.
    let taken_at = now().saturating_sub(MTIME_SLACK);
    store::copy_all(&copies).map_err(BackupError::Unusable)?;
    let mut written: Vec<PathBuf> = Vec::new();
    for copy in copies {
        store::verify(&copy.to).map_err(BackupError::Unusable)?;
        written.push(copy.to);
    }
    let secret = settings.data.join(users::SECRET_FILE);
    if secret.exists() {
        let copy = to.join(users::SECRET_FILE);
        let copied = create(&copy).and_then(|mut out| hash_file(&secret, Some(&mut out)));
        copied.map_err(|why| unusable(&copy, &why))?;
        written.push(copy);
    }
    let mut files = Vec::with_capacity(written.len());
    for file in written {
        let synced = File::open(&file).and_then(|file| file.sync_all());
        let (bytes, sha256) = synced.and_then(|()| hash_file(&file, None)).map_err(|why| unusable(&file, &why))?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push(Entry { name, bytes, sha256 });
    }
    let manifest = Manifest { format: FORMAT, mercat: env!("CARGO_PKG_VERSION").to_owned(), taken_at, files };
    fsync_dir(to)?;
    write_atomic(&to.join(MANIFEST), &json(&manifest)?)?;
    Ok(manifest)
}

fn json(value: &impl Serialize) -> BackupResult<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| BackupError::Unusable(error.to_string()))
}

/// What a folder says that it holds.
fn read_manifest(folder: &Path) -> BackupResult<Manifest> {
    let file = folder.join(MANIFEST);
    let mut text = String::new();
    let read = File::open(&file).and_then(|file| file.take(MANIFEST_MAX).read_to_string(&mut text));
    read.map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => BackupError::Unusable(format!(
            "{} holds no whole backup: there is no {MANIFEST}, which is written last",
            folder.display()
        )),
        _ => unusable(&file, &why),
    })?;
    let refuse = |why: String| BackupError::Unusable(format!("{}: {why}", file.display()));
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(refuse(format!("it was taken by mercat {}, in a form that is unknown here", manifest.mercat)));
    }
    if manifest.files.is_empty() || manifest.files.iter().any(|entry| !names().contains(&entry.name)) {
        return Err(refuse("it names files that are no part of a shop".to_owned()));
    }
    Ok(manifest)
}

/// The last change of the shop's databases, if there are any.
fn changed_at(settings: &Settings) -> Option<Timestamp> {
    let files = DOMAINS.into_iter().map(|domain| settings.database.join(database(domain)));
    files.flat_map(|file| [with_suffix(&file, "-wal"), file]).filter_map(|file| modified(&file)).max()
}

fn modified(file: &Path) -> Option<Timestamp> {
    let since = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok().map(Timestamp::from_micros)
}

/// Puts the shop of a backup in the place of the one in the settings' folders. The caller holds their locks.
///
/// # Errors
/// When the backup is not whole, the shop is newer and `force` is not given, or a file cannot be used. Then the shop
/// is as it was.
pub fn restore(settings: &Settings, from: &Path, force: bool) -> BackupResult<Manifest> {
    refuse_servers(settings)?;
    finish(settings)?;
    let manifest = read_manifest(from)?;
    let taken_at = manifest.taken_at;
    if let Some(changed_at) = changed_at(settings).filter(|at| *at > taken_at && !force) {
        return Err(BackupError::Newer { folder: settings.database.clone(), changed_at, taken_at });
    }
    for domain in DOMAINS {
        let file = settings.database.join(database(domain));
        if file.is_file() && store::is_in_use(&file) {
            let file = file.display();
            return Err(BackupError::Unusable(format!("{file} is in use by another program; end it first")));
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

/// Copies the backup beside the shop's files and makes sure that it is what it says.
fn stage(settings: &Settings, from: &Path, manifest: &Manifest) -> BackupResult<()> {
    for entry in &manifest.files {
        let (source, draft) = (from.join(&entry.name), with_suffix(&place(settings, &entry.name), ".restore"));
        let copied = create(&draft).and_then(|mut out| hash_file(&source, Some(&mut out)));
        let (bytes, sha256) = copied.map_err(|why| unusable(&source, &why))?;
        if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
            let file = source.display();
            return Err(BackupError::Unusable(format!("{file} is damaged: it is not what was backed up")));
        }
        if entry.name != users::SECRET_FILE {
            store::verify(&draft).map_err(BackupError::Unusable)?;
        }
        if entry.name == database("notifications") {
            // What was told after the backup is lost; whoever listens must not take other news for it.
            notifications::rotate_epoch(&draft).map_err(BackupError::Unusable)?;
            File::open(&draft).and_then(|file| file.sync_all()).map_err(|why| unusable(&draft, &why))?;
        }
        // As old as the backup: a newer one may follow it without force.
        let at = UNIX_EPOCH + Duration::from_micros(u64::try_from(manifest.taken_at.micros()).unwrap_or(0));
        touch(&draft, at).map_err(|why| unusable(&draft, &why))?;
    }
    fsync_dir(&settings.data)?;
    fsync_dir(&settings.database)
}

fn touch(file: &Path, at: SystemTime) -> io::Result<()> {
    let file = File::options().write(true).open(file)?;
    file.set_modified(at)?;
    file.sync_all()
}

/// Whether a restore was decided and cut short.
#[must_use]
pub fn is_unfinished(settings: &Settings) -> bool {
    settings.database.join(RESTORE_JOURNAL).exists()
}

/// Finishes a restore that was cut short after it was decided, and clears away one that was cut short before. The
/// caller holds the locks of the shop's folders. Says whether there was one to finish.
///
/// # Errors
/// When a file cannot be used. BackupResult again, it goes on.
pub fn finish(settings: &Settings) -> BackupResult<bool> {
    let decided = settings.database.join(RESTORE_JOURNAL);
    let text = match fs::read(&decided) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            clean(settings)?;
            return Ok(false);
        }
        read => read.map_err(|why| unusable(&decided, &why))?,
    };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| BackupError::Unusable(format!("{}: {error}", decided.display())))?;
    for name in names() {
        let (file, is_in_it) = (place(settings, &name), manifest.files.iter().any(|entry| entry.name == name));
        let draft = with_suffix(&file, ".restore");
        // A secret that the backup does not have comes from the settings; the one here harms nobody.
        let goes = if name == users::SECRET_FILE { draft.exists() } else { !is_in_it || draft.exists() };
        if !goes {
            continue;
        }
        // The journal first: beside the new file the old one's would destroy it.
        rename(&with_suffix(&file, "-wal"), &with_suffix(&file, ".before-wal"))?;
        remove(&with_suffix(&file, "-shm"))?;
        rename(&file, &with_suffix(&file, ".before"))?;
        fsync_dir(file.parent().unwrap_or(Path::new(".")))?;
        rename(&draft, &file)?;
    }
    fsync_dir(&settings.data)?;
    fsync_dir(&settings.database)?;
    remove(&decided)?;
    fsync_dir(&settings.database)?;
    clean(settings)?;
    Ok(true)
}

/// Removes what a restore leaves beside the shop's files when it is over.
fn clean(settings: &Settings) -> BackupResult<()> {
    for name in names() {
        let file = place(settings, &name);
        for ending in [".restore", ".restore-journal", ".before", ".before-wal", ".part"] {
            remove(&with_suffix(&file, ending))?;
        }
    }
    remove(&with_suffix(&settings.database.join(RESTORE_JOURNAL), ".part"))
}
