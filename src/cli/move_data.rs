//! `mercat move-data`.

use std::path::Path;

use super::check;
use super::config::Configuration;
use super::open::{create_folders, lock_folder, require_shop};
use super::{CliError, print};
use crate::app::{App, DOMAINS, DomainInfo};
use crate::settings::{Database, DomainLocation, Settings};
use crate::store::{self, RowCounts, TableCopyJob};

/// Rule for both locations.
const LOCATION_RULE: &str = "must be sqlite:FOLDER, or postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// Moves a shop from files to a server or back, and checks the data on both sides.
pub fn move_data(configuration: &Configuration, settings: Settings, from: &str, to: &str) -> Result<(), CliError> {
    let invalid = |flag: &str, reason: &str| CliError::start(format!("{flag} {reason}"));
    match (settings.database_at(from), settings.database_at(to)) {
        (Some(Database::Folder(folder)), Some(Database::Postgres(server))) => {
            let target = Database::Postgres(server.clone());
            let copy = || store::copy_all(&copy_jobs(&folder), &server).map_err(|reason| server.mask(&reason));
            // The folder of the shop has its signing secret too.
            move_between(configuration, &settings, (&folder, &folder), (Database::Folder(folder.clone()), target), copy)
        }
        (Some(Database::Postgres(server)), Some(Database::Folder(folder))) => {
            std::fs::create_dir_all(&folder)
                .map_err(|error| invalid("--to", &format!("{} cannot be created: {error}", folder.display())))?;
            let source = Database::Postgres(server.clone());
            let copy = || store::copy_to_files(&copy_jobs(&folder), &server).map_err(|reason| server.mask(&reason));
            move_between(
                configuration,
                &settings,
                (&folder, &settings.data),
                (source, Database::Folder(folder.clone())),
                copy,
            )
        }
        (None, _) => Err(invalid("--from", LOCATION_RULE)),
        (_, None) => Err(invalid("--to", LOCATION_RULE)),
        _ => Err(invalid("--to", "must be a server if --from is a folder, and a folder if --from is a server")),
    }
}

/// Moves a shop between two databases, one of which is in `folder`; `data` is the data folder of the shop.
fn move_between(
    configuration: &Configuration,
    settings: &Settings,
    (folder, data): (&Path, &Path),
    (from, to): (Database, Database),
    copy: impl FnOnce() -> Result<RowCounts, String>,
) -> Result<(), CliError> {
    let [source, target] = [&from, &to].map(|at| with_databases(settings, |_| at.clone(), data));
    require_shop(configuration, &source)?;
    create_folders(configuration, &source)?;
    // Locked to the end: writes to the files during the move would be lost.
    let _lock = lock_folder(folder).map_err(CliError::start)?;
    print(&format!("checking {}:", shown(&from)));
    // With event delivery, so that events in the outboxes arrive first.
    let before = check::report(configuration, source, App::open_alone)?;
    if !before.violations.is_empty() {
        return Err(CliError::operation("the shop has inconsistencies; nothing was moved: fix them first"));
    }
    let moved = copy().map_err(|reason| CliError::operation(format!("nothing was moved: {reason}")))?;
    let rows: u64 = moved.values().sum();
    for (table, count) in &moved {
        print(&format!("{count:>10} {table}"));
    }
    print(&format!("checking {}:", shown(&to)));
    let after = check::report(configuration, target, App::open_for_command)?;
    if !after.violations.is_empty() || after.checked != before.checked {
        return Err(CliError::operation(format!(
            "the data in {} differ from those in {}, which are unchanged: do not use them, and report this as a bug",
            shown(&to),
            shown(&from)
        )));
    }
    let (from, to) = (shown(&from), shown(&to));
    print(&format!(
        "moved {rows} rows to {to}; start the shop with MERCAT_DATABASE={to} and the same data folder or secret. \
         The data in {from} are unchanged and no longer used"
    ));
    Ok(())
}

/// A location as the setting `database` has it, without a password.
fn shown(database: &Database) -> String {
    match database {
        Database::Folder(folder) => format!("sqlite:{}", folder.display()),
        Database::Postgres(server) => server.masked(),
    }
}

/// Returns the settings of the same shop with all domains local and their databases at `at`.
fn with_databases(settings: &Settings, at: impl Fn(&str) -> Database, data: &Path) -> Settings {
    let mut settings = settings.clone();
    settings.database = data.to_owned();
    if settings.secret.is_none() {
        settings.data = data.to_owned();
    }
    for domain in &mut settings.domains {
        domain.place = DomainLocation::Local;
        domain.database = at(domain.name);
    }
    settings
}

/// Returns one job per domain of the registry.
fn copy_jobs(folder: &Path) -> Vec<TableCopyJob> {
    let job = |domain: DomainInfo| TableCopyJob {
        domain: domain.name,
        file: folder.join(format!("{}.db", domain.name)),
        migrations: domain.migrations,
        finish: domain.after_copy,
    };
    DOMAINS.into_iter().map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency_check;
    use crate::contract::catalog::{CreateProduct, ListProducts, NewProduct, ProductQuery};
    use crate::messaging::RequestContext;
    use crate::types::Clock;

    #[actix::test]
    async fn shop_moved_to_server_has_same_data() {
        let dir = tempfile::TempDir::new().unwrap();
        let settings = Settings::for_test(dir.path());
        let Some(Database::Postgres(server)) = settings.domains.first().map(|domain| domain.database.clone()) else {
            return;
        };
        let files = with_databases(&settings, |_| Database::Folder(dir.path().to_owned()), dir.path());
        let app = App::open(files, Clock::system()).unwrap();
        crate::demo::load(&app.clients, &Clock::system(), crate::demo::ExistingAccounts::Keep, &|_, _| {})
            .await
            .unwrap();
        let product: NewProduct = serde_json::from_value(serde_json::json!({
            "name": "Théière \"O'Hara\" 🫖", "sku": "odd-1", "description": "back\\slash, tab\tand {brace}",
            "price": 4_800, "currency": "EUR", "stock": 7,
        }))
        .unwrap();
        let ctx = || RequestContext::internal("test");
        app.clients.catalog.call(ctx(), CreateProduct { product }).await.unwrap();
        let query = || ProductQuery { q: Some("theiere har".into()), ..ProductQuery::default() };
        let list = async |app: &App, query| {
            let request = ListProducts { query, page: crate::types::PageRequest::default() };
            app.clients.catalog.call(ctx(), request).await.unwrap()
        };
        app.settle().await.unwrap();
        let before = (consistency_check::run(&app.clients).await.unwrap(), list(&app, ProductQuery::default()).await);
        assert_eq!(before.0.violations, []);
        app.close();
        let moved = store::copy_all(&copy_jobs(dir.path()), &server).unwrap();
        assert!(moved.values().sum::<u64>() > 100, "{moved:?}");
        let app = App::open(settings, Clock::system()).unwrap();
        assert_eq!(
            (consistency_check::run(&app.clients).await.unwrap(), list(&app, ProductQuery::default()).await),
            before
        );
        assert_eq!(list(&app, query()).await.items.len(), 1);
        app.close();
        let error = store::copy_all(&copy_jobs(dir.path()), &server).unwrap_err();
        assert!(error.contains("is not empty"), "{error}");
        // And back again, from a server that has gone on.
        let back = tempfile::TempDir::new().unwrap();
        let moved_back = store::copy_to_files(&copy_jobs(back.path()), &server).unwrap();
        assert_eq!(moved_back, moved);
        let files =
            with_databases(&Settings::for_test(back.path()), |_| Database::Folder(back.path().to_owned()), back.path());
        let app = App::open(files, Clock::system()).unwrap();
        let after = (consistency_check::run(&app.clients).await.unwrap(), list(&app, ProductQuery::default()).await);
        assert_eq!(after, before);
        assert_eq!(list(&app, query()).await.items.len(), 1);
        let product: NewProduct = serde_json::from_value(serde_json::json!({
            "name": "New", "sku": "new-1", "price": 100, "currency": "EUR", "stock": 1,
        }))
        .unwrap();
        app.clients.catalog.call(ctx(), CreateProduct { product }).await.unwrap();
        app.settle().await.unwrap();
        assert_eq!(consistency_check::run(&app.clients).await.unwrap().violations, []);
        app.close();
        let error = store::copy_to_files(&copy_jobs(back.path()), &server).unwrap_err();
        assert!(error.contains("exists already"), "{error}");
    }
}
