//! What can go wrong with statistics: nothing of their own, so the common failures are all there is.

/// An error of the statistics.
pub type StatsError = crate::messaging::Failure;
