//! Online backup of SQLite databases: copies of several files as of one moment while others write to them, and checks of
//! a copy before it is used.
//!
//! Contains: everything that opens a database file outside a store. Does not contain: manifests and folders of a backup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::sql_query;
use diesel::sql_types::{Integer, Text};

use super::Conn;
use super::files::with_suffix;
use super::query::*;

/// Interval of checking the progress of the copies.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Value of SQLite's `application_id` in the file of a domain that was moved to another process: "Movd".
const MOVED_AWAY: i32 = 0x4d6f_7664;

/// A database file and the file of its copy.
#[derive(Debug, Clone)]
pub struct BackupTarget {
    /// The database's file.
    pub from: PathBuf,
    /// The copy's file, which must not exist.
    pub to: PathBuf,
}

#[derive(QueryableByName)]
struct PragmaRow {
    #[diesel(sql_type = Text)]
    value: String,
}

fn open(file: &Path) -> Result<Conn, String> {
    let to_reason = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut conn = Conn::establish(&file.to_string_lossy()).map_err(|error| to_reason(&error))?;
    conn.batch_execute("PRAGMA busy_timeout = 10000").map_err(|error| to_reason(&error))?;
    Ok(conn)
}

#[derive(QueryableByName)]
struct ApplicationId {
    #[diesel(sql_type = Integer)]
    application_id: i32,
}

fn application_id(conn: &mut Conn) -> QueryResult<i32> {
    sql_query("PRAGMA application_id").get_result::<ApplicationId>(conn).map(|row| row.application_id)
}

/// Refuses a database that a move to another process has left behind: its content is old.
pub fn refuse_moved_away(domain: &str, conn: &mut Conn) -> Result<(), String> {
    match application_id(conn).map_err(|error| error.to_string())? {
        MOVED_AWAY => Err(format!(
            "{domain} was moved to another process, and this file is what it left behind; set {domain}.place to the address of \
             that process, or restore a backup"
        )),
        _ => Ok(()),
    }
}

/// Marks a database file as left behind by a move to another process, or with `is_moved_away` false as the domain's own
/// again. The mark is in the file itself, so that it holds without any other file. Has no effect if there is no file.
///
/// # Errors
///
/// Names the file, if it cannot be written.
pub fn mark_moved_away(file: &Path, is_moved_away: bool) -> Result<(), String> {
    if !file.is_file() {
        return Ok(());
    }
    let mut conn = open(file)?;
    let to_reason = |error: diesel::result::Error| format!("{}: {error}", file.display());
    let wanted = if is_moved_away { MOVED_AWAY } else { 0 };
    if application_id(&mut conn).map_err(to_reason)? != wanted {
        conn.batch_execute(&format!("PRAGMA application_id = {wanted}")).map_err(to_reason)?;
    }
    Ok(())
}

/// Copies all databases as they are at one moment, while others read and write them.
///
/// Writers are blocked only until every copy has begun to read, some ten milliseconds: from then on each reads its
/// snapshot. A copy is compact and has no journal beside it. Blocks until all are written.
///
/// # Errors
///
/// Names the database that cannot be read or the copy that cannot be written, and the cause. Finished copies stay.
pub fn backup_all(copies: &[BackupTarget]) -> Result<(), String> {
    let mut locks = Vec::with_capacity(copies.len());
    for copy in copies {
        // Opening would create a missing file.
        if !copy.from.is_file() {
            return Err(format!("{}: no such file", copy.from.display()));
        }
        let mut conn = open(&copy.from)?;
        conn.batch_execute("BEGIN IMMEDIATE").map_err(|error| format!("{}: {error}", copy.from.display()))?;
        locks.push(conn);
    }
    let mut running = Vec::with_capacity(copies.len());
    for copy in copies.iter().cloned() {
        let to = copy.to.clone();
        let thread = std::thread::Builder::new()
            .name("copy".to_owned())
            .spawn(move || {
                let to = copy.to.to_string_lossy().replace('\'', "''");
                open(&copy.from)?
                    .batch_execute(&format!("VACUUM INTO '{to}'"))
                    .map_err(|error| format!("{}: {error}", copy.to.display()))
            })
            .map_err(|error| format!("no thread can be started: {error}"))?;
        running.push((to, thread));
    }
    // A copy gets its first bytes after it began to read.
    let has_begun = |to: &Path| std::fs::metadata(to).is_ok_and(|metadata| metadata.len() > 0);
    while !running.iter().all(|(to, thread)| thread.is_finished() || has_begun(to)) {
        std::thread::sleep(POLL_INTERVAL);
    }
    drop(locks);
    // Waits for all, also if the first one has failed.
    let results: Vec<_> = running
        .into_iter()
        .map(|(to, thread)| thread.join().unwrap_or_else(|_| Err(format!("{}: the copy panicked", to.display()))))
        .collect();
    results.into_iter().collect()
}

/// Runs `PRAGMA quick_check` on the file of a database that nothing has open, and leaves it as it is, to the bit.
///
/// # Errors
///
/// Names the first problem found.
pub fn verify(file: &Path) -> Result<(), String> {
    // The characters that have a meaning in the address of a file (RFC 3986).
    let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let to_reason = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut conn = Conn::establish(&format!("file:{path}?immutable=1")).map_err(|error| to_reason(&error))?;
    let rows: Vec<PragmaRow> = sql_query("SELECT quick_check AS value FROM pragma_quick_check")
        .load(&mut conn)
        .map_err(|error| to_reason(&error))?;
    match rows.into_iter().map(|row| row.value).find(|value| value != "ok") {
        None => Ok(()),
        Some(problem) => Err(format!("{}: {problem}", file.display())),
    }
}

/// Whether another connection has the database open; `false` for a file that cannot be read.
#[must_use]
pub fn is_in_use(file: &Path) -> bool {
    let exclusive = Conn::establish(&file.to_string_lossy()).map_err(|error| error.to_string()).and_then(|mut conn| {
        conn.batch_execute("PRAGMA busy_timeout = 500; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK")
            .map_err(|error| error.to_string())
    });
    exclusive.is_err_and(|reason| reason.contains("locked"))
}

/// Checks that no other connection has the database open and that its journal is empty, so that a copy of the file is a
/// copy of the database.
///
/// # Errors
///
/// Says which of the two does not hold.
pub fn ensure_exclusive(file: &Path) -> Result<(), String> {
    if is_in_use(file) {
        return Err(format!("{}: another program has it open", file.display()));
    }
    match std::fs::metadata(with_suffix(file, "-wal")) {
        Ok(metadata) if metadata.len() > 0 => Err(format!("{}: its journal could not be emptied", file.display())),
        _ => Ok(()),
    }
}

/// Changes a database file in one durable transaction, for files that no store has open.
///
/// # Errors
///
/// Names the cause; nothing is changed then.
pub fn modify_offline<T>(file: &Path, change: impl FnOnce(&mut Conn) -> QueryResult<T>) -> Result<T, String> {
    let mut conn = open(file)?;
    conn.batch_execute("PRAGMA synchronous = FULL")
        .and_then(|()| conn.transaction_sql("BEGIN IMMEDIATE", change))
        .map_err(|error| format!("{}: {error}", file.display()))
}
