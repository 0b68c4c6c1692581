//! Opens a shop in the deployment of this run (`tests/common`). In a split shop every process of a domain is an app in
//! this process.

use std::io::Write as _;

use mercat::app::App;
use mercat::messaging::grpc;
use mercat::settings::{DOMAIN_NAMES, Database, DomainLocation, EventTransport, Settings};
use mercat::types::{Address, Clock};

use crate::common::{is_split, rabbitmq_url, virtual_host};

/// Token shared by the processes of a split shop.
const TOKEN: &str = "a-token-that-tests-share";
/// Reports, past the capturing of test output, that a test does not apply to this deployment.
pub fn print_skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped in this deployment: {test}: {why}");
}

/// An app with one domain behind gRPC.
pub struct DomainProcess {
    pub app: App,
    server: grpc::GrpcHandle,
    ran: actix_web::rt::task::JoinHandle<()>,
}

impl DomainProcess {
    fn open(
        name: &'static str,
        of: &Settings,
        addresses: &[(&'static str, Address)],
        clock: &Clock,
    ) -> (Self, Address) {
        let mut settings = process_settings(name, of, addresses);
        settings.gateway = false;
        settings.grpc = Some(([127, 0, 0, 1], 0).into());
        let mut app = App::open(settings, clock.clone()).unwrap();
        let grpc = app.grpc().unwrap().unwrap();
        let (at, server) = (grpc.address(), grpc.handle());
        let ran = actix_web::rt::spawn(async move { grpc.run().await.unwrap() });
        (Self { app, server, ran }, Address { is_tls: false, host: at.ip().to_string(), port: at.port() })
    }

    /// Stops it gracefully.
    pub async fn close(self) {
        self.server.stop();
        self.ran.await.unwrap();
        self.app.close();
    }

    /// Ends it without any notice.
    pub fn kill(self) {
        self.server.stop();
        self.ran.abort();
        self.app.close();
    }
}

/// Settings of one process of a split shop.
fn process_settings(name: &str, of: &Settings, addresses: &[(&'static str, Address)]) -> Settings {
    let mut settings = of.clone();
    settings.domains_selected = true;
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
            let known = addresses.iter().find(|(domain_name, _)| *domain_name == domain.name);
            domain.place =
                known.map_or(DomainLocation::RemoteUnspecified, |(_, address)| DomainLocation::Remote(address.clone()));
        }
    }
    settings
}

/// Opens a shop in the deployment of this run: the app behind the gateway, and the other processes of a split shop.
pub async fn open(mut settings: Settings, clock: &Clock) -> (App, Vec<DomainProcess>) {
    if !is_split() {
        return (App::open(settings, clock.clone()).unwrap(), Vec::new());
    }
    let is_local = |name: &str| settings.domain(name).place == DomainLocation::Local;
    // A later domain knows the addresses of the earlier ones and not the reverse, as in a shop whose settings name each
    // address once: events to an earlier domain are pushed, events to a later one are pulled by it.
    let names: Vec<&'static str> = DOMAIN_NAMES.into_iter().filter(|name| is_local(name)).collect();
    if let Some(broker) = rabbitmq_url().filter(|_| !names.is_empty()) {
        settings.events = EventTransport::RabbitMq(virtual_host(&broker, &settings.data).await.parse().unwrap());
    }
    let (mut processes, mut addresses) = (Vec::new(), Vec::new());
    for name in names {
        let (part, address) = DomainProcess::open(name, &settings, &addresses, clock);
        processes.push(part);
        addresses.push((name, address));
    }
    let gateway = App::open(process_settings("gateway", &settings, &addresses), clock.clone()).unwrap();
    (gateway, processes)
}
