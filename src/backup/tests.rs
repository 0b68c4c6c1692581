//! A backup is a snapshot of one instant; a restore is all or nothing, wherever it is interrupted.

use tempfile::TempDir;

use super::*;
use crate::app::App;
use crate::contract::notifications::GetStream;
use crate::contract::stats::{AddServedRequests, GetServedRequests};
use crate::contract::users::{CreateUser, ListUsers};
use crate::messaging::{RequestContext, Role};
use crate::types::Clock;

fn now() -> Timestamp {
    Clock::system().now()
}

fn settings(dir: &TempDir, name: &str) -> Settings {
    let data = dir.path().join(name);
    fs::create_dir_all(&data).unwrap();
    let mut settings = Settings::for_test(&data);
    // Files are what is copied, whatever the other tests run on.
    for domain in &mut settings.domains {
        domain.database = crate::settings::Database::Folder(data.clone());
    }
    settings
}

async fn register(app: &App, name: &str) {
    let request = CreateUser {
        email: format!("{name}@example.com"),
        password: "correct horse".into(),
        name: name.into(),
        role: Role::Customer,
        created_at: None,
    };
    app.clients.users.call(RequestContext::internal("test"), request).await.unwrap();
}

/// Returns the names of all users and the epoch of the notifications, after a consistency check.
async fn read(settings: &Settings) -> (Vec<String>, String) {
    let app = App::open(settings.clone(), Clock::system()).unwrap();
    let users = app.clients.users.call(RequestContext::internal("test"), ListUsers::default()).await.unwrap();
    let stream =
        app.clients.notifications.call(RequestContext::internal("test"), GetStream { user_id: None }).await.unwrap();
    let report = crate::consistency_check::run(&app.clients).await.unwrap();
    assert_eq!(report.violations, []);
    close(app, settings).await;
    let mut names: Vec<String> = users.items.into_iter().map(|user| user.name).collect();
    names.sort();
    (names, stream.epoch)
}

/// Closes a shop and waits for its databases, which the writer threads close later.
async fn close(app: App, settings: &Settings) {
    app.close();
    for domain in DOMAIN_NAMES {
        while store::is_in_use(&settings.database.join(database(domain))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[actix::test]
async fn restore_of_running_shop_starts_new_epoch() {
    let dir = TempDir::new().unwrap();
    let (shop, to) = (settings(&dir, "shop"), dir.path().join("backup"));
    let app = App::open(shop.clone(), Clock::system()).unwrap();
    register(&app, "ada").await;
    let taken = take(&shop, &to, false, now).unwrap();
    assert_eq!(taken.files.len(), 9, "eight domains and the secret");
    register(&app, "bob").await;
    app.settle().await.unwrap();
    assert!(matches!(restore(&shop, &to, true, false), Err(BackupError::Unusable(why)) if why.contains("in use")));
    close(app, &shop).await;
    let (names, epoch) = read(&shop).await;
    assert_eq!(names, ["ada", "bob"]);
    // The shop is newer than the backup now.
    assert!(matches!(restore(&shop, &to, false, false), Err(BackupError::Newer { .. })));
    assert_eq!(read(&shop).await.0, ["ada", "bob"]);
    restore(&shop, &to, true, false).unwrap();
    let restored = read(&shop).await;
    assert_eq!(restored.0, ["ada"]);
    assert_ne!(restored.1, epoch, "clients must notice that notifications were lost");
    // An empty folder needs no force, nor does a second restore: the data are as old as the backup.
    let other = settings(&dir, "other");
    restore(&other, &to, false, false).unwrap();
    restore(&other, &to, false, false).unwrap();
    assert_eq!(read(&other).await.0, ["ada"]);
    assert_eq!(fs::read(other.data.join("secret.key")).unwrap(), fs::read(shop.data.join("secret.key")).unwrap());
    let left: Vec<_> = fs::read_dir(&other.data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".before")), "{left:?}");
}

#[actix::test]
async fn backup_is_consistent_during_writes() {
    let dir = TempDir::new().unwrap();
    let shop = settings(&dir, "shop");
    let app = App::open(shop.clone(), Clock::system()).unwrap();
    // The effect of each delivered event must be in the copy of its subscriber; a copy of two instants violates that. The
    // backup runs on a thread while the shop goes on.
    for n in 0..3 {
        let (shop, to) = (shop.clone(), dir.path().join(format!("backup{n}")));
        let copying = std::thread::spawn(move || take(&shop, &to, false, now).map(drop));
        let mut n_users = 0;
        while !copying.is_finished() && n_users < 40 {
            register(&app, &format!("user{n}-{n_users}")).await;
            app.clients.stats.call(RequestContext::internal("test"), AddServedRequests { count: 1 }).await.unwrap();
            n_users += 1;
        }
        copying.join().unwrap().unwrap();
        let other = settings(&dir, &format!("other{n}"));
        restore(&other, &dir.path().join(format!("backup{n}")), false, false).unwrap();
        read(&other).await;
    }
    app.clients.stats.call(RequestContext::internal("test"), GetServedRequests {}).await.unwrap();
    close(app, &shop).await;
}

#[actix::test]
async fn incomplete_backup_is_rejected() {
    let dir = TempDir::new().unwrap();
    let (shop, to) = (settings(&dir, "shop"), dir.path().join("backup"));
    let app = App::open(shop.clone(), Clock::system()).unwrap();
    register(&app, "ada").await;
    take(&shop, &to, false, now).unwrap();
    assert!(take(&shop, &to, false, now).is_err(), "a folder that is not empty");
    register(&app, "bob").await;
    close(app, &shop).await;
    let assert_rejected = |expected: &str| {
        let error = restore(&shop, &to, true, false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let users = to.join("users.db");
    let good = fs::read(&users).unwrap();
    let mut bad = good.clone();
    bad[5_000] ^= 1;
    fs::write(&users, &bad).unwrap();
    assert_rejected("users.db is damaged");
    fs::remove_file(&users).unwrap();
    assert_rejected("users.db");
    fs::write(&users, &good).unwrap();
    fs::rename(to.join(MANIFEST), to.join("x")).unwrap();
    assert_rejected("not a complete backup");
    fs::write(to.join(MANIFEST), "{\"format\":1,\"mercat\":\"x\",\"taken_at\":\"2026-01-01T00:00:00Z\",\"files\":[{\"name\":\"../../etc/passwd\",\"bytes\":1,\"sha256\":\"\"}]}").unwrap();
    assert_rejected("not part of a shop");
    fs::rename(to.join("x"), to.join(MANIFEST)).unwrap();
    assert_eq!(read(&shop).await.0, ["ada", "bob"]);
    restore(&shop, &to, true, false).unwrap();
    assert_eq!(read(&shop).await.0, ["ada"]);
}

#[actix::test]
async fn interrupted_restore_is_undone_or_completed() {
    let dir = TempDir::new().unwrap();
    let (shop, to) = (settings(&dir, "shop"), dir.path().join("backup"));
    let app = App::open(shop.clone(), Clock::system()).unwrap();
    register(&app, "ada").await;
    let manifest = take(&shop, &to, false, now).unwrap();
    register(&app, "bob").await;
    close(app, &shop).await;
    // Interrupted before the journal was written: the old data stay.
    stage(&shop, &to, &manifest).unwrap();
    assert!(!finish(&shop).unwrap());
    assert_eq!(read(&shop).await.0, ["ada", "bob"]);
    // Interrupted after the journal was written and some files were replaced, one of them half way.
    for replaced in [0, 1, 4, 8] {
        let cut = settings(&dir, &format!("cut{replaced}"));
        restore(&cut, &to, false, false).unwrap();
        let app = App::open(cut.clone(), Clock::system()).unwrap();
        register(&app, "eve").await;
        close(app, &cut).await;
        stage(&cut, &to, &manifest).unwrap();
        write_atomic(&cut.database.join(RESTORE_JOURNAL), &json(&manifest).unwrap()).unwrap();
        for domain in &DOMAIN_NAMES[..replaced] {
            let file = cut.database.join(database(domain));
            fs::rename(&file, with_suffix(&file, ".before")).unwrap();
            fs::rename(with_suffix(&file, ".restore"), &file).unwrap();
        }
        if let Some(domain) = DOMAIN_NAMES.get(replaced) {
            let file = cut.database.join(database(domain));
            fs::rename(&file, with_suffix(&file, ".before")).unwrap();
        }
        assert!(is_unfinished(&cut));
        assert!(finish(&cut).unwrap());
        assert_eq!(read(&cut).await.0, ["ada"], "after {replaced} files");
    }
}

#[actix::test]
async fn p20_backup_holds_every_domain_or_says_that_it_is_a_part() {
    let dir = TempDir::new().unwrap();
    let (mut shop, to) = (settings(&dir, "shop"), dir.path().join("backup"));
    let app = App::open(shop.clone(), Clock::system()).unwrap();
    register(&app, "ada").await;
    close(app, &shop).await;
    let payments = shop.domains.iter_mut().find(|domain| domain.name == "payments").unwrap();
    payments.place = "http://127.0.0.1:1".parse().unwrap();
    let refused = take(&shop, &to, false, now).unwrap_err().to_string();
    assert!(refused.contains("data of payments") && !to.exists(), "{refused}");
    let part = take(&shop, &to, true, now).unwrap();
    assert_eq!(part.elsewhere, ["payments"]);
    assert!(!part.files.iter().any(|file| file.name == "payments.db") && part.files.len() == 8);

    // Whole, it would be a shop that numbers its invoices anew; as a part, it leaves the other data alone.
    let other = settings(&dir, "other");
    let refused = restore(&other, &to, false, false).unwrap_err().to_string();
    assert!(refused.contains("no data of payments"), "{refused}");
    fs::copy(shop.database.join("payments.db"), other.database.join("payments.db")).unwrap();
    restore(&other, &to, true, true).unwrap();
    assert_eq!(read(&other).await.0, ["ada"]);
}

#[actix::test]
async fn backups_at_intervals_keep_the_newest() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let dir = TempDir::new().unwrap();
    let mut shop = settings(&dir, "shop");
    (shop.backup.folder, shop.backup.keep) = (dir.path().join("backups"), 2);
    let clock = Clock::simulated(Timestamp::parse("2026-03-01T00:00:00Z").unwrap());
    let app = App::open(shop.clone(), clock.clone()).unwrap();
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&shop.backup.folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let wait = schedule::take_if_due(&shop, HOUR, &clock).unwrap();
    assert!(wait <= HOUR, "{wait:?}");
    assert_eq!(names(), ["shop-20260301T000000Z"]);
    // Not due again before an hour has passed.
    clock.advance(HOUR / 2);
    assert!(schedule::take_if_due(&shop, HOUR, &clock).unwrap() <= HOUR / 2);
    assert_eq!(names().len(), 1);
    // What a crash left is deleted; folders with other names stay.
    fs::create_dir(shop.backup.folder.join("shop-20260301T001500Z.part")).unwrap();
    fs::create_dir(shop.backup.folder.join("shop-of-mine")).unwrap();
    clock.advance(HOUR);
    schedule::take_if_due(&shop, HOUR, &clock).unwrap();
    clock.advance(HOUR);
    schedule::take_if_due(&shop, HOUR, &clock).unwrap();
    assert_eq!(names(), ["shop-20260301T013000Z", "shop-20260301T023000Z", "shop-of-mine"]);
    let newest = shop.backup.folder.join("shop-20260301T023000Z");
    verify(&newest).unwrap();
    // A damaged one is not counted, and does not keep the shop from taking others.
    fs::write(shop.backup.folder.join("shop-20260301T013000Z").join(MANIFEST), "{").unwrap();
    clock.advance(HOUR);
    schedule::take_if_due(&shop, HOUR, &clock).unwrap();
    assert_eq!(names().len(), 4);
    // A folder that is none is a failure and changes no backup.
    clock.advance(HOUR);
    let file = shop.data.join("none");
    fs::write(&file, "").unwrap();
    let mut broken = shop.clone();
    broken.backup.folder = file;
    assert!(schedule::take_if_due(&broken, HOUR, &clock).is_err());
    close(app, &shop).await;
    let users = newest.join("users.db");
    let mut bytes = fs::read(&users).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&users, bytes).unwrap();
    assert!(matches!(verify(&newest), Err(BackupError::Unusable(why)) if why.contains("users.db is damaged")));
    fs::remove_file(&users).unwrap();
    assert!(matches!(verify(&newest), Err(BackupError::Unusable(why)) if why.contains("users.db")));
}
