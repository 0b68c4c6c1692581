//! Messages and errors of placement, which moves domains between processes. An administrator sends [`MoveDomain`] to
//! the process with the gateway; the placements of the two processes exchange the rest.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::FieldError;

/// Moves a domain to another process, or back, while it serves. Calls to the domain wait meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveDomain {
    /// Name of the domain.
    pub domain: String,
    /// Destination: `local`, or the gRPC address of the other process (`http://HOST:PORT`), one that the settings name.
    pub to: String,
    /// Proof that the order comes from the shop's machine, with which any address is a destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<String>,
}

/// Result of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveResult {
    /// Name of the domain.
    pub domain: String,
    /// New location: `local`, or the address of the other process.
    pub place: String,
    /// Bytes of the database that were transferred; 0 when both processes use the same server, or the domain was at the
    /// destination already.
    pub bytes: u64,
    /// Longest time that a call to the domain had to wait, in milliseconds.
    pub paused_ms: u64,
}

/// Checks that another process could take a domain over, or hand it over. Changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrepareMove {
    /// Name of the domain.
    pub domain: String,
    /// Whether the receiver is to hand the domain over; otherwise it is to take it.
    pub hands_over: bool,
    /// Version of the sender's program.
    pub version: String,
    /// Name of a file or an advisory lock that exists only in the sender's data folder or database.
    pub locality_probe: String,
    /// Schema of the domain on the sender's server; `None` if the sender has it in a file.
    pub schema: Option<String>,
    /// Fingerprint of the sender's signing secret; empty if the domain signs nothing.
    pub secret: String,
}

/// Transfers a chunk of a domain's database file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadChunk {
    /// Name of the domain.
    pub domain: String,
    /// Offset in the file, in bytes. Offset 0 starts a new upload.
    pub at: u64,
    /// Content, as base64.
    pub chunk: String,
}

/// Ends an upload. The receiver verifies the file and keeps it durably, unopened, until [`StartDomain`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinishUpload {
    /// Name of the domain.
    pub domain: String,
    /// Size and checksum of the whole file.
    pub file: DatabaseManifest,
}

/// Starts a domain whose database was transferred; the receiver owns it from then on. Has no effect on one that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartDomain {
    /// Name of the domain.
    pub domain: String,
}

/// Stops a domain so that another process can start it. Has no effect on one that is stopped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopDomain {
    /// Name of the domain.
    pub domain: String,
}

/// Size and checksum of a stopped domain's database file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseManifest {
    /// Size of the file in bytes; 0 if the database is on a server.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Reads a chunk of a stopped domain's database file, as base64. Empty at the end of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadChunk {
    /// Name of the domain.
    pub domain: String,
    /// Offset in the file, in bytes.
    pub at: u64,
}

crate::requests! { PlacementError;
    "placement.MoveDomain": MoveDomain => MoveResult, once, |_| Access::Staff(Role::Admin);
    "placement.PrepareMove": PrepareMove => (), retry, |_| Access::Internal;
    "placement.UploadChunk": UploadChunk => (), retry, |_| Access::Internal;
    "placement.FinishUpload": FinishUpload => (), retry, |_| Access::Internal;
    "placement.StartDomain": StartDomain => (), retry, |_| Access::Internal;
    "placement.StopDomain": StopDomain => DatabaseManifest, retry, |_| Access::Internal;
    "placement.DownloadChunk": DownloadChunk => String, read, |_| Access::Internal;
}

/// Reason for which a domain was not moved. Unless it says otherwise, the domain still runs where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PlacementError {
    /// There is no domain of this name.
    #[error("there is no such domain")]
    DomainNotFound,
    /// The move is not possible at present.
    #[error("{reason}")]
    CannotMove {
        /// Obstacle, and what to do about it.
        reason: String,
    },
    /// Another move is in progress.
    #[error("another domain is being moved; try again when that move has ended")]
    MoveInProgress,
    /// Error that any request can meet.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(PlacementError);

impl PlacementError {
    /// Creates a `CannotMove`.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::CannotMove { reason: reason.into() }
    }
}

impl DomainError for PlacementError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::DomainNotFound => ErrorKind::NotFound,
            Self::CannotMove { .. } | Self::MoveInProgress => ErrorKind::Conflict,
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
