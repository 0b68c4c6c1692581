//! Limits of the process at the operating system, set before anything else runs: file modes and the number of open files.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Descriptors that are kept for databases, their connections, logs, mail and calls between processes.
const RESERVED_FILES: u64 = 256;
/// Descriptors of one live connection.
const FILES_PER_CONNECTION: u64 = 2;
/// Connections where the system sets no limit.
const CONNECTIONS_MAX: u64 = 100_000;

/// Makes every file that this process creates private to its user (0600, folders 0700), whatever the shell's umask: databases,
/// their journals, keys, backups. Raises the soft limit of open files to the hard one: shells often set 1,024, and at the
/// limit SQLite cannot open its files.
pub fn prepare() {
    umask(Mode::RWXG | Mode::RWXO);
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        log::warn!("open files: the soft limit cannot be raised: {error}");
    }
}

/// The connections that HTTP may hold open at once: what the limit of open files leaves after the reserve.
#[must_use]
pub fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = (files.saturating_sub(RESERVED_FILES) / FILES_PER_CONNECTION).clamp(16, CONNECTIONS_MAX);
    usize::try_from(connections).unwrap_or(usize::MAX)
}
