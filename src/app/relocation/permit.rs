//! Permits of `mercat move`: a file in the data folder proves that an order comes from this machine, from a user who may
//! write there. With one, a domain may be moved to an address that the settings do not name.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::store::files;
use crate::types::new_uuid;

/// A permit that exists until it is dropped.
pub struct MovePermit {
    id: Uuid,
    file: PathBuf,
}

impl MovePermit {
    /// Issues a permit in the data folder of a shop.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn issue(data: &Path) -> io::Result<Self> {
        let id = new_uuid();
        let file = path(data, id);
        files::create(&file)?;
        Ok(Self { id, file })
    }

    /// Returns the text that the order carries.
    #[must_use]
    pub fn text(&self) -> String {
        self.id.to_string()
    }
}

impl Drop for MovePermit {
    fn drop(&mut self) {
        // A permit that stays is unknown to everyone else, and of no use to those who can read the folder anyway.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn path(data: &Path, id: Uuid) -> PathBuf {
    data.join(format!("move-permit-{id}"))
}

/// Whether an order carries a permit of this data folder.
pub fn is_valid(data: &Path, text: &str) -> bool {
    text.parse().is_ok_and(|id| path(data, id).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permit_is_valid_until_dropped() {
        let data = tempfile::TempDir::new().unwrap();
        let permit = MovePermit::issue(data.path()).unwrap();
        let text = permit.text();
        assert!(is_valid(data.path(), &text));
        assert!(!is_valid(data.path(), &new_uuid().to_string()) && !is_valid(data.path(), "../shop"));
        drop(permit);
        assert!(!is_valid(data.path(), &text));
    }
}
