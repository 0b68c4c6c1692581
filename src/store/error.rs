//! Conversion of diesel's errors into [`CommonError`]: the only place that reads error texts of SQLite and PostgreSQL.

use diesel::result::{DatabaseErrorKind, Error};

use crate::messaging::CommonError;
use crate::types::FieldError;

/// Parts of error texts that mean a passing condition of the database. SQLite's are those of `sqlite3_errstr`, of which
/// diesel passes on no code; PostgreSQL's are those of the server and of libpq.
const TRANSIENT_TEXTS: [&str; 16] = [
    // SQLite
    "disk is full",
    "disk I/O error",
    "readonly database",
    "is locked",
    "unable to open",
    "malformed",
    "not a database",
    // PostgreSQL
    "deadlock detected",
    "lock timeout",
    "terminating connection",
    "server closed the connection",
    "no connection to the server",
    "could not receive data from server",
    "could not send data to server",
    "No space left on device",
    "the database system is",
];

/// The only conversion of database errors: the cause is logged here and never shown to a caller.
impl From<Error> for CommonError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        log::error!("database: {text}");
        // A broken transaction is never committed.
        if let Error::DatabaseError(DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::SerializationFailure, _)
        | Error::BrokenTransactionManager = error
        {
            return Self::StorageUnavailable;
        }
        if text.contains("invalid byte sequence for encoding") {
            // PostgreSQL keeps no NUL in a text; a file would.
            return FieldError::new("request", "invalid", "must not have NUL characters").into();
        }
        if TRANSIENT_TEXTS.iter().any(|part| text.contains(part)) { Self::StorageUnavailable } else { Self::Internal }
    }
}

/// Implements `From<diesel::result::Error>` for an error enum of a domain with the variant `Common(CommonError)`, so that
/// `?` works on queries.
#[macro_export]
macro_rules! impl_from_storage_error {
    ($error:ty) => {
        impl From<diesel::result::Error> for $error {
            fn from(error: diesel::result::Error) -> Self {
                Self::Common(error.into())
            }
        }
    };
}
