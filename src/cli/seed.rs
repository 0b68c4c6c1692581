//! `mercat seed demo`: the demo shop, into a shop that may have things of its own.

use super::config::Configuration;
use super::open::with_shop;
use super::products::bar;
use super::{CliError, say, tell};
use crate::demo::{self, DemoSummary, ExistingAccounts};
use crate::settings::Settings;
use crate::types::Clock;

/// The domains a demo shop is loaded into.
pub const DOMAINS: [&str; 4] = ["users", "catalog", "payments", "comments"];

/// Loads the demo shop.
pub fn demo(configuration: &Configuration, settings: Settings, accounts: ExistingAccounts) -> Result<(), CliError> {
    if accounts == ExistingAccounts::Reset {
        end_with_parent();
    }
    with_shop(configuration, settings, &DOMAINS, move |app| {
        let clients = app.clients.clone();
        async move {
            let bar = bar(0, "{bar:40} {pos} of {len}");
            let step = |done: u64, all: u64| {
                bar.set_length(all);
                bar.set_position(done);
            };
            let loaded = demo::load(&clients, &Clock::system(), accounts, &step).await;
            bar.finish_and_clear();
            let loaded = loaded.map_err(CliError::operation)?;
            credentials(&loaded);
            let DemoSummary { products, pictures, customers, orders, comments, .. } = loaded;
            say(&format!(
                "the demo shop is in: {products} products, {pictures} new pictures, {customers} customers, {orders} new \
                 orders, {comments} new comments"
            ));
            Ok(())
        }
    })
}

/// Ends this process when the shop that started it is gone: its input has no other end then. A shop that was killed and
/// started again would otherwise find the load of the first start still at work.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}

/// Tells how to sign in. To standard error like everything a shop says at its start, and never into the log, which is
/// kept.
fn credentials(loaded: &DemoSummary) {
    match &loaded.admin_password {
        Some(password) => {
            tell(&format!("demo administrator: {} with the password {password}", demo::ADMIN));
        }
        None => tell(&format!("demo administrator: {} exists already; its password stays", demo::ADMIN)),
    }
    if let Some(password) = &loaded.customer_password {
        tell(&format!("demo customers: {} and others, all with the password {password}", loaded.customer));
    }
}
