//! Moves databases from files to a server, all of them in one transaction there.
//!
//! What a table is made of is read from the server, so a table that is added later is moved without a word here. A row
//! travels as a JSON array of its columns, and the server makes the columns' types of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{PgConnection, sql_query};

use super::{Conn, Migrations, migrate, postgres};
use crate::settings::Postgres;

/// Rows that travel together.
const BATCH: usize = 500;
/// Bytes that travel together: pictures are large.
const BATCH_BYTES: usize = 4 << 20;
/// Tables that are not moved: what migrations keep, and who was there.
const OWN: [&str; 2] = ["__diesel_schema_migrations", "leader"];
/// Tables in which a new database has rows.
const SEEDED: [&str; 2] = ["meta", "counter"];

/// Step after the tables of a domain were copied. It runs in the transaction of the copy, with the domain's schema first
/// in the search path.
pub type AfterCopy = fn(&mut Conn) -> QueryResult<()>;

/// A domain's database and what makes the other of it.
pub struct TableCopyJob {
    /// Name of the domain.
    pub domain: &'static str,
    /// Its file.
    pub from: PathBuf,
    /// Its tables.
    pub migrations: fn() -> Migrations,
    /// Makes what has no copy, such as an index of words, in the schema that is searched first.
    pub finish: Option<AfterCopy>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    row: String,
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    of: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
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

/// How many rows of which tables were moved, by domain and table.
pub type RowCounts = BTreeMap<String, u64>;

/// Moves them all, or none.
///
/// # Errors
/// Says what cannot be read or written; then the server has what it had.
pub fn move_all(moves: &[TableCopyJob], to: &Postgres) -> Result<RowCounts, String> {
    for each in moves {
        let schema = to.schema(each.domain);
        let mut conn = postgres::connect(to, &schema)?;
        postgres::create_schema(&mut conn, &schema)?;
        postgres::with_migration_lock(&mut conn, &schema, |conn| {
            migrate::run_migrations(conn, (each.migrations)(), true)
        })?;
    }
    let mut conn = postgres::connect(to, "public")?;
    let mut moved = RowCounts::new();
    conn.transaction::<(), CopyError>(|conn| {
        for each in moves {
            let schema = to.schema(each.domain);
            conn.batch_execute(&format!("SET LOCAL search_path TO \"{schema}\""))?;
            if let Conn::Postgres(there) = conn {
                copy_database(each, there, &schema, &mut moved)?;
            }
            if let Some(finish) = each.finish {
                finish(conn)?;
            }
        }
        Ok(())
    })
    .map_err(|CopyError(reason)| reason)?;
    Ok(moved)
}

/// Why a move has ended early.
struct CopyError(String);

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self(error.to_string())
    }
}

fn copy_database(
    each: &TableCopyJob,
    there: &mut PgConnection,
    schema: &str,
    moved: &mut RowCounts,
) -> Result<(), CopyError> {
    let shown = each.from.display();
    let Conn::Sqlite(mut here) =
        Conn::establish(&each.from.to_string_lossy()).map_err(|e| CopyError(format!("{shown}: {e}")))?
    else {
        return Ok(());
    };
    let kept: BTreeSet<String> = sql_query("SELECT name AS row FROM sqlite_master WHERE type = 'table'")
        .load::<Row>(&mut here)?
        .into_iter()
        .map(|Row { row }| row)
        .collect();
    let columns: Vec<Column> = sql_query(
        "SELECT CAST(table_name AS TEXT) AS of, CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind,
         CAST(is_identity AS TEXT) AS identity FROM information_schema.columns WHERE table_schema = $1
         ORDER BY table_name, ordinal_position",
    )
    .bind::<Text, _>(schema)
    .load(there)?;
    let mut tables: BTreeMap<&str, Vec<&Column>> = BTreeMap::new();
    for column in columns.iter().filter(|column| !OWN.contains(&column.of.as_str())) {
        tables.entry(&column.of).or_default().push(column);
    }
    for table in tables.keys() {
        let rows: Vec<Row> = sql_query(format!("SELECT '' AS row FROM \"{table}\" LIMIT 1")).load(there)?;
        if !rows.is_empty() && !SEEDED.contains(table) {
            return Err(CopyError(format!(
                "the schema {schema} is not empty; move into an empty one, or empty it with DROP SCHEMA \"{schema}\" CASCADE"
            )));
        }
    }
    for table in by_dependency(there, schema, tables.keys().copied().collect())? {
        // What is made anew there and has no rows to be read here.
        if !kept.contains(table) || table.ends_with("_fts") {
            continue;
        }
        let columns = tables.get(table).map(Vec::as_slice).unwrap_or_default();
        let count = copy(table, columns, &mut here, there)
            .map_err(|error| CopyError(format!("{shown}: table {table}: {error}")))?;
        if count > 0 {
            moved.insert(format!("{}.{table}", each.domain), count);
        }
    }
    for column in columns.iter().filter(|column| column.identity == "YES") {
        let (table, name) = (&column.of, &column.name);
        diesel::connection::SimpleConnection::batch_execute(
            there,
            &format!(
                "SELECT setval(pg_get_serial_sequence('{schema}.{table}', '{name}'),
                 (SELECT COALESCE(MAX(\"{name}\"), 0) + 1 FROM \"{table}\"), FALSE)"
            ),
        )?;
    }
    // Numbers of events are never given twice, also those of events that are forgotten.
    let last: Vec<Row> =
        sql_query("SELECT CAST(COALESCE(MAX(seq), 0) AS TEXT) AS row FROM sqlite_sequence WHERE name = 'outbox'")
            .load(&mut here)?;
    let last = last.first().map_or("0", |row| row.row.as_str());
    diesel::connection::SimpleConnection::batch_execute(
        there,
        &format!("SELECT setval('outbox_seq', {last} + 1, FALSE)"),
    )?;
    Ok(())
}

/// The tables so that none comes before one that it refers to.
fn by_dependency<'a>(there: &mut PgConnection, schema: &str, tables: Vec<&'a str>) -> QueryResult<Vec<&'a str>> {
    let pairs: Vec<CopyPair> = sql_query(
        "SELECT CAST(c.relname AS TEXT) AS child, CAST(p.relname AS TEXT) AS parent FROM pg_constraint k
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f' AND n.nspname = $1",
    )
    .bind::<Text, _>(schema)
    .load(there)?;
    let (mut left, mut ordered) = (tables, Vec::new());
    while !left.is_empty() {
        let waits = |table: &str, left: &[&str]| {
            pairs.iter().any(|pair| pair.child == table && pair.parent != table && left.contains(&pair.parent.as_str()))
        };
        let (later, now): (Vec<&str>, Vec<&str>) = left.iter().copied().partition(|table| waits(table, &left));
        if now.is_empty() {
            // Two that refer to each other: the server says what it thinks of that.
            ordered.extend(later);
            break;
        }
        ordered.extend(now);
        left = later;
    }
    Ok(ordered)
}

fn copy(
    table: &str,
    columns: &[&Column],
    here: &mut diesel::SqliteConnection,
    there: &mut PgConnection,
) -> QueryResult<u64> {
    // Given anew there, in the order in which the rows come.
    let columns: Vec<&&Column> =
        columns.iter().filter(|column| !(table == "outbox" && column.name == "entry")).collect();
    let quoted = |column: &Column| format!("\"{}\"", column.name);
    let read: Vec<String> = columns
        .iter()
        .map(|column| {
            if column.kind == "bytea" {
                format!("CASE WHEN {0} IS NOT NULL THEN hex({0}) END", quoted(column))
            } else {
                quoted(column)
            }
        })
        .collect();
    let made: Vec<String> = columns
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
        made.join(", ")
    );
    diesel::connection::SimpleConnection::batch_execute(there, &format!("DELETE FROM \"{table}\""))?;
    let order = if table == "outbox" { " ORDER BY seq" } else { "" };
    let rows = sql_query(format!("SELECT json_array({}) AS row FROM \"{table}\"{order}", read.join(", ")));
    let (mut batch, mut size, mut count) = (Vec::with_capacity(BATCH), 0, 0);
    for row in rows.load_iter::<Row, diesel::connection::DefaultLoadingMode>(here)? {
        let Row { row } = row?;
        size += row.len();
        batch.push(row);
        if batch.len() == BATCH || size >= BATCH_BYTES {
            count += flush(&insert, &mut batch, there)?;
            size = 0;
        }
    }
    count += flush(&insert, &mut batch, there)?;
    Ok(count)
}

fn flush(insert: &str, batch: &mut Vec<String>, there: &mut PgConnection) -> QueryResult<u64> {
    if batch.is_empty() {
        return Ok(0);
    }
    let rows = format!("[{}]", batch.join(","));
    batch.clear();
    let written = sql_query(insert).bind::<Text, _>(rows).execute(there)?;
    Ok(written as u64)
}
