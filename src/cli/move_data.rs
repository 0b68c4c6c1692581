//! `mercat move-data`.

use super::check;
use super::config::Configuration;
use super::open::{create_folders, lock_folder, require_shop};
use super::{CliError, print};
use crate::app::{App, DOMAINS, DomainInfo};
use crate::settings::{Database, DomainLocation, Settings};
use crate::store::{self, TableCopyJob};

/// Moves a shop from files to a server, and checks the data on both sides.
pub fn move_data(configuration: &Configuration, settings: Settings, from: &str, to: &str) -> Result<(), CliError> {
    let invalid = |flag: &str, reason: &str| CliError::start(format!("{flag} {reason}"));
    let Some(Database::Folder(folder)) = settings.database_at(from) else {
        return Err(invalid("--from", "must be sqlite:FOLDER, the folder of a stopped shop"));
    };
    let server = match settings.database_at(to) {
        Some(Database::Postgres(server)) => server,
        _ => return Err(invalid("--to", "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, without TLS")),
    };
    let source = with_databases(&settings, |_| Database::Folder(folder.clone()), &folder);
    let target = with_databases(&settings, |_| Database::Postgres(server.clone()), &folder);
    require_shop(configuration, &source)?;
    create_folders(configuration, &source)?;
    // Locked to the end: writes to the files during the move would be lost.
    let _lock = lock_folder(&folder).map_err(|reason| invalid("--from", &reason))?;
    print("checking the files:");
    // With event delivery, so that events in the outboxes arrive first.
    let before = check::report(configuration, source, App::open)?;
    if !before.violations.is_empty() {
        return Err(CliError::operation("the shop has inconsistencies; nothing was moved: fix them first"));
    }
    let moved = store::copy_all(&copy_jobs(&folder), &server)
        .map_err(|reason| CliError::operation(format!("nothing was moved: {}", server.mask(&reason))))?;
    let rows: u64 = moved.values().sum();
    for (table, count) in &moved {
        print(&format!("{count:>10} {table}"));
    }
    print("checking the server:");
    let after = check::report(configuration, target, App::open_for_command)?;
    if !after.violations.is_empty() || after.checked != before.checked {
        return Err(CliError::operation(
            "the data on the server differ from those in the files, which are unchanged: do not use the server, and report this as a bug",
        ));
    }
    print(&format!(
        "moved {rows} rows to {}; start the shop with MERCAT_DATABASE={} and the same data folder or secret. \
         The files in {} are unchanged and no longer used",
        server.masked(),
        server.masked(),
        folder.display()
    ));
    Ok(())
}

/// Returns the settings of the same shop with all domains local and their databases at `at`.
fn with_databases(settings: &Settings, at: impl Fn(&str) -> Database, data: &std::path::Path) -> Settings {
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
fn copy_jobs(folder: &std::path::Path) -> Vec<TableCopyJob> {
    let job = |domain: DomainInfo| TableCopyJob {
        domain: domain.name,
        from: folder.join(format!("{}.db", domain.name)),
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
    }
}
