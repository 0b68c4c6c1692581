//! The program, run as people run it: in a folder of its own, with an environment of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The longest any run may take: a debug build on a busy machine, and no more.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A folder in which the program runs, with nothing of the machine's own settings around it.
pub struct Place {
    pub folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Place {
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

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(arguments).output().unwrap())
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It failed with this code and one line that holds all of these words, and nothing that looks like a crash.
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert!(words.iter().all(|word| errors[0].contains(word)), "{words:?} {self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{self:?}");
    }

    /// It went well.
    pub fn well(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// A shop that runs.
pub struct Serving {
    child: Child,
    pub address: String,
    pub before: Vec<String>,
    pub ready_after: Duration,
    lines: Receiver<String>,
}

impl Serving {
    /// Starts a shop on a free port and waits until it says that it listens.
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        let begun = Instant::now();
        let all = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut child = place.command(&all).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let err = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut before = Vec::new();
        loop {
            let line = lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())).unwrap_or_else(|_| {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it never listened: {before:?}")
            });
            let address = line.split("listening on http://").nth(1).map(|rest| {
                rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect::<String>()
            });
            before.push(line);
            if let Some(address) = address {
                return Self { child, address, before, ready_after: begun.elapsed(), lines };
            }
        }
    }

    /// Asks for a path and gives back status line, head and body.
    pub fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"))
    }

    pub fn post(&self, path: &str, json: &str) -> String {
        self.post_with("", path, json)
    }

    /// Sends something as whoever holds the token.
    pub fn post_as(&self, token: &str, path: &str, json: &str) -> String {
        self.post_with(&format!("Authorization: Bearer {token}\r\n"), path, json)
    }

    fn post_with(&self, head: &str, path: &str, json: &str) -> String {
        let length = json.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{head}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{json}"
        ))
    }

    /// Asks as whoever holds the token.
    pub fn get_as(&self, token: &str, path: &str) -> String {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
    }

    fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end and gives back its code and what it said since it listened.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let said = self.lines.iter().collect();
                return (status.code(), said);
            }
            assert!(begun.elapsed() < PATIENCE, "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file written by others that lies beside the project, or a visible word that it does not.
pub fn shared(name: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if file.exists() {
        return Some(file);
    }
    eprintln!("SKIPPED: {} is not here", file.display());
    None
}
