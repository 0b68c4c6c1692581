//! `mercat check`, `mercat backup` and `mercat restore`, also output a running shop.

use crate::support::{RunningShop, Sandbox};

/// Changes a database without the shop's knowledge.
fn corrupt(sandbox: &Sandbox, domain: &str, sql: &str) {
    let file = sandbox.path(&format!("data/{domain}.db"));
    let mut conn = mercat::store::Conn::establish(file.to_str().unwrap()).unwrap();
    conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap();
}

fn product(sandbox: &Sandbox, sku: &str) {
    sandbox.write("x.csv", format!("name,sku,price,stock\nThing,{sku},1.00,5\n"));
    sandbox.run(&["import", "products", "x.csv"]).assert_ok();
}

#[test]
fn check_passes_on_demo_and_reports_corruption() {
    let sandbox = Sandbox::new();
    sandbox.run(&["check"]).assert_failed(2, &["no shop"]);
    let shop = RunningShop::start(&sandbox, &[]);
    let output = sandbox.run(&["check"]).assert_ok();
    assert!(output.out.contains("OK: no inconsistencies in") && output.out.contains("64 products"), "{output:?}");
    corrupt(
        &sandbox,
        "catalog",
        "UPDATE product SET stock = stock + 1 WHERE sku = (SELECT MIN(sku) FROM product WHERE stock > 3)",
    );
    let found = sandbox.run(&["check"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.out.contains("INCONSISTENT catalog: a product's stock is not the sum of its moves"), "{found:?}");
    assert!(found.out.lines().count() == 2 && found.out.contains("1 inconsistency in"), "{found:?}");
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    assert_eq!(sandbox.run(&["check"]).code, 1);
    corrupt(
        &sandbox,
        "catalog",
        "UPDATE product SET stock = stock - 1 WHERE stock > 3 AND sku = (SELECT MIN(sku) FROM product WHERE stock > 3)",
    );
    sandbox.run(&["check"]).assert_ok();
    sandbox.write("data/catalog.db", "this is not a database ".repeat(1_000));
    for name in ["data/catalog.db-wal", "data/catalog.db-shm"] {
        let _ = std::fs::remove_file(sandbox.path(name));
    }
    sandbox.run(&["check"]).assert_failed(2, &["catalog"]);
}

#[test]
fn running_shop_is_backed_up_and_restored() {
    let sandbox = Sandbox::new();
    sandbox.run(&["backup", "copy"]).assert_failed(2, &["no shop"]);
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    product(&sandbox, "kept");
    let taken = sandbox.run(&["backup", "copy"]).assert_ok();
    assert!(taken.out.contains("9 files"), "{taken:?}");
    sandbox.run(&["backup", "copy"]).assert_failed(2, &["not empty"]);
    sandbox.run(&["restore", "nowhere", "--data", "other"]).assert_failed(2, &["nowhere", "not a complete backup"]);
    product(&sandbox, "later");
    sandbox.run(&["restore", "copy"]).assert_failed(2, &["another mercat"]);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    sandbox.run(&["restore", "copy"]).assert_failed(1, &["would be lost", "--force"]);
    sandbox.run(&["check"]).assert_ok();
    sandbox.run(&["restore", "copy", "--force"]).assert_ok();
    sandbox.run(&["check"]).assert_ok();
    let shop = RunningShop::start(&sandbox, &[]);
    let list = shop.get("/api/v1/products/");
    assert!(list.contains("\"sku\":\"kept\"") && !list.contains("\"sku\":\"later\""), "{list}");
    // Into another folder without --force; a damaged copy is replaced.
    sandbox.run(&["restore", "copy", "--data", "other"]).assert_ok();
    sandbox.write("other/users.db", "this is not a database ".repeat(1_000));
    sandbox.run(&["check", "--data", "other"]).assert_failed(2, &["users"]);
    sandbox.run(&["restore", "copy", "--data", "other", "--force"]).assert_ok();
    sandbox.run(&["check", "--data", "other"]).assert_ok();
}

#[test]
fn shop_takes_backups_of_itself() {
    let sandbox = Sandbox::new().with("MERCAT_BACKUP__EVERY", "1d").with("MERCAT_BACKUP__FOLDER", "copies");
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let begun = std::time::Instant::now();
    let copy = loop {
        let entries = std::fs::read_dir(sandbox.path("copies")).into_iter().flatten();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        if let Some(name) = names.find(|name| name.starts_with("shop-") && !name.ends_with(".part")) {
            break format!("copies/{name}");
        }
        assert!(begun.elapsed() < crate::support::WAIT_TIMEOUT, "no backup");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let metrics = shop.get("/metrics");
    assert!(metrics.contains("mercat_backup_newest_timestamp_seconds 1"), "{metrics}");
    assert!(metrics.contains("mercat_backup_failures_total 0"), "{metrics}");
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    let verified = sandbox.run(&["backup", &copy, "--verify"]).assert_ok();
    assert!(verified.out.contains("complete and undamaged: 9 files"), "{verified:?}");
    sandbox.run(&["restore", &copy, "--data", "other"]).assert_ok();
    sandbox.run(&["check", "--data", "other"]).assert_ok();
    std::fs::remove_file(sandbox.path(&format!("{copy}/cart.db"))).unwrap();
    sandbox.run(&["backup", &copy, "--verify"]).assert_failed(1, &["cart.db"]);
}

#[test]
fn p20_backup_stays_as_it_is_whatever_is_tried_on_it() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    sandbox.run(&["backup", "copy"]).assert_ok();
    shop.signal("TERM");
    shop.end();
    let files = || -> std::collections::BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(sandbox.path("copy")).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
    };
    let before = files();
    for command in [
        &["doctor"][..],
        &["check"],
        &["migrate"],
        &["serve"],
        &["export", "products", "x.csv"],
        &["import", "products", "x.csv"],
        &["seed", "demo"],
        &["backup", "again"],
        &["admin", "promote", "--email", "a@example.com"],
    ] {
        let refused = sandbox.run(&[command, &["--data", "copy"]].concat());
        refused.assert_failed(2, &["copy is a backup", "mercat restore"]);
        assert!(files() == before, "{command:?} has changed the backup");
    }
    sandbox.run(&["backup", "copy", "--verify"]).assert_ok();
    assert!(files() == before, "verifying has changed the backup");
    sandbox.run(&["restore", "copy", "--data", "look"]).assert_ok();
    sandbox.run(&["check", "--data", "look"]).assert_ok();
    assert!(files() == before, "restore has changed the backup");
}
