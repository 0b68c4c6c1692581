//! Folders, locks and domains that a command needs.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::config::Configuration;
use super::{CliError, print};
use crate::app::App;
use crate::backup;
use crate::messaging::RequestContext;
use crate::settings::{Database, DomainLocation, Postgres, Settings};
use crate::store::{self, OpenError};
use crate::types::Clock;

/// File that a running shop locks, which keeps a second one out.
const LOCK: &str = "mercat.lock";
/// Timeout of one call; the command may share the machine with a busy shop.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the context of a call from the command line.
pub fn context() -> RequestContext {
    RequestContext::internal("cli").with_timeout(CALL_TIMEOUT)
}

/// Creates missing folders, and completes an interrupted restore.
pub fn create_folders(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    for (key, folder) in [("data", &settings.data), ("database", &settings.database)] {
        std::fs::create_dir_all(folder).map_err(|error| {
            configuration.error_for(
                key,
                format!(
                    "the folder {} cannot be created: {}; choose another with --data DIR",
                    folder.display(),
                    reason_of(&error)
                ),
            )
        })?;
    }
    finish_restore(configuration, settings)
}

/// Warns about folders that other users of the machine can open: they hold keys and personal data. New ones are private.
pub fn warn_about_shared_folders(settings: &Settings) {
    #[cfg(unix)]
    for folder in std::collections::BTreeSet::from([&settings.data, &settings.database]) {
        let Ok(metadata) = folder.metadata() else { continue };
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            let folder = folder.display();
            log::warn!(
                "data folder {folder}: other users of this machine can open it (mode {mode:o}); run chmod 700 {folder}"
            );
        }
    }
}

/// Completes an interrupted restore: until then the databases are of different instants.
fn finish_restore(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    if !backup::is_unfinished(settings) {
        return Ok(());
    }
    let _lock = lock(configuration, settings)?;
    if backup::finish(settings)? {
        log::warn!("restore: an interrupted restore was completed");
    }
    Ok(())
}

/// Returns whether a database of the shop exists.
pub fn has_shop(settings: &Settings) -> bool {
    settings.domains.iter().any(|domain| match &domain.database {
        Database::Folder(folder) => folder.join(format!("{}.db", domain.name)).exists(),
        // An unreachable server may have one; opening it reports the error.
        Database::Postgres(server) => store::schema_exists(server, domain.name).unwrap_or(true),
    })
}

/// Returns an error if there is no shop, for commands that only read.
pub fn require_shop(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    if has_shop(settings) {
        return Ok(());
    }
    if let Some(server) = settings.domains.iter().find_map(|domain| domain.database.server()) {
        return Err(configuration.error_for("database", format!("there is no shop in {}", server.masked())));
    }
    let key = if settings.database == settings.data { "data" } else { "database" };
    let folder = settings.database.display();
    Err(configuration.error_for(key, format!("there is no shop in {folder}; choose its folder with --data DIR")))
}

/// Locks the shop's folders exclusively. The system releases the locks when the process ends, however it ends.
pub fn lock(configuration: &Configuration, settings: &Settings) -> Result<Vec<File>, CliError> {
    let lock = |(key, folder): (&'static str, &Path)| {
        lock_file(folder, LOCK, File::try_lock).map_err(|reason| configuration.error_for(key, reason))
    };
    data_folders(settings).into_iter().map(lock).collect()
}

/// Locks what a process serves: the folders of a whole shop exclusively; those of a part together with the processes of
/// the other parts, and its own domains exclusively.
pub fn lock_served(configuration: &Configuration, settings: &Settings) -> Result<Vec<File>, CliError> {
    let is_remote = |place: &DomainLocation| {
        matches!(place, DomainLocation::Remote(_) | DomainLocation::RemoteUnspecified | DomainLocation::Standby)
    };
    if !settings.domains.iter().any(|domain| is_remote(&domain.place)) {
        return lock(configuration, settings);
    }
    let mut locks = Vec::new();
    for (key, folder) in data_folders(settings) {
        let file = lock_file(folder, LOCK, File::try_lock_shared);
        locks.push(file.map_err(|reason| configuration.error_for(key, reason))?);
    }
    let is_served = |place: &DomainLocation| matches!(place, DomainLocation::Local | DomainLocation::Standby);
    for domain in settings.domains.iter().filter(|domain| is_served(&domain.place)) {
        // With a server several processes may serve the same domain.
        let Some(folder) = domain.database.folder() else { continue };
        let file = lock_file(folder, &format!("{}.lock", domain.name), File::try_lock);
        locks.push(file.map_err(|reason| configuration.error_for("data", reason))?);
    }
    Ok(locks)
}

/// Returns the folders of a shop, each with the setting that names it.
fn data_folders(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let mut folders = vec![("data", settings.data.as_path())];
    if settings.database != settings.data {
        folders.push(("database", &settings.database));
    }
    folders
}

/// Locks one folder of a shop exclusively.
pub fn lock_folder(folder: &Path) -> Result<File, String> {
    lock_file(folder, LOCK, File::try_lock)
}

fn lock_file(folder: &Path, name: &str, lock: fn(&File) -> Result<(), TryLockError>) -> Result<File, String> {
    let path = folder.display();
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(name)).map_err(|error| {
        format!("the folder {path} is not writable: {}; choose another with --data DIR", reason_of(&error))
    })?;
    match lock(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(format!("the folder {path} is used by another mercat; stop it, or choose another with --data DIR"))
        }
        Err(TryLockError::Error(error)) => Err(format!("the folder {path} cannot be locked: {}", reason_of(&error))),
    }
}

/// Returns the system's message without the error number.
pub fn reason_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Opens the shop by `open`: [`App::open`] or [`App::open_for_command`].
pub fn app(
    configuration: &Configuration,
    settings: Settings,
    open: fn(Settings, Clock) -> Result<App, OpenError>,
) -> Result<App, CliError> {
    let has_server = settings.domains.iter().any(|domain| domain.database.server().is_some());
    let key = if settings.database == settings.data && !has_server { "data" } else { "database" };
    open(settings, Clock::system()).map_err(|error| configuration.error_for(key, error.to_string()))
}

/// Runs `work` on a shop with only `domains` open. The others stay closed, so that a command alongside a running shop
/// does none of their work twice; events for them are delivered by the running shop, or the next one.
pub fn with_shop<F, W>(
    configuration: &Configuration,
    mut settings: Settings,
    domains: &[&str],
    work: W,
) -> Result<(), CliError>
where
    F: Future<Output = Result<(), CliError>>,
    W: FnOnce(&App) -> F,
{
    create_folders(configuration, &settings)?;
    for domain in &mut settings.domains {
        if !domains.contains(&domain.name) {
            domain.place = DomainLocation::Off;
        } else if matches!(
            domain.place,
            DomainLocation::Off | DomainLocation::RemoteUnspecified | DomainLocation::Standby
        ) {
            return Err(configuration.error_for(
                &format!("{}.place", domain.name),
                "this command needs the domain in this process; set it to local",
            ));
        }
    }
    actix::System::new().block_on(async {
        let app = app(configuration, settings, App::open_for_command)?;
        let result = work(&app).await;
        app.close();
        result
    })
}

/// Applies pending migrations to all databases.
pub fn migrate(configuration: &Configuration, mut settings: Settings) -> Result<(), CliError> {
    create_folders(configuration, &settings)?;
    settings.migrate = true;
    let server = settings.domains.iter().find_map(|domain| domain.database.server());
    let (folder, local): (_, Vec<&str>) = (
        server.map_or_else(|| settings.database.display().to_string(), Postgres::masked),
        settings
            .domains
            .iter()
            .filter(|domain| domain.place == DomainLocation::Local)
            .map(|domain| domain.name)
            .collect(),
    );
    actix::System::new().block_on(async {
        app(configuration, settings, App::open_for_command)?.close();
        print(&format!("the databases in {folder} are up to date: {}", local.join(", ")));
        Ok(())
    })
}
