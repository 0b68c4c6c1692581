//! Jobs and queries of a store with erased types. Whatever queues a job, runs, commits and answers it is the same
//! for every job, and so it is compiled once, not once for each of hundreds.

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
    /// Whether it went well; else what it did is undone.
    pub is_ok: bool,
    /// Whether what failed is the database, and not what was asked of it.
    pub is_storage_error: bool,
}

/// Whether what failed is the database and not what was asked of it. Queries and jobs ask nobody else, so that whatever
/// is not available to them is the database.
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
