//! The command line from outside: the real program, its words, its exit codes.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod check_and_backup;
mod disk_faults;
mod health;
mod import_export;
mod serving;
mod settings;
mod support;
mod traces;
