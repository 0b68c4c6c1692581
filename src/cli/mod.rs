//! The command line.
//!
//! Contains: commands and flags, the reading of the environment, `.env` and the configuration file (nothing else reads
//! them), everything that is printed. Does not contain: a rule of a domain, HTTP, SQL.
//!
//! Exit codes: 0 success; 1 an operation failed, wholly or in part; 2 the command could not start, because a setting, a
//! file or a folder is unusable. An error is one line on standard error that says what to do.

mod admin;
mod args;
mod backup;
mod check;
mod config;
mod doctor;
mod health;
mod logging;
mod move_data;
mod move_domain;
mod open;
mod pictures;
mod process;
mod products;
mod seed;
mod serve;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::demo::ExistingAccounts;
use crate::settings::{SettingError, example};
use crate::types::collapse_whitespace;
use args::{AdminCommand, Cli, Command, Common, ExportCommand, ImportCommand, SeedCommand, ServeFlags};
use config::Configuration;

/// Failure of a command.
#[derive(Debug)]
struct CliError {
    code: u8,
    /// `None` if everything was printed already.
    message: Option<String>,
}

impl CliError {
    /// The command could not start.
    fn start(message: impl fmt::Display) -> Self {
        Self { code: 2, message: Some(message.to_string()) }
    }

    /// The operation failed.
    fn operation(message: impl fmt::Display) -> Self {
        Self { code: 1, message: Some(message.to_string()) }
    }

    /// Part of the operation failed, and that was printed.
    fn partial() -> Self {
        Self { code: 1, message: None }
    }
}

impl From<SettingError> for CliError {
    fn from(error: SettingError) -> Self {
        Self::start(error)
    }
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    process::prepare();
    // Before the first use of TLS, which would panic with two providers in one program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = Cli::try_parse().map_err(|error| usage(&error)).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError { code, message }) => {
            if let Some(message) = message {
                print_error(&format!("error: {}", collapse_whitespace(&message)));
            }
            ExitCode::from(code)
        }
    }
}

/// Prints what clap reports: help and version on standard output with code 0, mistakes on standard error with code 2.
fn usage(error: &clap::Error) -> CliError {
    let _ = error.print();
    CliError { code: u8::try_from(error.exit_code()).unwrap_or(2), message: None }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let Cli { common, serve, command } = cli;
    let command = match command {
        None => Command::Serve(serve),
        // `mercat --listen X serve` means what `mercat serve --listen X` does.
        Some(Command::Serve(flags)) => Command::Serve(ServeFlags {
            listen: flags.listen.or(serve.listen),
            domains: flags.domains.or(serve.domains),
            grpc: flags.grpc.or(serve.grpc),
            standby: flags.standby || serve.standby,
            no_demo: flags.no_demo || serve.no_demo,
        }),
        Some(_) if serve != ServeFlags::default() => {
            return Err(CliError::start(
                "--listen, --domains, --grpc, --standby and --no-demo are flags of `mercat serve` only",
            ));
        }
        Some(other) => other,
    };
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mercat", &mut script);
            print_bytes(&script);
            return Ok(());
        }
        Command::Config { example: true } => {
            print_bytes(example().as_bytes());
            return Ok(());
        }
        _ => {}
    }
    let none = ServeFlags::default();
    let configuration = Configuration::load(&common, if let Command::Serve(flags) = &command { flags } else { &none })?;
    if let Command::Config { .. } = command {
        return configuration.print();
    }
    let settings = configuration.settings()?;
    logging::start(&settings.log);
    backup::refuse_backup_folder(&command, &settings)?;
    match command {
        Command::Serve(_) => serve::serve(&configuration, settings, common.config.as_deref()),
        Command::Migrate => open::migrate(&configuration, settings),
        Command::Admin(AdminCommand::Create { email, name, role }) => {
            admin::create(&configuration, settings, email, name, role)
        }
        Command::Admin(AdminCommand::SetPassword { email }) => admin::set_password(&configuration, settings, email),
        Command::Admin(AdminCommand::Promote { email }) => admin::promote(&configuration, settings, email),
        Command::Import(ImportCommand::Products { file, dry_run, overwrite, images }) => {
            products::import(&configuration, settings, &file, products::ImportOptions { overwrite, dry_run, images })
        }
        Command::Export(ExportCommand::Products { file }) => products::export(&configuration, settings, &file),
        Command::Seed(SeedCommand::Demo { reset_accounts }) => {
            let accounts = if reset_accounts { ExistingAccounts::Reset } else { ExistingAccounts::Keep };
            seed::demo(&configuration, settings, accounts)
        }
        Command::Doctor => doctor::doctor(&settings),
        Command::Health { url } => health::health(&settings, url.as_deref()),
        Command::Check => check::check(&configuration, settings),
        Command::MoveData { from, to } => move_data::move_data(&configuration, settings, &from, &to),
        Command::Move { domain, to, email, shop } => {
            let args = move_domain::MoveArgs { domain, to, email, shop };
            move_domain::move_domain(&configuration, &settings, args)
        }
        Command::Backup { dir, verify: true, .. } => backup::verify(&dir),
        Command::Backup { dir, part, .. } => backup::backup(&configuration, &settings, &dir, part),
        Command::Restore { dir, force, part } => backup::restore(&configuration, &settings, &dir, force, part),
        Command::Config { .. } | Command::Completions { .. } => Ok(()),
    }
}

/// Writes a line to standard output. A closed pipe (`mercat config | head`) is not an error.
fn print(line: &str) {
    print_bytes(format!("{line}\n").as_bytes());
}

fn print_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Writes a line to standard error.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
