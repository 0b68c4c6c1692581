//! Bulk copy of domains' databases from SQLite files to PostgreSQL, all in one transaction of the server.
//!
//! The columns of a table are read from the server, so new tables need no change here. A row is sent as a JSON array of
//! its columns, which the server converts to the columns' types. Does not contain: the domains' lists of files and
//! migrations, and derived data, see [`TableCopyJob::finish`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{PgConnection, sql_query};

use super::{Conn, Migrations, migrate, postgres};
use crate::settings::Postgres;

/// Largest number of rows per statement.
const BATCH_ROWS: usize = 500;
/// Number of bytes after which a statement is sent: images are large.
const BATCH_BYTES: usize = 4 << 20;
/// Tables that are not copied: state of the migrations and of the processes.
pub const EXCLUDED: [&str; 2] = ["__diesel_schema_migrations", "leader"];
/// Tables that have rows in a new database.
const SEEDED: [&str; 2] = ["meta", "counter"];

/// Step after the tables of a domain were copied. It runs in the transaction of the copy, with the domain's schema first
/// in the search path.
pub type AfterCopy = fn(&mut Conn) -> QueryResult<()>;

/// Copy of a domain's data between a file and a server.
pub struct TableCopyJob {
    /// Name of the domain.
    pub domain: &'static str,
    /// The SQLite file.
    pub file: PathBuf,
    /// Migrations that create the tables of the target.
    pub migrations: fn() -> Migrations,
    /// Rebuilds derived data that is not copied, such as a full-text index.
    pub finish: Option<AfterCopy>,
}

/// One text per row.
#[derive(QueryableByName)]
pub struct TextRow {
    #[diesel(sql_type = Text)]
    pub row: String,
}

/// A column of a table on the server.
#[derive(QueryableByName)]
pub struct ColumnRow {
    #[diesel(sql_type = Text)]
    pub relation: String,
    #[diesel(sql_type = Text)]
    pub name: String,
    #[diesel(sql_type = Text)]
    pub kind: String,
    #[diesel(sql_type = Text)]
    identity: String,
}

#[derive(QueryableByName)]
struct CopyPair {
    #[diesel(sql_type = Text)]
    child: String,
    #[diesel(sql_type = Text)]
    parent: String,
}

/// Number of copied rows by `domain.table`.
pub type RowCounts = BTreeMap<String, u64>;

/// Copies all databases, or none.
///
/// # Errors
///
/// Names the file or table that cannot be read or written; the server's tables are unchanged then.
pub fn copy_all(jobs: &[TableCopyJob], to: &Postgres) -> Result<RowCounts, String> {
    for job in jobs {
        let schema = to.schema(job.domain);
        let mut conn = postgres::connect(to, &schema)?;
        postgres::create_schema(&mut conn, &schema)?;
        postgres::with_migration_lock(&mut conn, &schema, |conn| {
            migrate::run_migrations(conn, (job.migrations)(), true)
        })?;
    }
    let mut conn = postgres::connect(to, "public")?;
    let mut counts = RowCounts::new();
    conn.transaction::<(), CopyError>(|conn| {
        for job in jobs {
            let schema = to.schema(job.domain);
            conn.batch_execute(&format!("SET LOCAL search_path TO \"{schema}\""))?;
            if let Conn::Postgres(remote) = conn {
                copy_database(job, remote, &schema, &mut counts)?;
            }
            if let Some(finish) = job.finish {
                finish(conn)?;
            }
        }
        Ok(())
    })
    .map_err(|CopyError(reason)| reason)?;
    Ok(counts)
}

/// Error that rolls the copy back, as a sentence for the operator.
pub struct CopyError(pub String);

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self(error.to_string())
    }
}

fn copy_database(
    job: &TableCopyJob,
    remote: &mut PgConnection,
    schema: &str,
    counts: &mut RowCounts,
) -> Result<(), CopyError> {
    let file = job.file.display();
    let Conn::Sqlite(mut local) =
        Conn::establish(&job.file.to_string_lossy()).map_err(|e| CopyError(format!("{file}: {e}")))?
    else {
        return Ok(());
    };
    let local_tables: BTreeSet<String> = sql_query("SELECT name AS row FROM sqlite_master WHERE type = 'table'")
        .load::<TextRow>(&mut local)?
        .into_iter()
        .map(|TextRow { row }| row)
        .collect();
    let columns = server_columns(remote, schema)?;
    let mut tables: BTreeMap<&str, Vec<&ColumnRow>> = BTreeMap::new();
    for column in columns.iter().filter(|column| !EXCLUDED.contains(&column.relation.as_str())) {
        tables.entry(&column.relation).or_default().push(column);
    }
    for table in tables.keys() {
        let rows: Vec<TextRow> = sql_query(format!("SELECT '' AS row FROM \"{table}\" LIMIT 1")).load(remote)?;
        if !rows.is_empty() && !SEEDED.contains(table) {
            return Err(CopyError(format!(
                "the schema {schema} is not empty; use an empty one, or remove it with DROP SCHEMA \"{schema}\" CASCADE"
            )));
        }
    }
    for table in by_dependency(remote, schema, tables.keys().copied().collect())? {
        // Created by the migrations or rebuilt by `finish`.
        if !local_tables.contains(table) || table.ends_with("_fts") {
            continue;
        }
        let columns = tables.get(table).map(Vec::as_slice).unwrap_or_default();
        let count = copy_table(table, columns, &mut local, remote)
            .map_err(|error| CopyError(format!("{file}: table {table}: {error}")))?;
        if count > 0 {
            counts.insert(format!("{}.{table}", job.domain), count);
        }
    }
    for column in columns.iter().filter(|column| column.identity == "YES") {
        let (table, name) = (&column.relation, &column.name);
        diesel::connection::SimpleConnection::batch_execute(
            remote,
            &format!(
                "SELECT setval(pg_get_serial_sequence('{schema}.{table}', '{name}'),
                 (SELECT COALESCE(MAX(\"{name}\"), 0) + 1 FROM \"{table}\"), FALSE)"
            ),
        )?;
    }
    // Sequence numbers are never reused, not even those of deleted events.
    let last: Vec<TextRow> =
        sql_query("SELECT CAST(COALESCE(MAX(seq), 0) AS TEXT) AS row FROM sqlite_sequence WHERE name = 'outbox'")
            .load(&mut local)?;
    let last = last.first().map_or("0", |row| row.row.as_str());
    diesel::connection::SimpleConnection::batch_execute(
        remote,
        &format!("SELECT setval('outbox_seq', {last} + 1, FALSE)"),
    )?;
    Ok(())
}

/// Reads the columns of all tables of a schema.
pub fn server_columns(remote: &mut PgConnection, schema: &str) -> QueryResult<Vec<ColumnRow>> {
    sql_query(
        "SELECT CAST(table_name AS TEXT) AS relation, CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind,
         CAST(is_identity AS TEXT) AS identity FROM information_schema.columns WHERE table_schema = $1
         ORDER BY table_name, ordinal_position",
    )
    .bind::<Text, _>(schema)
    .load(remote)
}

/// Sorts the tables so that each comes after those that it references.
fn by_dependency<'a>(remote: &mut PgConnection, schema: &str, tables: Vec<&'a str>) -> QueryResult<Vec<&'a str>> {
    let pairs: Vec<CopyPair> = sql_query(
        "SELECT CAST(c.relname AS TEXT) AS child, CAST(p.relname AS TEXT) AS parent FROM pg_constraint k
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f' AND n.nspname = $1",
    )
    .bind::<Text, _>(schema)
    .load(remote)?;
    let mut pending = tables;
    let mut ordered = Vec::new();
    while !pending.is_empty() {
        let is_blocked = |table: &str, pending: &[&str]| {
            pairs
                .iter()
                .any(|pair| pair.child == table && pair.parent != table && pending.contains(&pair.parent.as_str()))
        };
        let (blocked, ready): (Vec<&str>, Vec<&str>) =
            pending.iter().copied().partition(|table| is_blocked(table, &pending));
        if ready.is_empty() {
            // A cycle: left to the server, which fails if it cannot defer the constraints.
            ordered.extend(blocked);
            break;
        }
        ordered.extend(ready);
        pending = blocked;
    }
    Ok(ordered)
}

/// Copies the rows of one table and returns their number.
fn copy_table(
    table: &str,
    columns: &[&ColumnRow],
    local: &mut diesel::SqliteConnection,
    remote: &mut PgConnection,
) -> QueryResult<u64> {
    // Assigned by the server, in the order of the rows.
    let columns: Vec<&&ColumnRow> =
        columns.iter().filter(|column| !(table == "outbox" && column.name == "entry")).collect();
    let quoted = |column: &ColumnRow| format!("\"{}\"", column.name);
    let selected: Vec<String> = columns
        .iter()
        .map(|column| {
            if column.kind == "bytea" {
                format!("CASE WHEN {0} IS NOT NULL THEN hex({0}) END", quoted(column))
            } else {
                quoted(column)
            }
        })
        .collect();
    let converted: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| match column.kind.as_str() {
            "bytea" => format!("decode(r ->> {n}, 'hex')"),
            "boolean" => format!("(r ->> {n}) = '1'"),
            kind => format!("CAST(r ->> {n} AS {kind})"),
        })
        .collect();
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let insert = format!(
        "INSERT INTO \"{table}\" ({}) SELECT {} FROM json_array_elements(CAST($1 AS json)) r",
        names.join(", "),
        converted.join(", ")
    );
    diesel::connection::SimpleConnection::batch_execute(remote, &format!("DELETE FROM \"{table}\""))?;
    let order = if table == "outbox" { " ORDER BY seq" } else { "" };
    let rows = sql_query(format!("SELECT json_array({}) AS row FROM \"{table}\"{order}", selected.join(", ")));
    let (mut batch, mut size, mut count) = (Vec::with_capacity(BATCH_ROWS), 0, 0);
    for row in rows.load_iter::<TextRow, diesel::connection::DefaultLoadingMode>(local)? {
        let TextRow { row } = row?;
        size += row.len();
        batch.push(row);
        if batch.len() == BATCH_ROWS || size >= BATCH_BYTES {
            count += flush(&insert, &mut batch, remote)?;
            size = 0;
        }
    }
    count += flush(&insert, &mut batch, remote)?;
    Ok(count)
}

/// Inserts the rows of the batch, empties it, and returns their number.
fn flush(insert: &str, batch: &mut Vec<String>, remote: &mut PgConnection) -> QueryResult<u64> {
    if batch.is_empty() {
        return Ok(0);
    }
    let rows = format!("[{}]", batch.join(","));
    batch.clear();
    let written = sql_query(insert).bind::<Text, _>(rows).execute(remote)?;
    Ok(written as u64)
}
