//! A shop that is started, used and stopped.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::support::{Place, Serving};

#[test]
fn a_shop_starts_answers_and_drains_on_sigterm_and_ctrl_c() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        let shop = Serving::start(&place, &["--no-demo"]);
        assert!(shop.get("/healthz").starts_with("HTTP/1.1 200"), "{}", shop.get("/healthz"));
        shop.signal(signal);
        let (code, said) = shop.end();
        assert_eq!(code, Some(0), "{said:?}");
        assert!(!said.join("\n").contains("panicked"), "{said:?}");
    }
}

#[test]
fn what_was_accepted_is_answered_before_the_shop_ends() {
    let place = Place::new();
    let shop = Serving::start(&place, &["--no-demo"]);
    // The head is there, the body is not: the request is under way when the shop is told to stop.
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
    std::thread::sleep(Duration::from_millis(300));
    shop.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(&body.as_bytes()[10..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(shop.end().0, Some(0));
}

#[test]
fn a_second_shop_on_the_same_data_or_address_is_refused() {
    let place = Place::new();
    let shop = Serving::start(&place, &["--no-demo"]);
    place.run(&["serve", "--listen", "127.0.0.1:0", "--no-demo"]).failed(2, &["`data`", "another mercat", "--data"]);
    let address = shop.address.clone();
    place
        .run(&["serve", "--listen", &address, "--no-demo", "--data", "other"])
        .failed(2, &["`listen`", &address, "in use", "--listen"]);
    // It goes on, and other commands run beside it.
    place.write("x.csv", "name,sku,price\nA,a,1\n");
    place.run(&["import", "products", "x.csv"]).well();
    assert!(shop.get("/api/v1/products/").contains("\"sku\":\"a\""));
    // However it ends, the next one may start.
    shop.signal("KILL");
    shop.end();
    let again = Serving::start(&place, &["--no-demo"]);
    eprintln!("started on existing data in {:?}", again.ready_after);
    assert!(again.get("/api/v1/products/").contains("\"sku\":\"a\""));
}

#[test]
fn the_ready_line_is_there_whatever_the_log_says() {
    for (level, format) in [("error", "text"), ("off", "json"), ("info", "json"), ("info", "text")] {
        let place = Place::new().with("MERCAT_LOG", level).with("MERCAT_LOG_FORMAT", format);
        let shop = Serving::start(&place, &["--no-demo"]);
        if format == "json" {
            for line in &shop.before {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(object["message"].is_string() && object["level"].is_string(), "{line}");
            }
        }
        assert!(!shop.before.join("").contains('\u{1b}'), "colours where nobody looks: {:?}", shop.before);
        shop.signal("TERM");
        let (code, said) = shop.end();
        assert_eq!(code, Some(0));
        assert!(level == "info" || said.is_empty(), "{said:?}");
    }
}

/// The password that a line gives.
fn password(lines: &[String], who: &str) -> Option<String> {
    let line = lines.iter().find(|line| line.starts_with(who))?;
    line.rsplit_once("the password ").map(|(_, password)| password.to_owned())
}

fn signs_in(shop: &Serving, email: &str, password: &str) -> bool {
    let body = serde_json::json!({ "email": email, "password": password }).to_string();
    shop.post("/api/v1/signin", &body).starts_with("HTTP/1.1 200")
}

#[test]
fn a_first_start_shows_a_demo_shop_and_later_ones_leave_it_alone() {
    let place = Place::new();
    let shop = Serving::start(&place, &[]);
    eprintln!("first start with the demo in {:?}", shop.ready_after);
    let admin = password(&shop.before, "demo administrator: admin@example.com").unwrap();
    let customer = password(&shop.before, "demo customers: ada.lind@example.com").unwrap();
    assert!(admin.len() >= 16 && admin != customer);
    assert!(signs_in(&shop, "admin@example.com", &admin) && signs_in(&shop, "ada.lind@example.com", &customer));
    let list = shop.get("/api/v1/products/?variants=all");
    assert!(list.contains("\"total\":64"), "{list}");
    assert!(list.contains("/images/"), "{list}");
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));

    let shop = Serving::start(&place, &[]);
    eprintln!("started on the demo's data in {:?}", shop.ready_after);
    assert_eq!(password(&shop.before, "demo administrator"), None, "{:?}", shop.before);
    assert!(signs_in(&shop, "admin@example.com", &admin));
    // Asked for by hand it adds nothing twice and takes nobody's password away.
    let ran = place.run(&["seed", "demo"]).well();
    assert!(ran.out.contains("0 new pictures") && ran.out.contains("0 new orders"), "{ran:?}");
    assert!(ran.out.contains("0 new comments") && ran.err.contains("exists already"), "{ran:?}");
    assert!(signs_in(&shop, "admin@example.com", &admin));
}

#[test]
fn a_demo_cut_short_is_finished_by_the_next_start_without_doubles() {
    let place = Place::new();
    for delay in [150, 400, 900, 1_500] {
        let mut child =
            place.command(&["serve", "--listen", "127.0.0.1:0"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let shop = Serving::start(&place, &[]);
    // It may have been finished by a fast machine before the last kill; then all was told at that start.
    if let Some(admin) = password(&shop.before, "demo administrator: admin@example.com") {
        assert!(signs_in(&shop, "admin@example.com", &admin));
    }
    assert!(!place.path("data/demo.unfinished").exists());
    let list = shop.get("/api/v1/products/?variants=all&limit=1");
    assert!(list.contains("\"total\":64"), "{list}");
    let ran = place.run(&["seed", "demo"]).well();
    assert!(ran.out.contains("0 new pictures") && ran.out.contains("0 new orders"), "{ran:?}");
}

#[test]
fn an_administrator_is_made_and_can_sign_in() {
    let place = Place::new().with("MERCAT_ADMIN_PASSWORD", "correct horse battery");
    let ran = place.run(&["admin", "create", "--email", "Ada@Example.com"]).well();
    assert!(ran.out.contains("ada@example.com") && !format!("{ran:?}").contains("horse"), "{ran:?}");
    place.run(&["admin", "create", "--email", "ada@example.com"]).failed(1, &["address"]);
    place.run(&["admin", "create", "--email", "nonsense"]).failed(1, &["email"]);
    let shop = Serving::start(&place, &[]);
    // A shop with an administrator is no empty shop.
    assert_eq!(password(&shop.before, "demo administrator"), None);
    assert!(signs_in(&shop, "ada@example.com", "correct horse battery"));
}

#[test]
fn migrate_makes_and_updates_all_databases_and_manual_waits_for_it() {
    let place = Place::new().with("MERCAT_MIGRATE", "manual");
    place.run(&["serve", "--listen", "127.0.0.1:0"]).failed(2, &["mercat migrate"]);
    let place = Place::new().with("MERCAT_MIGRATE", "manual");
    let ran = place.run(&["migrate"]).well();
    assert!(ran.out.contains("users") && ran.out.contains("notifications"), "{ran:?}");
    let shop = Serving::start(&place, &[]);
    assert!(shop.get("/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_broken_database_stops_the_start_with_one_line() {
    let place = Place::new();
    place.run(&["migrate"]).well();
    place.write("data/catalog.db", "this is no database ".repeat(1_000));
    for name in ["data/catalog.db-wal", "data/catalog.db-shm"] {
        let _ = std::fs::remove_file(place.path(name));
    }
    place.run(&["serve", "--listen", "127.0.0.1:0"]).failed(2, &["`data`", "catalog"]);
}
