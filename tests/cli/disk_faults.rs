//! Disks that are full, read-only, or held by somebody else: refused with 503, read on, and mended by itself.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Place, Ran, Serving};

/// A small disk of its own under the place's data folder; none where this user may not mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Place) -> Option<Self> {
        let folder = place.path("data");
        std::fs::create_dir_all(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&folder).output();
        if mounted.is_ok_and(|ran| ran.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("SKIPPED: this user may not mount a disk");
        None
    }

    /// Takes all room that is left.
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

/// Asks for a new guest: the smallest write. Gives the token, or the whole refusal.
fn guest(shop: &Serving) -> Result<String, String> {
    let answer = shop.post("/api/v1/guest", "{}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    match serde_json::from_str::<serde_json::Value>(body) {
        Ok(signed_in) if answer.starts_with("HTTP/1.1 201") => Ok(signed_in["token"].as_str().unwrap().to_owned()),
        _ => Err(answer),
    }
}

fn is_refusal(answer: &str) -> bool {
    let head = answer.to_lowercase();
    head.starts_with("http/1.1 503") && head.contains("retry-after:") && head.contains("\"storage_unavailable\"")
}

/// Writes until it is refused; gives the guests that were made.
fn until_refused(shop: &Serving) -> Vec<String> {
    let mut made = Vec::new();
    let begun = Instant::now();
    loop {
        match guest(shop) {
            Ok(token) => made.push(token),
            Err(answer) => {
                assert!(is_refusal(&answer), "{answer}");
                return made;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never refused");
    }
}

/// Waits until writing works again, without anybody's help.
fn until_mended(shop: &Serving) -> String {
    let begun = Instant::now();
    loop {
        match guest(shop) {
            Ok(token) => return token,
            Err(answer) => assert!(is_refusal(&answer), "{answer}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not go on by itself");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn reads_go_on(shop: &Serving, guests: &[String]) {
    assert!(shop.get("/api/v1/products/").starts_with("HTTP/1.1 200"));
    for token in guests {
        assert!(shop.get_as(token, "/api/v1/me").starts_with("HTTP/1.1 200"), "an answered guest is gone");
    }
    assert!(shop.get("/healthz").starts_with("HTTP/1.1 200"));
}

fn free_place() -> Place {
    Place::new().with("MERCAT_LIMITS__ENABLED", "false")
}

fn check(place: &Place) -> Ran {
    place.run(&["check"]).well()
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_answered_is_lost() {
    let place = free_place();
    let Some(disk) = Disk::mount(&place) else { return };
    let shop = Serving::start(&place, &["--no-demo"]);
    let mut guests = vec![guest(&shop).unwrap()];
    disk.fill();
    guests.extend(until_refused(&shop));
    reads_go_on(&shop, &guests);
    let health = shop.get("/health");
    assert!(health.contains("\"status\":\"degraded\"") && health.contains("\"read_only\":true"), "{health}");
    let ready = shop.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"users\""), "{ready}");
    disk.free();
    guests.push(until_mended(&shop));
    reads_go_on(&shop, &guests);
    check(&place);
    // Killed on a full disk and started again when there is room: still nothing is lost.
    disk.fill();
    guests.extend(until_refused(&shop));
    shop.signal("KILL");
    shop.end();
    disk.free();
    let shop = Serving::start(&place, &[]);
    reads_go_on(&shop, &guests);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    check(&place);
}

#[test]
fn a_file_held_by_another_program_refuses_writes_until_it_lets_go() {
    let place = free_place();
    let shop = Serving::start(&place, &["--no-demo"]);
    let mut guests = vec![guest(&shop).unwrap()];
    let file = place.path("data/users.db");
    let mut holder = mercat::store::Conn::establish(file.to_str().unwrap()).unwrap();
    holder.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
    assert!(until_refused(&shop).is_empty());
    reads_go_on(&shop, &guests);
    assert!(shop.get("/health").contains("\"read_only\":true"));
    holder.batch_execute("ROLLBACK").unwrap();
    guests.push(until_mended(&shop));
    reads_go_on(&shop, &guests);
    let begun = Instant::now();
    while shop.get("/health").contains("\"read_only\":true") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
    check(&place);
}

#[test]
fn a_read_only_folder_stops_the_start_with_one_line() {
    let place = free_place();
    let Some(disk) = Disk::mount(&place) else { return };
    place.run(&["migrate"]).well();
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status().unwrap().success());
    place.run(&["serve", "--listen", "127.0.0.1:0"]).failed(2, &["`data`", "read-only", "--data"]);
    place.run(&["check"]).failed(2, &["`data`"]);
}

#[test]
fn a_full_disk_stops_the_start_with_one_line() {
    let place = free_place();
    let Some(disk) = Disk::mount(&place) else { return };
    disk.fill();
    place.run(&["serve", "--listen", "127.0.0.1:0", "--no-demo"]).failed(2, &["`data`"]);
    disk.free();
    let shop = Serving::start(&place, &["--no-demo"]);
    assert!(guest(&shop).is_ok());
}

/// What stands in an answer's JSON body.
fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or_default()).unwrap_or_else(|_| panic!("{answer}"))
}

/// Registers somebody: the reviews learn the name, which is a change of their database.
fn register(shop: &Serving, email: &str) {
    let account = format!(r#"{{"email":"{email}","password":"correct horse battery","name":"Ada"}}"#);
    let answer = shop.post("/api/v1/user/", &account);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn number(conn: &mut mercat::store::Conn, sql: &str) -> i64 {
    use mercat::store::query::RunQuery as _;
    diesel::sql_query(sql).get_result::<Row>(conn).unwrap().n
}

/// The pages that every look at reviews begins with, as they lie in the file itself.
struct Roots {
    file: PathBuf,
    pages: Vec<(u64, Vec<u8>)>,
}

impl Roots {
    /// Finds them once nothing of them is in the log any more.
    fn find(place: &Place) -> Self {
        let file = place.path("data/comments.db");
        let mut conn = mercat::store::Conn::establish(file.to_str().unwrap()).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let log = place.path("data/comments.db-wal");
        let begun = Instant::now();
        while std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the log is never empty");
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

    fn mend(&self) {
        self.write(<[u8]>::to_vec);
    }
}

/// Asks until the answer begins so.
fn until_answered(shop: &Serving, path: &str, beginning: &str) -> String {
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
fn a_damaged_file_costs_what_needs_it_and_is_read_again_when_it_is_mended() {
    let place = free_place();
    let shop = Serving::start(&place, &["--no-demo"]);
    let guests = vec![guest(&shop).unwrap()];
    place.write("x.csv", "name,sku,price,stock\nThing,THING,1.00,5\n");
    place.run(&["import", "products", "x.csv"]).well();
    let product = body(&shop.get("/api/v1/products/"))["items"][0]["id"].as_str().unwrap().to_owned();
    let reviews = format!("/api/v1/product/{product}/comments/");
    register(&shop, "ada@example.com");
    let signed_in = shop.post("/api/v1/signin", r#"{"email":"ada@example.com","password":"correct horse battery"}"#);
    let token = body(&signed_in)["token"].as_str().unwrap().to_owned();
    let said = shop.post_as(&token, &reviews, r#"{"rating":5,"text":"Good."}"#);
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    assert!(until_answered(&shop, &reviews, "HTTP/1.1 200").contains("Good."));
    check(&place);

    // A reader that has pages in memory believes them until the database changes, so after the damage it is changed
    // elsewhere: from then on nobody has an old page.
    let roots = Roots::find(&place);
    roots.damage();
    register(&shop, "eve@example.com");
    let refused = until_answered(&shop, &reviews, "HTTP/1.1 503");
    assert!(is_refusal(&refused), "{refused}");
    reads_go_on(&shop, &guests);
    let health = body(&shop.get("/health"));
    assert_eq!(health["domains"]["comments"]["unreadable"], true, "{health}");
    assert_eq!(
        (health["status"].as_str(), health["domains"]["catalog"]["status"].as_str()),
        (Some("degraded"), Some("up"))
    );
    assert!(guest(&shop).is_ok(), "others write");

    // Mended beside the running shop.
    roots.mend();
    register(&shop, "bob@example.com");
    assert!(until_answered(&shop, &reviews, "HTTP/1.1 200").contains("Good."));
    assert_eq!(body(&shop.get("/health"))["domains"]["comments"]["unreadable"], false);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    check(&place);

    // A shop starts on a damaged file too, and says so where it matters.
    let roots = Roots::find(&place);
    roots.damage();
    assert_ne!(place.run(&["check"]).code, 0);
    let shop = Serving::start(&place, &[]);
    assert!(is_refusal(&until_answered(&shop, &reviews, "HTTP/1.1 503")));
    reads_go_on(&shop, &guests);
    shop.signal("KILL");
    shop.end();
    roots.mend();
    let shop = Serving::start(&place, &[]);
    assert!(until_answered(&shop, &reviews, "HTTP/1.1 200").contains("Good."));
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    check(&place);
}
