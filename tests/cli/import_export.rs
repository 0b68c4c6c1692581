//! `mercat import products` and `mercat export products`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use crate::support::{Output, Sandbox, shared};

fn import(sandbox: &Sandbox, file: &str) -> Output {
    sandbox.run(&["import", "products", file])
}

/// Products of the shop by SKU.
fn products(sandbox: &Sandbox) -> BTreeMap<String, serde_json::Value> {
    sandbox.run(&["export", "products", "check.ndjson"]).assert_ok();
    let text = std::fs::read_to_string(sandbox.path("check.ndjson")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|product| (product["sku"].as_str().unwrap().to_owned(), product))
        .collect()
}

#[test]
fn foreign_product_files_import_repeatedly() {
    let cases = [
        ("dummyjson-products.json", 194, "BEA-ESS-ESS-001", 999),
        ("shopify-home-and-garden.csv", 21, "clay-plant-pot-large", 1_599),
    ];
    for (file, count, sku, price) in cases {
        let Some(file) = shared(file) else { continue };
        let sandbox = Sandbox::new();
        let file = file.to_str().unwrap();
        let first = import(&sandbox, file).assert_ok();
        assert!(first.out.contains(&format!("{count} created, 0 updated, 0 refused")), "{first:?}");
        assert!(first.err.contains("--images fetches them"), "{first:?}");
        let second = import(&sandbox, file).assert_ok();
        assert!(second.out.contains(&format!("0 created, {count} updated, 0 refused")), "{second:?}");
        let products = products(&sandbox);
        assert_eq!((products.len(), &products[sku]["price"]), (count, &price.into()));
    }
}

#[test]
fn bad_rows_are_reported_and_good_rows_imported() {
    let sandbox = Sandbox::new();
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
    sandbox.write("x.csv", lines.join(b"\n".as_slice()));
    let output = import(&sandbox, "x.csv");
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.out.contains("2 created, 0 updated, 7 refused"), "{output:?}");
    let reports: Vec<&str> = output.err.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(reports.len(), 7, "{output:?}");
    for (n, (_, reason)) in rows.iter().enumerate().filter(|(_, (_, reason))| !reason.is_empty()) {
        let start = format!("line {}: ", n + 2);
        assert!(
            reports.iter().any(|line| line.starts_with(&start) && line.contains(reason)),
            "{start}{reason} {reports:?}"
        );
    }
    let keys: Vec<String> = products(&sandbox).into_keys().collect();
    assert_eq!(keys, ["g1", "g2"]);
}

#[test]
fn bad_row_reports_are_limited() {
    let sandbox = Sandbox::new();
    sandbox.write("x.csv", format!("name,sku,price\n{}A,a,1\n", "A,,1\n".repeat(2_500)));
    let output = import(&sandbox, "x.csv");
    assert_eq!(output.code, 1);
    assert!(output.out.contains("1 created, 0 updated, 2500 refused"), "{}", output.out);
    assert_eq!(output.err.lines().filter(|line| line.starts_with("line ")).count(), 1_000);
    assert!(output.err.contains("and 1500 more rows were refused"));
}

#[test]
fn unreadable_file_is_rejected_as_a_whole() {
    let sandbox = Sandbox::new();
    for (name, text, reason) in [
        ("empty.csv", "", "the file is empty"),
        ("header.csv", "name,price\nA,1\n", "no column `sku`"),
        ("x.json", "{\"a\":1}", "no list of products"),
        ("cut.json", "[{\"name\":\"A\",", "ends before"),
    ] {
        sandbox.write(name, text);
        let output = import(&sandbox, name);
        assert!(output.err.contains(reason) && !output.err.contains("panicked"), "{output:?}");
        assert!(output.code == 2 || (name == "cut.json" && output.code == 1), "{output:?}");
    }
    sandbox.write("x.txt", "");
    import(&sandbox, "x.txt").assert_failed(2, &["x.txt", ".ndjson"]);
    import(&sandbox, ".").assert_failed(2, &["file"]);
}

#[test]
fn export_imports_unchanged_in_every_format() {
    let sandbox = Sandbox::new();
    sandbox.write(
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
    import(&sandbox, "in.ndjson").assert_ok();
    let before = products(&sandbox);
    for name in ["out.csv", "out.ndjson", "out.json"] {
        let output = sandbox.run(&["export", "products", name]).assert_ok();
        assert!(output.out.contains("2 products"), "{output:?}");
        let other = Sandbox::new();
        let file = sandbox.path(name);
        let output = import(&other, file.to_str().unwrap()).assert_ok();
        assert!(output.out.contains("2 created"), "{output:?}");
        assert_eq!(products(&other), before, "{name}");
    }
    let csv = std::fs::read_to_string(sandbox.path("out.csv")).unwrap();
    assert!(csv.contains("'=1+1") && csv.contains("'@SUM"), "{csv}");
    // A path that cannot be written is reported before anything is done, and leaves nothing behind.
    sandbox.run(&["export", "products", "no/such/x.csv"]).assert_failed(2, &["no/such/x.csv"]);
    assert!(!sandbox.path("out.csv.part").exists());
}

/// Measures memory on a file of 200 MB, which takes minutes in a debug build.
#[test]
#[ignore = "takes minutes in a debug build: cargo test --release --test cli -- --ignored large --nocapture"]
fn large_file_import_uses_little_memory() {
    let sandbox = Sandbox::new();
    let mut file = std::io::BufWriter::new(std::fs::File::create(sandbox.path("large.csv")).unwrap());
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
    let mut child = sandbox
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
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    eprintln!("{rows} rows in {:?}, at most {} MiB", begun.elapsed(), peak / 1_024);
    assert!(out.contains(&format!("{rows} created")), "{out} {}", String::from_utf8_lossy(&output.stderr));
    assert!(peak > 0 && peak < 120 * 1_024, "{peak} KiB");
}

/// Serves pictures and what is none until the process ends; returns the address.
fn picture_server() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 48).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut head = String::new();
            let mut reader = std::io::BufReader::new(connection.try_clone().unwrap());
            while std::io::BufRead::read_line(&mut reader, &mut head).unwrap() > 2 {}
            let (status, extra, body): (&str, &str, &[u8]) = match head.split(' ').nth(1).unwrap() {
                "/good.png" => ("200 OK", "", &png),
                "/moved.png" => ("302 Found", "location: /good.png\r\n", b""),
                "/loop.png" => ("302 Found", "location: /loop.png\r\n", b""),
                "/text.png" => ("200 OK", "", b"<html>no picture</html>"),
                _ => ("404 Not Found", "", b""),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\n{extra}content-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = connection.write_all(&[head.as_bytes(), body].concat());
        }
    });
    address
}

#[test]
fn s05_pictures_are_fetched_from_public_addresses_only() {
    let server = picture_server();
    let file = format!(
        "Handle,Title,Variant SKU,Variant Price,Image Src\nteapot,Teapot,T,9,{server}/good.png\nteapot,,,,{server}/moved.png\n\
         mug,Mug,M,9,{server}/text.png\nmat,Mat,A,9,{server}/loop.png\njug,Jug,J,9,{server}/missing.png\n"
    );
    let sandbox = Sandbox::new();
    sandbox.write("x.csv", &file);
    let import = ["import", "products", "x.csv", "--images"];
    let refused = sandbox.run(&import);
    assert_eq!(refused.code, 1);
    assert_eq!(refused.err.matches("leads to an address that is not public").count(), 5, "{refused:?}");
    assert!(refused.out.contains("4 created, 0 updated, 0 refused, 0 pictures added, 5 pictures not"), "{refused:?}");

    let sandbox = Sandbox::new().with("MERCAT_CATALOG__PRIVATE_IMAGE_ADDRESSES", "true");
    sandbox.write("x.csv", &file);
    let reasons = ["not a valid JPEG, PNG or WebP", "redirected more than 3 times", "answers with status 404"];
    let fetched = sandbox.run(&import);
    assert!(fetched.code == 1 && reasons.iter().all(|reason| fetched.err.contains(reason)), "{fetched:?}");
    assert!(fetched.out.contains("0 refused, 2 pictures added, 3 pictures not"), "{fetched:?}");
    // A product that has pictures keeps them.
    let again = sandbox.run(&import);
    assert!(again.out.contains("4 updated, 0 refused, 0 pictures added, 3 pictures not"), "{again:?}");
}
