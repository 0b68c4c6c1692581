//! The secret that signs tokens: from the settings, or else created once in a file of the data folder.
//!
//! Invariant: an existing file is never replaced, and is readable by its owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::settings::Settings;
use crate::types::hex;

/// Name of the file in the data folder.
pub const SECRET_FILE: &str = "secret.key";
/// Hex digits in the file, for 32 random bytes.
const HEX_DIGITS: usize = 64;

/// The signing secret cannot be read or created.
pub struct SecretError {
    pub file: PathBuf,
    pub reason: String,
}

/// Loads the secret, creating the file if neither it nor the setting exists. The digits of the file are used as text, so
/// that they can be moved into the setting `secret` without ending any session.
///
/// # Errors
/// The file cannot be read or created, or is damaged.
pub fn load(settings: &Settings) -> Result<Vec<u8>, SecretError> {
    if let Some(secret) = &settings.secret {
        return Ok(secret.as_bytes().to_vec());
    }
    let file = settings.data.join(SECRET_FILE);
    match read_file(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&file).and_then(|()| read_file(&file)),
        other => other,
    }
    .map_err(|error| SecretError { reason: format!("the secret that signs tokens: {error}"), file })
}

/// Hashes the secret, so that two processes can compare theirs without revealing it.
///
/// # Errors
/// The secret cannot be loaded; the text is for people.
pub fn fingerprint(settings: &Settings) -> Result<String, String> {
    let secret = load(settings).map_err(|SecretError { file, reason }| format!("{}: {reason}", file.display()))?;
    let hash = Sha256::new().chain_update("mercat: the same secret").chain_update(secret).finalize();
    Ok(hex(&hash))
}

fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    File::open(file)?.take(1_024).read_to_string(&mut text)?;
    let digits = text.trim();
    if digits.len() != HEX_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let reason = format!("must be {HEX_DIGITS} hex digits; restore it, or delete it, which ends all sign-ins");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(digits.as_bytes().to_vec())
}

/// Creates the file atomically: writes and syncs it under another name and links it to its own, which fails if another
/// process was first. Then the other's file is used.
fn create(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let draft = file.with_extension(Uuid::now_v7().simple().to_string());
    let linked = write_draft(&draft).and_then(|()| match fs::hard_link(&draft, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    // The draft may not exist when writing it failed; that error is the one to report.
    let _ = fs::remove_file(&draft);
    linked?;
    // The name must survive a power loss too, or all sessions would end.
    File::open(folder)?.sync_all()
}

fn write_draft(draft: &Path) -> io::Result<()> {
    let mut random = [0; HEX_DIGITS / 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let digits = hex(&random);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    writeln!(file, "{digits}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_starts_create_one_private_secret() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(&dir.path().join("new/folder"));
        let secrets: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| load(&settings).ok().unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        let files: Vec<_> = fs::read_dir(&settings.data).unwrap().map(|f| f.unwrap()).collect();
        assert_eq!(files.len(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn damaged_secret_fails_with_remedy_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        for damaged in ["", "abc", &"g".repeat(HEX_DIGITS)] {
            fs::write(dir.path().join("secret.key"), damaged).unwrap();
            let error = load(&settings).err().unwrap();
            assert!(error.reason.contains("64 hex digits"), "{}", error.reason);
            assert_eq!(fs::read_to_string(dir.path().join("secret.key")).unwrap(), damaged);
        }
    }

    #[test]
    fn setting_overrides_file_and_creates_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_test(dir.path());
        settings.secret = Some("s".repeat(32));
        assert_eq!(load(&settings).ok().unwrap(), "s".repeat(32).into_bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
