//! The two pages, rendered with what the settings say of the shop: its name, and how it takes payments.
//!
//! Does not contain: anything made per request. The pages read all data from the API.

use minijinja::{AutoEscape, Environment, context};

use super::static_files::{Asset, embedded_text};
use crate::settings::{Provider, Settings};

/// The pages of a shop.
pub struct Pages {
    /// The storefront; also the page of unknown paths, whose script says so within the shop's layout.
    pub storefront: Option<Asset>,
    /// The back office.
    pub admin: Option<Asset>,
}

impl Pages {
    /// Renders the pages. One is absent in a build without the folder `static/`.
    pub fn new(settings: &Settings) -> Self {
        let page = |name: &str| {
            let rendered = render(&embedded_text(name)?, settings);
            let html = rendered.map_err(|error| log::error!("web: page {name} cannot be rendered: {error}")).ok()?;
            Some(Asset::new("text/html; charset=utf-8", true, html.into()))
        };
        Self { storefront: page("index.html"), admin: page("admin.html") }
    }
}

fn render(template: &str, settings: &Settings) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.render_str(
        template,
        context! { shop => settings.shop.name.clone(), takes_test_cards => settings.payments.provider == Provider::Test },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_name_of_the_shop_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_test(folder.path());
        settings.shop.name = "Tea & <b>Co</b>".to_owned();
        let html = |settings: &Settings| render(&embedded_text("index.html").unwrap(), settings).unwrap();
        let page = html(&settings);
        assert!(page.contains("<title>Tea &amp; &lt;b&gt;Co&lt;"), "{page}");
        assert!(page.contains("data-test-cards=\"true\"") && !page.contains("{{"), "{page}");
        settings.payments.provider = Provider::Stripe;
        assert!(!html(&settings).contains("data-test-cards"));
    }
}
