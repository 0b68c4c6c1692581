//! Where a value comes from: flags over environment over `.env` over the TOML file over the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::database;
use super::schema::{self, SETTINGS};

/// Where a value came from.
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
    /// A file that says where domains were moved while the shop ran.
    Moved(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "file {file}"),
            Self::DotEnv(variable) => write!(f, "{variable} in .env"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Moved(file) => write!(f, "moved, {file}"),
        }
    }
}

/// A setting that cannot work: one sentence with its name, where it came from and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{key}` ({origin}): {reason}")]
pub struct SettingError {
    /// Which setting.
    pub key: String,
    /// Where its value came from.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Values of one origin: setting, value, where exactly.
#[derive(Debug, Clone, Default)]
pub struct Layer(Vec<(String, String, Origin)>);

impl Layer {
    /// Values given as flags: key, value, the flag's name.
    #[must_use]
    pub fn flags(flags: Vec<(&'static str, String, &'static str)>) -> Self {
        Self(
            flags
                .into_iter()
                .map(|(key, value, flag)| (key.to_owned(), value, Origin::Flag(flag.to_owned())))
                .collect(),
        )
    }

    /// The `MERCAT_*` variables among `variables`. One that names no setting is an error: a misspelt one would
    /// otherwise be a silent default.
    pub fn environment(
        variables: impl IntoIterator<Item = (String, String)>,
        origin: impl Fn(String) -> Origin,
    ) -> Result<Self, SettingError> {
        let mut values = Vec::new();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("MERCAT_") else { continue };
            if schema::IGNORED_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let key = name.to_lowercase().replace("__", ".");
            known(&key, &origin(variable.clone()))?;
            values.push((key, value, origin(variable)));
        }
        Ok(Self(values))
    }

    /// The values of a TOML file.
    pub fn file(path: &Path) -> Result<Self, SettingError> {
        Self::toml(path, Origin::File(path.display().to_string()))
    }

    /// Where domains were moved while the shop ran: it outweighs what anybody said before.
    pub fn moved(data: &Path) -> Result<Self, SettingError> {
        let file = data.join(super::PLACES_FILE);
        if !file.exists() {
            return Ok(Self::default());
        }
        Self::toml(&file, Origin::Moved(file.display().to_string()))
    }

    fn toml(path: &Path, origin: Origin) -> Result<Self, SettingError> {
        let fail = |reason: String| SettingError { key: "config".to_owned(), origin: origin.clone(), reason };
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(format!("cannot be read: {e}; name another with --config FILE")))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            fail(format!("line {} is not TOML: {}", before.matches('\n').count() + 1, e.message()))
        })?;
        let mut values = Vec::new();
        flatten("", &table, &origin, &mut values)?;
        Ok(Self(values))
    }
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
                known(&key, origin)?;
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

/// Refuses a key that is no setting, with the nearest one that is.
fn known(key: &str, origin: &Origin) -> Result<(), SettingError> {
    if SETTINGS.iter().any(|spec| spec.key == key) {
        return Ok(());
    }
    let near = SETTINGS.iter().map(|spec| (distance(key, &spec.key), &spec.key)).min();
    let hint = match near {
        Some((far, near)) if far <= 3 => format!("; did you mean `{near}`?"),
        _ => "; `mercat config` lists all settings".to_owned(),
    };
    Err(SettingError { key: key.to_owned(), origin: origin.clone(), reason: format!("there is no such setting{hint}") })
}

/// How many letters must be added, dropped or changed between two words (Levenshtein).
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

/// Every setting's value and where it came from.
#[derive(Debug, Clone)]
pub struct Values(BTreeMap<String, (String, Origin)>);

impl Values {
    /// The built-in defaults.
    #[must_use]
    pub fn defaults() -> Self {
        Self(SETTINGS.iter().map(|spec| (spec.key.clone(), (spec.default.to_owned(), Origin::Default))).collect())
    }

    /// The defaults with `layers` over them, the weakest first.
    #[must_use]
    pub fn of(layers: Vec<Layer>) -> Self {
        let mut values = Self::defaults();
        for (key, value, origin) in layers.into_iter().flat_map(|layer| layer.0) {
            values.0.insert(key, (value, origin));
        }
        values
    }

    /// The value of `key` as `read` reads it.
    pub(super) fn get<T>(&self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, SettingError> {
        let text = self.0.get(key).map_or("", |(text, _)| text.as_str());
        read(text.trim()).map_err(|reason| {
            let masked = database::masked(text);
            let shown = if SETTINGS.iter().any(|spec| spec.key == key && spec.secret) { "its value" } else { &masked };
            self.complain(key, format!("{shown:?} cannot be used: {reason}").replace("\"its value\"", "its value"))
        })
    }

    /// Whether anybody said what `key` is to be.
    pub(super) fn is_told(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    /// Whether `key` is as a move left it.
    pub(super) fn is_moved(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some((_, Origin::Moved(_))))
    }

    /// The data folder, for what lies in it and says more.
    #[must_use]
    pub fn data(&self) -> &Path {
        Path::new(self.0.get("data").map_or("", |(text, _)| text.trim()))
    }

    /// Lays a stronger layer over all.
    #[must_use]
    pub fn under(mut self, layer: Layer) -> Self {
        self.0.extend(layer.0.into_iter().map(|(key, value, origin)| (key, (value, origin))));
        self
    }

    /// Says that the value of `key` cannot work.
    #[must_use]
    pub fn complain(&self, key: &str, reason: String) -> SettingError {
        let origin = self.0.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
        SettingError { key: key.to_owned(), origin, reason }
    }

    /// Every setting with its value (secrets masked) and origin, in the order of the table.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        SETTINGS.iter().filter_map(|spec| {
            let (value, origin) = self.0.get(&spec.key)?;
            let is_secret = spec.secret && *value != spec.default;
            let value = if is_secret { "********".to_owned() } else { database::masked(value) };
            Some((spec.key.as_str(), value, origin))
        })
    }
}
