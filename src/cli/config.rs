//! Reads the sources of settings: flags, environment, `.env`, the configuration file. Nothing else in the program reads
//! them. Each value keeps its origin.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use super::{CliError, Common, ServeFlags, print};
use crate::settings::{Layer, Origin, SettingError, Settings, Values};

/// Configuration file that is read if no flag names one.
const FILE: &str = "mercat.toml";
/// File of variables in the same folder.
const DOT_ENV: &str = ".env";
/// Variable with the password of a new administrator.
const ADMIN_PASSWORD: &str = "MERCAT_ADMIN_PASSWORD";

/// All values with their origins.
pub struct Configuration {
    values: Values,
    /// From the environment or `.env`; not a setting, so that no list of settings ever contains it.
    pub admin_password: Option<String>,
}

impl Configuration {
    /// Reads all layers.
    ///
    /// # Errors
    /// If a file cannot be read or names an unknown setting.
    pub fn load(common: &Common, serve: &ServeFlags) -> Result<Self, CliError> {
        let mut layers = Vec::new();
        let file = common.config.as_deref().or_else(|| Some(Path::new(FILE)).filter(|file| file.exists()));
        if let Some(file) = file {
            layers.push(Layer::file(file)?);
        }
        let dot_env = dot_env()?;
        layers.push(Layer::environment(dot_env.clone(), Origin::DotEnv)?);
        let environment = environment()?;
        let given = |name: &str| environment.iter().any(|(variable, _)| variable == name);
        let mut chosen: Vec<(String, String)> =
            environment.iter().filter(|(name, _)| name.starts_with("MERCAT_")).cloned().collect();
        let password = |variables: &[(String, String)]| {
            variables.iter().find(|(name, _)| name == ADMIN_PASSWORD).map(|(_, value)| value.clone())
        };
        let admin_password = password(&environment).or_else(|| password(&dot_env));
        chosen.sort();
        layers.push(Layer::environment(chosen, Origin::Environment)?);
        if !given("MERCAT_LOG")
            && let Some((_, filter)) = environment.iter().find(|(name, _)| name == "RUST_LOG")
            && !filter.trim().is_empty()
        {
            let origin = |_| Origin::Environment("RUST_LOG".to_owned());
            layers.push(Layer::environment([("MERCAT_LOG".to_owned(), filter.clone())], origin)?);
        }
        let mut flags = Vec::new();
        if let Some(listen) = &serve.listen {
            flags.push(("listen", listen.clone(), "--listen"));
        }
        if let Some(domains) = &serve.domains {
            flags.push(("domains", domains.clone(), "--domains"));
        }
        if let Some(grpc) = &serve.grpc {
            flags.push(("grpc", grpc.clone(), "--grpc"));
        }
        if let Some(data) = &common.data {
            let data = data.clone().into_string().map_err(|_| SettingError {
                key: "data".to_owned(),
                origin: Origin::Flag("--data".to_owned()),
                reason: "is not UTF-8".to_owned(),
            })?;
            flags.push(("data", data, "--data"));
        }
        if serve.no_demo {
            flags.push(("demo", "false".to_owned(), "--no-demo"));
        }
        if serve.standby {
            flags.push(("standby", "true".to_owned(), "--standby"));
        }
        layers.push(Layer::flags(flags));
        let values = Values::from_layers(layers);
        let relocated = Layer::relocated(values.data())?;
        Ok(Self { values: values.push_layer(relocated), admin_password })
    }

    /// Returns the typed settings.
    ///
    /// # Errors
    /// If a value is invalid.
    pub fn settings(&self) -> Result<Settings, CliError> {
        Ok(Settings::from_values(&self.values)?)
    }

    /// Creates the error that the value of `key` is invalid.
    pub fn error_for(&self, key: &str, reason: impl Into<String>) -> CliError {
        self.values.error_for(key, reason.into()).into()
    }

    /// Prints all settings, also if one of them is invalid, then returns the error.
    pub fn print(&self) -> Result<(), CliError> {
        let rows: Vec<(&str, String, String)> =
            self.values.masked().map(|(key, value, origin)| (key, format!("{value:?}"), origin.to_string())).collect();
        let width = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (key_width, value_width) = (width(|row| row.0.len()), width(|row| row.1.chars().count().min(40)));
        for (key, value, origin) in &rows {
            print(&format!("{key:key_width$} = {value:value_width$}  # {origin}"));
        }
        self.settings().map(drop)
    }
}

/// Returns the environment variables of the program; others may even be invalid UTF-8.
fn environment() -> Result<Vec<(String, String)>, CliError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("MERCAT_") || *name == "RUST_LOG") else {
            continue;
        };
        let value = OsString::into_string(value)
            .map_err(|_| CliError::start(format!("the environment variable {name} is not UTF-8; set it again")))?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Returns the variables of the file `.env`; none if it does not exist.
fn dot_env() -> Result<Vec<(String, String)>, CliError> {
    let unusable = |reason: String| CliError::start(format!("the file {DOT_ENV}: {reason}"));
    let variables = match dotenv::from_path_iter(DOT_ENV) {
        Ok(variables) => variables,
        Err(error) if error.not_found() => return Ok(Vec::new()),
        Err(error) => return Err(unusable(format!("cannot be read: {error}"))),
    };
    variables.collect::<Result<_, _>>().map_err(|error| match error {
        // The line itself is not shown, since it may contain a secret.
        dotenv::Error::LineParse(line, _) => {
            let text = std::fs::read_to_string(DOT_ENV).unwrap_or_default();
            let number = text.lines().position(|other| other.trim() == line.trim()).map_or(0, |at| at + 1);
            unusable(format!("line {number} is not NAME=value; put values with spaces in quotes"))
        }
        dotenv::Error::Io(error) if error.kind() == ErrorKind::InvalidData => unusable("is not UTF-8".to_owned()),
        other => unusable(format!("cannot be read: {other}")),
    })
}
