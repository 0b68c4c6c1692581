//! `mercat backup` and `mercat restore`.

use std::path::Path;

use super::config::Configuration;
use super::open::{create_folders, lock, require_shop};
use super::{CliError, print};
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
    require_shop(configuration, settings)?;
    create_folders(configuration, settings)?;
    let manifest = backup::take(settings, to, || Clock::system().now())?;
    print(&format!("backup of {} written to {}: {}", manifest.taken_at, to.display(), size(&manifest)));
    Ok(())
}

/// Restores a backup over the current data.
pub fn restore(configuration: &Configuration, settings: &Settings, from: &Path, force: bool) -> Result<(), CliError> {
    create_folders(configuration, settings)?;
    let _lock = lock(configuration, settings)?;
    let manifest = backup::restore(settings, from, force)?;
    let folder = settings.database.display();
    print(&format!("restored {folder} to the backup of {}: {}", manifest.taken_at, size(&manifest)));
    Ok(())
}

fn size(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    format!("{} files, {}.{} MB", manifest.files.len(), bytes / 1_000_000, bytes / 100_000 % 10)
}
