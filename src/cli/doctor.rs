//! `mercat doctor`: tries everything outside the program that the settings name, and says in plain words what is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::open::why;
use super::{CliError, say};
use crate::app::{App, broker};
use crate::domains::mailer;
use crate::messaging::grpc::{AddressStatus, Peer, PeerConfig};
use crate::settings::{DomainLocation, EventTransport, Settings};
use crate::types::{Address, Clock};

/// How long a mail server may take to greet and to take our sign-in.
const MAIL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another process may take to be found, connected and to say what it answers.
const PEER_TIMEOUT: Duration = Duration::from_secs(6);
/// How often it is looked whether it has.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What was tried, and what came of it.
struct DoctorReport {
    wrong: usize,
}

impl DoctorReport {
    fn note(&mut self, what: &str, found: Result<String, String>) {
        match found {
            Ok(fine) => say(&format!("ok     {what}: {fine}")),
            Err(wrong) => {
                self.wrong += 1;
                say(&format!("WRONG  {what}: {wrong}"));
            }
        }
    }
}

/// Tries everything. Changes nothing.
pub fn doctor(settings: &Settings) -> Result<(), CliError> {
    let mut findings = DoctorReport { wrong: 0 };
    findings.note("data folder", data(settings));
    actix::System::new().block_on(async {
        for domain in settings.domains.iter().filter(|domain| domain.place == DomainLocation::Local) {
            findings.note(&format!("database of {}", domain.name), database(settings, domain.name));
        }
        let events = match &settings.events {
            EventTransport::Direct => Ok("direct: no broker is needed".to_owned()),
            EventTransport::RabbitMq(uri) => {
                let broker = broker(uri, settings);
                let probed = broker.probe().await;
                probed.map(|()| format!("{} has what they need", broker.address())).map_err(|error| {
                    format!("{}: {error}; start RabbitMQ, or look at the setting events", broker.address())
                })
            }
        };
        findings.note("events", events);
        let mail = match &settings.mailer.smtp {
            _ if settings.domain("mailer").place != DomainLocation::Local => {
                Ok("the mailer is not in this process".to_owned())
            }
            None => Ok("no mail server is set (mailer.smtp): mail is kept and shown, not sent".to_owned()),
            Some(smtp) => mailer::probe_server(smtp, MAIL_TIMEOUT).await.map(|()| "it greets us".to_owned()),
        };
        findings.note("mail server", mail.map_err(|wrong| format!("{wrong}; look at mailer.smtp")));
        for (address, domains) in elsewhere(settings) {
            remote(settings, &address, &domains, &mut findings).await;
        }
    });
    match findings.wrong {
        0 => Ok(()),
        _ => Err(CliError::in_part()),
    }
}

fn data(settings: &Settings) -> Result<String, String> {
    let folder = settings.data.display();
    match std::fs::metadata(&settings.data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{folder} is not there yet; the first start makes it"))
        }
        Err(error) => Err(format!("{folder} cannot be looked at: {}; name another with --data DIR", why(&error))),
        Ok(about) if !about.is_dir() => Err(format!("{folder} is no folder; name another with --data DIR")),
        Ok(_) => match tempfile_in(&settings.data) {
            Ok(()) => Ok(format!("{folder} can be written")),
            Err(error) => {
                Err(format!("nothing can be written in {folder}: {}; give this user the right to", why(&error)))
            }
        },
    }
}

fn tempfile_in(folder: &std::path::Path) -> std::io::Result<()> {
    let file = folder.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&file, "x")?;
    std::fs::remove_file(&file)
}

/// Opens a domain's database beside whoever else has it open, and closes it again.
fn database(settings: &Settings, name: &'static str) -> Result<String, String> {
    let file = settings.database.join(format!("{name}.db"));
    if !file.exists() {
        return Ok(format!("{} is not there yet; the first start makes it", file.display()));
    }
    let mut alone = settings.clone();
    alone.migrate = false;
    for domain in &mut alone.domains {
        if domain.name != name {
            domain.place = DomainLocation::Off;
        }
    }
    let app = App::open_for_command(alone, Clock::system()).map_err(|error| error.to_string())?;
    app.close();
    Ok(format!("{} can be read", file.display()))
}

/// The other processes, and the domains that are to be in each.
fn elsewhere(settings: &Settings) -> BTreeMap<Address, Vec<&'static str>> {
    let mut places: BTreeMap<Address, Vec<&'static str>> = BTreeMap::new();
    for domain in &settings.domains {
        if let DomainLocation::Remote(address) = &domain.place {
            places.entry(address.clone()).or_default().push(domain.name);
        }
    }
    places
}

async fn remote(settings: &Settings, place: &Address, domains: &[&str], findings: &mut DoctorReport) {
    let peer =
        Peer::start(place.clone(), PeerConfig::new(settings.peers.token.as_deref(), settings.catalog.image_bytes_max));
    let end = tokio::time::Instant::now() + PEER_TIMEOUT;
    let seen = loop {
        let seen = peer.statuses();
        let undecided = seen.iter().any(|(_, seen, _)| *seen == AddressStatus::Connecting);
        if (!seen.is_empty() && !undecided) || peer.resolve_error().is_some() || tokio::time::Instant::now() >= end {
            break seen;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    let names = domains.join(", ");
    if let Some(wrong) = peer.resolve_error() {
        findings.note(&format!("{names} at {place}"), Err(format!("{wrong}; look at the name and at your DNS")));
        return;
    }
    if seen.is_empty() {
        findings
            .note(&format!("{names} at {place}"), Err("its name is not resolved in time; look at your DNS".to_owned()));
    }
    for (address, seen, connection) in seen {
        let Some(connection) = connection else {
            let wrong = match seen {
                AddressStatus::Down(wrong) => wrong.to_string(),
                AddressStatus::Connecting | AddressStatus::Up => "it does not take the connection in time".to_owned(),
            };
            let remedy = format!(
                "start its process (mercat serve --domains {} --grpc ADDRESS:PORT), or look at the network between",
                domains.join(",")
            );
            findings.note(&at(domains, place, address), Err(format!("{wrong}; {remedy}")));
            continue;
        };
        let said = connection.peer_info();
        for domain in domains {
            let found = match said.domains.get(*domain) {
                None => Err(format!("a mercat answers there, and {domain} is not in it; look at {domain}.place")),
                Some(about) => match App::names(domain)
                    .into_iter()
                    .filter(|name| !about.names.contains(*name))
                    .collect::<Vec<_>>()
                {
                    missing if missing.is_empty() => Ok(format!("version {}, {}", said.version, state(about.health))),
                    missing => {
                        Err(format!("it does not answer {}; bring its process to this version", missing.join(", ")))
                    }
                },
            };
            findings.note(&at(&[domain], place, address), found);
        }
    }
}

fn at(domains: &[&str], place: &Address, address: SocketAddr) -> String {
    let named = format!("{} at {place}", domains.join(", "));
    if place.to_string() == format!("http://{address}") { named } else { format!("{named} ({address})") }
}

fn state(health: crate::messaging::grpc::ReportedHealth) -> String {
    let state = serde_json::to_value(health.status).unwrap_or_default();
    format!("it says it is {}", state.as_str().unwrap_or("there"))
}
