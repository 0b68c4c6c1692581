//! `mercat serve`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::Configuration;
use super::logging::announce;
use super::open::{app, folders, has_shop, hold, why};
use super::seed::DOMAINS;
use super::{CliError, tell};
use crate::app::{App, unreachable};
use crate::messaging::grpc;
use crate::settings::{DomainLocation, Settings};
use crate::web;

/// There while a demo shop is being loaded. Found at a start, it says that the load was cut short.
const DEMO_LOAD_MARKER: &str = "demo.unfinished";
/// How often the loading of the demo shop is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What a shell says of a program that Ctrl-C ended.
const SIGINT_EXIT_CODE: i32 = 130;

/// Runs the shop until it is told to stop. `file` is the configuration file that was named, if one was.
pub fn serve(configuration: &Configuration, settings: Settings, file: Option<&Path>) -> Result<(), CliError> {
    let begun = Instant::now();
    folders(configuration, &settings)?;
    let _held = hold(configuration, &settings)?;
    reachable(configuration, &settings)?;
    let unfinished = settings.data.join(DEMO_LOAD_MARKER);
    let whole = settings.domains.iter().filter(|d| DOMAINS.contains(&d.name)).all(|d| d.place == DomainLocation::Local);
    let demo = settings.demo && whole && (unfinished.exists() || !has_shop(&settings));
    if !settings.demo {
        // Whoever says no to the demo does not want the rest of one either, at this start or the next.
        let _ = std::fs::remove_file(&unfinished);
    }
    if demo {
        // Before the first database is there, since from then on the folder is no longer empty.
        std::fs::write(&unfinished, "").map_err(|error| {
            configuration.complain("data", format!("{} cannot be written: {}", unfinished.display(), why(&error)))
        })?;
    }
    actix::System::new().block_on(async {
        let mut stop = ShutdownSignal::listen()?;
        let json = settings.log.json;
        if demo && !load(&settings, file, &unfinished, &mut stop).await? {
            return Ok(());
        }
        let mut app = app(configuration, settings, App::open)?;
        let settings = std::sync::Arc::clone(app.settings());
        let mut grpc = app.grpc().map_err(|error| {
            configuration.complain("grpc", cannot_listen(&error, settings.grpc.unwrap_or(settings.listen), "--grpc"))
        })?;
        if let Some(server) = &mut grpc {
            web::grpc::add(&app, server.services()).map_err(CliError::start)?;
        }
        let web = if settings.gateway || settings.listen_told {
            let server = web::start(&app).map_err(|error| {
                configuration.complain("listen", cannot_listen(&error, settings.listen, "--listen"))
            })?;
            Some(server)
        } else {
            None
        };
        log::debug!("ready after {} ms", begun.elapsed().as_millis());
        if let Some(server) = &grpc {
            let named = |place: &DomainLocation| {
                let names = settings.domains.iter().filter(|domain| domain.place == *place).map(|domain| domain.name);
                names.collect::<Vec<_>>().join(", ")
            };
            let (mut here, waiting) = (named(&DomainLocation::Local), named(&DomainLocation::Standby));
            if !waiting.is_empty() {
                here = format!("{here}{}waiting for {waiting}", if here.is_empty() { "" } else { "; " });
            }
            let address = server.address();
            // One line says where to ask, and that is the one for HTTP where there is one.
            let line = match &web {
                Some(_) => format!("gRPC on {address}: {here}"),
                None => format!("listening on http://{address} (gRPC): {here}"),
            };
            announce(json, &line);
        }
        if let Some(server) = &web {
            announce(json, &format!("listening on http://{}", server.address()));
        }
        let handles = (grpc.as_ref().map(grpc::Server::handle), web.as_ref().map(web::Server::handle));
        let stopper = actix::spawn(async move {
            let name = stop.wait().await;
            log::info!("{name}: no new connections are taken, requests under way are finished");
            let forced = actix::spawn(async move {
                stop.wait().await;
                tell("stopped at once");
                std::process::exit(SIGINT_EXIT_CODE);
            });
            if let Some(grpc) = handles.0 {
                grpc.stop();
            }
            if let Some(web) = handles.1 {
                web.stop(true).await;
            }
            forced.abort();
        });
        let failed = |what: &str| CliError::operation(format!("the {what} server failed"));
        let grpc = async {
            match grpc {
                Some(server) => server.run().await.map_err(|error| {
                    log::error!("gRPC: {error}");
                    failed("gRPC")
                }),
                None => Ok(()),
            }
        };
        let web = async {
            match web {
                Some(server) => server.run().await.map_err(|error| {
                    log::error!("HTTP: {}", why(&error));
                    failed("HTTP")
                }),
                None => Ok(()),
            }
        };
        let ran = tokio::try_join!(grpc, web).map(drop);
        stopper.abort();
        app.close();
        log::info!("closed");
        ran
    })
}

/// Refuses a process in which a domain could ask nobody that it has to ask; says of the gateway what it would lack.
fn reachable(configuration: &Configuration, settings: &Settings) -> Result<(), CliError> {
    if let Some((asking, asked)) = unreachable(settings).first() {
        let variable = format!("MERCAT_{}__PLACE", asked.to_uppercase());
        let reason = format!(
            "{asking}, which is to run here, asks {asked}, and nobody said where that is: set it to the address where \
             its process answers gRPC ({variable}=http://HOST:PORT)"
        );
        return Err(configuration.complain(&format!("{asked}.place"), reason));
    }
    if settings.gateway {
        for domain in settings.domains.iter().filter(|domain| domain.place == DomainLocation::RemoteUnspecified) {
            let name = domain.name;
            log::warn!(
                "nobody said where {name} is (MERCAT_{}__PLACE=http://HOST:PORT); what needs it answers 503",
                name.to_uppercase()
            );
        }
    }
    if settings.grpc.is_some() && settings.peers.token.is_none() {
        log::warn!(
            "whoever reaches the gRPC address is believed to be a part of the shop; peers.token (MERCAT_PEERS__TOKEN) \
             would keep other users of this machine out"
        );
    }
    Ok(())
}

fn cannot_listen(error: &io::Error, address: SocketAddr, flag: &str) -> String {
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
        _ => format!("cannot listen on {address}: {}", why(error)),
    }
}

/// Loads the demo shop, by `mercat seed demo` in a process of its own: what decoding pictures and hashing passwords takes
/// of memory is not kept by a shop that then idles. `false` when it was told to stop meanwhile; the next start goes on.
async fn load(
    settings: &Settings,
    file: Option<&Path>,
    unfinished: &Path,
    stop: &mut ShutdownSignal,
) -> Result<bool, CliError> {
    log::info!("this shop is empty: loading the demo shop (without it: --no-demo)");
    let begun = Instant::now();
    let fail = |error: std::io::Error| CliError::start(format!("the demo shop cannot be loaded: {}", why(&error)));
    let mut seed = Command::new(std::env::current_exe().map_err(fail)?);
    seed.args(["seed", "demo", "--reset-accounts", "--data"]).arg(&settings.data);
    // The end of its input tells it that this process is gone, however it went.
    seed.stdin(Stdio::piped()).stdout(Stdio::null());
    if let Some(file) = file {
        seed.arg("--config").arg(file);
    }
    let mut seed = seed.spawn().map_err(fail)?;
    let ended = loop {
        if let Some(status) = seed.try_wait().map_err(fail)? {
            break status;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            _ = stop.wait() => {
                let _ = seed.kill();
                let _ = seed.wait();
                return Ok(false);
            }
        }
    };
    if !ended.success() {
        // It has said what was wrong.
        return Err(CliError {
            code: ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
            message: None,
        });
    }
    log::info!("the demo shop was loaded in {} ms", begun.elapsed().as_millis());
    // Only now: who never saw the password sees a new one at the next start.
    std::fs::remove_file(unfinished)
        .map_err(|error| CliError::operation(format!("{} cannot be removed: {}", unfinished.display(), why(&error))))?;
    Ok(true)
}

/// What tells the shop to stop.
struct ShutdownSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignal {
    fn listen() -> Result<Self, CliError> {
        let fail = |error| CliError::start(format!("signals cannot be heard: {}", why(&error)));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(fail)?,
            interrupt: signal(SignalKind::interrupt()).map_err(fail)?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}
