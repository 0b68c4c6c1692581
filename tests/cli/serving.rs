//! `mercat serve`: start, readiness, demo data, shutdown; `mercat admin` and `mercat migrate`.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::support::{RunningShop, Sandbox, WAIT_TIMEOUT};

#[test]
fn serve_starts_and_drains_on_signals() {
    for signal in ["TERM", "INT"] {
        let sandbox = Sandbox::new();
        let shop = RunningShop::start(&sandbox, &["--no-demo"]);
        assert!(shop.get("/healthz").starts_with("HTTP/1.1 200"), "{}", shop.get("/healthz"));
        shop.signal(signal);
        let (code, log) = shop.end();
        assert_eq!(code, Some(0), "{log:?}");
        assert!(!log.join("\n").contains("panicked"), "{log:?}");
    }
}

#[test]
fn accepted_request_is_answered_before_exit() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    // The head has been sent, the body not: the request is in flight when the shop gets the signal to stop.
    let body = r#"{"email":"ada@example.com","password":"correct horse","name":"Ada"}"#;
    let mut stream = std::net::TcpStream::connect(&shop.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "POST /api/v1/user/ HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        body.len(),
        &body[..10]
    )
    .unwrap();
    let begun = Instant::now();
    while !shop.get("/metrics").contains("\nmercat_http_requests_in_flight 2\n") {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "the request never arrived");
        std::thread::sleep(Duration::from_millis(20));
    }
    shop.signal("TERM");
    // Long enough for the stop to begin; a slow machine tests less, but does not fail.
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(&body.as_bytes()[10..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(shop.end().0, Some(0));
}

#[test]
fn second_shop_on_same_data_or_address_fails() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    sandbox
        .run(&["serve", "--listen", "127.0.0.1:0", "--no-demo"])
        .assert_failed(2, &["`data`", "another mercat", "--data"]);
    let address = shop.address.clone();
    sandbox
        .run(&["serve", "--listen", &address, "--no-demo", "--data", "other"])
        .assert_failed(2, &["`listen`", &address, "in use", "--listen"]);
    // Before the sample data are loaded, whose password would be lost.
    sandbox.run(&["serve", "--listen", &address, "--data", "third"]).assert_failed(2, &["`listen`", "in use"]);
    assert!(!sandbox.path("third/catalog.db").exists());
    // It goes on, and other commands run alongside.
    sandbox.write("x.csv", "name,sku,price\nA,a,1\n");
    sandbox.run(&["import", "products", "x.csv"]).assert_ok();
    assert!(shop.get("/api/v1/products/").contains("\"sku\":\"a\""));
    // After any end the next one may start.
    shop.signal("KILL");
    shop.end();
    let again = RunningShop::start(&sandbox, &["--no-demo"]);
    eprintln!("started on existing data in {:?}", again.ready_after);
    assert!(again.get("/api/v1/products/").contains("\"sku\":\"a\""));
}

#[test]
fn ready_line_is_printed_at_any_log_level() {
    for (level, format) in [("error", "text"), ("off", "json"), ("info", "json"), ("info", "text")] {
        let sandbox = Sandbox::new().with("MERCAT_LOG", level).with("MERCAT_LOG_FORMAT", format);
        let shop = RunningShop::start(&sandbox, &["--no-demo"]);
        if format == "json" {
            for line in &shop.startup_log {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(object["message"].is_string() && object["level"].is_string(), "{line}");
            }
        }
        assert!(!shop.startup_log.join("").contains('\u{1b}'), "colours without a terminal: {:?}", shop.startup_log);
        shop.signal("TERM");
        let (code, log) = shop.end();
        assert_eq!(code, Some(0));
        assert!(level == "info" || log.is_empty(), "{log:?}");
    }
}

/// Password printed on the line that starts with `account`.
fn password(lines: &[String], account: &str) -> Option<String> {
    let line = lines.iter().find(|line| line.starts_with(account))?;
    line.rsplit_once("the password ").map(|(_, password)| password.to_owned())
}

fn signs_in(shop: &RunningShop, email: &str, password: &str) -> bool {
    let body = serde_json::json!({ "email": email, "password": password }).to_string();
    shop.post("/api/v1/signin", &body).starts_with("HTTP/1.1 200")
}

#[test]
fn first_start_loads_demo_once() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &[]);
    eprintln!("first start with the demo in {:?}", shop.ready_after);
    let admin = password(&shop.startup_log, "demo administrator: admin@example.com").unwrap();
    let customer = password(&shop.startup_log, "demo customers: ada.lind@example.com").unwrap();
    assert!(admin.len() >= 16 && admin != customer);
    assert!(signs_in(&shop, "admin@example.com", &admin) && signs_in(&shop, "ada.lind@example.com", &customer));
    let list = shop.get("/api/v1/products/?variants=all");
    assert!(list.contains("\"total\":64"), "{list}");
    assert!(list.contains("/images/"), "{list}");
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));

    let shop = RunningShop::start(&sandbox, &[]);
    eprintln!("started on the demo's data in {:?}", shop.ready_after);
    assert_eq!(password(&shop.startup_log, "demo administrator"), None, "{:?}", shop.startup_log);
    assert!(signs_in(&shop, "admin@example.com", &admin));
    // Run manually it adds nothing twice and changes no password.
    let output = sandbox.run(&["seed", "demo"]).assert_ok();
    assert!(output.out.contains("0 new pictures") && output.out.contains("0 new orders"), "{output:?}");
    assert!(output.out.contains("0 new comments") && output.err.contains("exists already"), "{output:?}");
    assert!(signs_in(&shop, "admin@example.com", &admin));
}

#[test]
fn interrupted_demo_is_completed_without_duplicates() {
    let sandbox = Sandbox::new();
    for delay in [150, 400, 900, 1_500] {
        let mut child =
            sandbox.command(&["serve", "--listen", "127.0.0.1:0"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let shop = RunningShop::start(&sandbox, &[]);
    // On a fast machine it may have been finished before the last kill; then that start printed everything.
    if let Some(admin) = password(&shop.startup_log, "demo administrator: admin@example.com") {
        assert!(signs_in(&shop, "admin@example.com", &admin));
    }
    assert!(!sandbox.path("data/demo.unfinished").exists());
    let list = shop.get("/api/v1/products/?variants=all&limit=1");
    assert!(list.contains("\"total\":64"), "{list}");
    let output = sandbox.run(&["seed", "demo"]).assert_ok();
    assert!(output.out.contains("0 new pictures") && output.out.contains("0 new orders"), "{output:?}");
}

#[test]
fn admin_create_makes_account_that_can_sign_in() {
    let sandbox = Sandbox::new().with("MERCAT_ADMIN_PASSWORD", "correct horse battery");
    let output = sandbox.run(&["admin", "create", "--email", "Ada@Example.com"]).assert_ok();
    assert!(output.out.contains("ada@example.com") && !format!("{output:?}").contains("horse"), "{output:?}");
    sandbox.run(&["admin", "create", "--email", "ada@example.com"]).assert_failed(1, &["address"]);
    sandbox.run(&["admin", "create", "--email", "nonsense"]).assert_failed(1, &["email"]);
    let shop = RunningShop::start(&sandbox, &[]);
    // A shop with an administrator is not empty.
    assert_eq!(password(&shop.startup_log, "demo administrator"), None);
    assert!(signs_in(&shop, "ada@example.com", "correct horse battery"));
}

#[test]
fn migrate_creates_databases_and_manual_requires_it() {
    let sandbox = Sandbox::new().with("MERCAT_MIGRATE", "manual");
    sandbox.run(&["serve", "--listen", "127.0.0.1:0"]).assert_failed(2, &["mercat migrate"]);
    let sandbox = Sandbox::new().with("MERCAT_MIGRATE", "manual");
    let output = sandbox.run(&["migrate"]).assert_ok();
    assert!(output.out.contains("users") && output.out.contains("notifications"), "{output:?}");
    let shop = RunningShop::start(&sandbox, &[]);
    assert!(shop.get("/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn broken_database_fails_start_with_one_line() {
    let sandbox = Sandbox::new();
    sandbox.run(&["migrate"]).assert_ok();
    sandbox.write("data/catalog.db", "this is not a database ".repeat(1_000));
    for name in ["data/catalog.db-wal", "data/catalog.db-shm"] {
        let _ = std::fs::remove_file(sandbox.path(name));
    }
    sandbox.run(&["serve", "--listen", "127.0.0.1:0"]).assert_failed(2, &["`data`", "catalog"]);
}

/// Every file and folder below `root`, itself included, that another user of the machine could open.
#[cfg(unix)]
fn shared_files(root: &std::path::Path) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut shared = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            shared.push(format!("{} has mode {mode:o}", path.display()));
        }
        if metadata.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    shared
}

#[cfg(unix)]
#[test]
fn s03_data_and_backups_are_private() {
    let sandbox = Sandbox::new();
    let data = sandbox.path("data");
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    assert_eq!(shared_files(&data), [] as [String; 0], "while it runs");
    sandbox.run(&["backup", sandbox.path("copy").to_str().unwrap()]).assert_ok();
    assert_eq!(shared_files(&sandbox.path("copy")), [] as [String; 0]);
    shop.signal("TERM");
    shop.end();
    assert_eq!(shared_files(&data), [] as [String; 0], "after its end");

    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&data, mode).unwrap();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let warning =
        shop.startup_log.iter().any(|line| line.contains("other users of this machine can open it (mode 755)"));
    assert!(warning, "{:?}", shop.startup_log);
}

#[cfg(target_os = "linux")]
#[test]
fn open_file_limit_is_raised_to_the_hard_limit() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start_with_open_files(&sandbox, 300, 4_000);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", shop.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["4000", "4000"]);
}

#[test]
fn lame_duck_takes_connections_while_it_is_not_ready() {
    let sandbox = Sandbox::new().with("MERCAT_HTTP__LAME_DUCK", "2");
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    assert!(shop.get("/readyz").starts_with("HTTP/1.1 200"));
    shop.signal("TERM");
    // A connection is still taken after readiness has gone.
    while shop.get("/readyz").starts_with("HTTP/1.1 200") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(shop.get("/readyz").starts_with("HTTP/1.1 503"));
    assert!(shop.get("/api/v1/products/").starts_with("HTTP/1.1 200"));
    assert_eq!(shop.end().0, Some(0));
}
