//! `mercat seed demo`: loads the sample data, also into a shop that has data of its own.

use super::config::Configuration;
use super::open::with_shop;
use super::products::bar;
use super::{CliError, print, print_error};
use crate::app::sample_data_domains;
use crate::demo::{self, DemoSummary, ExistingAccounts};
use crate::settings::Settings;
use crate::types::Clock;

/// Loads the sample data.
pub fn demo(configuration: &Configuration, settings: Settings, accounts: ExistingAccounts) -> Result<(), CliError> {
    if accounts == ExistingAccounts::Reset {
        exit_with_parent();
    }
    with_shop(configuration, settings, &sample_data_domains(), move |app| {
        let clients = app.clients.clone();
        async move {
            let bar = bar(0, "{bar:40} {pos} of {len}");
            let progress = |done: u64, all: u64| {
                bar.set_length(all);
                bar.set_position(done);
            };
            let loaded = demo::load(&clients, &Clock::system(), accounts, &progress).await;
            bar.finish_and_clear();
            let loaded = loaded.map_err(CliError::operation)?;
            print_credentials(&loaded);
            let DemoSummary { products, pictures, customers, orders, comments, .. } = loaded;
            print(&format!(
                "sample data loaded: {products} products, {pictures} new pictures, {customers} customers, {orders} new \
                 orders, {comments} new comments"
            ));
            Ok(())
        }
    })
}

/// Exits when the shop that started this process exits, which closes its standard input. Otherwise a shop that was
/// killed and started again would run while the first load is still in progress.
fn exit_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}

/// Prints the sample accounts to standard error, and not to the log, which may be kept.
fn print_credentials(loaded: &DemoSummary) {
    match &loaded.admin_password {
        Some(password) => {
            print_error(&format!("demo administrator: {} with the password {password}", demo::ADMIN));
        }
        None => {
            print_error(&format!("demo administrator: {} exists already; its password was not changed", demo::ADMIN))
        }
    }
    if let Some(password) = &loaded.customer_password {
        print_error(&format!("demo customers: {} and others, all with the password {password}", loaded.customer));
    }
}
