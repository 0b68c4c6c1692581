//! Brings a database to the version of this program, from migrations embedded in it.

use diesel::backend::Backend;
use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Conn;

/// The steps of a domain's tables: the same tables in the words of either database.
pub struct Migrations {
    /// For files.
    pub sqlite: EmbeddedMigrations,
    /// For a server.
    pub postgres: EmbeddedMigrations,
}

/// The tables every domain has.
const STORE: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/store/sqlite"),
    postgres: embed_migrations!("migrations/store/postgres"),
};

/// Applies what is missing, or, when it may not, says that something is.
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
