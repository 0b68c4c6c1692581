//! Golden files of the wire contract: `tests/contract/NAME.json` holds the encoding of one example of every message with
//! its reply, of every event, and of all variants of every error and enumeration.
//!
//! Today's code must encode each example as its newest file says, and still decode all former encodings, which are kept
//! as `NAME.1.json`, `NAME.2.json`, ... A message, event or error variant without an example fails a test or does not
//! compile.
//!
//! `MERCAT_UPDATE_GOLDEN=1 cargo test --test contract` writes new encodings and keeps the former ones;
//! `MERCAT_UPDATE_GOLDEN=replace` overwrites them, for encodings that were never released.
#![allow(clippy::redundant_field_names, reason = "`variants!` takes every field as a name and a value")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]

#[path = "contract/example.rs"]
mod example;
#[path = "contract/examples.rs"]
mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use example::Example;
use mercat::app::{DOMAINS, Placement};
use mercat::messaging::RemoteCallable;
use mercat::types::Currency;
use serde_json::Value;

/// Names of all messages that an actor handles, as the transports between processes know them.
fn message_names() -> BTreeSet<String> {
    let of_domains = DOMAINS.iter().flat_map(|domain| (domain.messages)());
    of_domains.chain(Placement::names()).map(str::to_owned).collect()
}

/// Names of all events that a domain emits.
fn event_names() -> BTreeSet<String> {
    DOMAINS.iter().flat_map(|domain| domain.events).map(|name| (*name).to_owned()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract")
}

/// Golden files by the name of their example, each with its numbered former encodings.
fn golden_files() -> BTreeMap<String, Vec<PathBuf>> {
    let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".json") else { continue };
        let name = match stem.rsplit_once('.') {
            Some((name, number)) if number.parse::<u32>().is_ok() => name,
            _ => stem,
        };
        files.entry(name.to_owned()).or_default().push(path);
    }
    files
}

/// The pages' table of currencies: those whose minor unit has not two digits.
#[test]
fn pages_count_the_digits_of_currencies_as_the_server() {
    let letters = || 'A'..='Z';
    let codes = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| format!("{a}{b}{c}"))));
    let digits = codes.filter_map(|code| Some((code.parse::<Currency>().ok()?, code)));
    let digits = digits.filter(|(currency, _)| currency.exponent() != 2);
    let lines: String = digits.map(|(currency, code)| format!("  {code}: {},\n", currency.exponent())).collect();
    let script = format!(
        "// Digits of the minor unit of each currency that has not two (ISO 4217).\n\
         // Written by `MERCAT_UPDATE_GOLDEN=replace cargo test --test contract` from the server's table.\n\n\
         export const DIGITS = Object.freeze({{\n{lines}}});\n"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("static/js/currencies.js");
    if std::env::var("MERCAT_UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, &script).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), script);
}

fn newest(name: &str) -> PathBuf {
    folder().join(format!("{name}.json"))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Writes an example's encoding if it differs from the newest golden file.
fn update(example: &Example, keep_former: bool) {
    let path = newest(&example.name);
    if path.exists() && read(&path) == example.encoding {
        return;
    }
    if path.exists() && keep_former {
        let number = (1..).find(|n| !folder().join(format!("{}.{n}.json", example.name)).exists()).unwrap();
        std::fs::rename(&path, folder().join(format!("{}.{number}.json", example.name))).unwrap();
    }
    std::fs::write(path, format!("{:#}\n", example.encoding)).unwrap();
}

#[test]
fn encodings_match_the_golden_files() {
    let examples = examples::all();
    if let Ok(mode) = std::env::var("MERCAT_UPDATE_GOLDEN") {
        examples.iter().for_each(|example| update(example, mode != "replace"));
    }
    let mut failures = Vec::new();
    for example in &examples {
        let path = newest(&example.name);
        if !path.exists() {
            failures.push(format!("{}: no golden file", example.name));
            continue;
        }
        let golden = read(&path);
        if golden != example.encoding {
            failures.push(format!("{}: the golden file has {golden}, the code {}", example.name, example.encoding));
        }
        match (example.reencode)(&example.encoding) {
            Ok(again) if again == example.encoding => {}
            Ok(again) => failures.push(format!("{}: decoded and encoded it is {again}", example.name)),
            Err(error) => failures.push(format!("{}: its own encoding does not decode: {error}", example.name)),
        }
    }
    assert!(failures.is_empty(), "{}\nMERCAT_UPDATE_GOLDEN=1 writes new golden files", failures.join("\n"));
}

#[test]
fn former_encodings_still_decode() {
    let examples: BTreeMap<String, Example> =
        examples::all().into_iter().map(|example| (example.name.clone(), example)).collect();
    let mut failures = Vec::new();
    for (name, paths) in golden_files() {
        let Some(example) = examples.get(&name) else {
            failures.push(format!("{name}: golden file without an example"));
            continue;
        };
        for path in paths {
            if let Err(error) = (example.reencode)(&read(&path)) {
                failures.push(format!("{}: {error}", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_message_event_and_error_has_an_example() {
    let examples = examples::all();
    let named = |kind: &str| -> BTreeSet<String> {
        let of_kind = examples.iter().filter(|example| example.kind == kind);
        of_kind.map(|example| example.name.clone()).collect()
    };
    assert_eq!(named("message"), message_names());
    assert_eq!(named("event"), event_names());
    let errors: BTreeSet<&str> = examples.iter().filter_map(|example| example.error_type).collect();
    let listed: BTreeSet<&str> = examples.iter().filter_map(|example| example.variants_of).collect();
    let missing: Vec<_> = errors.difference(&listed).collect();
    assert!(missing.is_empty(), "errors without examples of their variants: {missing:?}");
    let names: BTreeSet<&str> = examples.iter().map(|example| example.name.as_str()).collect();
    assert_eq!(names.len(), examples.len(), "two examples have the same name");
}
