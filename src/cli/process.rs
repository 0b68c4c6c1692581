//! Process attributes that are set before anything else runs: the mode of new files and the limit of open files.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Makes every file that this process creates private to its user (0600, folders 0700), whatever the shell's umask:
/// databases, their journals, keys, backups. Raises the soft limit of open files to the hard one: shells often set 1,024,
/// and at the limit SQLite cannot open its files.
pub fn prepare() {
    umask(Mode::RWXG | Mode::RWXO);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Without it the shop serves fewer connections; that is no reason not to start.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
