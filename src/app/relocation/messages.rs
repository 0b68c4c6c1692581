//! What placement can be asked: by an administrator, to move a domain; by the placement of another process, to take one
//! over or to give one away.

use serde::{Deserialize, Serialize};

use super::PlacementError;

/// Moves a domain to another process, or back, while it serves: who asks it meanwhile waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveDomain {
    /// Which, by its name.
    pub domain: String,
    /// Where to: `local`, or where the other process answers gRPC (`http://HOST:PORT`).
    pub to: String,
}

/// A domain was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Which.
    pub domain: String,
    /// Where it is now: `local`, or the other process's address.
    pub place: String,
    /// Bytes of the database that were carried over; none when both processes use the same server, or it was there.
    pub bytes: u64,
    /// For how long who asked had to wait, in milliseconds.
    pub paused_ms: u64,
}

/// Asks another process whether it could take a domain over, or give it away. Changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrepareMove {
    /// Which.
    pub domain: String,
    /// Whether it is to give it away, and not to take it.
    pub give: bool,
    /// The version of the program that asks.
    pub version: String,
    /// The name of something that is only where the asker's database or data folder is.
    pub mark: String,
    /// Whether the asker has the domain's database on a server, and in which schema there.
    pub schema: Option<String>,
    /// By what processes know that they sign with the same secret.
    pub secret: String,
}

/// Takes a part of a domain's database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadChunk {
    /// Which domain.
    pub domain: String,
    /// Where in the file it stands, in bytes. The one at 0 begins anew.
    pub at: u64,
    /// What stands there, as base64.
    pub part: String,
}

/// Says that all parts were sent. What is there is kept, durably, until the domain is opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinishUpload {
    /// Which domain.
    pub domain: String,
    /// What was sent.
    pub file: DatabaseManifest,
}

/// Opens a domain whose database is there: from now on it is this process's. One that is open stays so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartDomain {
    /// Which.
    pub domain: String,
}

/// Closes a domain, so that it can be opened elsewhere. One that is closed stays so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopDomain {
    /// Which.
    pub domain: String,
}

/// What is handed over of a domain's database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseManifest {
    /// Bytes of its file; none when it is on a server.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Reads a part of a closed domain's database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadChunk {
    /// Which domain.
    pub domain: String,
    /// From where in the file, in bytes.
    pub at: u64,
}

crate::requests! { PlacementError;
    "placement.MoveDomain": MoveDomain => Moved, once, |_| Access::Admin;
    "placement.PrepareMove": PrepareMove => (), retry, |_| Access::Internal;
    "placement.UploadChunk": UploadChunk => (), retry, |_| Access::Internal;
    "placement.FinishUpload": FinishUpload => (), retry, |_| Access::Internal;
    "placement.StartDomain": StartDomain => (), retry, |_| Access::Internal;
    "placement.StopDomain": StopDomain => DatabaseManifest, retry, |_| Access::Internal;
    "placement.DownloadChunk": DownloadChunk => String, retry, |_| Access::Internal;
}
