//! Bulk copy of domains' databases from PostgreSQL to new SQLite files: the way back of [`super::sqlite_to_postgres`].
//!
//! All domains are read in one transaction of the server, so that they are of one moment. Each is written to a draft
//! beside its file, and the drafts are renamed when all are complete. A row is sent as a JSON array of its columns.
//! Does not contain: the domains' lists of files and migrations, and derived data, see [`TableCopyJob::finish`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{PgConnection, SqliteConnection, sql_query};

use super::files::{fsync_dir, remove, rename, with_suffix};
use super::sqlite_to_postgres::{CopyError, EXCLUDED, RowCounts, TableCopyJob, TextRow, server_columns};
use super::{Conn, migrate, postgres, writer};
use crate::settings::Postgres;

/// Rows that are read at a time.
const BATCH_ROWS: usize = 500;
/// Rows that are read at a time of a table with binary data, such as images.
const BATCH_ROWS_BINARY: usize = 10;

/// Copies all databases, or none. The files must not exist.
///
/// # Errors
///
/// Names the file or table that cannot be read or written; there are no new files then.
pub fn copy_to_files(jobs: &[TableCopyJob], from: &Postgres) -> Result<RowCounts, String> {
    let named = |file: &Path, error: std::io::Error| format!("{}: {error}", file.display());
    for job in jobs {
        if job.file.exists() {
            return Err(format!("{} exists already; choose a folder without a shop", job.file.display()));
        }
        remove_draft(&job.file).map_err(|error| named(&job.file, error))?;
    }
    let copied = copy_drafts(jobs, from);
    for job in jobs {
        let done = match &copied {
            Ok(_) => rename(&draft(&job.file), &job.file),
            Err(_) => remove_draft(&job.file),
        };
        done.map_err(|error| named(&job.file, error))?;
    }
    if let Some(folder) = jobs.first().and_then(|job| job.file.parent()) {
        fsync_dir(folder).map_err(|error| named(folder, error))?;
    }
    copied
}

fn draft(file: &Path) -> PathBuf {
    with_suffix(file, ".copying")
}

fn remove_draft(file: &Path) -> std::io::Result<()> {
    let draft = draft(file);
    for ending in ["-wal", "-shm", ""] {
        remove(&with_suffix(&draft, ending))?;
    }
    Ok(())
}

fn copy_drafts(jobs: &[TableCopyJob], from: &Postgres) -> Result<RowCounts, String> {
    let Conn::Postgres(mut server) = postgres::connect(from, "public")? else {
        return Err("the source is not a server".to_owned());
    };
    let mut counts = RowCounts::new();
    server
        .build_transaction()
        .repeatable_read()
        .read_only()
        .run(|server| {
            for job in jobs {
                copy_database(job, server, &from.schema(job.domain), &mut counts)?;
            }
            Ok(())
        })
        .map_err(|CopyError(reason)| reason)?;
    Ok(counts)
}

fn copy_database(
    job: &TableCopyJob,
    server: &mut PgConnection,
    schema: &str,
    counts: &mut RowCounts,
) -> Result<(), CopyError> {
    let draft = draft(&job.file);
    super::files::create(&draft).map_err(|error| CopyError(format!("{}: {error}", draft.display())))?;
    let mut conn = writer::connect(&draft).map_err(CopyError)?;
    migrate::run_migrations(&mut conn, (job.migrations)(), true).map_err(CopyError)?;
    conn.transaction::<(), CopyError>(|conn| {
        conn.batch_execute("PRAGMA defer_foreign_keys = ON")?;
        if let Conn::Sqlite(local) = conn {
            copy_tables(job.domain, local, server, schema, counts)?;
        }
        match job.finish {
            Some(finish) => Ok(finish(conn)?),
            None => Ok(()),
        }
    })?;
    // The draft is renamed without its journal.
    conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

fn copy_tables(
    domain: &str,
    local: &mut SqliteConnection,
    server: &mut PgConnection,
    schema: &str,
    counts: &mut RowCounts,
) -> Result<(), CopyError> {
    let mut kinds: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for column in server_columns(server, schema)? {
        kinds.entry(column.relation).or_default().insert(column.name, column.kind);
    }
    let tables: Vec<TextRow> = sql_query(
        "SELECT name AS row FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT LIKE '%\\_fts%' ESCAPE '\\'",
    )
    .load(local)?;
    for TextRow { row: table } in tables {
        let Some(kinds) = kinds.get(&table).filter(|_| !EXCLUDED.contains(&table.as_str())) else { continue };
        let columns: Vec<TextRow> =
            sql_query("SELECT name AS row FROM pragma_table_info($1)").bind::<Text, _>(&table).load(local)?;
        let columns = columns.into_iter().filter_map(|TextRow { row }| kinds.get_key_value(&row));
        let columns: Vec<(&str, &str)> = columns.map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        let count = copy_table(&table, &columns, local, server, schema)
            .map_err(|error| CopyError(format!("table {schema}.{table}: {error}")))?;
        if count > 0 {
            counts.insert(format!("{domain}.{table}"), count);
        }
    }
    // Sequence numbers are never reused, not even those of deleted events.
    let last: TextRow =
        sql_query(format!("SELECT CAST(last_value AS TEXT) AS row FROM \"{schema}\".outbox_seq")).get_result(server)?;
    diesel::connection::SimpleConnection::batch_execute(
        local,
        &format!(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'outbox', 0
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox');
             UPDATE sqlite_sequence SET seq = MAX(seq, {}) WHERE name = 'outbox'",
            last.row
        ),
    )?;
    Ok(())
}

/// Copies the rows of one table, whose columns have these names and kinds, and returns their number.
fn copy_table(
    table: &str,
    columns: &[(&str, &str)],
    local: &mut SqliteConnection,
    server: &mut PgConnection,
    schema: &str,
) -> QueryResult<u64> {
    let selected: Vec<String> = columns
        .iter()
        .map(|(name, kind)| match *kind {
            "bytea" => format!("encode(\"{name}\", 'hex')"),
            "boolean" => format!("CAST(\"{name}\" AS INTEGER)"),
            // An event has its number only since it was first delivered.
            _ if (table, *name) == ("outbox", "seq") => format!(
                "COALESCE(seq, (SELECT last_value FROM \"{schema}\".outbox_seq)
                 + row_number() OVER (PARTITION BY seq IS NULL ORDER BY entry))"
            ),
            _ => format!("\"{name}\""),
        })
        .collect();
    let converted: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, (_, kind))| match *kind {
            "bytea" => format!("unhex(json_extract(value, '$[{n}]'))"),
            _ => format!("json_extract(value, '$[{n}]')"),
        })
        .collect();
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let insert =
        format!("INSERT INTO \"{table}\" ({}) SELECT {} FROM json_each($1)", names.join(", "), converted.join(", "));
    let is_binary = columns.iter().any(|(_, kind)| *kind == "bytea");
    let rows_max = if is_binary { BATCH_ROWS_BINARY } else { BATCH_ROWS };
    // Rows that the migrations have made; the trigger of the audit log lets none be deleted, and there are none.
    if table != "audit" {
        sql_query(format!("DELETE FROM \"{table}\"")).execute(local)?;
    }
    sql_query(format!(
        "DECLARE rows NO SCROLL CURSOR FOR SELECT CAST(json_build_array({}) AS TEXT) AS row FROM \"{schema}\".\"{table}\"",
        selected.join(", ")
    ))
    .execute(server)?;
    let mut count = 0;
    loop {
        let rows: Vec<TextRow> = sql_query(format!("FETCH {rows_max} FROM rows")).load(server)?;
        if rows.is_empty() {
            break;
        }
        let batch = format!("[{}]", rows.into_iter().map(|TextRow { row }| row).collect::<Vec<_>>().join(","));
        count += sql_query(&insert).bind::<Text, _>(batch).execute(local)? as u64;
    }
    sql_query("CLOSE rows").execute(server)?;
    Ok(count)
}
