//! Commands and flags of the command line, with their help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::messaging::Role;

/// A shop's whole backend in one binary: accounts, catalog, cart, payments, e-mail, statistics, live notifications.
#[derive(Debug, Parser)]
#[command(
    name = "mercat",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:
  mercat                                       serve ./data on http://127.0.0.1:8080; an empty shop
                                               is filled with sample data first
  mercat serve --listen 0.0.0.0:80 --no-demo   serve on all interfaces, without sample data
  mercat admin create --email ada@example.com  create an administrator
  mercat import products catalogue.csv         create products, or update those with the same SKU
  mercat check                                 verify data consistency across all databases
  mercat backup /backup/monday                 copy the whole shop while it runs
  mercat move payments --to http://10.0.0.2:50051 --email ada@example.com
                                               move a domain to a process of its own
                                               while it serves
  mercat config                                every setting, its value and its origin

Every setting can also be an environment variable (MERCAT_LISTEN), a line in .env, or a line in
mercat.toml; flags override all of them. `mercat config --example` prints a .env that explains
every setting."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub serve: ServeFlags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Args)]
pub struct Common {
    /// Data folder, with databases and secrets [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<OsString>,
    /// Configuration file [default: mercat.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Eq, Args)]
pub struct ServeFlags {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Parts of the shop to run: gateway and domains, separated by commas [default: all]
    #[arg(long, value_name = "NAMES")]
    pub domains: Option<String>,
    /// Address at which other processes call the domains of this one; port 0 picks a free one [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub grpc: Option<String>,
    /// Start in standby: wait for `mercat move` to transfer the domains
    #[arg(long)]
    pub standby: bool,
    /// Do not fill an empty shop with sample data
    #[arg(long)]
    pub no_demo: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the shop (the default)
    #[command(after_help = "Examples:
  mercat serve                         on http://127.0.0.1:8080, with the data in ./data
  mercat serve --listen 127.0.0.1:0 --data /srv/shop
  MERCAT_LOG=debug MERCAT_LOG_FORMAT=json mercat serve

A shop in two processes, which may share a data folder or use separate ones:
  mercat serve --domains payments --grpc 127.0.0.1:50051
  MERCAT_PAYMENTS__PLACE=http://127.0.0.1:50051 mercat serve

When it is ready, a line with `listening on http://ADDRESS` is written to standard error.
SIGTERM and Ctrl-C let requests in flight end first; a second Ctrl-C does not wait.")]
    Serve(ServeFlags),
    /// Manage administrators
    #[command(subcommand, arg_required_else_help = true)]
    Admin(AdminCommand),
    /// Apply pending migrations to all databases and exit
    #[command(after_help = "`mercat serve` does this automatically unless `migrate` is \"manual\".

Example:
  MERCAT_MIGRATE=manual mercat migrate --data /srv/shop")]
    Migrate,
    /// Import data from a file
    #[command(subcommand, arg_required_else_help = true)]
    Import(ImportCommand),
    /// Export data to a file
    #[command(subcommand, arg_required_else_help = true)]
    Export(ExportCommand),
    /// Load sample data
    #[command(subcommand, arg_required_else_help = true)]
    Seed(SeedCommand),
    /// Verify data consistency across all databases
    #[command(
        after_help = "Finds, among others, stock that differs from the sum of its movements, a paid invoice without
exactly one payment, receipt, sale, statistics entry and notification, gaps in the invoice numbers,
undelivered events and damaged database files. One line per problem: database, what is wrong,
affected record, suggested fix.

While a shop runs on the same data, the check only reads; events that are still being delivered are
waited for and not reported. Otherwise it first completes interrupted work, as the next start would:
e-mail that is due is sent, and payments in progress are looked up at the provider.

Exit code: 0 no inconsistencies, 1 inconsistencies found, 2 a database cannot be read.

Example:
  mercat check --data /srv/shop"
    )]
    Check,
    /// Test the databases, the mail server and the other processes that the settings name
    #[command(
        after_help = "One line per test: ok, or what is wrong and what to do. Changes nothing; a shop may run meanwhile.

Exit code: 0 everything works, 1 something is wrong.

Examples:
  mercat doctor --data /srv/shop
  MERCAT_PAYMENTS__PLACE=http://payments:50051 mercat doctor"
    )]
    Doctor,
    /// Check whether a running process is ready
    #[command(
        after_help = "Requests /readyz at the configured listen address, or at --url. For health checks of containers:
prints one line and needs no other program.

Exit code: 0 ready, 1 not ready or not reachable.

Examples:
  mercat health
  mercat health --url http://127.0.0.1:8080
  mercat health --url http://127.0.0.1:8080/healthz    only whether it is alive"
    )]
    Health {
        /// Address to request; any path other than / is requested as given [default: the listen address, /readyz]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Copy the whole shop into a folder, while it runs
    #[command(
        after_help = "Copies all databases as of the same instant while the shop keeps running, and verifies the copy.
backup.json is written last and marks it as complete. The backup contains everything, including the
token signing secret: protect it like the shop itself. A shop whose domains run in several processes
is backed up with --part for each of them; without it the command fails, because data would be missing.

Examples:
  mercat backup /backup/shop-monday --data /srv/shop
  mercat backup \"/backup/$(date +%F)\"
  mercat backup /backup/shop-monday --verify"
    )]
    Backup {
        /// Folder for the backup: new, or empty
        dir: PathBuf,
        /// Of a split shop: copy the domains of this process, and not those of others
        #[arg(long)]
        part: bool,
        /// Take none: verify that the backup in the folder is complete and undamaged
        #[arg(long, conflicts_with = "part")]
        verify: bool,
    },
    /// Restore a backup over the current data
    #[command(
        after_help = "Stop the shop first. The backup is verified before anything is replaced, and a crash in the middle
leaves the old data or the restored data, never a mixture. Data that has changed since the backup
was taken is replaced only with --force; later changes are lost, including orders, whose numbers
will be assigned again. Live clients are made to read their notifications again.

Examples:
  mercat restore /backup/shop-monday --data /srv/shop
  mercat restore /backup/shop-monday --data /tmp/look    inspect an old state in a second shop"
    )]
    Restore {
        /// Folder that `mercat backup` wrote
        dir: PathBuf,
        /// Replace data that is newer than the backup
        #[arg(long)]
        force: bool,
        /// Restore a backup that was taken with --part; other domains' data stay
        #[arg(long)]
        part: bool,
    },
    /// Move a shop from SQLite files to PostgreSQL, or back
    #[command(
        name = "move-data",
        after_help = "Stop the shop first. All databases are copied as of one moment: an interrupted move has no effect.
Both sides are verified as by `mercat check` and must have the same contents. The source is not
changed. The schemas on the server must be new or empty; the folder must have no shop.

Examples:
  mercat move-data --from sqlite:/srv/shop --to postgres://shop:PASSWORD@127.0.0.1/shop
  mercat move-data --from postgres://shop:PASSWORD@127.0.0.1/shop --to sqlite:/srv/shop2"
    )]
    MoveData {
        /// Present location: sqlite:FOLDER, or postgres://USER:PASSWORD@HOST:PORT/DATABASE
        #[arg(long)]
        from: String,
        /// New location: the other kind
        #[arg(long)]
        to: String,
    },
    /// Move a domain of a running shop to another process, or back, while it serves
    #[command(
        name = "move",
        after_help = "The other process waits in standby, with a data folder of its own:
  mercat serve --domains payments --standby --grpc 127.0.0.1:50051 --data ./payments

The running shop holds back new calls to the domain, waits for those in flight, transfers its data
(nothing with a PostgreSQL server that both processes use), then routes all calls to the other
process. If anything fails before that, the domain keeps running where it was. The new location is
recorded in places.toml in the data folders and overrides the settings.

The administrator's password is read from MERCAT_ADMIN_PASSWORD, or from the terminal.

Examples:
  mercat move payments --to http://127.0.0.1:50051 --email ada@example.com
  mercat move payments --to local --email ada@example.com --shop https://shop.example.com"
    )]
    Move {
        /// Name of the domain
        domain: String,
        /// Destination: http://HOST:PORT, the gRPC address of the other process, or local
        #[arg(long)]
        to: String,
        /// E-mail address of an administrator
        #[arg(long)]
        email: String,
        /// HTTP address of the running shop [default: the setting listen]
        #[arg(long, value_name = "URL")]
        shop: Option<String>,
    },
    /// Print every setting, its value and its origin
    #[command(after_help = "Secrets are masked. Precedence: flags, MERCAT_* variables, .env, mercat.toml, defaults.

Examples:
  mercat config
  mercat config --example > .env       every setting explained, commented out")]
    Config {
        /// Print a .env file with every setting and its default instead
        #[arg(long)]
        example: bool,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  mercat completions bash > /etc/bash_completion.d/mercat
  mercat completions fish > ~/.config/fish/completions/mercat.fish")]
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Create an administrator, or other staff
    #[command(
        after_help = "The password is read from MERCAT_ADMIN_PASSWORD, or twice from the terminal. There is no password
flag, since other users could see it in the process list.

Examples:
  mercat admin create --email ada@example.com --name \"Ada Lind\"
  MERCAT_ADMIN_PASSWORD=\"$(cat secret)\" mercat admin create --email ada@example.com"
    )]
    Create {
        /// E-mail address to sign in with
        #[arg(long)]
        email: String,
        /// Displayed name [default: the part of the address before the @]
        #[arg(long)]
        name: Option<String>,
        /// Rights: admin, manager, support or read_only
        #[arg(long, default_value = "admin", value_parser = staff_role)]
        role: Role,
    },
    /// Set the password of an account, whose sessions and API keys end
    #[command(after_help = "The password is read from MERCAT_ADMIN_PASSWORD, or twice from the terminal.

Example:
  mercat admin set-password --email ada@example.com")]
    SetPassword {
        /// E-mail address of the account
        #[arg(long)]
        email: String,
    },
    /// Make an account an administrator
    #[command(after_help = "Example:
  mercat admin promote --email ada@example.com")]
    Promote {
        /// E-mail address of the account
        #[arg(long)]
        email: String,
    },
}

/// Parses a role of staff.
fn staff_role(name: &str) -> Result<Role, String> {
    let role = Role::parse(name).filter(|role| role.is_staff());
    role.ok_or_else(|| "must be admin, manager, support or read_only".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Create products, or update those with the same SKU
    #[command(
        after_help = "The format is detected from the file extension: .csv, .ndjson (one object per line) or .json (an
array). Product exports of Shopify, WooCommerce, Magento, PrestaShop, Squarespace, BigCommerce and
Etsy, and feeds for Google Merchant Center, are detected from their headers. Fields that a file does
not have stay as they are; a row that would empty stock or texts of an existing product is refused
unless --overwrite is given.

A CSV file begins with a line that names its columns; sku is required, and name and price for a new
product:
  name,sku,description,price,currency,stock,compare_at_price,category,tags,attributes,group,options
  Teapot,KIT-1,\"Round, blue\",48.00,EUR,14,,Kitchen,\"tea, gift\",Material=Clay,pots,Colour=Blue
A column track_stock says `no` for what is always for sale.
Prices in CSV are decimal. In JSON a price with a `currency` is in minor units (4800), otherwise
decimal.

An invalid row is reported with its line and reason, and the others are imported; then the exit code
is 1. The shop may run meanwhile.

Examples:
  mercat import products catalogue.csv --dry-run
  mercat import products catalogue.csv
  mercat import products shopify-export.csv --data /srv/shop"
    )]
    Products {
        /// File to read: .csv, .ndjson or .json
        file: PathBuf,
        /// Show what would be created, changed and refused, and write nothing
        #[arg(long)]
        dry_run: bool,
        /// Allow rows that empty stock or texts of existing products, and bring deleted products back
        #[arg(long)]
        overwrite: bool,
        /// Fetch the pictures of products that have none from the addresses in the file
        #[arg(long)]
        images: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Export all active products
    #[command(
        after_help = "The format is detected from the file extension: .csv, .ndjson or .json. An export can be imported
again. In CSV a text that a spreadsheet would run as a formula is prefixed with an apostrophe, which
the import removes.

Examples:
  mercat export products catalogue.csv
  mercat export products backup.ndjson --data /srv/shop"
    )]
    Products {
        /// File to write; an existing one is replaced
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum SeedCommand {
    /// Sample shop: products with images, customers, orders, reviews, an administrator
    #[command(after_help = "Safe to run repeatedly. The administrator's password is generated and printed once.

Example:
  mercat seed demo --data /srv/shop")]
    Demo {
        /// Reset the passwords of the sample accounts, whose present ones were never printed
        #[arg(long, hide = true)]
        reset_accounts: bool,
    },
}
