//! Jobs and queries of a store with erased types. The code that queues, runs and commits jobs is the same for all
//! of them, and so it is compiled once, not once for each of hundreds.

use std::any::Any;

use super::{Conn, Tx};
use crate::messaging::{CommonError, DomainError, ErrorKind};

/// Job of a write transaction.
pub type ErasedJob = Box<dyn FnOnce(&mut Tx<'_>) -> ErasedResult + Send>;

/// Query on a reader.
pub type ErasedQuery = Box<dyn FnOnce(&mut Conn) -> ErasedResult + Send>;

/// Result of a job or a query.
pub struct ErasedResult {
    /// Its `Result`.
    result: Box<dyn Any + Send>,
    /// Whether the job succeeded; if not, its changes are rolled back.
    pub is_ok: bool,
    /// Whether the database failed, and not the request.
    pub is_storage_error: bool,
}

/// Whether the database failed, and not the request. Queries and jobs call nothing else, so that `Unavailable` always
/// means the database.
pub fn is_storage_error(error: &impl DomainError) -> bool {
    error.kind() == ErrorKind::Unavailable
}

impl ErasedResult {
    /// Erases the types.
    pub fn erase<T: Send + 'static, E: DomainError>(result: Result<T, E>) -> Self {
        let (is_ok, is_storage_error) = (result.is_ok(), result.as_ref().is_err_and(is_storage_error));
        Self { result: Box::new(result), is_ok, is_storage_error }
    }

    /// Restores the types.
    pub fn downcast<T: 'static, E: DomainError>(report: Result<Self, CommonError>) -> Result<T, E> {
        report?.result.downcast().map_or_else(|_| Err(CommonError::Internal.into()), |result| *result)
    }
}
