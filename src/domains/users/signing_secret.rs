//! The secret that signs tokens: from the settings, or else made once and kept in a file of the data folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::settings::Settings;
use crate::types::hex;

/// The file's name in the data folder.
pub const FILE: &str = "secret.key";
/// Hex digits in the file: 32 random bytes.
const DIGITS: usize = 64;

/// Why there is no secret: which file, and what is wrong with it.
pub struct SecretError {
    pub file: PathBuf,
    pub reason: String,
}

/// The secret of this shop. The digits of the file are used as text, so that they can be moved into the setting
/// `secret` and everybody stays signed in.
pub fn load(settings: &Settings) -> Result<Vec<u8>, SecretError> {
    if let Some(secret) = &settings.secret {
        return Ok(secret.as_bytes().to_vec());
    }
    let file = settings.data.join(FILE);
    match read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&file).and_then(|()| read(&file)),
        other => other,
    }
    .map_err(|error| SecretError { reason: format!("the secret that signs tokens: {error}"), file })
}

/// By what two processes know that they sign with the same secret. It says nothing about the secret itself.
///
/// # Errors
/// Says why there is none.
pub fn mark(settings: &Settings) -> Result<String, String> {
    let secret = load(settings).map_err(|SecretError { file, reason }| format!("{}: {reason}", file.display()))?;
    let hash = Sha256::new().chain_update("mercat: the same secret").chain_update(secret).finalize();
    Ok(hex(&hash))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    File::open(file)?.take(1_024).read_to_string(&mut text)?;
    let digits = text.trim();
    if digits.len() != DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let reason = format!("must be {DIGITS} hex digits; restore it, or delete it, which ends all sign-ins");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(digits.as_bytes().to_vec())
}

/// Makes the file, whole or not at all: it is written and synced under another name and then linked to its own, which
/// fails if two start at once and the other was first. Then the other's is good.
fn make(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let draft = file.with_extension(Uuid::now_v7().simple().to_string());
    let linked = write(&draft).and_then(|()| match fs::hard_link(&draft, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    // A draft may not exist when writing it failed; that failure is the one to tell.
    let _ = fs::remove_file(&draft);
    linked?;
    // Its name must survive a power loss too, or all sign-ins would end.
    File::open(folder)?.sync_all()
}

fn write(draft: &Path) -> io::Result<()> {
    let mut random = [0; DIGITS / 2];
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
    fn a_secret_is_made_once_for_its_owner_alone_and_all_who_start_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(&dir.path().join("new/folder"));
        let secrets: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| load(&settings).ok().unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        let files: Vec<_> = fs::read_dir(&settings.data).unwrap().map(|f| f.unwrap()).collect();
        assert_eq!(files.len(), 1, "no draft stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_secret_is_refused_with_the_way_out_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        for damaged in ["", "abc", &"g".repeat(DIGITS)] {
            fs::write(dir.path().join("secret.key"), damaged).unwrap();
            let refused = load(&settings).err().unwrap();
            assert!(refused.reason.contains("64 hex digits"), "{}", refused.reason);
            assert_eq!(fs::read_to_string(dir.path().join("secret.key")).unwrap(), damaged);
        }
    }

    #[test]
    fn the_setting_is_stronger_than_the_file_and_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_test(dir.path());
        settings.secret = Some("s".repeat(32));
        assert_eq!(load(&settings).ok().unwrap(), "s".repeat(32).into_bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
