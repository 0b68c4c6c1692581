//! Copies of whole databases, all of one moment, beside whoever writes to them; and what a copy must be to be used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::sql_query;
use diesel::sql_types::Text;

use super::Conn;
use super::files::with_suffix;
use super::query::*;

/// How often a copy that has begun is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A database and where its copy goes.
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
    word: String,
}

fn open(file: &Path) -> Result<Conn, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut conn = Conn::establish(&file.to_string_lossy()).map_err(|error| said(&error))?;
    conn.batch_execute("PRAGMA busy_timeout = 10000").map_err(|error| said(&error))?;
    Ok(conn)
}

/// Copies all databases as they are at one moment, while others read and write them.
///
/// Writers are held up only until every copy has begun to read, some ten milliseconds: from then on each reads what was
/// there when it began. A copy is compact and has no journal beside it. Blocks until all are written.
///
/// # Errors
/// Says which database cannot be read or which copy cannot be written, and why. What was copied is left behind.
pub fn copy_all(copies: &[BackupTarget]) -> Result<(), String> {
    let mut locks = Vec::with_capacity(copies.len());
    for copy in copies {
        // A connection would make the file that is missing.
        if !copy.from.is_file() {
            return Err(format!("{}: there is no such file", copy.from.display()));
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
    // A copy gets its first bytes after it began to read, so with bytes there it has begun.
    let has_begun = |to: &Path| std::fs::metadata(to).is_ok_and(|about| about.len() > 0);
    while !running.iter().all(|(to, thread)| thread.is_finished() || has_begun(to)) {
        std::thread::sleep(POLL_INTERVAL);
    }
    drop(locks);
    // All are waited for, whatever the first of them says.
    let ended: Vec<_> = running
        .into_iter()
        .map(|(to, thread)| thread.join().unwrap_or_else(|_| Err(format!("{}: the copying panicked", to.display()))))
        .collect();
    ended.into_iter().collect()
}

/// Whether the file is a sound database.
///
/// # Errors
/// Says what is wrong with it.
pub fn verify(file: &Path) -> Result<(), String> {
    let said: Vec<PragmaRow> = sql_query("SELECT quick_check AS word FROM pragma_quick_check")
        .load(&mut open(file)?)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    match said.into_iter().map(|row| row.word).find(|word| word != "ok") {
        None => Ok(()),
        Some(wrong) => Err(format!("{}: {wrong}", file.display())),
    }
}

/// Whether somebody else has the database open. One that cannot be read is open nowhere.
#[must_use]
pub fn is_in_use(file: &Path) -> bool {
    let alone = Conn::establish(&file.to_string_lossy()).map_err(|error| error.to_string()).and_then(|mut conn| {
        conn.batch_execute("PRAGMA busy_timeout = 500; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK")
            .map_err(|error| error.to_string())
    });
    alone.is_err_and(|reason| reason.contains("locked"))
}

/// Makes sure that nobody has the database open and that all of it is in its one file, so that a copy of the file is a
/// copy of the database.
///
/// # Errors
/// Says who is in the way.
pub fn lone(file: &Path) -> Result<(), String> {
    if is_in_use(file) {
        return Err(format!("{}: another program has it open", file.display()));
    }
    match std::fs::metadata(with_suffix(file, "-wal")) {
        Ok(about) if about.len() > 0 => Err(format!("{}: its journal could not be ended", file.display())),
        _ => Ok(()),
    }
}

/// Changes a database that nobody else has open, durably.
///
/// # Errors
/// Says what went wrong; then nothing is changed.
pub fn change<T>(file: &Path, change: impl FnOnce(&mut Conn) -> QueryResult<T>) -> Result<T, String> {
    let mut conn = open(file)?;
    conn.batch_execute("PRAGMA synchronous = FULL")
        .and_then(|()| conn.transaction_sql("BEGIN IMMEDIATE", change))
        .map_err(|error| format!("{}: {error}", file.display()))
}
