//! `mercat serve`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::configuration::Configuration;
use super::logging::announce;
use super::open::{app, folders, has_shop, lock, why};
use super::seed::DOMAINS;
use super::{Failed, tell};
use crate::app::App;
use crate::settings::{Place, Settings};
use crate::web;

/// There while a demo shop is being loaded. Found at a start, it says that the load was cut short.
const UNFINISHED: &str = "demo.unfinished";
/// How often the loading of the demo shop is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Runs the shop until it is told to stop. `file` is the configuration file that was named, if one was.
pub fn serve(configuration: &Configuration, settings: Settings, file: Option<&Path>) -> Result<(), Failed> {
    let begun = Instant::now();
    folders(configuration, &settings)?;
    let _held = lock(configuration, &settings)?;
    let unfinished = settings.data.join(UNFINISHED);
    let whole = settings.domains.iter().filter(|d| DOMAINS.contains(&d.name)).all(|d| d.place == Place::Local);
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
        let mut stop = Stop::listen()?;
        let json = settings.log.json;
        if demo && !load(&settings, file, &unfinished, &mut stop).await? {
            return Ok(());
        }
        let app = app(configuration, settings, App::open)?;
        let server = web::start(&app).map_err(|error| {
            let address = app.settings().listen;
            let reason = match error.kind() {
                std::io::ErrorKind::AddrInUse => format!(
                    "{address} is in use by another program; choose another with --listen ADDRESS:PORT (port 0 picks a free one)"
                ),
                std::io::ErrorKind::PermissionDenied => {
                    format!("this user may not listen on {address}; choose a port above 1023 with --listen ADDRESS:PORT")
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    format!("this machine has no address {}; choose another with --listen ADDRESS:PORT", address.ip())
                }
                _ => format!("cannot listen on {address}: {}", why(&error)),
            };
            configuration.complain("listen", reason)
        })?;
        log::debug!("ready after {} ms", begun.elapsed().as_millis());
        announce(json, &format!("listening on http://{}", server.address()));
        let handle = server.handle();
        let stopper = actix::spawn(async move {
            let name = stop.wait().await;
            log::info!("{name}: no new connections are taken, requests under way are finished");
            let forced = actix::spawn(async move {
                stop.wait().await;
                tell("stopped at once");
                std::process::exit(INTERRUPTED);
            });
            handle.stop(true).await;
            forced.abort();
        });
        let ran = server.run().await;
        stopper.abort();
        app.close();
        log::info!("closed");
        ran.map_err(|error| Failed::operation(format!("the server failed: {}", why(&error))))
    })
}

/// Loads the demo shop, by `mercat seed demo` in a process of its own: what decoding pictures and hashing passwords takes
/// of memory is not kept by a shop that then idles. `false` when it was told to stop meanwhile; the next start goes on.
async fn load(settings: &Settings, file: Option<&Path>, unfinished: &Path, stop: &mut Stop) -> Result<bool, Failed> {
    log::info!("this shop is empty: loading the demo shop (without it: --no-demo)");
    let begun = Instant::now();
    let fail = |error: std::io::Error| Failed::start(format!("the demo shop cannot be loaded: {}", why(&error)));
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
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.wait() => {
                let _ = seed.kill();
                let _ = seed.wait();
                return Ok(false);
            }
        }
    };
    if !ended.success() {
        // It has said what was wrong.
        return Err(Failed { code: ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1), message: None });
    }
    log::info!("the demo shop was loaded in {} ms", begun.elapsed().as_millis());
    // Only now: who never saw the password sees a new one at the next start.
    std::fs::remove_file(unfinished)
        .map_err(|error| Failed::operation(format!("{} cannot be removed: {}", unfinished.display(), why(&error))))?;
    Ok(true)
}

/// What tells the shop to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> Result<Self, Failed> {
        let fail = |error| Failed::start(format!("signals cannot be heard: {}", why(&error)));
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
