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
pub struct GetReady {
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
pub struct TakePart {
    /// Which domain.
    pub domain: String,
    /// Where in the file it stands, in bytes. The one at 0 begins anew.
    pub at: u64,
    /// What stands there, as base64.
    pub part: String,
}

/// Says that all parts were sent. What is there is kept, durably, until the domain is opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seal {
    /// Which domain.
    pub domain: String,
    /// What was sent.
    pub file: Handed,
}

/// Opens a domain whose database is there: from now on it is this process's. One that is open stays so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenDomain {
    /// Which.
    pub domain: String,
}

/// Closes a domain, so that it can be opened elsewhere. One that is closed stays so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloseDomain {
    /// Which.
    pub domain: String,
}

/// What is handed over of a domain's database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Handed {
    /// Bytes of its file; none when it is on a server.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Reads a part of a closed domain's database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadPart {
    /// Which domain.
    pub domain: String,
    /// From where in the file, in bytes.
    pub at: u64,
}

crate::requests! { PlacementError;
    "placement.MoveDomain": MoveDomain => Moved, once, |_| Access::Admin;
    "placement.GetReady": GetReady => (), retry, |_| Access::Domains;
    "placement.TakePart": TakePart => (), retry, |_| Access::Domains;
    "placement.Seal": Seal => (), retry, |_| Access::Domains;
    "placement.OpenDomain": OpenDomain => (), retry, |_| Access::Domains;
    "placement.CloseDomain": CloseDomain => Handed, retry, |_| Access::Domains;
    "placement.ReadPart": ReadPart => String, retry, |_| Access::Domains;
}
