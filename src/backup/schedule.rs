//! Backups at intervals, taken by the process that serves: the newest ones are kept, older ones deleted.
//!
//! A backup is written to a folder with the ending `.part`, verified, and renamed; what a crash left is deleted before the
//! next one. Only folders with the names that this file gives are counted and deleted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use super::{BackupError, BackupResult, MANIFEST, Manifest, fsync_dir, read_manifest, rename, take, unusable, verify};
use crate::settings::Settings;
use crate::types::{Clock, Timestamp};

/// Beginning of the name of each backup.
const NAME_PREFIX: &str = "shop-";
/// Rest of the name: the time, in UTC.
const NAME_TIME: StaticFormatDescription = format_description!("[year][month][day]T[hour][minute][second]Z");
/// Ending of a backup that is not complete.
const PART: &str = ".part";
/// File that the process locks whose backups are in the folder.
const LOCK: &str = "backup.lock";
/// Longest time until the next attempt after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);

/// Time of the newest backup in seconds since 1970; 0 before the first.
static NEWEST: AtomicI64 = AtomicI64::new(0);
/// Failed attempts since the start.
static FAILURES: AtomicI64 = AtomicI64::new(0);

/// State of the backups at intervals, for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleStatus {
    /// Time of the newest backup in seconds since 1970; 0 before the first.
    pub newest_at: i64,
    /// Failed attempts since the start.
    pub failures: i64,
}

/// Returns the state of the backups at intervals.
#[must_use]
pub fn status() -> ScheduleStatus {
    ScheduleStatus { newest_at: NEWEST.load(Relaxed), failures: FAILURES.load(Relaxed) }
}

/// Takes backups at the interval of the settings. Never returns; a backup that has begun when this is dropped is left
/// incomplete.
pub async fn run(settings: Arc<Settings>, clock: Clock) {
    let Some(every) = settings.backup.every else { return };
    let mut owned = None;
    loop {
        let (shop, now) = (Arc::clone(&settings), clock.clone());
        let round = move || {
            let lock = owned.map_or_else(|| lock(&shop.backup.folder), Ok)?;
            Ok::<_, BackupError>((lock, take_if_due(&shop, every, &now)))
        };
        let (lock, taken) = match tokio::task::spawn_blocking(round).await {
            Ok(Ok((lock, taken))) => (Some(lock), taken.map_err(|error| error.to_string())),
            Ok(Err(error)) => (None, Err(error.to_string())),
            Err(error) => (None, Err(error.to_string())),
        };
        owned = lock;
        let wait = taken.unwrap_or_else(|error| failed(&error, every));
        tokio::time::sleep(wait).await;
    }
}

/// Makes the folder this process's own: the backups of two would be counted and deleted as if they were of one.
fn lock(folder: &Path) -> BackupResult<File> {
    super::create_private(folder)?;
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| unusable(&path, &e))?;
    file.try_lock().map_err(|_| {
        let folder = folder.display();
        BackupError::Unusable(format!(
            "{folder} has the backups of another process; set backup.folder to a folder for this one"
        ))
    })?;
    Ok(file)
}

fn failed(error: &str, every: Duration) -> Duration {
    FAILURES.fetch_add(1, Relaxed);
    let wait = every.min(RETRY_INTERVAL);
    log::error!("backup: failed, to be tried again in {} s: {error}", wait.as_secs());
    wait
}

/// Takes a backup if the newest one is old enough, and returns the time until the next one.
pub(super) fn take_if_due(settings: &Settings, every: Duration, clock: &Clock) -> BackupResult<Duration> {
    let folder = &settings.backup.folder;
    let newest = kept(folder)?.pop().map(|(taken_at, _)| taken_at);
    if let Some(newest) = newest {
        NEWEST.store(newest.micros() / 1_000_000, Relaxed);
        let age = clock.now().duration_since(newest);
        if age < every {
            return Ok(every - age);
        }
    }
    let (name, manifest) = take_next(settings, clock)?;
    NEWEST.store(manifest.taken_at.micros() / 1_000_000, Relaxed);
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    log::info!("backup: {} written and verified, {bytes} bytes", name.display());
    let backups = kept(folder)?;
    for (_, old) in backups.iter().rev().skip(settings.backup.keep) {
        fs::remove_dir_all(old).map_err(|error| unusable(old, &error))?;
        log::info!("backup: {} deleted, {} newer ones are kept", old.display(), settings.backup.keep);
    }
    Ok(every.saturating_sub(clock.now().duration_since(manifest.taken_at)))
}

fn take_next(settings: &Settings, clock: &Clock) -> BackupResult<(PathBuf, Manifest)> {
    let folder = &settings.backup.folder;
    remove_unfinished(folder)?;
    let time = clock.now().to_utc().format(NAME_TIME).map_err(|error| BackupError::Unusable(error.to_string()))?;
    let name = folder.join(format!("{NAME_PREFIX}{time}"));
    let part = folder.join(format!("{NAME_PREFIX}{time}{PART}"));
    take(settings, &part, true, || clock.now())?;
    let manifest = verify(&part)?;
    rename(&part, &name)?;
    fsync_dir(folder)?;
    Ok((name, manifest))
}

/// Entries of the folder with a name of ours, complete or not.
fn entries(folder: &Path) -> BackupResult<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|error| unusable(folder, &error))?;
    let mut ours = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unusable(folder, &error))?;
        let name = entry.file_name();
        let time = name.to_str().and_then(|name| name.strip_prefix(NAME_PREFIX));
        let time = time.map(|time| time.strip_suffix(PART).unwrap_or(time));
        if time.is_some_and(|time| time::PrimitiveDateTime::parse(time, NAME_TIME).is_ok()) {
            ours.push(entry.path());
        }
    }
    Ok(ours)
}

/// Complete backups, the newest one last.
fn kept(folder: &Path) -> BackupResult<Vec<(Timestamp, PathBuf)>> {
    let mut kept = Vec::new();
    for path in entries(folder)?.into_iter().filter(|path| !is_part(path) && path.join(MANIFEST).exists()) {
        match read_manifest(&path) {
            Ok(manifest) => kept.push((manifest.taken_at, path)),
            // No reason to take no further ones.
            Err(error) => log::error!("backup: {error}"),
        }
    }
    kept.sort();
    Ok(kept)
}

fn is_part(path: &Path) -> bool {
    path.to_string_lossy().ends_with(PART)
}

fn remove_unfinished(folder: &Path) -> BackupResult<()> {
    for path in entries(folder)?.into_iter().filter(|path| is_part(path)) {
        fs::remove_dir_all(&path).map_err(|error| unusable(&path, &error))?;
    }
    Ok(())
}
