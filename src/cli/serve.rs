//! `mercat serve`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::Configuration;
use super::logging::announce;
use super::open::{app, create_folders, has_shop, lock_served, reason_of, warn_about_shared_folders};
use super::{CliError, print_error};
use crate::app::{App, missing_dependencies, sample_data_domains};
use crate::backup::{self, schedule};
use crate::messaging::grpc;
use crate::settings::{DomainLocation, Settings};
use crate::web;

/// File that exists while the sample data are being loaded. Found at a start, it means that the load was interrupted.
const DEMO_LOAD_MARKER: &str = "demo.unfinished";
/// Interval at which the process that loads the sample data is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Exit code that shells use for a program that Ctrl-C ended.
const SIGINT_EXIT_CODE: i32 = 130;

/// Runs the shop until it receives a signal to stop. `file` is the configuration file of the flag --config.
pub fn serve(configuration: &Configuration, settings: Settings, file: Option<&Path>) -> Result<(), CliError> {
    let started = Instant::now();
    create_folders(configuration, &settings)?;
    let _locks = lock_served(configuration, &settings)?;
    check_dependencies(configuration, &settings)?;
    check_addresses(configuration, &settings)?;
    if settings.backup.every.is_some() {
        backup::reject_servers(&settings)
            .map_err(|error| configuration.error_for("backup.every", error.to_string()))?;
    }
    let marker = settings.data.join(DEMO_LOAD_MARKER);
    let needs_demo = prepare_demo(configuration, &settings, &marker)?;
    actix::System::new().block_on(async {
        let mut signals = ShutdownSignal::listen()?;
        if needs_demo && !load_demo(&settings, file, &marker, &mut signals).await? {
            return Ok(());
        }
        warn_about_shared_folders(&settings);
        for gap in settings.mail_gaps() {
            log::warn!("serve: {gap}");
        }
        let mut app = app(configuration, settings, App::open)?;
        let (grpc, web) = start_servers(configuration, &mut app)?;
        log::debug!("serve: ready after {} ms", started.elapsed().as_millis());
        announce_addresses(app.settings(), grpc.as_ref(), web.as_ref());
        let handles = (grpc.as_ref().map(grpc::GrpcServer::handle), web.as_ref().map(web::Server::handle));
        let stopper = actix::spawn(stop_on_signal(signals, handles));
        let backups = actix::spawn(schedule::run(std::sync::Arc::clone(app.settings()), app.clock().clone()));
        let result = run_servers(grpc, web).await;
        stopper.abort();
        backups.abort();
        app.close();
        log::info!("serve: closed");
        result
    })
}

/// Returns whether the sample data must be loaded, and marks the load as begun.
fn prepare_demo(configuration: &Configuration, settings: &Settings, marker: &Path) -> Result<bool, CliError> {
    if !settings.demo {
        // An interrupted load is not completed either, at this start or a later one.
        let _ = std::fs::remove_file(marker);
        return Ok(false);
    }
    let seeded_names = sample_data_domains();
    let is_seeded = |name: &str| seeded_names.contains(&name);
    let mut seeded = settings.domains.iter().filter(|domain| is_seeded(domain.name));
    let needs_demo =
        seeded.all(|domain| domain.place == DomainLocation::Local) && (marker.exists() || !has_shop(settings));
    if needs_demo {
        // Before the first database is created, since the shop is not empty from then on.
        std::fs::write(marker, "").map_err(|error| {
            configuration.error_for("data", format!("{} cannot be written: {}", marker.display(), reason_of(&error)))
        })?;
    }
    Ok(needs_demo)
}

/// Binds the gRPC and the HTTP address, as far as this process has them.
fn start_servers(
    configuration: &Configuration,
    app: &mut App,
) -> Result<(Option<grpc::GrpcServer>, Option<web::Server>), CliError> {
    let settings = std::sync::Arc::clone(app.settings());
    let mut grpc = app.grpc().map_err(|error| {
        configuration.error_for("grpc", listen_error(&error, settings.grpc.unwrap_or(settings.listen), "--grpc"))
    })?;
    if let Some(server) = &mut grpc {
        web::grpc::add(app, server.services()).map_err(CliError::start)?;
    }
    let web = if settings.gateway || settings.listen_is_explicit {
        let server = web::start(app)
            .map_err(|error| configuration.error_for("listen", listen_error(&error, settings.listen, "--listen")))?;
        Some(server)
    } else {
        None
    };
    Ok((grpc, web))
}

/// Announces the addresses. One line only contains `listening on`: the HTTP address, or that of gRPC if there is none.
fn announce_addresses(settings: &Settings, grpc: Option<&grpc::GrpcServer>, web: Option<&web::Server>) {
    let json = settings.log.json;
    if let Some(server) = grpc {
        let names_of = |place: &DomainLocation| {
            let domains = settings.domains.iter().filter(|domain| domain.place == *place);
            domains.map(|domain| domain.name).collect::<Vec<_>>().join(", ")
        };
        let (mut domains, standby) = (names_of(&DomainLocation::Local), names_of(&DomainLocation::Standby));
        if !standby.is_empty() {
            domains = format!("{domains}{}standby for {standby}", if domains.is_empty() { "" } else { "; " });
        }
        let address = server.address();
        let line = match web {
            Some(_) => format!("gRPC on {address}: {domains}"),
            None => format!("listening on http://{address} (gRPC): {domains}"),
        };
        announce(json, &line);
    }
    if let Some(server) = web {
        announce(json, &format!("listening on http://{}", server.address()));
    }
}

/// Stops the servers gracefully at the first signal, and exits at the second.
async fn stop_on_signal(mut signals: ShutdownSignal, (grpc, web): (Option<grpc::GrpcHandle>, Option<web::Handle>)) {
    let name = signals.wait().await;
    log::info!("serve: {name} received; finishing requests in flight");
    let forced = actix::spawn(async move {
        signals.wait().await;
        print_error("stopped without waiting for requests in flight");
        std::process::exit(SIGINT_EXIT_CODE);
    });
    if let Some(grpc) = grpc {
        grpc.stop();
    }
    if let Some(web) = web {
        web.stop(true).await;
    }
    forced.abort();
}

/// Runs the servers until both have stopped.
async fn run_servers(grpc: Option<grpc::GrpcServer>, web: Option<web::Server>) -> Result<(), CliError> {
    let failed = |name: &str| CliError::operation(format!("the {name} server failed"));
    let grpc = async {
        match grpc {
            Some(server) => server.run().await.map_err(|error| {
                log::error!("grpc: server failed: {error}");
                failed("gRPC")
            }),
            None => Ok(()),
        }
    };
    let web = async {
        match web {
            Some(server) => server.run().await.map_err(|error| {
                log::error!("http: server failed: {}", reason_of(&error));
                failed("HTTP")
            }),
            None => Ok(()),
        }
    };
    tokio::try_join!(grpc, web).map(drop)
}

/// Rejects a local domain that calls one without an address; warns if the gateway lacks a domain, and if the gRPC
/// address is unauthenticated.
fn check_dependencies(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    if let Some((caller, callee)) = missing_dependencies(settings).first() {
        let variable = format!("MERCAT_{}__PLACE", callee.to_uppercase());
        let reason = format!(
            "{caller} depends on {callee}, but {callee}.place is not set; set it to the gRPC address of its process \
             ({variable}=http://HOST:PORT)"
        );
        return Err(configuration.error_for(&format!("{callee}.place"), reason));
    }
    if settings.gateway {
        for domain in settings.domains.iter().filter(|domain| domain.place == DomainLocation::RemoteUnspecified) {
            let (name, variable) = (domain.name, domain.name.to_uppercase());
            log::warn!(
                "serve: {name}.place is not set (MERCAT_{variable}__PLACE=http://HOST:PORT); its endpoints will return 503"
            );
        }
    }
    if settings.grpc.is_some() && settings.peers.token.is_none() {
        log::warn!(
            "serve: the gRPC address is unauthenticated for users of this machine; set peers.token (MERCAT_PEERS__TOKEN)"
        );
    }
    Ok(())
}

/// Checks that the addresses can be listened on, before the sample data are loaded and their password is printed.
fn check_addresses(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    let http = (settings.gateway || settings.listen_is_explicit).then_some(settings.listen);
    for (key, flag, address) in [("listen", "--listen", http), ("grpc", "--grpc", settings.grpc)] {
        if let Some(address) = address {
            std::net::TcpListener::bind(address)
                .map_err(|error| configuration.error_for(key, listen_error(&error, address, flag)))?;
        }
    }
    Ok(())
}

fn listen_error(error: &io::Error, address: SocketAddr, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program; choose another with {flag} ADDRESS:PORT (port 0 picks a free one)"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("this user may not listen on {address}; choose a port above 1023 with {flag} ADDRESS:PORT")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}; choose another with {flag} ADDRESS:PORT", address.ip())
        }
        _ => format!("cannot listen on {address}: {}", reason_of(error)),
    }
}

/// Loads the sample data with `mercat seed demo` in a process of its own, so that the memory for decoding images and
/// hashing passwords is returned to the system. Returns `false` if a signal interrupted it; the next start continues.
async fn load_demo(
    settings: &Settings,
    file: Option<&Path>,
    marker: &Path,
    signals: &mut ShutdownSignal,
) -> Result<bool, CliError> {
    log::info!("serve: the shop is empty; loading sample data (--no-demo starts without)");
    let started = Instant::now();
    let failed = |error: io::Error| CliError::start(format!("sample data cannot be loaded: {}", reason_of(&error)));
    let mut process = spawn_seed(settings, file).map_err(failed)?;
    let status = loop {
        if let Some(status) = process.try_wait().map_err(failed)? {
            break status;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            _ = signals.wait() => {
                let _ = process.kill();
                let _ = process.wait();
                return Ok(false);
            }
        }
    };
    if !status.success() {
        // The process has printed the reason.
        return Err(CliError {
            code: status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
            message: None,
        });
    }
    log::info!("serve: sample data loaded in {} ms", started.elapsed().as_millis());
    // Only now: until the password was printed, the next start generates a new one.
    std::fs::remove_file(marker).map_err(|error| {
        CliError::operation(format!("{} cannot be removed: {}", marker.display(), reason_of(&error)))
    })?;
    Ok(true)
}

/// Starts `mercat seed demo`, which exits when its standard input is closed.
fn spawn_seed(settings: &Settings, file: Option<&Path>) -> io::Result<Child> {
    let mut seed = Command::new(std::env::current_exe()?);
    seed.args(["seed", "demo", "--reset-accounts", "--data"]).arg(&settings.data);
    seed.stdin(Stdio::piped()).stdout(Stdio::null());
    if let Some(file) = file {
        seed.arg("--config").arg(file);
    }
    seed.spawn()
}

/// Signals that stop the shop.
struct ShutdownSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignal {
    fn listen() -> Result<Self, CliError> {
        let failed = |error| CliError::start(format!("signal handlers cannot be installed: {}", reason_of(&error)));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Waits for a signal and returns its name.
    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}
