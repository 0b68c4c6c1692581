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
