//! Disks that are full or read-only, locked and damaged files: writes get 503, reads go on, and the shop recovers
//! automatically.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Output, RunningShop, Sandbox};

/// A small disk mounted as the data folder; `None` without the right to mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(sandbox: &Sandbox) -> Option<Self> {
        let folder = sandbox.path("data");
        std::fs::create_dir_all(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: mounting a disk needs root");
        None
    }

    /// Fills the disk.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for piece in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Creates a guest, which is the smallest write. Returns the token, or the whole error response.
fn guest(shop: &RunningShop) -> Result<String, String> {
    let answer = shop.post("/api/v1/guest", "{}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    match serde_json::from_str::<serde_json::Value>(body) {
        Ok(signed_in) if answer.starts_with("HTTP/1.1 201") => Ok(signed_in["token"].as_str().unwrap().to_owned()),
        _ => Err(answer),
    }
}

fn is_storage_unavailable(answer: &str) -> bool {
    let head = answer.to_lowercase();
    head.starts_with("http/1.1 503") && head.contains("retry-after:") && head.contains("\"storage_unavailable\"")
}

/// Writes until a write is rejected; returns the tokens of the guests created.
fn write_until_rejected(shop: &RunningShop) -> Vec<String> {
    let mut made = Vec::new();
    let begun = Instant::now();
    loop {
        match guest(shop) {
            Ok(token) => made.push(token),
            Err(answer) => {
                assert!(is_storage_unavailable(&answer), "{answer}");
                return made;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no write was rejected");
    }
}

/// Waits until a write succeeds.
fn wait_until_writable(shop: &RunningShop) -> String {
    let begun = Instant::now();
    loop {
        match guest(shop) {
            Ok(token) => return token,
            Err(answer) => assert!(is_storage_unavailable(&answer), "{answer}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "writes do not work again");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn assert_readable(shop: &RunningShop, guests: &[String]) {
    assert!(shop.get("/api/v1/products/").starts_with("HTTP/1.1 200"));
    for token in guests {
        assert!(shop.get_as(token, "/api/v1/me").starts_with("HTTP/1.1 200"), "an acknowledged guest is gone");
    }
    assert!(shop.get("/healthz").starts_with("HTTP/1.1 200"));
}

fn unlimited_sandbox() -> Sandbox {
    Sandbox::new().with("MERCAT_LIMITS__ENABLED", "false")
}

fn check(sandbox: &Sandbox) -> Output {
    sandbox.run(&["check"]).assert_ok()
}

#[test]
fn full_disk_rejects_writes_and_loses_nothing() {
    let sandbox = unlimited_sandbox();
    let Some(disk) = Disk::mount(&sandbox) else { return };
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let mut guests = vec![guest(&shop).unwrap()];
    disk.fill();
    guests.extend(write_until_rejected(&shop));
    assert_readable(&shop, &guests);
    let health = shop.get("/health");
    assert!(health.contains("\"status\":\"degraded\"") && health.contains("\"read_only\":true"), "{health}");
    let ready = shop.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"users\""), "{ready}");
    disk.free();
    guests.push(wait_until_writable(&shop));
    assert_readable(&shop, &guests);
    check(&sandbox);
    // Killed on a full disk and restarted when there is space: still nothing is lost.
    disk.fill();
    guests.extend(write_until_rejected(&shop));
    shop.signal("KILL");
    shop.end();
    disk.free();
    let shop = RunningShop::start(&sandbox, &[]);
    assert_readable(&shop, &guests);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    check(&sandbox);
}

#[test]
fn locked_file_rejects_writes_until_unlocked() {
    let sandbox = unlimited_sandbox();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let mut guests = vec![guest(&shop).unwrap()];
    let file = sandbox.path("data/users.db");
    let mut holder = mercat::store::Conn::establish(file.to_str().unwrap()).unwrap();
    holder.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
    assert!(write_until_rejected(&shop).is_empty());
    assert_readable(&shop, &guests);
    assert!(shop.get("/health").contains("\"read_only\":true"));
    holder.batch_execute("ROLLBACK").unwrap();
    guests.push(wait_until_writable(&shop));
    assert_readable(&shop, &guests);
    let begun = Instant::now();
    while shop.get("/health").contains("\"read_only\":true") {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    check(&sandbox);
}

#[test]
fn read_only_folder_fails_start_with_one_line() {
    let sandbox = unlimited_sandbox();
    let Some(disk) = Disk::mount(&sandbox) else { return };
    sandbox.run(&["migrate"]).assert_ok();
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status().unwrap().success());
    sandbox.run(&["serve", "--listen", "127.0.0.1:0"]).assert_failed(2, &["`data`", "read-only", "--data"]);
    sandbox.run(&["check"]).assert_failed(2, &["`data`"]);
}

#[test]
fn full_disk_fails_start_with_one_line() {
    let sandbox = unlimited_sandbox();
    let Some(disk) = Disk::mount(&sandbox) else { return };
    disk.fill();
    sandbox.run(&["serve", "--listen", "127.0.0.1:0", "--no-demo"]).assert_failed(2, &["`data`"]);
    disk.free();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    assert!(guest(&shop).is_ok());
}

/// JSON body of a response.
fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or_default()).unwrap_or_else(|_| panic!("{answer}"))
}

/// Registers an account: the comments domain stores its name, which writes to its database.
fn register(shop: &RunningShop, email: &str) {
    let account = format!(r#"{{"email":"{email}","password":"correct horse battery","name":"Ada"}}"#);
    let answer = shop.post("/api/v1/user/", &account);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[derive(diesel::QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn number(conn: &mut mercat::store::Conn, sql: &str) -> i64 {
    use mercat::store::query::RunQuery as _;
    diesel::sql_query(sql).get_result::<NumberRow>(conn).unwrap().n
}

/// Root pages of the tables that every read of comments begins with, as stored in the file.
struct RootPages {
    file: PathBuf,
    pages: Vec<(u64, Vec<u8>)>,
}

impl RootPages {
    /// Reads them once the write-ahead log is empty.
    fn find(sandbox: &Sandbox) -> Self {
        let file = sandbox.path("data/comments.db");
        let mut conn = mercat::store::Conn::establish(file.to_str().unwrap()).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let log = sandbox.path("data/comments.db-wal");
        let begun = Instant::now();
        while std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the write-ahead log is never empty");
            std::thread::sleep(Duration::from_millis(50));
            conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        }
        let size = u64::try_from(number(&mut conn, "SELECT page_size AS n FROM pragma_page_size")).unwrap();
        let whole = std::fs::read(&file).unwrap();
        let pages = ["comment", "comment_by_time"].map(|name| {
            let sql = format!("SELECT rootpage AS n FROM sqlite_schema WHERE name = '{name}'");
            let at = (u64::try_from(number(&mut conn, &sql)).unwrap() - 1) * size;
            let from = usize::try_from(at).unwrap();
            (at, whole[from..from + usize::try_from(size).unwrap()].to_vec())
        });
        Self { file, pages: pages.into() }
    }

    fn write(&self, bytes: impl Fn(&[u8]) -> Vec<u8>) {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        for (at, page) in &self.pages {
            file.write_all_at(&bytes(page), *at).unwrap();
        }
        file.sync_all().unwrap();
    }

    fn damage(&self) {
        self.write(|page| vec![0xA5; page.len()]);
    }

    fn repair(&self) {
        self.write(<[u8]>::to_vec);
    }
}

/// Polls `path` until the response starts with `beginning`.
fn poll_until_status(shop: &RunningShop, path: &str, beginning: &str) -> String {
    let begun = Instant::now();
    loop {
        let answer = shop.get(path);
        if answer.starts_with(beginning) {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never {beginning}: {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn damaged_file_fails_its_reads_until_repaired() {
    let sandbox = unlimited_sandbox();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let guests = vec![guest(&shop).unwrap()];
    sandbox.write("x.csv", "name,sku,price,stock\nThing,THING,1.00,5\n");
    sandbox.run(&["import", "products", "x.csv"]).assert_ok();
    let product = body(&shop.get("/api/v1/products/"))["items"][0]["id"].as_str().unwrap().to_owned();
    let reviews = format!("/api/v1/product/{product}/comments/");
    register(&shop, "ada@example.com");
    let signed_in = shop.post("/api/v1/signin", r#"{"email":"ada@example.com","password":"correct horse battery"}"#);
    let token = body(&signed_in)["token"].as_str().unwrap().to_owned();
    let log = shop.post_as(&token, &reviews, r#"{"rating":5,"text":"Good."}"#);
    assert!(log.starts_with("HTTP/1.1 201"), "{log}");
    assert!(poll_until_status(&shop, &reviews, "HTTP/1.1 200").contains("Good."));
    check(&sandbox);

    // A reader trusts its cached pages until the database changes, so it is changed after the damage.
    let roots = RootPages::find(&sandbox);
    roots.damage();
    register(&shop, "eve@example.com");
    let refused = poll_until_status(&shop, &reviews, "HTTP/1.1 503");
    assert!(is_storage_unavailable(&refused), "{refused}");
    assert_readable(&shop, &guests);
    let health = body(&shop.get("/health"));
    assert_eq!(health["domains"]["comments"]["unreadable"], true, "{health}");
    assert_eq!(
        (health["status"].as_str(), health["domains"]["catalog"]["status"].as_str()),
        (Some("degraded"), Some("up"))
    );
    assert!(guest(&shop).is_ok(), "others write");

    // Repaired while the shop runs.
    roots.repair();
    register(&shop, "bob@example.com");
    assert!(poll_until_status(&shop, &reviews, "HTTP/1.1 200").contains("Good."));
    assert_eq!(body(&shop.get("/health"))["domains"]["comments"]["unreadable"], false);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    check(&sandbox);

    // A shop starts on a damaged file too, and reports it where it matters.
    let roots = RootPages::find(&sandbox);
    roots.damage();
    assert_ne!(sandbox.run(&["check"]).code, 0);
    let shop = RunningShop::start(&sandbox, &[]);
    assert!(is_storage_unavailable(&poll_until_status(&shop, &reviews, "HTTP/1.1 503")));
    assert_readable(&shop, &guests);
    shop.signal("KILL");
    shop.end();
    roots.repair();
    let shop = RunningShop::start(&sandbox, &[]);
    assert!(poll_until_status(&shop, &reviews, "HTTP/1.1 200").contains("Good."));
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    check(&sandbox);
}
