//! Runs the binary in a folder and an environment of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Limit for any run: a debug build on a busy machine.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(180);

/// Working directory and environment of the binary, without any of the machine's settings.
pub struct Sandbox {
    pub folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    pub fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.push((variable, value.to_owned()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mercat"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Output::of(&self.command(arguments).output().unwrap())
    }
}

/// Exit code and output of a run.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Output {
    fn of(output: &process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts a failure with this code and one error line that contains all `words`, and no sign of a crash.
    pub fn assert_failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert!(words.iter().all(|word| errors[0].contains(word)), "{words:?} {self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{self:?}");
    }

    /// Asserts success.
    pub fn assert_ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// A running shop.
pub struct RunningShop {
    child: Child,
    pub address: String,
    pub startup_log: Vec<String>,
    pub ready_after: Duration,
    lines: Receiver<String>,
}

impl RunningShop {
    /// Starts a shop on a free port and waits until it listens.
    pub fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        Self::wait_for(sandbox.command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat()))
    }

    /// Starts an empty shop from a shell with these soft and hard limits of open files.
    pub fn start_with_open_files(sandbox: &Sandbox, soft: u32, hard: u32) -> Self {
        let serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0", "--no-demo"]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""));
        shell.arg(serve.get_program()).args(serve.get_args()).env_clear().stdin(Stdio::null());
        shell.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = serve.get_current_dir() {
            shell.current_dir(folder);
        }
        Self::wait_for(shell)
    }

    fn wait_for(mut command: Command) -> Self {
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let err = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut startup_log = Vec::new();
        loop {
            let line = lines.recv_timeout(WAIT_TIMEOUT.saturating_sub(begun.elapsed())).unwrap_or_else(|_| {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the shop never listened: {startup_log:?}")
            });
            let address = line.split("listening on http://").nth(1).map(|rest| {
                rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect::<String>()
            });
            startup_log.push(line);
            if let Some(address) = address {
                return Self { child, address, startup_log, ready_after: begun.elapsed(), lines };
            }
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gets a path; returns status line, headers and body.
    pub fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"))
    }

    pub fn post(&self, path: &str, json: &str) -> String {
        self.post_with("", path, json)
    }

    /// Posts JSON with a bearer token.
    pub fn post_as(&self, token: &str, path: &str, json: &str) -> String {
        self.post_with(&format!("Authorization: Bearer {token}\r\n"), path, json)
    }

    /// Posts JSON with further header lines.
    pub fn post_with(&self, head: &str, path: &str, json: &str) -> String {
        let length = json.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{head}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{json}"
        ))
    }

    /// Gets a path with a bearer token.
    pub fn get_as(&self, token: &str, path: &str) -> String {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
    }

    fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end; returns the exit code and the log lines since it listened.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = self.lines.iter().collect();
                return (status.code(), log);
            }
            assert!(begun.elapsed() < WAIT_TIMEOUT, "the shop did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RunningShop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A product file of other authors beside the project; `None`, with a message, where there is none.
pub fn shared(name: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if file.exists() {
        return Some(file);
    }
    eprintln!("skipped: {} is missing", file.display());
    None
}
