//! The command line from outside: the real program, its words, its exit codes.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod books;
mod files;
mod health;
mod serving;
mod settings;
mod support;
mod traces;
mod trouble;
