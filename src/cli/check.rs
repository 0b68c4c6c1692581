//! `mercat check`.

use std::time::Duration;

use super::config::Configuration;
use super::open::{app, folders, lock, needs_shop};
use super::{CliError, say};
use crate::app::App;
use crate::consistency_check::{self, Report};
use crate::settings::Settings;
use crate::store::OpenError;
use crate::types::Clock;

/// How long news that a stopped shop left behind may take to be heard.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Reads all books and says what is wrong.
pub fn check(configuration: &Configuration, settings: Settings) -> Result<(), CliError> {
    needs_shop(configuration, &settings)?;
    folders(configuration, &settings)?;
    // Held while nobody serves this shop; then what it left unfinished is finished here, as its next start would.
    let held = lock(configuration, &settings).ok();
    let open = if held.is_some() { App::open } else { App::open_for_command };
    let report = report(configuration, settings, open)?;
    if report.faults.is_empty() { Ok(()) } else { Err(CliError::in_part()) }
}

/// Reads all books of the shop that `open` opens, and tells what was found.
pub fn report(
    configuration: &Configuration,
    settings: Settings,
    open: fn(Settings, Clock) -> Result<App, OpenError>,
) -> Result<Report, CliError> {
    let report = actix::System::new().block_on(async {
        let app = app(configuration, settings, open)?;
        // What does not settle in time is a fault, and is found as one.
        let _ = tokio::time::timeout(SETTLE_MAX, app.settle()).await;
        let report = consistency_check::run(&app.clients).await.map_err(|failure| {
            CliError::start(format!("the books cannot be read: {failure}; the reason is in the log lines above"))
        });
        app.close();
        report
    })?;
    tell(&report);
    Ok(report)
}

fn tell(report: &Report) {
    for fault in &report.faults {
        say(&format!("FAULT {fault}"));
    }
    let counts: Vec<String> = report.looked_at.iter().map(|(what, n)| format!("{n} {what}")).collect();
    let verdict = match report.faults.len() {
        0 => "all books agree".to_owned(),
        1 => "1 fault".to_owned(),
        n => format!("{n} faults"),
    };
    say(&format!("{verdict}; looked at {}", counts.join(", ")));
}
