//! Files of a transfer: chunks read and written off the actor's thread, and the verified upload.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::actor::PlacementResult;
use super::placement_file;
use crate::contract::placement::{DatabaseManifest, PlacementError};
use crate::messaging::CommonError;
use crate::store;
use crate::store::files::{fsync_dir, hash_file, remove, rename};

/// Bytes of a database that are transferred per message.
pub const CHUNK_BYTES: usize = 4 << 20;
/// Largest chunk that is accepted, in characters of base64.
pub const CHUNK_BASE64_MAX: usize = CHUNK_BYTES / 3 * 4 + 8;

/// Runs blocking work on the thread pool.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> PlacementResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(PlacementError::rejected),
        Err(error) => {
            log::error!("relocation: a step panicked: {error}");
            Err(CommonError::Internal.into())
        }
    }
}

/// Reads the chunk at offset `at`; empty at the end of the file.
pub async fn read_at(file: PathBuf, at: u64) -> PlacementResult<Vec<u8>> {
    blocking(move || {
        let read = || {
            let mut input = std::fs::File::open(&file)?;
            input.seek(SeekFrom::Start(at))?;
            let mut chunk = Vec::new();
            input.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
            Ok::<_, std::io::Error>(chunk)
        };
        read().map_err(|error| format!("{}: {error}", file.display()))
    })
    .await
}

/// Writes a chunk at offset `at`; offset 0 starts the file anew.
pub async fn write_at(file: PathBuf, at: u64, chunk: Vec<u8>) -> PlacementResult<()> {
    blocking(move || {
        let write = || {
            if at == 0 {
                remove(&file)?;
                drop(store::files::create(&file)?);
            }
            let mut out = std::fs::File::options().write(true).open(&file)?;
            if out.metadata()?.len() < at {
                return Err(std::io::Error::other("the chunk before this one is missing"));
            }
            out.seek(SeekFrom::Start(at))?;
            out.write_all(&chunk)
        };
        write().map_err(|error| format!("{}: {error}", file.display()))
    })
    .await
}

/// Verifies that the received file is the one that was sent, and makes it durable under the name of a whole upload.
pub async fn verify_upload(file: PathBuf, manifest: DatabaseManifest) -> PlacementResult<()> {
    blocking(move || {
        let (partial, uploaded) = (placement_file::partial_path(&file), placement_file::uploaded_path(&file));
        let (bytes, sha256) = hash_file(&partial, None).map_err(|error| format!("{}: {error}", partial.display()))?;
        if (bytes, &sha256) != (manifest.bytes, &manifest.sha256) {
            return Err(format!("{} has the wrong size or checksum", partial.display()));
        }
        let install = || {
            std::fs::File::open(&partial)?.sync_all()?;
            rename(&partial, &uploaded)?;
            fsync_dir(uploaded.parent().unwrap_or(Path::new(".")))
        };
        install().map_err(|error| format!("{}: {error}", uploaded.display()))
    })
    .await
}
