//! Rules of the source tree that the compiler does not check: import direction, the homes of SQL, WebSocket and gRPC
//! code, documentation openers, function length, unique type names, test names, words that must not come back, and the
//! relative links of the documentation.
//!
//! Each test reads the source files and reports all offences at once. Does not start the shop.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layers of `src`, lowest first. A folder imports only from lower layers, so there is no cycle.
const LAYERS: &[&[&str]] = &[
    &["fault_injection", "histogram"],
    &["types"],
    &["settings"],
    &["messaging"],
    &["contract", "store"],
    &["events", "tasks"],
    &["outgoing_http", "runtime"],
    &["domains"],
    &["app"],
    &["consistency_check", "demo"],
    &["backup"],
    &["web"],
    &["cli"],
];

/// Imports against the direction of [`LAYERS`]: (folder, imported folder, reason).
const IMPORT_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Files outside a `store` that build queries: (end of the path, reason).
const SQL_EXCEPTIONS: &[(&str, &str)] = &[];

/// Folders that do not know diesel at all, not even as an error or a column type.
const FOLDERS_WITHOUT_DIESEL: &[&str] = &["app", "cli", "contract", "events", "messaging", "settings", "web"];

/// Crates with the only files that may name them. Server-sent events use the HTTP context of `actix_web_actors`, which no
/// other crate has; its WebSocket modules are used by `websocket.rs` only.
const CRATE_HOMES: &[(&str, &[&str])] = &[
    ("actix_web_actors", &["src/web/live/websocket.rs", "src/web/live/sse.rs"]),
    ("tonic", &["src/messaging/grpc/", "src/web/grpc.rs"]),
];

/// Type names that are defined more than once, each with its reason.
const REPEATED_TYPES: &[(&str, &str)] = &[];

/// Private names of former versions and phrases without a technical meaning. Matched as whole words, and in any case
/// unless they contain a capital.
const DENIED_WORDS: &[&str] = &[
    "hearer",
    "hearers",
    "laboratory",
    "laboratories",
    "whoever",
    "whomever",
    "is told",
    "are told",
    "was told",
    "news of",
    "looks in beside",
    "PATIENCE",
    "joint",
    "joints",
    "for ever",
    "Room",
    "Rooms",
    "wish",
    "wishes",
    "shelf",
    "under way",
    "set aside",
    "sets aside",
    "lays aside",
    "by itself",
    "nobody",
    "somebody",
    "lives here",
    "never enters",
    "twins",
    "the house",
    "MERCAT_LAB",
];

/// Lines with a denied word in its literal meaning: (end of the path, part of the line, reason).
const WORD_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Longest function in lines, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest name of a test.
const TEST_NAME_MAX: usize = 60;

struct Source {
    /// Relative to the package, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.starts_with("benches/")
            || self.path.ends_with("tests.rs")
            || self.path.contains("/tests/")
    }

    /// Top-level module of a file in `src`: a folder's name or a file's without `.rs`.
    fn folder(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?;
        let first = path.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "main")).then_some(name)
    }

    /// The text before the file's test module.
    fn production(&self) -> &str {
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// Production lines with numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.production().lines().enumerate().map(|(n, line)| (n + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Text files below `folders` with one of these extensions, this file excepted.
fn sources(folders: &[&str], extensions: &[&str]) -> Vec<Source> {
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| package().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let relative = path.strip_prefix(package()).unwrap().to_string_lossy().replace('\\', "/");
        if extensions.contains(&extension) && relative != "tests/structure.rs" {
            files.push(Source { text: std::fs::read_to_string(&path).unwrap(), path: relative });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty(), "no sources in {folders:?}");
    files
}

fn rust(folders: &[&str]) -> Vec<Source> {
    sources(folders, &["rs"])
}

/// Fails with all offences at once.
fn assert_none(check: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{check}: {} offences\n{}", offences.len(), offences.join("\n"));
}

/// Whether `word` occurs in `text` other than as a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_part)
            && !text[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Paths below `crate::` that a line of code names: `crate::store::query` gives `["store", "query"]`.
fn crate_paths(line: &str) -> Vec<Vec<&str>> {
    let starts = line.match_indices("crate::").map(|(at, word)| &line[at + word.len()..]);
    starts
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
            // Macros are exported at the root, whichever module defines them.
            let is_macro = rest[end..].starts_with('!');
            rest[..end].split("::").filter(|part| !part.is_empty() && !is_macro).collect()
        })
        .collect()
}

/// Imports between the top-level modules of `src`, each with its first place.
fn imports() -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    let files = rust(&["src"]);
    let folders: BTreeSet<&str> = files.iter().filter_map(Source::folder).collect();
    for file in files.iter().filter(|file| !file.is_test()) {
        let Some(from) = file.folder() else { continue };
        for (n, line) in file.code() {
            for path in crate_paths(line) {
                let Some(to) = path.first().filter(|to| folders.contains(*to) && **to != from) else { continue };
                all.entry((from.to_owned(), (*to).to_owned())).or_insert_with(|| file.at(n));
            }
        }
    }
    all
}

#[test]
fn imports_point_to_lower_layers() {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut offences = Vec::new();
    for ((from, to), place) in imports() {
        if IMPORT_EXCEPTIONS.iter().any(|(f, t, _)| (*f, *t) == (from.as_str(), to.as_str())) {
            continue;
        }
        match (layer(&from), layer(&to)) {
            (Some(above), Some(below)) if below < above => {}
            (Some(_), Some(_)) => offences.push(format!("{place}: {from} imports {to}")),
            (None, _) => offences.push(format!("{place}: {from} has no layer")),
            (_, None) => offences.push(format!("{place}: {to} has no layer")),
        }
    }
    assert_none("imports_point_to_lower_layers", &offences);
}

/// A domain knows other domains by their contract, and by their actor's type for a `Client`.
#[test]
fn domains_import_no_internals_of_others() {
    let mut offences = Vec::new();
    for file in rust(&["src/domains"]).iter().filter(|file| !file.is_test()) {
        let own = file.path["src/domains/".len()..].split('/').next().unwrap();
        for (n, line) in file.code() {
            for path in crate_paths(line) {
                if let ["domains", other, rest @ ..] = path.as_slice()
                    && *other != own
                    && !rest.first().is_some_and(|name| name.ends_with("Actor"))
                {
                    offences.push(format!("{}: {}", file.at(n), line.trim()));
                }
            }
        }
    }
    assert_none("domains_import_no_internals_of_others", &offences);
}

#[test]
fn only_stores_contain_sql() {
    let builders = ["store::query", "diesel::prelude", "diesel::dsl", "diesel::insert_into", "diesel::update"];
    let builders = [&builders[..], &["diesel::delete", "diesel::select", "sql_query", "QueryDsl"]].concat();
    let statements = ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE ", "\"PRAGMA ", "\"VACUUM"];
    let mut offences = Vec::new();
    for file in rust(&["src"]).iter().filter(|file| !file.is_test()) {
        let is_store = file.path.contains("/store/") || file.path.ends_with("/store.rs");
        if is_store || SQL_EXCEPTIONS.iter().any(|(path, _)| file.path.ends_with(path)) {
            continue;
        }
        let without_diesel = file.folder().is_some_and(|folder| FOLDERS_WITHOUT_DIESEL.contains(&folder));
        for (n, line) in file.code() {
            let is_query = builders.iter().chain(&statements).any(|part| line.contains(part));
            if is_query || (without_diesel && has_word(line, "diesel")) {
                offences.push(format!("{}: {}", file.at(n), line.trim()));
            }
        }
    }
    assert_none("only_stores_contain_sql", &offences);
}

#[test]
fn transport_crates_stay_in_their_modules() {
    let mut offences = Vec::new();
    for file in rust(&["src"]).iter().filter(|file| !file.is_test()) {
        for (name, homes) in CRATE_HOMES {
            if homes.iter().any(|home| file.path.starts_with(home)) {
                continue;
            }
            let uses = file.code().filter(|(_, line)| has_word(line, name));
            offences.extend(uses.map(|(n, line)| format!("{}: {}", file.at(n), line.trim())));
        }
    }
    assert_none("transport_crates_stay_in_their_modules", &offences);
}

#[test]
fn old_words_do_not_come_back() {
    let files = sources(&["src", "tests", "benches", "static"], &["rs", "js", "html", "css"]);
    let mut offences = Vec::new();
    for file in &files {
        for (n, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            for word in DENIED_WORDS {
                let is_cased = word.chars().any(char::is_uppercase);
                let is_excepted =
                    WORD_EXCEPTIONS.iter().any(|(path, part, _)| file.path.ends_with(path) && line.contains(part));
                if has_word(if is_cased { line } else { &lower }, word) && !is_excepted {
                    offences.push(format!("{}: `{word}` in: {}", file.at(n + 1), line.trim()));
                }
            }
        }
    }
    assert_none("old_words_do_not_come_back", &offences);
}

/// First lines of doc comments: (line, text, what follows the comment).
fn doc_openers(text: &str) -> Vec<(usize, String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let kind = |line: &str| ["///", "//!"].into_iter().find(|kind| line.trim_start().starts_with(kind));
    let mut openers = Vec::new();
    let mut before = None;
    for (n, line) in lines.iter().enumerate() {
        let now = kind(line);
        if let Some(mark) = now.filter(|_| now != before) {
            let opener = line.trim_start()[mark.len()..].trim().to_owned();
            let item = lines[n..].iter().find(|line| {
                let line = line.trim_start();
                !line.starts_with("///") && !line.starts_with("#[")
            });
            let at = lines.iter().skip(n).position(|line| item == Some(line)).map_or(n, |skipped| n + skipped);
            openers.push((n + 1, opener, lines[at..lines.len().min(at + 8)].join(" ")));
        }
        before = now;
    }
    openers
}

#[test]
fn doc_comments_open_with_a_noun_or_a_verb() {
    let clauses = ["What", "Who", "Whose", "Whom", "Which", "How", "Where", "When", "Why", "Whether", "That", "If"];
    let mut offences = Vec::new();
    for file in rust(&["src", "tests", "benches"]) {
        for (n, opener, item) in doc_openers(&file.text) {
            let first = opener.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            let is_bool = item.chars().take(400).collect::<String>().to_lowercase().contains("bool");
            if clauses.contains(&first) && !(first == "Whether" && is_bool) {
                offences.push(format!("{}: {opener}", file.at(n)));
            }
        }
    }
    assert_none("doc_comments_open_with_a_noun_or_a_verb", &offences);
}

/// Functions of formatted code: (line, name, number of lines).
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let modifiers = ["pub", "const", "async", "unsafe", "extern"];
        let words = code.split_whitespace().skip_while(|word| {
            modifiers.contains(&word.split('(').next().unwrap_or_default())
                || word.starts_with('"')
                || word.ends_with(')')
        });
        let mut words = words;
        if words.next() != Some("fn") {
            continue;
        }
        let name: String =
            words.next().unwrap_or_default().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_end = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest == "}");
        let is_one_line = line.ends_with('}') || line.ends_with(';');
        if let Some(length) = lines[n..].iter().position(is_end).filter(|_| !is_one_line) {
            found.push((n + 1, name, length + 1));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut offences = Vec::new();
    for file in rust(&["src"]).iter().filter(|file| !file.is_test()) {
        for (n, name, length) in functions(file.production()) {
            if length > FUNCTION_LINES_MAX {
                offences.push(format!("{}: {name} has {length} lines", file.at(n)));
            }
        }
    }
    assert_none("functions_are_short", &offences);
}

/// Name of the type that a line defines. Associated types, which are indented, do not count.
fn defined_type(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let code = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest[rest.find(')')? + 1..].trim_start(),
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => code,
    };
    let rest = ["struct ", "enum ", "trait ", "union "].iter().find_map(|kind| code.strip_prefix(kind));
    let rest = rest.or_else(|| if line.starts_with(' ') { None } else { code.strip_prefix("type ") })?;
    let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
    (!name.is_empty()).then_some(name)
}

#[test]
fn type_names_are_unique() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in rust(&["src"]) {
        for (n, line) in file.text.lines().enumerate() {
            if let Some(name) = defined_type(line) {
                places.entry(name.to_owned()).or_default().push(file.at(n + 1));
            }
        }
    }
    let is_excepted = |name: &str| REPEATED_TYPES.iter().any(|(repeated, _)| *repeated == name);
    let repeated = places.iter().filter(|(name, places)| places.len() > 1 && !is_excepted(name));
    let offences: Vec<String> = repeated.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert_none("type_names_are_unique", &offences);
}

#[test]
fn test_names_are_short() {
    let mut offences = Vec::new();
    for file in rust(&["src", "tests"]) {
        let mut is_test = false;
        for (n, line) in file.text.lines().enumerate() {
            let code = line.trim_start();
            is_test |= code.starts_with("#[test]") || code.ends_with("::test]") || code.starts_with("#[actix::test");
            let Some(rest) = code.split_once("fn ").filter(|_| is_test).map(|(_, rest)| rest) else { continue };
            is_test = false;
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.len() > TEST_NAME_MAX {
                offences.push(format!("{}: {name} has {} characters", file.at(n + 1), name.len()));
            }
        }
    }
    assert_none("test_names_are_short", &offences);
}

/// Targets of the Markdown links of a text that are relative paths, without the part after `#`: (line, target).
fn relative_links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (n, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let path = target.split([' ', '#']).next().unwrap_or_default();
            if !path.is_empty() && !target.contains(':') {
                links.push((n + 1, path));
            }
        }
    }
    links
}

#[test]
fn relative_links_lead_to_files() {
    let mut files = sources(&["docs"], &["md"]);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        files.extend(sources(&[name], &["md"]));
    }
    let mut offences = Vec::new();
    for file in &files {
        let path = package().join(&file.path);
        for (n, target) in relative_links(&file.text) {
            if !path.with_file_name(target).exists() {
                offences.push(format!("{}: {target} does not exist", file.at(n)));
            }
        }
    }
    assert_none("relative_links_lead_to_files", &offences);
}

/// Number of a guarantee that a test name carries: `p07_last_units_are_sold_once` gives `P7`.
fn guarantee(name: &str) -> Option<String> {
    let (number, _) = name.split_once('_')?;
    let kind = number.chars().next().filter(|kind| "pnhs".contains(*kind))?;
    let digits = &number[1..];
    let is_number = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| format!("{}{}", kind.to_ascii_uppercase(), digits.trim_start_matches('0')))
}

#[test]
fn guarantees_page_lists_their_tests() {
    let mut tests: BTreeSet<(String, String)> = BTreeSet::new();
    for file in rust(&["src", "tests"]) {
        for line in file.text.lines() {
            let name = line.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
            if let Some(number) = name.and_then(guarantee) {
                tests.insert((number, file.path.clone()));
            }
        }
    }
    let page = std::fs::read_to_string(package().join("docs/guarantees.md")).unwrap();
    let mut listed: BTreeSet<(String, String)> = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| no.")) {
        let number = row[2..].split(' ').next().unwrap_or_default();
        let files = relative_links(row).into_iter().map(|(_, target)| target.trim_start_matches("../").to_owned());
        listed.extend(files.map(|file| (number.to_owned(), file)));
    }
    let missing =
        tests.difference(&listed).map(|(number, file)| format!("{number} is tested in {file}: list it there"));
    let stale = listed.difference(&tests).map(|(number, file)| format!("{number}: {file} has no test of that number"));
    assert_none("guarantees_page_lists_their_tests", &missing.chain(stale).collect::<Vec<_>>());
}

#[test]
fn security_page_names_tests_that_exist() {
    let sources = rust(&["src", "tests"]);
    let page = std::fs::read_to_string(package().join("docs/security.md")).unwrap();
    let list = page.split("## OWASP").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let is_test_name = |word: &&str| {
        word.matches('_').count() >= 2
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let named: BTreeSet<&str> = list.split('`').skip(1).step_by(2).filter(is_test_name).collect();
    assert!(!named.is_empty());
    let exists = |name: &str| sources.iter().any(|file| file.text.contains(&format!("fn {name}(")));
    let missing: Vec<String> = named.into_iter().filter(|name| !exists(name)).map(str::to_owned).collect();
    assert_none("security_page_names_tests_that_exist", &missing);
}
