//! Brings a database to the version of this program, from migrations embedded in it.

use diesel::migration::MigrationSource;
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Conn;

/// The tables every domain has.
const STORE: EmbeddedMigrations = embed_migrations!("migrations/store/sqlite");

/// Applies what is missing, or, when it may not, says that something is.
pub fn bring_up(conn: &mut Conn, domain: EmbeddedMigrations, may_migrate: bool) -> Result<(), String> {
    let mut known = Vec::new();
    for set in [&STORE, &domain] {
        for migration in MigrationSource::<Sqlite>::migrations(set).map_err(|e| e.to_string())? {
            known.push(migration.name().version().to_string());
        }
    }
    let applied = conn.applied_migrations().map_err(|e| e.to_string())?;
    if let Some(strange) = applied.iter().find(|version| !known.contains(&version.to_string())) {
        return Err(format!("it was made by a newer mercat (its step {strange} is unknown here); use that version"));
    }
    if applied.len() == known.len() {
        return Ok(());
    }
    if !may_migrate {
        return Err("it is of an older version; run `mercat migrate`, or set migrate = \"auto\"".to_owned());
    }
    for set in [STORE, domain] {
        conn.run_pending_migrations(set).map_err(|e| e.to_string())?;
    }
    Ok(())
}
