//! Reads what settings may come from: flags, environment, `.env`, the configuration file. Nothing else in the program
//! reads them, and nothing is poured from one into another: each value keeps its origin.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use super::{CliError, Common, ServeFlags, say};
use crate::settings::{Layer, Origin, SettingError, Settings, Values};

/// The configuration file that is read when none is named.
const FILE: &str = "mercat.toml";
/// The file of variables beside it.
const DOT_ENV: &str = ".env";
/// Where a new administrator's password may be.
const ADMIN_PASSWORD: &str = "MERCAT_ADMIN_PASSWORD";

/// All values and where each came from.
pub struct Configuration {
    values: Values,
    /// From the environment or `.env`; no setting, so that no list of settings ever shows it.
    pub admin_password: Option<String>,
}

impl Configuration {
    /// Reads all layers.
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
        let values = Values::of(layers);
        let moved = Layer::moved(values.data())?;
        Ok(Self { values: values.under(moved), admin_password })
    }

    /// The typed settings, or which value cannot work.
    pub fn settings(&self) -> Result<Settings, CliError> {
        Ok(Settings::read(&self.values)?)
    }

    /// Says that the value of `key` cannot work.
    pub fn complain(&self, key: &str, reason: impl Into<String>) -> CliError {
        self.values.complain(key, reason.into()).into()
    }

    /// Prints all settings, also when one of them cannot work: then people look here.
    pub fn show(&self) -> Result<(), CliError> {
        let rows: Vec<(&str, String, String)> =
            self.values.shown().map(|(key, value, origin)| (key, format!("{value:?}"), origin.to_string())).collect();
        let width = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (keys, values) = (width(|row| row.0.len()), width(|row| row.1.chars().count().min(40)));
        for (key, value, origin) in &rows {
            say(&format!("{key:keys$} = {value:values$}  # {origin}"));
        }
        self.settings().map(drop)
    }
}

/// The environment's variables that matter here. Others may be whatever they like.
fn environment() -> Result<Vec<(String, String)>, CliError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("MERCAT_") || *name == "RUST_LOG") else {
            continue;
        };
        let value = OsString::into_string(value)
            .map_err(|_| CliError::start(format!("the environment variable {name} is not UTF-8; set it anew")))?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// The variables of the file `.env`, where there is one.
fn dot_env() -> Result<Vec<(String, String)>, CliError> {
    let fail = |reason: String| CliError::start(format!("the file {DOT_ENV}: {reason}"));
    let variables = match dotenv::from_path_iter(DOT_ENV) {
        Ok(variables) => variables,
        Err(error) if error.not_found() => return Ok(Vec::new()),
        Err(error) => return Err(fail(format!("cannot be read: {error}"))),
    };
    variables.collect::<Result<_, _>>().map_err(|error| match error {
        // The line itself is not shown: it may hold a secret.
        dotenv::Error::LineParse(line, _) => {
            let text = std::fs::read_to_string(DOT_ENV).unwrap_or_default();
            let number = text.lines().position(|other| other.trim() == line.trim()).map_or(0, |at| at + 1);
            fail(format!("line {number} is not NAME=value; put values with spaces in quotes"))
        }
        dotenv::Error::Io(error) if error.kind() == ErrorKind::InvalidData => fail("is not UTF-8".to_owned()),
        other => fail(format!("cannot be read: {other}")),
    })
}
