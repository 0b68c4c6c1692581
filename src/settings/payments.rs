//! The section `payments`: the provider and its credentials.

use std::time::Duration;

use super::parse::{choice, number};
use super::{SettingError, Values};

/// Most webhook secrets that may be valid at a time.
const WEBHOOK_SECRETS_MAX: usize = 10;

/// The section `payments`.
#[derive(Debug, Clone)]
pub struct PaymentsSettings {
    /// Payment provider.
    pub provider: Provider,
    /// Access to Stripe; used if it is the provider.
    pub stripe: StripeSettings,
    /// Time during which an invoice can be paid and its stock is reserved.
    pub invoice_lifetime: Duration,
}

/// Access to Stripe.
#[derive(Debug, Clone)]
pub struct StripeSettings {
    /// Base address of the API, without a trailing slash.
    pub url: String,
    /// Secret key of the account; empty with another provider.
    pub secret_key: String,
    /// Secrets that webhooks are signed with: several while one is being replaced.
    pub webhook_secrets: Vec<String>,
}

/// Payment provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Built-in provider for development, which takes no real money.
    Test,
    /// Stripe.
    Stripe,
}

impl PaymentsSettings {
    pub(super) fn read(values: &Values) -> Result<Self, SettingError> {
        Ok(Self {
            provider: values.get("payments.provider", |text| {
                choice(text, &[("test", Provider::Test), ("stripe", Provider::Stripe)])
            })?,
            stripe: StripeSettings {
                url: values.get("payments.stripe_url", stripe_url)?,
                secret_key: values.get("payments.stripe_secret_key", stripe_key)?,
                webhook_secrets: values.get("payments.stripe_webhook_secrets", webhook_secrets)?,
            },
            invoice_lifetime: values
                .get("payments.invoice_minutes", |text| number(text, 1, 527_040))
                .map(|minutes: u64| Duration::from_secs(minutes * 60))?,
        })
    }

    /// Checks what depends on other settings.
    pub(super) fn validate(&self, values: &Values, is_production: bool) -> Result<(), SettingError> {
        let reject = |key: &str, reason: &str| Err(values.error_for(key, reason.to_owned()));
        match self.provider {
            Provider::Test if is_production => reject(
                "payments.provider",
                "test takes no real money and is refused when environment = \"production\"; set it to stripe",
            ),
            Provider::Stripe if self.stripe.secret_key.is_empty() => reject(
                "payments.stripe_secret_key",
                "is required when payments.provider is stripe: the secret key (sk_...) of your account",
            ),
            Provider::Stripe if is_production && !self.stripe.url.starts_with("https://") => reject(
                "payments.stripe_url",
                "must begin with https:// when environment = \"production\", since the secret key is sent there",
            ),
            Provider::Test | Provider::Stripe => Ok(()),
        }
    }
}

fn stripe_url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_plain = host.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'@' | b'"' | b'<' | b'>'));
    if host.is_empty() || host.starts_with('/') || !is_plain {
        return Err("must be an address such as https://api.stripe.com".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses a secret key: it must fit into a header and must not be a publishable key.
fn stripe_key(text: &str) -> Result<String, String> {
    let is_secret_key = text.starts_with("sk_") || text.starts_with("rk_");
    if text.is_empty() || (is_secret_key && text.len() >= 8 && text.bytes().all(|b| b.is_ascii_graphic())) {
        Ok(text.to_owned())
    } else {
        Err("must be a secret key of Stripe, sk_... or rk_...; a publishable key (pk_...) cannot take money".to_owned())
    }
}

fn webhook_secrets(text: &str) -> Result<Vec<String>, String> {
    let secrets: Vec<String> = text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if secrets.iter().any(|secret| !secret.starts_with("whsec_") || secret.len() < 14) {
        return Err("must be signing secrets of Stripe's webhook endpoints, whsec_..., separated by commas".to_owned());
    }
    if secrets.len() > WEBHOOK_SECRETS_MAX {
        return Err(format!("must be at most {WEBHOOK_SECRETS_MAX} secrets, since each is tried on every webhook"));
    }
    Ok(secrets)
}
