//! `mercat admin`.

use std::io::IsTerminal as _;

use super::config::Configuration;
use super::open::{context, with_shop};
use super::{CliError, print};
use crate::contract::users::{CreateUser, ListUsers, UpdateUser};
use crate::messaging::Role;
use crate::settings::Settings;
use crate::types::{EmailAddress, PageRequest};

/// Creates an account of staff.
pub fn create(
    configuration: &Configuration,
    settings: Settings,
    email: String,
    name: Option<String>,
    role: Role,
) -> Result<(), CliError> {
    let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or_default().to_owned());
    let password = password(configuration, prompt_twice)?;
    with_shop(configuration, settings, &["users"], |app| {
        let users = app.clients.users.clone();
        async move {
            let request = CreateUser { email, password, name, role, created_at: None };
            let user = users.call(context(), request).await.map_err(CliError::operation)?;
            let email = user.email.map(|email| email.to_string()).unwrap_or_default();
            print(&match role {
                Role::Admin => format!("created administrator {email}"),
                role => format!("created {email} with the role {}", role.as_str()),
            });
            Ok(())
        }
    })
}

/// Sets the password of an account, which ends its sessions and API keys.
pub fn set_password(configuration: &Configuration, settings: Settings, email: String) -> Result<(), CliError> {
    let password = password(configuration, prompt_twice)?;
    let change = move |update: UpdateUser| UpdateUser { password: Some(password), ..update };
    update(configuration, settings, email, "the password is set; its sessions and API keys have ended", change)
}

/// Gives an account the role of an administrator.
pub fn promote(configuration: &Configuration, settings: Settings, email: String) -> Result<(), CliError> {
    let change = |update: UpdateUser| UpdateUser { role: Some(Role::Admin), ..update };
    update(configuration, settings, email, "is an administrator", change)
}

/// Changes the account with an address.
fn update(
    configuration: &Configuration,
    settings: Settings,
    email: String,
    done: &'static str,
    change: impl FnOnce(UpdateUser) -> UpdateUser + Send + 'static,
) -> Result<(), CliError> {
    let address: EmailAddress =
        email.parse().map_err(|error| CliError::operation(format!("{email} is no e-mail address: {error}")))?;
    with_shop(configuration, settings, &["users"], move |app| {
        let users = app.clients.users.clone();
        async move {
            let request = ListUsers { q: Some(address.to_string()), page: PageRequest::default() };
            let found = users.call(context(), request).await.map_err(CliError::operation)?;
            let user = found.items.into_iter().find(|user| user.email.as_ref() == Some(&address));
            let user =
                user.ok_or_else(|| CliError::operation(format!("there is no account with the address {email}")))?;
            users.call(context(), change(UpdateUser::of(user.id))).await.map_err(CliError::operation)?;
            print(&format!("{address}: {done}"));
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
