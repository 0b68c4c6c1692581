//! Atomic and durable file operations: after a power loss a file is complete or absent.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::types::hex;

/// Returns the path with `ending` appended to its name.
#[must_use]
pub fn with_suffix(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Calls `fsync` on a folder, so that its entries survive a power loss.
pub fn fsync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file; succeeds if there is none.
pub fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames a file; succeeds if there is none.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file atomically and durably, by a rename; only its owner can read it.
pub fn write_atomic(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(file, ".part");
    remove(&temporary)?;
    let mut out = create(&temporary)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    fsync_dir(file.parent().unwrap_or(Path::new(".")))
}

/// Creates a file that only its owner can read. Fails if it exists.
pub fn create(file: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}

/// Returns the size in bytes and the SHA-256 in hex of a file. Also copies it to `to`, durably.
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
