//! `mercat move-data`.

use std::path::PathBuf;

use super::check;
use super::config::Configuration;
use super::open::{folders, hold_folder, needs_shop};
use super::{CliError, say};
use crate::app::App;
use crate::domains::{cart, catalog, comments, mailer, notifications, payments, stats, users};
use crate::settings::{Database, DomainLocation, Settings};
use crate::store::{self, Migrations, TableCopyJob};

/// Moves a shop from files to a server, and reads all books on both sides.
pub fn move_data(configuration: &Configuration, settings: Settings, from: &str, to: &str) -> Result<(), CliError> {
    let wrong = |flag: &str, reason: &str| CliError::start(format!("{flag} {reason}"));
    let Some(Database::Folder(folder)) = settings.database_at(from) else {
        return Err(wrong("--from", "must be sqlite:FOLDER, the folder of a shop that is not running"));
    };
    let server = match settings.database_at(to) {
        Some(Database::Postgres(server)) => server,
        _ => return Err(wrong("--to", "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, without TLS")),
    };
    let source = placed(&settings, |_| Database::Folder(folder.clone()), &folder);
    let target = placed(&settings, |_| Database::Postgres(server.clone()), &folder);
    needs_shop(configuration, &source)?;
    folders(configuration, &source)?;
    // Held to the end: who wrote into the old place meanwhile would write for nothing.
    let _held = hold_folder(&folder).map_err(|reason| wrong("--from", &reason))?;
    say("the books in the old place:");
    // As a whole, so that what the last run left on its way arrives first.
    let before = check::report(configuration, source, App::open)?;
    if !before.faults.is_empty() {
        return Err(CliError::operation("the shop has faults; nothing was moved. Mend them first"));
    }
    let moved = store::move_all(&moves(&folder), &server)
        .map_err(|reason| CliError::operation(format!("nothing was moved: {}", server.mask(&reason))))?;
    let rows: u64 = moved.values().sum();
    for (table, count) in &moved {
        say(&format!("{count:>10} {table}"));
    }
    say("the books in the new place:");
    let after = check::report(configuration, target, App::open_for_command)?;
    if !after.faults.is_empty() || after.looked_at != before.looked_at {
        return Err(CliError::operation(
            "the books in the new place are not those of the old one, which is untouched: do not use the new one, and report it as a bug",
        ));
    }
    say(&format!(
        "moved {rows} rows to {}; start the shop with MERCAT_DATABASE={} and the same data folder or secret. \
         The files in {} are as they were and no longer used",
        server.shown(),
        server.shown(),
        folder.display()
    ));
    Ok(())
}

/// The settings of the shop with all its databases there.
fn placed(settings: &Settings, at: impl Fn(&str) -> Database, data: &std::path::Path) -> Settings {
    let mut placed = settings.clone();
    placed.database = data.to_owned();
    if placed.secret.is_none() {
        placed.data = data.to_owned();
    }
    for domain in &mut placed.domains {
        domain.place = DomainLocation::Local;
        domain.database = at(domain.name);
    }
    placed
}

fn moves(folder: &std::path::Path) -> Vec<TableCopyJob> {
    let nothing: fn(&mut store::Conn) -> diesel::QueryResult<()> = |_| Ok(());
    let one = |domain: &'static str, migrations: fn() -> Migrations, finish| TableCopyJob {
        domain,
        from: PathBuf::from(folder).join(format!("{domain}.db")),
        migrations,
        finish,
    };
    vec![
        one("users", || users::MIGRATIONS, nothing),
        one("catalog", || catalog::MIGRATIONS, catalog::rebuild_search_index),
        one("cart", || cart::MIGRATIONS, nothing),
        one("payments", || payments::MIGRATIONS, nothing),
        one("mailer", || mailer::MIGRATIONS, nothing),
        one("stats", || stats::MIGRATIONS, nothing),
        one("comments", || comments::MIGRATIONS, nothing),
        one("notifications", || notifications::MIGRATIONS, nothing),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency_check;
    use crate::contract::catalog::{CreateProduct, ListProducts, NewProduct, ProductQuery};
    use crate::messaging::RequestContext;
    use crate::types::Clock;

    #[actix::test]
    async fn a_shop_that_moves_to_a_server_is_the_same_shop_and_an_occupied_place_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let settings = Settings::for_test(dir.path());
        let Some(Database::Postgres(server)) = settings.domains.first().map(|domain| domain.database.clone()) else {
            return;
        };
        let files = placed(&settings, |_| Database::Folder(dir.path().to_owned()), dir.path());
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
        assert_eq!(before.0.faults, []);
        app.close();
        let moved = store::move_all(&moves(dir.path()), &server).unwrap();
        assert!(moved.values().sum::<u64>() > 100, "{moved:?}");
        let app = App::open(settings, Clock::system()).unwrap();
        assert_eq!(
            (consistency_check::run(&app.clients).await.unwrap(), list(&app, ProductQuery::default()).await),
            before
        );
        assert_eq!(list(&app, query()).await.items.len(), 1);
        app.close();
        let refused = store::move_all(&moves(dir.path()), &server).unwrap_err();
        assert!(refused.contains("is not empty"), "{refused}");
    }
}
