//! Opens what a command needs of the shop, and closes it again.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::config::Configuration;
use super::{CliError, say};
use crate::app::App;
use crate::backup;
use crate::messaging::RequestContext;
use crate::settings::{Database, DomainLocation, Postgres, Settings};
use crate::store::{self, OpenError};
use crate::types::Clock;

/// The file a running shop holds, so that a second one stays out.
const LOCK: &str = "mercat.lock";
/// How long a command waits for one answer. It may share the machine with a busy shop.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A request of the command line.
pub fn ctx() -> RequestContext {
    RequestContext::internal("cli").with_timeout(CALL_TIMEOUT)
}

/// Makes the folders that are missing.
pub fn folders(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    for (key, folder) in [("data", &settings.data), ("database", &settings.database)] {
        std::fs::create_dir_all(folder).map_err(|error| {
            configuration.complain(
                key,
                format!(
                    "the folder {} cannot be made: {}; choose another with --data DIR",
                    folder.display(),
                    why(&error)
                ),
            )
        })?;
    }
    finish_restore(configuration, settings)
}

/// Finishes a restore that was cut short: until then the databases are of different moments.
fn finish_restore(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    if !backup::is_unfinished(settings) {
        return Ok(());
    }
    let _held = lock(configuration, settings)?;
    if backup::finish(settings)? {
        log::warn!("a restore that was cut short is finished now");
    }
    Ok(())
}

/// Whether there is a shop's database already.
pub fn has_shop(settings: &Settings) -> bool {
    settings.domains.iter().any(|domain| match &domain.database {
        Database::Folder(folder) => folder.join(format!("{}.db", domain.name)).exists(),
        // A server that cannot be asked may have one: what is wrong with it is said when it is opened.
        Database::Postgres(server) => store::schema_exists(server, domain.name).unwrap_or(true),
    })
}

/// Refuses when there is no shop yet, for commands that only read.
pub fn needs_shop(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    if has_shop(settings) {
        return Ok(());
    }
    if let Some(server) = settings.domains.iter().find_map(|domain| domain.database.server()) {
        return Err(configuration.complain("database", format!("there is no shop in {}", server.shown())));
    }
    let key = if settings.database == settings.data { "data" } else { "database" };
    let folder = settings.database.display();
    Err(configuration.complain(key, format!("there is no shop in {folder}; name its folder with --data DIR")))
}

/// Holds the shop's folders for one process that wants them for itself. The system lets go of them when the process
/// ends, however it ends.
pub fn lock(configuration: &Configuration, settings: &Settings) -> Result<Vec<File>, CliError> {
    let lock = |(key, folder): (&'static str, &Path)| {
        lock_file(folder, LOCK, File::try_lock).map_err(|reason| configuration.complain(key, reason))
    };
    in_use(settings).into_iter().map(lock).collect()
}

/// Holds what a process serves: a whole shop's folders for itself; a part's together with the processes of the other
/// parts, and its own domains for itself.
pub fn hold(configuration: &Configuration, settings: &Settings) -> Result<Vec<File>, CliError> {
    let elsewhere = |place: &DomainLocation| {
        matches!(place, DomainLocation::Remote(_) | DomainLocation::RemoteUnspecified | DomainLocation::Standby)
    };
    if !settings.domains.iter().any(|domain| elsewhere(&domain.place)) {
        return lock(configuration, settings);
    }
    let mut held = Vec::new();
    for (key, folder) in in_use(settings) {
        let file = lock_file(folder, LOCK, File::try_lock_shared);
        held.push(file.map_err(|reason| configuration.complain(key, reason))?);
    }
    let mine = |place: &DomainLocation| matches!(place, DomainLocation::Local | DomainLocation::Standby);
    for domain in settings.domains.iter().filter(|domain| mine(&domain.place)) {
        // On a server several processes of one domain work side by side.
        let Some(folder) = domain.database.folder() else { continue };
        let file = lock_file(folder, &format!("{}.lock", domain.name), File::try_lock);
        held.push(file.map_err(|reason| configuration.complain("data", reason))?);
    }
    Ok(held)
}

/// The folders a shop uses, and which setting names each.
fn in_use(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let mut folders = vec![("data", settings.data.as_path())];
    if settings.database != settings.data {
        folders.push(("database", &settings.database));
    }
    folders
}

/// Holds one folder of a shop for one process, or says why it cannot be held.
pub fn hold_folder(folder: &Path) -> Result<File, String> {
    lock_file(folder, LOCK, File::try_lock)
}

fn lock_file(folder: &Path, name: &str, lock: fn(&File) -> Result<(), TryLockError>) -> Result<File, String> {
    let shown = folder.display();
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(name)).map_err(|error| {
        format!("nothing can be written in the folder {shown}: {}; choose another with --data DIR", why(&error))
    })?;
    match lock(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(format!("the folder {shown} is served by another mercat; stop it, or choose another with --data DIR"))
        }
        Err(TryLockError::Error(error)) => Err(format!("the folder {shown} cannot be locked: {}", why(&error))),
    }
}

/// The system's reason in few words.
pub fn why(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Opens the shop by `open`: whole, or for one command beside a running one.
pub fn app(
    configuration: &Configuration,
    settings: Settings,
    open: fn(Settings, Clock) -> Result<App, OpenError>,
) -> Result<App, CliError> {
    let server = settings.domains.iter().any(|domain| domain.database.server().is_some());
    let key = if settings.database == settings.data && !server { "data" } else { "database" };
    open(settings, Clock::system()).map_err(|error| configuration.complain(key, error.to_string()))
}

/// Runs `work` on a shop of which only `domains` are open. The others stay closed, so that a command beside a running
/// shop does none of their work twice; what it causes there is told to them by the running shop, or the next one.
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
    folders(configuration, &settings)?;
    for domain in &mut settings.domains {
        if !domains.contains(&domain.name) {
            domain.place = DomainLocation::Off;
        } else if matches!(
            domain.place,
            DomainLocation::Off | DomainLocation::RemoteUnspecified | DomainLocation::Standby
        ) {
            return Err(
                configuration.complain(&format!("{}.place", domain.name), "this command needs it; set it to local")
            );
        }
    }
    actix::System::new().block_on(async {
        let app = app(configuration, settings, App::open_for_command)?;
        let done = work(&app).await;
        app.close();
        done
    })
}

/// Brings all databases to this version.
pub fn migrate(configuration: &Configuration, mut settings: Settings) -> Result<(), CliError> {
    folders(configuration, &settings)?;
    settings.migrate = true;
    let server = settings.domains.iter().find_map(|domain| domain.database.server());
    let (folder, local): (_, Vec<&str>) = (
        server.map_or_else(|| settings.database.display().to_string(), Postgres::shown),
        settings
            .domains
            .iter()
            .filter(|domain| domain.place == DomainLocation::Local)
            .map(|domain| domain.name)
            .collect(),
    );
    actix::System::new().block_on(async {
        app(configuration, settings, App::open_for_command)?.close();
        say(&format!("the databases in {folder} are of this version: {}", local.join(", ")));
        Ok(())
    })
}
