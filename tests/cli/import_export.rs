//! Products in and out.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use crate::support::{Place, Ran, shared};

fn import(place: &Place, file: &str) -> Ran {
    place.run(&["import", "products", file])
}

/// What the shop holds, by sku.
fn products(place: &Place) -> BTreeMap<String, serde_json::Value> {
    place.run(&["export", "products", "check.ndjson"]).well();
    let text = std::fs::read_to_string(place.path("check.ndjson")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|product| (product["sku"].as_str().unwrap().to_owned(), product))
        .collect()
}

#[test]
fn the_product_files_of_others_are_imported_and_imported_again() {
    let cases = [
        ("dummyjson-products.json", 194, "BEA-ESS-ESS-001", 999),
        ("shopify-home-and-garden.csv", 21, "clay-plant-pot-large", 1_599),
    ];
    for (file, count, sku, price) in cases {
        let Some(file) = shared(file) else { continue };
        let place = Place::new();
        let file = file.to_str().unwrap();
        let first = import(&place, file).well();
        assert!(first.out.contains(&format!("{count} created, 0 updated, 0 refused")), "{first:?}");
        assert!(first.err.contains("note: images are not fetched"), "{first:?}");
        let second = import(&place, file).well();
        assert!(second.out.contains(&format!("0 created, {count} updated, 0 refused")), "{second:?}");
        let products = products(&place);
        assert_eq!((products.len(), &products[sku]["price"]), (count, &price.into()));
    }
}

#[test]
fn bad_rows_are_told_with_line_and_reason_and_the_good_ones_go_in() {
    let place = Place::new();
    let rows: [(&[u8], &str); 9] = [
        (b"Good,g1,1.00,2", ""),
        (b"No sku,,1.00,2", "`sku` is empty"),
        (b"Bad price,b2,x,2", "`price`"),
        (b"Too few,b3,1.00", "has 3 columns"),
        (b"Open \"quote,b4,1.00,2", "quote"),
        (b"Not \xff UTF-8,b5,1.00,2", "UTF-8"),
        (b"Negative,b6,1.00,-2", "stock"),
        (b"Space in sku,b 7,1.00,2", "sku"),
        (b"Good,g2,1.00,2", ""),
    ];
    let lines: Vec<&[u8]> =
        std::iter::once(b"name,sku,price,stock".as_slice()).chain(rows.map(|(row, _)| row)).collect();
    place.write("x.csv", lines.join(b"\n".as_slice()));
    let ran = import(&place, "x.csv");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("2 created, 0 updated, 7 refused"), "{ran:?}");
    let told: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(told.len(), 7, "{ran:?}");
    for (n, (_, reason)) in rows.iter().enumerate().filter(|(_, (_, reason))| !reason.is_empty()) {
        let start = format!("line {}: ", n + 2);
        assert!(told.iter().any(|line| line.starts_with(&start) && line.contains(reason)), "{start}{reason} {told:?}");
    }
    let keys: Vec<String> = products(&place).into_keys().collect();
    assert_eq!(keys, ["g1", "g2"]);
}

#[test]
fn a_flood_of_bad_rows_is_counted_and_not_all_told() {
    let place = Place::new();
    place.write("x.csv", format!("name,sku,price\n{}A,a,1\n", "A,,1\n".repeat(2_500)));
    let ran = import(&place, "x.csv");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("1 created, 0 updated, 2500 refused"), "{}", ran.out);
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("line ")).count(), 1_000);
    assert!(ran.err.contains("and 1500 more rows were refused"));
}

#[test]
fn a_file_that_is_useless_as_a_whole_is_refused_as_a_whole() {
    let place = Place::new();
    for (name, text, reason) in [
        ("empty.csv", "", "the file is empty"),
        ("header.csv", "name,price\nA,1\n", "no column `sku`"),
        ("x.json", "{\"a\":1}", "no list of products"),
        ("cut.json", "[{\"name\":\"A\",", "ends before"),
    ] {
        place.write(name, text);
        let ran = import(&place, name);
        assert!(ran.err.contains(reason) && !ran.err.contains("panicked"), "{ran:?}");
        assert!(ran.code == 2 || (name == "cut.json" && ran.code == 1), "{ran:?}");
    }
    place.write("x.txt", "");
    import(&place, "x.txt").failed(2, &["x.txt", ".ndjson"]);
    import(&place, ".").failed(2, &["file"]);
}

#[test]
fn what_is_exported_is_imported_unchanged_in_every_format() {
    let place = Place::new();
    place.write(
        "in.ndjson",
        concat!(
            r#"{"name":"Teapot","sku":"a","price":4805,"currency":"EUR","stock":14,"compare_at_price":6000,"category":"Kitchen","#,
            r#""tags":["tea","stoneware"],"attributes":{"Material":"Stoneware; glazed"},"group":"pots","options":{"Colour":"Blue"},"#,
            r#""description":"Round, \"blue\"\nand quiet"}"#,
            "\n",
            r#"{"name":"=1+1","sku":"b","price":1200,"currency":"JPY","stock":0,"description":"@SUM(A1)"}"#,
            "\n"
        ),
    );
    import(&place, "in.ndjson").well();
    let before = products(&place);
    for name in ["out.csv", "out.ndjson", "out.json"] {
        let ran = place.run(&["export", "products", name]).well();
        assert!(ran.out.contains("2 products"), "{ran:?}");
        let other = Place::new();
        let file = place.path(name);
        let ran = import(&other, file.to_str().unwrap()).well();
        assert!(ran.out.contains("2 created"), "{ran:?}");
        assert_eq!(products(&other), before, "{name}");
    }
    let csv = std::fs::read_to_string(place.path("out.csv")).unwrap();
    assert!(csv.contains("'=1+1") && csv.contains("'@SUM"), "{csv}");
    // A place that cannot be written is said before anything is done, and leaves nothing behind.
    place.run(&["export", "products", "no/such/x.csv"]).failed(2, &["no/such/x.csv"]);
    assert!(!place.path("out.csv.part").exists());
}

/// Too long for every run (minutes in a debug build). Run it with
/// `cargo test --release --test cli -- --ignored large --nocapture`.
#[test]
#[ignore = "takes minutes in a debug build: cargo test --release --test cli -- --ignored large --nocapture"]
fn a_large_file_is_imported_in_little_memory() {
    let place = Place::new();
    let mut file = std::io::BufWriter::new(std::fs::File::create(place.path("large.csv")).unwrap());
    writeln!(file, "name,sku,description,price,stock").unwrap();
    let text = "Plain words about a plain thing. ".repeat(30);
    let (mut bytes, mut rows) = (0, 0_u32);
    while bytes < 200 << 20 {
        let row = format!("Thing {rows},sku-{rows},{text},{}.99,5\n", rows % 500);
        bytes += row.len();
        rows += 1;
        file.write_all(row.as_bytes()).unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let begun = std::time::Instant::now();
    let mut child = place
        .command(&["import", "products", "large.csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0_u64;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        peak = peak.max(line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ran = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    eprintln!("{rows} rows in {:?}, at most {} MiB", begun.elapsed(), peak / 1_024);
    assert!(out.contains(&format!("{rows} created")), "{out} {}", String::from_utf8_lossy(&ran.stderr));
    assert!(peak > 0 && peak < 120 * 1_024, "{peak} KiB");
}
