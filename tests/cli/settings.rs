//! Help texts, settings and invalid values.

use crate::support::Sandbox;

#[test]
fn every_command_has_help() {
    let cases: [(&[&str], &str); 14] = [
        (&[], "mercat import products"),
        (&["serve"], "--listen"),
        (&["admin"], "create"),
        (&["admin", "create"], "MERCAT_ADMIN_PASSWORD"),
        (&["migrate"], "manual"),
        (&["import"], "products"),
        (&["import", "products"], "compare_at_price"),
        (&["export", "products"], ".ndjson"),
        (&["seed", "demo"], "printed once"),
        (&["check"], "Exit code"),
        (&["backup"], "backup.json"),
        (&["restore"], "--force"),
        (&["config"], "--example"),
        (&["completions"], "bash"),
    ];
    let sandbox = Sandbox::new();
    for (command, word) in cases {
        let output = sandbox.run(&[command, &["--help"]].concat()).assert_ok();
        assert!(output.out.contains("Usage: mercat") && output.out.contains(word), "{command:?} {output:?}");
        // Lines fit a terminal of usual width.
        assert!(output.out.lines().all(|line| line.chars().count() <= 100), "{command:?} {}", output.out);
    }
    let version = sandbox.run(&["--version"]).assert_ok();
    assert_eq!(version.out.trim(), concat!("mercat ", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        assert!(sandbox.run(&["completions", shell]).assert_ok().out.contains("mercat"));
    }
    // Help creates no data folder.
    assert_eq!(std::fs::read_dir(sandbox.folder.path()).unwrap().count(), 0);
}

#[test]
fn invalid_setting_names_key_origin_and_fix() {
    let cases: [(&str, &str, &[&str]); 15] = [
        ("MERCAT_LISTEN", "nonsense", &["`listen`", "MERCAT_LISTEN", "127.0.0.1:8080"]),
        ("MERCAT_LISTEN", "", &["`listen`", "MERCAT_LISTEN"]),
        ("MERCAT_LISTEN", "203.0.113.7:80", &["`listen`", "203.0.113.7", "--listen"]),
        ("MERCAT_LISTNE", "127.0.0.1:0", &["`listne`", "MERCAT_LISTNE", "did you mean `listen`"]),
        ("MERCAT_DATA", "/dev/null/shop", &["`data`", "MERCAT_DATA", "--data"]),
        ("MERCAT_DATABASE", "mysql://x", &["`database`", "sqlite:FOLDER"]),
        ("MERCAT_DATABASE", "sqlite:/dev/null/shop", &["`database`", "MERCAT_DATABASE"]),
        ("MERCAT_LOG", "loud", &["`log`", "error, warn, info"]),
        ("RUST_LOG", "loud", &["`log`", "RUST_LOG"]),
        ("MERCAT_PAYMENTS__PLACE", "moon", &["`payments.place`", "local"]),
        ("MERCAT_ENVIRONMENT", "production", &["`payments.provider`", "refused"]),
        ("MERCAT_SHOP__CURRENCY", "gold", &["`shop.currency`", "ISO 4217"]),
        ("MERCAT_PAYMENTS__PROVIDER", "stripe", &["`payments.stripe_secret_key`", "sk_"]),
        (
            "MERCAT_PAYMENTS__STRIPE_SECRET_KEY",
            "pk_live_0123",
            &["`payments.stripe_secret_key`", "invalid value", "sk_"],
        ),
        ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", "s3cret", &["`payments.stripe_webhook_secrets`", "whsec_"]),
    ];
    for (variable, value, words) in cases {
        let sandbox = Sandbox::new().with(variable, value);
        sandbox.run(&["serve", "--no-demo"]).assert_failed(2, words);
    }
}

#[test]
fn invalid_files_and_flags_are_reported() {
    let sandbox = Sandbox::new();
    sandbox.run(&["--config", "none.toml", "config"]).assert_failed(2, &["none.toml", "cannot be read"]);
    sandbox.run(&["--listen", "1:1", "config"]).assert_failed(2, &["--listen", "serve"]);
    sandbox.run(&["serve", "--listen", "1:1"]).assert_failed(2, &["`listen`", "flag --listen"]);
    sandbox.run(&["frobnicate"]).assert_failed(2, &["frobnicate"]);
    sandbox.run(&["export", "products", "x.csv"]).assert_failed(2, &["`data`", "no shop"]);
    sandbox.run(&["export", "products", "x.pdf"]).assert_failed(2, &["x.pdf", ".csv"]);
    sandbox.run(&["import", "products", "x.csv"]).assert_failed(2, &["x.csv", "cannot be read"]);
    sandbox.run(&["admin", "create", "--email", "a@example.com"]).assert_failed(2, &["MERCAT_ADMIN_PASSWORD"]);
    for (text, words) in [
        ("listen = \"x\"", &["`listen`", "mercat.toml"][..]),
        ("[http]\nlimit = 1", &["`http.limit`", "mercat.toml", "no such setting"]),
        ("ok = 1\nlisten = = 1", &["mercat.toml", "line 2"]),
    ] {
        sandbox.write("mercat.toml", text);
        sandbox.run(&["serve"]).assert_failed(2, words);
    }
    std::fs::remove_file(sandbox.path("mercat.toml")).unwrap();
    sandbox.write(".env", "MERCAT_DATA=x\nthis is secret nonsense\n");
    let output = sandbox.run(&["serve"]);
    output.assert_failed(2, &[".env", "line 2", "NAME=value"]);
    assert!(!output.err.contains("secret"), "{output:?}");
    sandbox.write(".env", "MERCAT_NONSENSE=1\n");
    sandbox.run(&["serve"]).assert_failed(2, &["`nonsense`", "MERCAT_NONSENSE in .env"]);
}

#[test]
fn strongest_layer_wins_and_config_names_it() {
    let sandbox = Sandbox::new().with("MERCAT_SHOP__NAME", "From Env").with("MERCAT_DATA", "env-data");
    sandbox.write("mercat.toml", "data = \"file-data\"\n[shop]\nname = \"From File\"\n[http]\nworkers = 3\n");
    sandbox.write(".env", "MERCAT_SHOP__NAME=dot\nMERCAT_CATALOG__LOW_STOCK=9\nOTHER=\"a b\"\n");
    let shown = sandbox.run(&["config", "--data", "flag-data"]).assert_ok().out;
    let line = |key: &str| shown.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap().to_owned();
    assert!(line("data").contains("\"flag-data\"") && line("data").ends_with("# flag --data"));
    assert!(line("shop.name").contains("From Env") && line("shop.name").contains("MERCAT_SHOP__NAME"));
    assert!(line("catalog.low_stock").contains('9') && line("catalog.low_stock").ends_with("in .env"));
    assert!(line("http.workers").contains('3') && line("http.workers").ends_with("file mercat.toml"));
    assert!(line("listen").ends_with("# default"));
}

#[test]
fn config_never_shows_a_secret() {
    let sandbox = Sandbox::new()
        .with("MERCAT_SECRET", "hunter2-hunter2-hunter2-hunter2-hunter2")
        .with("MERCAT_MAILER__SMTP", "smtps://user:hunter2@mail.example.com:465")
        .with("MERCAT_ADMIN_PASSWORD", "hunter2");
    let output = sandbox.run(&["config"]).assert_ok();
    assert!(!output.out.contains("hunter2") && !output.err.contains("hunter2"), "{output:?}");
    assert!(output.out.contains("********"));
    let sandbox = Sandbox::new().with("MERCAT_MAILER__SMTP", "hunter2");
    let output = sandbox.run(&["serve"]);
    output.assert_failed(2, &["`mailer.smtp`", "smtp://"]);
    assert!(!output.err.contains("hunter2"), "{output:?}");
}

#[test]
fn example_file_matches_config_output() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let printed = Sandbox::new().run(&["config", "--example"]).assert_ok().out;
    assert_eq!(printed, std::fs::read_to_string(file).unwrap(), "run `mercat config --example > .env.example`");
    // It can be read back.
    let sandbox = Sandbox::new();
    sandbox.write(".env", printed.replace("\n#MERCAT", "\nMERCAT"));
    sandbox.run(&["config"]).assert_ok();
}
