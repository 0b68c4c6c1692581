//! `mercat doctor`: tests everything outside the program that the settings name. Changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::open::reason_of;
use super::{CliError, print};
use crate::app::{App, broker, peer_config, registry};
use crate::domains::mailer;
use crate::messaging::grpc::{AddressStatus, Peer};
use crate::settings::{Database, DomainLocation, EventTransport, Settings};
use crate::store;
use crate::types::{Address, Clock, collapse_whitespace};

/// Time for the greeting and the sign-in of a mail server.
const MAIL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to resolve, connect to and query another process.
const PEER_TIMEOUT: Duration = Duration::from_secs(6);
/// Interval at which the connection is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Prints the result of each test and counts failures.
struct DoctorReport {
    failures: usize,
}

impl DoctorReport {
    fn add(&mut self, subject: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => print(&format!("ok     {subject}: {detail}")),
            Err(error) => {
                self.failures += 1;
                print(&format!("WRONG  {subject}: {error}"));
            }
        }
    }
}

/// Runs all tests.
///
/// # Errors
/// If a test failed.
pub fn doctor(settings: &Settings) -> Result<(), CliError> {
    let mut report = DoctorReport { failures: 0 };
    report.add("data folder", test_data_folder(settings));
    actix::System::new().block_on(async {
        for domain in settings.domains.iter().filter(|domain| domain.place == DomainLocation::Local) {
            report.add(&format!("database of {}", domain.name), test_database(settings, domain.name));
        }
        let events = match &settings.events {
            EventTransport::Direct => Ok("direct: no broker needed".to_owned()),
            EventTransport::RabbitMq(uri) => {
                let broker = broker(uri, settings);
                let probed = broker.probe().await;
                probed.map(|()| format!("{} is ready", broker.address())).map_err(|error| {
                    format!("{}: {error}; start RabbitMQ, or check the setting events", broker.address())
                })
            }
        };
        report.add("events", events);
        let mail = match &settings.mailer.smtp {
            _ if settings.domain("mailer").place != DomainLocation::Local => {
                Ok("the mailer does not run in this process".to_owned())
            }
            None => Ok("no mail server is set (mailer.smtp): e-mails are kept and shown, not sent".to_owned()),
            Some(smtp) => mailer::probe_server(smtp, MAIL_TIMEOUT).await.map(|()| "reachable".to_owned()),
        };
        report.add("mail server", mail.map_err(|error| format!("{error}; check mailer.smtp")));
        for gap in settings.mail_gaps() {
            report.add("mail settings", Err(gap.to_owned()));
        }
        for (address, domains) in remote_addresses(settings) {
            test_peer(settings, &address, &domains, &mut report).await;
        }
    });
    match report.failures {
        0 => Ok(()),
        _ => Err(CliError::partial()),
    }
}

fn test_data_folder(settings: &Settings) -> Result<String, String> {
    let folder = settings.data.display();
    match std::fs::metadata(&settings.data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{folder} does not exist; the first start creates it"))
        }
        Err(error) => Err(format!("{folder} cannot be read: {}; choose another with --data DIR", reason_of(&error))),
        Ok(about) if !about.is_dir() => {
            Err(format!("{folder} is a file, not a folder; choose another with --data DIR"))
        }
        Ok(_) => match create_temp_file(&settings.data) {
            Ok(()) => Ok(format!("{folder} is writable")),
            Err(error) => {
                Err(format!("{folder} is not writable: {}; give this user write permission", reason_of(&error)))
            }
        },
    }
}

fn create_temp_file(folder: &std::path::Path) -> std::io::Result<()> {
    let file = folder.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&file, "x")?;
    std::fs::remove_file(&file)
}

/// Opens a domain's database, which other processes may have open, and closes it.
fn test_database(settings: &Settings, name: &'static str) -> Result<String, String> {
    let (place, exists) = match &settings.domain(name).database {
        Database::Folder(folder) => {
            let file = folder.join(format!("{name}.db"));
            (file.display().to_string(), file.exists())
        }
        Database::Postgres(server) => {
            let exists = store::schema_exists(server, name).map_err(|error| {
                let error = collapse_whitespace(&error);
                format!("{}: {error}; start PostgreSQL, or check the setting database", server.masked())
            })?;
            (format!("schema {} in {}", server.schema(name), server.masked()), exists)
        }
    };
    if !exists {
        return Ok(format!("{place} does not exist; the first start creates it"));
    }
    let mut settings = settings.clone();
    settings.migrate = false;
    for domain in &mut settings.domains {
        if domain.name != name {
            domain.place = DomainLocation::Off;
        }
    }
    let app = App::open_for_command(settings, Clock::system()).map_err(|error| error.to_string())?;
    app.close();
    Ok(format!("{place} is readable"))
}

/// Returns the addresses of other processes and the domains that each must run.
fn remote_addresses(settings: &Settings) -> BTreeMap<Address, Vec<&'static str>> {
    let mut places: BTreeMap<Address, Vec<&'static str>> = BTreeMap::new();
    for domain in &settings.domains {
        if let DomainLocation::Remote(address) = &domain.place {
            places.entry(address.clone()).or_default().push(domain.name);
        }
    }
    places
}

async fn test_peer(settings: &Settings, place: &Address, domains: &[&str], report: &mut DoctorReport) {
    let peer = Peer::start(place.clone(), peer_config(settings));
    let deadline = tokio::time::Instant::now() + PEER_TIMEOUT;
    let statuses = loop {
        let statuses = peer.statuses();
        let undecided = statuses.iter().any(|(_, status, _)| *status == AddressStatus::Connecting);
        if (!statuses.is_empty() && !undecided)
            || peer.resolve_error().is_some()
            || tokio::time::Instant::now() >= deadline
        {
            break statuses;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    let names = domains.join(", ");
    if let Some(error) = peer.resolve_error() {
        report.add(&format!("{names} at {place}"), Err(format!("{error}; check the host name and DNS")));
        return;
    }
    if statuses.is_empty() {
        report.add(&format!("{names} at {place}"), Err("the host name was not resolved in time; check DNS".to_owned()));
    }
    for (address, status, connection) in statuses {
        let Some(connection) = connection else {
            let error = match status {
                AddressStatus::Down(error) => error.to_string(),
                AddressStatus::Connecting | AddressStatus::Up => "the connection timed out".to_owned(),
            };
            let remedy = format!(
                "start its process (mercat serve --domains {} --grpc ADDRESS:PORT), or check the network",
                domains.join(",")
            );
            report.add(&target(domains, place, address), Err(format!("{error}; {remedy}")));
            continue;
        };
        let info = connection.peer_info();
        for domain in domains {
            let result = match info.domains.get(*domain) {
                None => Err(format!("a mercat without {domain} runs there; check {domain}.place")),
                Some(remote) => match registry::find(domain)
                    .map(|domain| (domain.messages)())
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|name| !remote.names.contains(*name))
                    .collect::<Vec<_>>()
                {
                    missing if missing.is_empty() => {
                        Ok(format!("version {}, {}", info.version, health_text(remote.health)))
                    }
                    missing => {
                        Err(format!("it does not support {}; upgrade its process to this version", missing.join(", ")))
                    }
                },
            };
            report.add(&target(&[domain], place, address), result);
        }
    }
}

fn target(domains: &[&str], place: &Address, address: SocketAddr) -> String {
    let target = format!("{} at {place}", domains.join(", "));
    if place.to_string() == format!("http://{address}") { target } else { format!("{target} ({address})") }
}

fn health_text(health: crate::messaging::grpc::ReportedHealth) -> String {
    let status = serde_json::to_value(health.status).unwrap_or_default();
    format!("status {}", status.as_str().unwrap_or("unknown"))
}
