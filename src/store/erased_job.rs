//! What is asked of a store, with its types taken away. Whatever queues a job, runs, commits and answers it is the same
//! for every job, and so it is compiled once, not once for each of hundreds.

use std::any::Any;

use super::{Conn, Tx};
use crate::messaging::{CommonError, DomainError, ErrorKind};

/// What is to be done in a write transaction.
pub type ErasedJob = Box<dyn FnOnce(&mut Tx<'_>) -> ErasedResult + Send>;

/// What is to be looked up.
pub type ErasedQuery = Box<dyn FnOnce(&mut Conn) -> ErasedResult + Send>;

/// What a job or a query came to.
pub struct ErasedResult {
    /// Its `Result`.
    result: Box<dyn Any + Send>,
    /// Whether it went well; else what it did is undone.
    pub is_ok: bool,
    /// Whether what failed is the database, and not what was asked of it.
    pub is_of_database: bool,
}

/// Whether what failed is the database and not what was asked of it. Queries and jobs ask nobody else, so that whatever
/// is not available to them is the database.
pub fn is_of_database(error: &impl DomainError) -> bool {
    error.kind() == ErrorKind::Unavailable
}

impl ErasedResult {
    /// Takes the types away.
    pub fn of<T: Send + 'static, E: DomainError>(result: Result<T, E>) -> Self {
        let (is_ok, is_of_database) = (result.is_ok(), result.as_ref().is_err_and(is_of_database));
        Self { result: Box::new(result), is_ok, is_of_database }
    }

    /// Gives them back to whoever asked.
    pub fn open<T: 'static, E: DomainError>(report: Result<Self, CommonError>) -> Result<T, E> {
        report?.result.downcast().map_or_else(|_| Err(CommonError::Internal.into()), |result| *result)
    }
}
