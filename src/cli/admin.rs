//! `mercat admin`.

use std::io::IsTerminal as _;

use super::config::Configuration;
use super::open::{context, with_shop};
use super::{CliError, print};
use crate::contract::users::CreateUser;
use crate::messaging::Role;
use crate::settings::Settings;

/// Creates an administrator.
pub fn create(
    configuration: &Configuration,
    settings: Settings,
    email: String,
    name: Option<String>,
) -> Result<(), CliError> {
    let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or_default().to_owned());
    let password = password(configuration, prompt_twice)?;
    with_shop(configuration, settings, &["users"], |app| {
        let users = app.clients.users.clone();
        async move {
            let request = CreateUser { email, password, name, role: Role::Admin, created_at: None };
            let user = users.call(context(), request).await.map_err(CliError::operation)?;
            let email = user.email.map(|email| email.to_string()).unwrap_or_default();
            print(&format!("created administrator {email}"));
            Ok(())
        }
    })
}

/// Returns an administrator's password: from the environment, or by `prompt` on a terminal.
pub fn password(configuration: &Configuration, prompt: fn() -> Result<String, CliError>) -> Result<String, CliError> {
    match &configuration.admin_password {
        Some(password) => Ok(password.clone()),
        None if std::io::stdin().is_terminal() => prompt(),
        None => Err(CliError::start("no password: set MERCAT_ADMIN_PASSWORD, or run this command on a terminal")),
    }
}

/// Reads a password from the terminal without echo.
pub fn prompt_once() -> Result<String, CliError> {
    read_password("Password: ")
}

fn read_password(text: &str) -> Result<String, CliError> {
    rpassword::prompt_password(text)
        .map_err(|error| CliError::operation(format!("the password cannot be read: {error}")))
}

/// Reads a new password twice from the terminal.
fn prompt_twice() -> Result<String, CliError> {
    let password = prompt_once()?;
    if read_password("Again: ")? == password {
        Ok(password)
    } else {
        Err(CliError::operation("the passwords differ; nothing was changed"))
    }
}
