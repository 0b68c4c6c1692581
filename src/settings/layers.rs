//! Layers of values and their precedence: flags over environment over `.env` over the TOML file over the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use super::database;
use super::schema::{self, SETTINGS};

/// Maximum size of a file with a secret, in bytes.
const SECRET_FILE_MAX: u64 = 64 * 1024;

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A TOML file.
    File(String),
    /// The file `.env`.
    DotEnv(String),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
    /// The file that records where domains were moved while the shop ran.
    Relocation(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "file {file}"),
            Self::DotEnv(variable) => write!(f, "{variable} in .env"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Relocation(file) => write!(f, "mercat move, {file}"),
        }
    }
}

/// Invalid setting, as one sentence with its name, its origin and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{key}` ({origin}): {reason}")]
pub struct SettingError {
    /// Name of the setting.
    pub key: String,
    /// Origin of its value.
    pub origin: Origin,
    /// Problem, and the expected value.
    pub reason: String,
}

/// Values of one layer: setting, value, origin.
#[derive(Debug, Clone, Default)]
pub struct Layer(Vec<(String, String, Origin)>);

impl Layer {
    /// Creates a layer of flags: setting, value, name of the flag.
    #[must_use]
    pub fn flags(flags: Vec<(&'static str, String, &'static str)>) -> Self {
        Self(
            flags
                .into_iter()
                .map(|(key, value, flag)| (key.to_owned(), value, Origin::Flag(flag.to_owned())))
                .collect(),
        )
    }

    /// Creates a layer of the `MERCAT_*` variables among `variables`.
    ///
    /// # Errors
    /// If a variable names no setting: a misspelt one would silently leave the default. If the file that `MERCAT_..._FILE`
    /// names, with the value of a secret, cannot be read.
    pub fn environment(
        variables: impl IntoIterator<Item = (String, String)>,
        origin: impl Fn(String) -> Origin,
    ) -> Result<Self, SettingError> {
        let mut values: Vec<(String, String, Origin)> = Vec::new();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("MERCAT_") else { continue };
            if schema::IGNORED_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let key = name.to_lowercase().replace("__", ".");
            let origin = origin(variable);
            let (key, value) = match key.strip_suffix("_file").filter(|key| is_secret(key)) {
                Some(key) => (key.to_owned(), secret_in_file(key, &value, &origin)?),
                None => (key, value),
            };
            check_key(&key, &origin)?;
            if values.iter().any(|(other, _, from)| *other == key && *from != origin) {
                let reason = "is given as a value and as a file; remove one of the two".to_owned();
                return Err(SettingError { key, origin, reason });
            }
            values.push((key, value, origin));
        }
        Ok(Self(values))
    }

    /// Reads a layer from a TOML file.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML or names an unknown setting.
    pub fn file(path: &Path) -> Result<Self, SettingError> {
        Self::toml(path, Origin::File(path.display().to_string()))
    }

    /// Reads the record of moved domains in the data folder, which overrides all other layers.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn relocated(data: &Path) -> Result<Self, SettingError> {
        let file = data.join(super::PLACES_FILE);
        if !file.exists() {
            return Ok(Self::default());
        }
        Self::toml(&file, Origin::Relocation(file.display().to_string()))
    }

    fn toml(path: &Path, origin: Origin) -> Result<Self, SettingError> {
        let fail = |reason: String| SettingError { key: "config".to_owned(), origin: origin.clone(), reason };
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(format!("cannot be read: {e}; choose another file with --config FILE")))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            fail(format!("line {} is not valid TOML: {}", before.matches('\n').count() + 1, e.message()))
        })?;
        let mut values = Vec::new();
        flatten("", &table, &origin, &mut values)?;
        Ok(Self(values))
    }
}

/// Reads a secret from a file, as container platforms provide them. The line break at its end is no part of it.
fn secret_in_file(key: &str, path: &str, origin: &Origin) -> Result<String, SettingError> {
    let fail = |reason: String| SettingError { key: key.to_owned(), origin: origin.clone(), reason };
    let file = std::fs::File::open(path).map_err(|error| fail(format!("{path:?} cannot be opened: {error}")))?;
    let mut text = String::new();
    let read = file.take(SECRET_FILE_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| fail(format!("{path:?} cannot be read as text: {error}")))?;
    if text.len() as u64 > SECRET_FILE_MAX {
        return Err(fail(format!("{path:?} is larger than {SECRET_FILE_MAX} bytes; name the file with the secret")));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn flatten(
    prefix: &str,
    table: &toml::Table,
    origin: &Origin,
    values: &mut Vec<(String, String, Origin)>,
) -> Result<(), SettingError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}."), inner, origin, values)?,
            other => {
                check_key(&key, origin)?;
                let text = match other {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Array(items) => items
                        .iter()
                        .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned))
                        .collect::<Vec<_>>()
                        .join(","),
                    other => other.to_string(),
                };
                values.push((key, text, origin.clone()));
            }
        }
    }
    Ok(())
}

/// Rejects an unknown setting and suggests the nearest name.
fn check_key(key: &str, origin: &Origin) -> Result<(), SettingError> {
    if SETTINGS.iter().any(|spec| spec.key == key) {
        return Ok(());
    }
    let nearest = SETTINGS.iter().map(|spec| (distance(key, &spec.key), &spec.key)).min();
    let hint = match nearest {
        Some((edits, name)) if edits <= 3 => format!("; did you mean `{name}`?"),
        _ => "; `mercat config` lists all settings".to_owned(),
    };
    Err(SettingError { key: key.to_owned(), origin: origin.clone(), reason: format!("there is no such setting{hint}") })
}

/// Returns the Levenshtein distance of two names: insertions, deletions and substitutions of one character.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

fn is_secret(key: &str) -> bool {
    SETTINGS.iter().any(|spec| spec.key == key && spec.is_secret)
}

/// Value and origin of every setting.
#[derive(Debug, Clone)]
pub struct Values(BTreeMap<String, (String, Origin)>);

impl Values {
    /// Returns the built-in defaults.
    #[must_use]
    pub fn defaults() -> Self {
        Self(SETTINGS.iter().map(|spec| (spec.key.clone(), (spec.default.to_owned(), Origin::Default))).collect())
    }

    /// Returns the defaults overridden by `layers`, the weakest first.
    #[must_use]
    pub fn from_layers(layers: Vec<Layer>) -> Self {
        let mut values = Self::defaults();
        for (key, value, origin) in layers.into_iter().flat_map(|layer| layer.0) {
            values.0.insert(key, (value, origin));
        }
        values
    }

    /// Parses the value of `key`.
    pub(super) fn get<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, SettingError> {
        let text = self.0.get(key).map_or("", |(text, _)| text.as_str());
        parse(text.trim()).map_err(|reason| {
            let value = if is_secret(key) { String::new() } else { format!(" {:?}", database::masked(text)) };
            // Parsers phrase errors as the API does: `must be ...`.
            let reason =
                reason.strip_prefix("must be ").map_or_else(|| reason.clone(), |rest| format!("expected {rest}"));
            self.error_for(key, format!("invalid value{value}: {reason}"))
        })
    }

    /// Returns whether any layer sets `key`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    /// Returns whether the value of `key` was recorded by a move.
    pub(super) fn is_relocated(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some((_, Origin::Relocation(_))))
    }

    /// Returns the data folder, which may contain one more layer ([`Layer::relocated`]).
    #[must_use]
    pub fn data(&self) -> &Path {
        Path::new(self.0.get("data").map_or("", |(text, _)| text.trim()))
    }

    /// Adds a layer that overrides the present ones.
    #[must_use]
    pub fn push_layer(mut self, layer: Layer) -> Self {
        self.0.extend(layer.0.into_iter().map(|(key, value, origin)| (key, (value, origin))));
        self
    }

    /// Creates the error that the value of `key` is invalid.
    #[must_use]
    pub fn error_for(&self, key: &str, reason: String) -> SettingError {
        let origin = self.0.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
        SettingError { key: key.to_owned(), origin, reason }
    }

    /// Returns every setting with its value (secrets masked) and origin, in the order of the table.
    pub fn masked(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        SETTINGS.iter().filter_map(|spec| {
            let (value, origin) = self.0.get(&spec.key)?;
            let is_hidden = spec.is_secret && *value != spec.default;
            let value = if is_hidden { "********".to_owned() } else { database::masked(value) };
            Some((spec.key.as_str(), value, origin))
        })
    }
}
