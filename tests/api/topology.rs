//! Opens a shop of this run's shape (`tests/run`): where each domain has a process of its own, that is an app here.

use std::io::Write as _;

use mercat::app::App;
use mercat::messaging::grpc;
use mercat::settings::{Database, DomainLocation, EventTransport, Settings};
use mercat::types::{Address, Clock};

use crate::run::{broker, is_split, virtual_host};

/// What the processes of a split shop know each other by.
const TOKEN: &str = "a-token-that-tests-share";
/// In which order the parts are opened. Who is opened later knows where the earlier ones are and not the other way
/// round, as in a shop whose settings name each place once: news to an earlier one is told, news to a later one is
/// fetched by it.
const ORDER: [&str; 8] = ["users", "catalog", "payments", "cart", "mailer", "stats", "comments", "notifications"];

/// Says, past the capturing of a test's output, that a test makes no sense on this shape.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped on this shape: {test}: {why}");
}

/// A domain in a process of its own, as far as one can be had here.
pub struct Part {
    pub app: App,
    door: grpc::Handle,
    ran: actix_web::rt::task::JoinHandle<()>,
}

impl Part {
    fn open(name: &'static str, of: &Settings, places: &[(&'static str, Address)], clock: &Clock) -> (Self, Address) {
        let mut settings = apart(name, of, places);
        settings.gateway = false;
        settings.grpc = Some(([127, 0, 0, 1], 0).into());
        let mut app = App::open(settings, clock.clone()).unwrap();
        let server = app.grpc().unwrap().unwrap();
        let (at, door) = (server.address(), server.handle());
        let ran = actix_web::rt::spawn(async move { server.run().await.unwrap() });
        (Self { app, door, ran }, Address { host: at.ip().to_string(), port: at.port() })
    }

    /// Ends it as an order to stop does.
    pub async fn close(self) {
        self.door.stop();
        self.ran.await.unwrap();
        self.app.close();
    }

    /// Ends it without a word to anybody.
    pub fn leave(self) {
        self.door.stop();
        self.ran.abort();
        self.app.close();
    }
}

/// The settings of one process of a split shop.
fn apart(name: &str, of: &Settings, places: &[(&'static str, Address)]) -> Settings {
    let mut settings = of.clone();
    settings.partial = true;
    settings.peers.token = Some(TOKEN.to_owned());
    settings.secret.get_or_insert_with(|| "the secret of all processes of one shop".to_owned());
    settings.data = of.data.join(name);
    std::fs::create_dir_all(&settings.data).unwrap();
    settings.database.clone_from(&settings.data);
    for domain in &mut settings.domains {
        if let Database::Folder(folder) = &mut domain.database {
            folder.clone_from(&settings.data);
        }
        if domain.place == DomainLocation::Local && domain.name != name {
            let known = places.iter().find(|(there, _)| *there == domain.name);
            domain.place =
                known.map_or(DomainLocation::RemoteUnspecified, |(_, address)| DomainLocation::Remote(address.clone()));
        }
    }
    settings
}

/// Opens a shop of this run's shape: the app that the gateway is to stand on, and the other parts of a split shop.
pub async fn open(mut settings: Settings, clock: &Clock) -> (App, Vec<Part>) {
    if !is_split() {
        return (App::open(settings, clock.clone()).unwrap(), Vec::new());
    }
    let here = |name: &str| settings.domain(name).place == DomainLocation::Local;
    let names: Vec<&'static str> = ORDER.into_iter().filter(|name| here(name)).collect();
    if let Some(broker) = broker().filter(|_| !names.is_empty()) {
        settings.events = EventTransport::RabbitMq(virtual_host(&broker, &settings.data).await.parse().unwrap());
    }
    let (mut parts, mut places) = (Vec::new(), Vec::new());
    for name in names {
        let (part, address) = Part::open(name, &settings, &places, clock);
        parts.push(part);
        places.push((name, address));
    }
    let gateway = App::open(apart("gateway", &settings, &places), clock.clone()).unwrap();
    (gateway, parts)
}
