//! `mercat backup` and `mercat restore`.

use std::path::Path;

use super::args::Command;
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

/// Refuses a folder that is a backup: opening its databases would change them.
///
/// # Errors
/// Names the folder and the way to look into it.
pub fn refuse_backup_folder(command: &Command, settings: &Settings) -> Result<(), CliError> {
    let folders = [&settings.data, &settings.database].into_iter();
    let opens_none = matches!(command, Command::Health { .. });
    let Some(folder) = folders.filter(|_| !opens_none).find(|folder| backup::is_backup(folder)) else {
        return Ok(());
    };
    let folder = folder.display();
    Err(CliError::start(format!(
        "the folder {folder} is a backup, which every command but restore would change; restore it into another folder: \
         mercat restore {folder} --data DIR"
    )))
}

/// Verifies a backup, and changes nothing.
pub fn verify(folder: &Path) -> Result<(), CliError> {
    let manifest = backup::verify(folder).map_err(CliError::operation)?;
    print(&format!(
        "{} is a backup of {}, complete and undamaged: {}",
        folder.display(),
        manifest.taken_at,
        size(&manifest)
    ));
    Ok(())
}

/// Copies the shop into a folder.
pub fn backup(configuration: &Configuration, settings: &Settings, to: &Path, part: bool) -> Result<(), CliError> {
    require_shop(configuration, settings)?;
    create_folders(configuration, settings)?;
    let manifest = backup::take(settings, to, part, || Clock::system().now())?;
    print(&format!("backup of {} written to {}: {}", manifest.taken_at, to.display(), size(&manifest)));
    Ok(())
}

/// Restores a backup over the current data.
pub fn restore(
    configuration: &Configuration,
    settings: &Settings,
    from: &Path,
    force: bool,
    part: bool,
) -> Result<(), CliError> {
    create_folders(configuration, settings)?;
    let _lock = lock(configuration, settings)?;
    let manifest = backup::restore(settings, from, force, part)?;
    let folder = settings.database.display();
    print(&format!("restored {folder} to the backup of {}: {}", manifest.taken_at, size(&manifest)));
    Ok(())
}

fn size(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    format!("{} files, {}.{} MB", manifest.files.len(), bytes / 1_000_000, bytes / 100_000 % 10)
}
