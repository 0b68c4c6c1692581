//! `mercat check`.

use std::time::Duration;

use super::config::Configuration;
use super::open::{app, create_folders, lock, require_shop};
use super::{CliError, print};
use crate::app::App;
use crate::consistency_check::{self, ConsistencyReport};
use crate::settings::Settings;
use crate::store::OpenError;
use crate::types::Clock;

/// Time for the delivery of events that a stopped shop left in its outboxes.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Checks the data and prints the inconsistencies.
pub fn check(configuration: &Configuration, settings: Settings) -> Result<(), CliError> {
    require_shop(configuration, &settings)?;
    create_folders(configuration, &settings)?;
    // With the lock no shop runs, and interrupted work is completed as the next start would.
    let lock = lock(configuration, &settings).ok();
    let open = if lock.is_some() { App::open } else { App::open_for_command };
    let report = report(configuration, settings, open)?;
    if report.violations.is_empty() { Ok(()) } else { Err(CliError::partial()) }
}

/// Checks the data of the shop that `open` opens, and prints the result.
pub fn report(
    configuration: &Configuration,
    settings: Settings,
    open: fn(Settings, Clock) -> Result<App, OpenError>,
) -> Result<ConsistencyReport, CliError> {
    let report = actix::System::new().block_on(async {
        let app = app(configuration, settings, open)?;
        // Events that are not delivered in time are reported as an inconsistency.
        let _ = tokio::time::timeout(SETTLE_MAX, app.settle()).await;
        let report = consistency_check::run(&app.clients).await.map_err(|error| {
            CliError::start(format!("a database cannot be read: {error}; see the log lines above for the reason"))
        });
        app.close();
        report
    })?;
    print_report(&report);
    Ok(report)
}

fn print_report(report: &ConsistencyReport) {
    for violation in &report.violations {
        print(&format!("INCONSISTENT {violation}"));
    }
    let counts: Vec<String> = report.checked.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let verdict = match report.violations.len() {
        0 => "OK: no inconsistencies".to_owned(),
        1 => "1 inconsistency".to_owned(),
        n => format!("{n} inconsistencies"),
    };
    print(&format!("{verdict} in {}", counts.join(", ")));
}
