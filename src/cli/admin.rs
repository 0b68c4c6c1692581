//! `mercat admin`.

use std::io::IsTerminal as _;

use super::config::Configuration;
use super::open::{ctx, with_shop};
use super::{CliError, say};
use crate::contract::users::CreateUser;
use crate::messaging::Role;
use crate::settings::Settings;

/// Makes an administrator.
pub fn create(
    configuration: &Configuration,
    settings: Settings,
    email: String,
    name: Option<String>,
) -> Result<(), CliError> {
    let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or_default().to_owned());
    let password = password(configuration, ask_twice)?;
    with_shop(configuration, settings, &["users"], |app| {
        let users = app.clients.users.clone();
        async move {
            let request = CreateUser { email, password, name, role: Role::Admin, created_at: None };
            let user = users.call(ctx(), request).await.map_err(CliError::operation)?;
            let email = user.email.map(|email| email.to_string()).unwrap_or_default();
            say(&format!("{email} is an administrator now"));
            Ok(())
        }
    })
}

/// An administrator's password: from the environment, or as `ask` asks for it on a terminal.
pub fn password(configuration: &Configuration, ask: fn() -> Result<String, CliError>) -> Result<String, CliError> {
    match &configuration.admin_password {
        Some(password) => Ok(password.clone()),
        None if std::io::stdin().is_terminal() => ask(),
        None => Err(CliError::start(
            "there is no password: set MERCAT_ADMIN_PASSWORD, or run this on a terminal to be asked for it",
        )),
    }
}

/// Asks for a password, without showing it.
pub fn ask() -> Result<String, CliError> {
    prompt("Password: ")
}

fn prompt(text: &str) -> Result<String, CliError> {
    rpassword::prompt_password(text).map_err(|error| CliError::operation(format!("no password was read: {error}")))
}

/// Asks for a new password twice.
fn ask_twice() -> Result<String, CliError> {
    let password = ask()?;
    if prompt("Again: ")? == password {
        Ok(password)
    } else {
        Err(CliError::operation("the two passwords are different; nothing was changed"))
    }
}
