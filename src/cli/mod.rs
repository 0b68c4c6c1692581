//! The command line: what can be said to the program, and how it ends.
//!
//! Lives here: commands and flags, the reading of the environment, `.env` and the configuration file (only here), what
//! is printed. Never enters: a rule of a domain, HTTP, SQL.
//!
//! How it ends: 0 all is well; 1 an operation failed, wholly or in part; 2 it could not begin, because a setting, a
//! file or a folder cannot be used. What went wrong is one line on standard error that says what to do.

mod admin;
mod backup;
mod check;
mod config;
mod doctor;
mod health;
mod logging;
mod move_data;
mod move_domain;
mod open;
mod products;
mod seed;
mod serve;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::demo::ExistingAccounts;
use crate::settings::{SettingError, example};
use config::Configuration;

/// A shop's whole backend in one binary: accounts, catalog, cart, payments, e-mail, statistics, live notifications.
#[derive(Debug, Parser)]
#[command(
    name = "mercat",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:
  mercat                                       serve ./data on http://127.0.0.1:8080; an empty shop
                                               is filled with a demo first
  mercat serve --listen 0.0.0.0:80 --no-demo   serve to everybody, without the demo
  mercat admin create --email ada@example.com  make an administrator
  mercat import products catalogue.csv         put products in, or bring them up to date
  mercat check                                 read all books, report every broken promise
  mercat backup /backup/monday                 copy the whole shop while it runs
  mercat move payments --to http://10.0.0.2:50051 --email ada@example.com
                                               give a domain a process of its own, while it serves
  mercat config                                every setting, its value, and where it came from

Every setting can also be an environment variable (MERCAT_LISTEN), a line in .env, or a line in
mercat.toml; a flag is stronger than all of them. `mercat config --example` prints a .env with
every setting explained."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    serve: ServeFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Common {
    /// The data folder, with databases and secrets [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<OsString>,
    /// The configuration file [default: mercat.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Eq, Args)]
struct ServeFlags {
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Selection parts of the shop to run: gateway and domains, with commas between [default: all]
    #[arg(long, value_name = "NAMES")]
    domains: Option<String>,
    /// Where other processes ask the domains of this one; port 0 picks a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    grpc: Option<String>,
    /// Have the domains of --domains wait here until `mercat move` brings them
    #[arg(long)]
    standby: bool,
    /// Do not fill an empty shop with the demo
    #[arg(long)]
    no_demo: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the shop (the default)
    #[command(after_help = "Examples:
  mercat serve                         on http://127.0.0.1:8080, with the data in ./data
  mercat serve --listen 127.0.0.1:0 --data /srv/shop
  MERCAT_LOG=debug MERCAT_LOG_FORMAT=json mercat serve

A shop in two processes, which may share a data folder or have one each:
  mercat serve --domains payments --grpc 127.0.0.1:50051
  MERCAT_PAYMENTS__PLACE=http://127.0.0.1:50051 mercat serve

When it is ready, a line with `listening on http://ADDRESS` is written to standard error.
SIGTERM and Ctrl-C let requests under way end first; a second Ctrl-C does not wait.")]
    Serve(ServeFlags),
    /// Manage administrators
    #[command(subcommand, arg_required_else_help = true)]
    Admin(AdminCommand),
    /// Bring all databases to this version and exit
    #[command(after_help = "`mercat serve` does it by itself unless `migrate` is \"manual\".

Example:
  MERCAT_MIGRATE=manual mercat migrate --data /srv/shop")]
    Migrate,
    /// Put data from a file into the shop
    #[command(subcommand, arg_required_else_help = true)]
    Import(ImportCommand),
    /// Write data of the shop to a file
    #[command(subcommand, arg_required_else_help = true)]
    Export(ExportCommand),
    /// Fill the shop with made-up data
    #[command(subcommand, arg_required_else_help = true)]
    Seed(SeedCommand),
    /// Read all books and report every broken promise
    #[command(
        after_help = "Looks for what must never be: stock that is not the sum of its moves, a paid invoice without
its one payment, receipt, sale, statistics entry and notification, a gap in the invoice numbers,
events that do not arrive, damaged database files. One line a fault: whose books, what is wrong,
with which, and what to do.

While a shop runs on the same data it only reads; what is still on its way from one part of the
shop to another is waited for and is no fault. When none runs, it first finishes what the last one
left behind, as the next start would: mail that is due goes out, payments are asked after.

Exit code: 0 all books agree, 1 there are faults, 2 the books cannot be read.

Example:
  mercat check --data /srv/shop"
    )]
    Check,
    /// Try the databases, the mail server and the other processes that the settings name
    #[command(
        after_help = "One line each: ok, or what is wrong and what to do. Changes nothing; a shop may run meanwhile.

Exit code: 0 all is well, 1 something is wrong.

Examples:
  mercat doctor --data /srv/shop
  MERCAT_PAYMENTS__PLACE=http://payments:50051 mercat doctor"
    )]
    Doctor,
    /// MoveArgs a running process whether it may get traffic
    #[command(
        after_help = "Asks /readyz where the settings say that the process listens, or at --url. For the health checks of
containers and the like: one line, and nothing else is needed to ask with.

Exit code: 0 it is ready, 1 it is not or cannot be asked.

Examples:
  mercat health
  mercat health --url http://127.0.0.1:8080
  mercat health --url http://127.0.0.1:8080/healthz    only whether it lives"
    )]
    Health {
        /// Where to ask; a path other than / is asked as it is [default: where the settings say, /readyz]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Copy the whole shop into a folder, while it runs
    #[command(
        after_help = "All databases are copied as they are at the same instant; the shop goes on selling. The copy is
verified, and backup.json, written last, says that it is whole. It holds everything, also the
secret that signs tokens: keep it as safe as the shop.

Examples:
  mercat backup /backup/shop-monday --data /srv/shop
  mercat backup \"/backup/$(date +%F)\""
    )]
    Backup {
        /// The folder for it: new, or empty
        dir: PathBuf,
    },
    /// Put the shop of a backup in the place of the one that is there
    #[command(
        after_help = "ShutdownSignal the shop first. The backup is verified before anything is replaced, and a crash in the middle
leaves the old shop or the new one, never half of each. A shop that has changed since the backup
was taken is replaced only with --force, and what happened since is lost: orders, also their
numbers, which will be given again. Live clients are told to read their notifications anew.

Examples:
  mercat restore /backup/shop-monday --data /srv/shop
  mercat restore /backup/shop-monday --data /tmp/look    a second shop, to look at an old state"
    )]
    Restore {
        /// The folder that `mercat backup` made
        dir: PathBuf,
        /// Replace a shop that is newer than the backup
        #[arg(long)]
        force: bool,
    },
    /// TableCopyJob a shop from files to PostgreSQL
    #[command(
        name = "move-data",
        after_help = "ShutdownSignal the shop first. All databases are moved in one transaction: a move that is cut short has moved
nothing. The books are read on both sides, as `mercat check` does, and must say the same. The files
stay as they were. The server must be reached without TLS; its schemas must be new or empty.

Example:
  mercat move-data --from sqlite:/srv/shop --to postgres://shop:PASSWORD@127.0.0.1/shop"
    )]
    MoveData {
        /// Where the shop is: sqlite:FOLDER
        #[arg(long)]
        from: String,
        /// Where it goes: postgres://USER:PASSWORD@HOST:PORT/DATABASE
        #[arg(long)]
        to: String,
    },
    /// TableCopyJob a domain of a running shop to another process, or back, while it serves
    #[command(
        name = "move",
        after_help = "The other process waits for it, with a data folder of its own:
  mercat serve --domains payments --standby --grpc 127.0.0.1:50051 --data ./payments

The running shop lets no new call to the domain begin, waits for those under way, hands its data
over (nothing on a PostgreSQL server that both use), asks there from then on, and lets those go on
that waited. If anything fails before that, the domain goes on where it was. Where it is now is
kept in places.toml of the data folders and outweighs the settings.

An administrator's password is taken from MERCAT_ADMIN_PASSWORD, or asked for on a terminal.

Examples:
  mercat move payments --to http://127.0.0.1:50051 --email ada@example.com
  mercat move payments --to local --email ada@example.com --shop https://shop.example.com"
    )]
    TableCopyJob {
        /// Selection domain
        domain: String,
        /// Where to: http://HOST:PORT, where the other process answers gRPC, or local
        #[arg(long)]
        to: String,
        /// The address an administrator signs in with
        #[arg(long)]
        email: String,
        /// Where the running shop answers HTTP [default: the setting listen]
        #[arg(long, value_name = "URL")]
        shop: Option<String>,
    },
    /// Print every setting, its value and where it came from
    #[command(
        after_help = "Secrets are masked. Strongest first: flags, MERCAT_* variables, .env, mercat.toml, defaults.

Examples:
  mercat config
  mercat config --example > .env       every setting explained, to be uncommented"
    )]
    Config {
        /// Print a .env file with every setting and its default instead
        #[arg(long)]
        example: bool,
    },
    /// Print a script that completes mercat's commands in a shell
    #[command(after_help = "Examples:
  mercat completions bash > /etc/bash_completion.d/mercat
  mercat completions fish > ~/.config/fish/completions/mercat.fish")]
    Completions {
        /// Selection shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Make an administrator
    #[command(
        after_help = "The password is taken from MERCAT_ADMIN_PASSWORD, or asked for twice on a terminal. It is no
flag, because flags can be seen by everybody on the machine.

Examples:
  mercat admin create --email ada@example.com --name \"Ada Lind\"
  MERCAT_ADMIN_PASSWORD=\"$(cat secret)\" mercat admin create --email ada@example.com"
    )]
    Create {
        /// The address to sign in with
        #[arg(long)]
        email: String,
        /// What people see [default: the part of the address before the @]
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// Put products in, or bring those with the same sku up to date
    #[command(
        after_help = "The form is told by the ending: .csv, .ndjson (an object a line) or .json (an array). A Shopify
product export is known by its header. A row is the whole product; what it leaves out is empty
afterwards.

A CSV begins with a line that names its columns; name, sku and price are needed:
  name,sku,description,price,currency,stock,compare_at_price,category,tags,attributes,group,options
  Teapot,KIT-1,\"Round, blue\",48.00,EUR,14,,Kitchen,\"tea, gift\",Material=Clay,pots,Colour=Blue
Prices in CSV are decimal. In JSON a price beside a `currency` is in its minor unit (4800), else
decimal.

A row that cannot be used is reported with its line and reason, and the others go in; then the exit
code is 1. The shop may run meanwhile.

Examples:
  mercat import products catalogue.csv
  mercat import products shopify-export.csv --data /srv/shop"
    )]
    Products {
        /// The file: .csv, .ndjson or .json
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// Write all products that are for sale
    #[command(
        after_help = "The form is told by the ending: .csv, .ndjson or .json. What is exported can be imported again.
In CSV a text that a spreadsheet would run as a formula gets an apostrophe before it; the import
takes it away again.

Examples:
  mercat export products catalogue.csv
  mercat export products backup.ndjson --data /srv/shop"
    )]
    Products {
        /// The file to write; one that is there is replaced
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum SeedCommand {
    /// A believable shop: products with pictures, customers, orders, comments, an administrator
    #[command(
        after_help = "Doing it again adds nothing twice. The administrator's password is made up and printed once.

Example:
  mercat seed demo --data /srv/shop"
    )]
    Demo {
        /// Give the people of the demo new passwords, because nobody was told the old ones
        #[arg(long, hide = true)]
        reset_accounts: bool,
    },
}

/// How a command failed.
#[derive(Debug)]
struct CliError {
    code: u8,
    /// Nothing when all was said before.
    message: Option<String>,
}

impl CliError {
    /// It could not begin.
    fn start(message: impl fmt::Display) -> Self {
        Self { code: 2, message: Some(message.to_string()) }
    }

    /// It did not succeed.
    fn operation(message: impl fmt::Display) -> Self {
        Self { code: 1, message: Some(message.to_string()) }
    }

    /// Part of it did not succeed, and has been told.
    fn in_part() -> Self {
        Self { code: 1, message: None }
    }
}

impl From<SettingError> for CliError {
    fn from(bad: SettingError) -> Self {
        Self::start(bad)
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything could use TLS: with two providers in a program the first use would panic.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = Cli::try_parse().map_err(|error| usage(&error)).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError { code, message }) => {
            if let Some(message) = message {
                tell(&format!("error: {}", one_line(&message)));
            }
            ExitCode::from(code)
        }
    }
}

/// What clap says: help and version on standard output and well, mistakes on standard error with code 2.
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
                "--listen, --domains, --grpc, --standby and --no-demo belong to `mercat serve`; leave them out here",
            ));
        }
        Some(other) => other,
    };
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mercat", &mut script);
            say_bytes(&script);
            return Ok(());
        }
        Command::Config { example: true } => {
            say_bytes(example().as_bytes());
            return Ok(());
        }
        _ => {}
    }
    let none = ServeFlags::default();
    let configuration = Configuration::load(&common, if let Command::Serve(flags) = &command { flags } else { &none })?;
    if let Command::Config { .. } = command {
        return configuration.show();
    }
    let settings = configuration.settings()?;
    logging::start(&settings.log);
    match command {
        Command::Serve(_) => serve::serve(&configuration, settings, common.config.as_deref()),
        Command::Migrate => open::migrate(&configuration, settings),
        Command::Admin(AdminCommand::Create { email, name }) => admin::create(&configuration, settings, email, name),
        Command::Import(ImportCommand::Products { file }) => products::import(&configuration, settings, &file),
        Command::Export(ExportCommand::Products { file }) => products::export(&configuration, settings, &file),
        Command::Seed(SeedCommand::Demo { reset_accounts }) => {
            let accounts = if reset_accounts { ExistingAccounts::Reset } else { ExistingAccounts::Keep };
            seed::demo(&configuration, settings, accounts)
        }
        Command::Doctor => doctor::doctor(&settings),
        Command::Health { url } => health::health(&settings, url.as_deref()),
        Command::Check => check::check(&configuration, settings),
        Command::MoveData { from, to } => move_data::move_data(&configuration, settings, &from, &to),
        Command::TableCopyJob { domain, to, email, shop } => {
            let ask = move_domain::MoveArgs { domain, to, email, shop };
            move_domain::move_domain(&configuration, &settings, ask)
        }
        Command::Backup { dir } => backup::backup(&configuration, &settings, &dir),
        Command::Restore { dir, force } => backup::restore(&configuration, &settings, &dir, force),
        Command::Config { .. } | Command::Completions { .. } => Ok(()),
    }
}

/// Writes a line to standard output. A reader that has gone (`mercat config | head`) is no error.
fn say(line: &str) {
    say_bytes(format!("{line}\n").as_bytes());
}

fn say_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Writes a line to standard error.
fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// An error is one line, whatever the system's own words are.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
