//! Schema migrations, embedded in the program: those of the store and those of a domain.
//!
//! Refuses a database of a newer version, and an older one if it must not be migrated.

use diesel::backend::Backend;
use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Conn;

/// Migrations of a domain's tables, for both backends.
pub struct Migrations {
    /// Migrations for SQLite.
    pub sqlite: EmbeddedMigrations,
    /// Migrations for PostgreSQL.
    pub postgres: EmbeddedMigrations,
}

/// Migrations of the tables that every domain has.
const STORE: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/store/sqlite"),
    postgres: embed_migrations!("migrations/store/postgres"),
};

/// Applies pending migrations.
///
/// # Errors
///
/// Names the reason when the database is of a newer version, or has pending migrations without `may_migrate`.
pub fn run_migrations(conn: &mut Conn, domain: Migrations, may_migrate: bool) -> Result<(), String> {
    match conn {
        Conn::Sqlite(conn) => apply::<Sqlite>(conn, [STORE.sqlite, domain.sqlite], may_migrate),
        Conn::Postgres(conn) => apply::<Pg>(conn, [STORE.postgres, domain.postgres], may_migrate),
    }
}

fn apply<B: Backend>(
    conn: &mut impl MigrationHarness<B>,
    sets: [EmbeddedMigrations; 2],
    may_migrate: bool,
) -> Result<(), String>
where
    EmbeddedMigrations: MigrationSource<B>,
{
    let mut known: Vec<MigrationVersion<'static>> = Vec::new();
    for set in &sets {
        let steps: Vec<Box<dyn Migration<B>>> = set.migrations().map_err(|e| e.to_string())?;
        known.extend(steps.iter().map(|step| step.name().version().as_owned()));
    }
    let applied = conn.applied_migrations().map_err(|e| e.to_string())?;
    if let Some(strange) = applied.iter().find(|version| !known.contains(version)) {
        return Err(format!("it was made by a newer mercat (its step {strange} is unknown here); use that version"));
    }
    if applied.len() == known.len() {
        return Ok(());
    }
    if !may_migrate {
        return Err("it is of an older version; run `mercat migrate`, or set migrate = \"auto\"".to_owned());
    }
    for set in sets {
        conn.run_pending_migrations(set).map_err(|e| e.to_string())?;
    }
    Ok(())
}
