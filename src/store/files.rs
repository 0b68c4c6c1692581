//! Files that exist whole or not at all, whenever the machine stops.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::types::hex;

/// The file of the same name with something after it.
#[must_use]
pub fn with_suffix(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the names in a folder survive a power loss.
pub fn fsync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file that may not be there.
pub fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

/// Renames a file that may not be there.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all, readable by its owner alone.
pub fn write_atomic(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = with_suffix(file, ".part");
    remove(&draft)?;
    let mut out = create(&draft)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&draft, file)?;
    fsync_dir(file.parent().unwrap_or(Path::new(".")))
}

/// A new file that only its owner may read.
pub fn create(file: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}

/// Size and SHA-256 of a file, in hex; copies it durably on the way when there is somewhere to.
pub fn hash_file(from: &Path, mut to: Option<&mut File>) -> io::Result<(u64, String)> {
    let (mut input, mut hash, mut bytes) = (File::open(from)?, Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = input.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        bytes += read as u64;
        if let Some(out) = &mut to {
            out.write_all(part)?;
        }
    }
    if let Some(out) = to {
        out.sync_all()?;
    }
    Ok((bytes, hex(&hash.finalize())))
}
