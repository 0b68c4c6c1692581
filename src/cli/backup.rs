//! `mercat backup` and `mercat restore`.

use std::path::Path;

use super::config::Configuration;
use super::open::{folders, lock, needs_shop};
use super::{CliError, say};
use crate::backup::{self, BackupError, Manifest};
use crate::settings::Settings;
use crate::types::Clock;

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Newer { .. } => Self::operation(error),
            BackupError::Unusable(_) => Self::start(error),
        }
    }
}

/// Copies the shop into a folder.
pub fn backup(configuration: &Configuration, settings: &Settings, to: &Path) -> Result<(), CliError> {
    needs_shop(configuration, settings)?;
    folders(configuration, settings)?;
    let manifest = backup::take(settings, to, || Clock::system().now())?;
    say(&format!("the shop of {} is in {}: {}", manifest.taken_at, to.display(), size(&manifest)));
    Ok(())
}

/// Puts the shop of a backup in the place of the one that is there.
pub fn restore(configuration: &Configuration, settings: &Settings, from: &Path, force: bool) -> Result<(), CliError> {
    folders(configuration, settings)?;
    let _held = lock(configuration, settings)?;
    let manifest = backup::restore(settings, from, force)?;
    let folder = settings.database.display();
    say(&format!("the shop in {folder} is that of {} again: {}", manifest.taken_at, size(&manifest)));
    Ok(())
}

fn size(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    format!("{} files, {}.{} MB", manifest.files.len(), bytes / 1_000_000, bytes / 100_000 % 10)
}
