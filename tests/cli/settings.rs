//! Words, settings and what becomes of wrong ones.

use crate::support::Place;

#[test]
fn every_command_explains_itself() {
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
    let place = Place::new();
    for (command, word) in cases {
        let ran = place.run(&[command, &["--help"]].concat()).well();
        assert!(ran.out.contains("Usage: mercat") && ran.out.contains(word), "{command:?} {ran:?}");
        // Lines that no terminal of usual width breaks.
        assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{command:?} {}", ran.out);
    }
    let version = place.run(&["--version"]).well();
    assert_eq!(version.out.trim(), concat!("mercat ", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(&["completions", shell]).well().out.contains("mercat"));
    }
    // Help of any kind makes no shop.
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_setting_that_cannot_work_is_one_line_with_name_origin_and_way_out() {
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
        ("MERCAT_PAYMENTS__STRIPE_SECRET_KEY", "pk_live_0123", &["`payments.stripe_secret_key`", "its value", "sk_"]),
        ("MERCAT_PAYMENTS__STRIPE_WEBHOOK_SECRETS", "s3cret", &["`payments.stripe_webhook_secrets`", "whsec_"]),
    ];
    for (variable, value, words) in cases {
        let place = Place::new().with(variable, value);
        place.run(&["serve", "--no-demo"]).failed(2, words);
    }
}

#[test]
fn wrong_files_and_flags_are_said_as_clearly() {
    let place = Place::new();
    place.run(&["--config", "none.toml", "config"]).failed(2, &["none.toml", "cannot be read"]);
    place.run(&["--listen", "1:1", "config"]).failed(2, &["--listen", "serve"]);
    place.run(&["serve", "--listen", "1:1"]).failed(2, &["`listen`", "flag --listen"]);
    place.run(&["frobnicate"]).failed(2, &["frobnicate"]);
    place.run(&["export", "products", "x.csv"]).failed(2, &["`data`", "no shop"]);
    place.run(&["export", "products", "x.pdf"]).failed(2, &["x.pdf", ".csv"]);
    place.run(&["import", "products", "x.csv"]).failed(2, &["x.csv", "cannot be read"]);
    place.run(&["admin", "create", "--email", "a@example.com"]).failed(2, &["MERCAT_ADMIN_PASSWORD"]);
    for (text, words) in [
        ("listen = \"x\"", &["`listen`", "mercat.toml"][..]),
        ("[http]\nlimit = 1", &["`http.limit`", "mercat.toml", "no such setting"]),
        ("ok = 1\nlisten = = 1", &["mercat.toml", "line 2"]),
    ] {
        place.write("mercat.toml", text);
        place.run(&["serve"]).failed(2, words);
    }
    std::fs::remove_file(place.path("mercat.toml")).unwrap();
    place.write(".env", "MERCAT_DATA=x\nthis is secret nonsense\n");
    let ran = place.run(&["serve"]);
    ran.failed(2, &[".env", "line 2", "NAME=value"]);
    assert!(!ran.err.contains("secret"), "{ran:?}");
    place.write(".env", "MERCAT_NONSENSE=1\n");
    place.run(&["serve"]).failed(2, &["`nonsense`", "MERCAT_NONSENSE in .env"]);
}

#[test]
fn the_nearest_layer_wins_and_config_says_which_it_was() {
    let place = Place::new().with("MERCAT_SHOP__NAME", "From Env").with("MERCAT_DATA", "env-data");
    place.write("mercat.toml", "data = \"file-data\"\n[shop]\nname = \"From File\"\n[http]\nworkers = 3\n");
    place.write(".env", "MERCAT_SHOP__NAME=dot\nMERCAT_CATALOG__LOW_STOCK=9\nOTHER=\"a b\"\n");
    let shown = place.run(&["config", "--data", "flag-data"]).well().out;
    let line = |key: &str| shown.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap().to_owned();
    assert!(line("data").contains("\"flag-data\"") && line("data").ends_with("# flag --data"));
    assert!(line("shop.name").contains("From Env") && line("shop.name").contains("MERCAT_SHOP__NAME"));
    assert!(line("catalog.low_stock").contains('9') && line("catalog.low_stock").ends_with("in .env"));
    assert!(line("http.workers").contains('3') && line("http.workers").ends_with("file mercat.toml"));
    assert!(line("listen").ends_with("# default"));
}

#[test]
fn config_never_shows_a_secret() {
    let place = Place::new()
        .with("MERCAT_SECRET", "hunter2-hunter2-hunter2-hunter2-hunter2")
        .with("MERCAT_MAILER__SMTP", "smtps://user:hunter2@mail.example.com:465")
        .with("MERCAT_ADMIN_PASSWORD", "hunter2");
    let ran = place.run(&["config"]).well();
    assert!(!ran.out.contains("hunter2") && !ran.err.contains("hunter2"), "{ran:?}");
    assert!(ran.out.contains("********"));
    let place = Place::new().with("MERCAT_MAILER__SMTP", "hunter2");
    let ran = place.run(&["serve"]);
    ran.failed(2, &["`mailer.smtp`", "smtp://"]);
    assert!(!ran.err.contains("hunter2"), "{ran:?}");
}

#[test]
fn the_example_file_is_what_the_program_prints() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let printed = Place::new().run(&["config", "--example"]).well().out;
    assert_eq!(printed, std::fs::read_to_string(file).unwrap(), "run `mercat config --example > .env.example`");
    // And it is a file the program reads.
    let place = Place::new();
    place.write(".env", printed.replace("\n#MERCAT", "\nMERCAT"));
    place.run(&["config"]).well();
}
