//! The command line from outside: commands of the real binary, their output and exit codes.
//!
//! Does not contain: the HTTP API (`tests/api`), several processes and crashes (`tests/e2e`).
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod check_and_backup;
mod connections;
mod disk_faults;
mod health;
mod import_export;
mod serving;
mod settings;
mod support;
mod traces;
