//! Rendering of automatic emails from templates that are embedded in the program.
//!
//! Names and descriptions are escaped in HTML, because a product may be called `<script>`.
//! Does not contain: when an email is due, and to whom.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

use super::model::{self, EmailContent};
use crate::settings::Settings;
use crate::types::collapse_whitespace;

macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name)))),+]
    };
}

/// Each email as text and as HTML; the extension decides on escaping.
const TEMPLATES: [(&str, &str); 12] = templates![
    "welcome.txt",
    "welcome.html",
    "verify.txt",
    "verify.html",
    "reset.txt",
    "reset.html",
    "security.txt",
    "security.html",
    "receipt.txt",
    "receipt.html",
    "refund.txt",
    "refund.html",
];

/// Renders automatic emails.
pub struct TemplateRenderer {
    templates: Environment<'static>,
    shop: String,
    url: String,
}

/// A rendered email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEmail {
    /// Subject line.
    pub subject: String,
    /// Plain-text body.
    pub text: String,
    /// HTML body.
    pub html: String,
}

/// Variables of a template.
#[derive(Serialize)]
struct TemplateContext<'a> {
    shop: &'a str,
    url: &'a str,
    name: &'a str,
    subject: &'a str,
    #[serde(flatten)]
    content: &'a EmailContent,
}

impl TemplateRenderer {
    /// Parses the templates.
    ///
    /// # Errors
    /// If a template is malformed.
    pub fn new(settings: &Settings) -> Result<Self, minijinja::Error> {
        let mut templates = Environment::new();
        // A misspelt variable is an error that the tests find, instead of a gap in an email.
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in TEMPLATES {
            templates.add_template(name, source)?;
        }
        let url = settings.public_url.clone().unwrap_or_else(|| format!("http://{}", settings.listen));
        Ok(Self { templates, shop: collapse_whitespace(&settings.shop.name), url })
    }

    /// Returns the public URL of the shop, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Renders an email to a user of this name, which may be empty.
    ///
    /// # Errors
    /// If a template uses an unknown variable.
    pub fn render(&self, content: &EmailContent, name: &str) -> Result<RenderedEmail, minijinja::Error> {
        let subject = content.subject(&self.shop);
        let name = collapse_whitespace(name);
        let name = model::salutation(&name);
        let context = TemplateContext { shop: &self.shop, url: &self.url, name, subject: &subject, content };
        let context = Value::from(Serde(&context));
        let render = |extension: &str| {
            self.templates.get_template(&format!("{}.{extension}", content.template()))?.render(context.clone())
        };
        Ok(RenderedEmail { text: render("txt")?, html: render("html")?, subject })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::users::CredentialChange;
    use crate::domains::mailer::model::ReceiptLine;

    fn renderer() -> TemplateRenderer {
        let mut settings = Settings::for_test(std::path::Path::new("."));
        settings.shop.name = "Tea & Co".to_owned();
        settings.public_url = Some("https://tea.example".to_owned());
        TemplateRenderer::new(&settings).unwrap()
    }

    #[test]
    fn every_email_renders_and_escapes_html_only() {
        let line = ReceiptLine {
            description: "<b>Cup</b>".to_owned(),
            quantity: 2,
            unit_price: "4.50 EUR".to_owned(),
            total: "9.00 EUR".to_owned(),
        };
        let (number, link_id) = ("INV-000007".to_owned(), uuid::Uuid::nil());
        let cases = [
            (EmailContent::Welcome, "https://tea.example/"),
            (EmailContent::Verify { link: "https://tea.example/verify?token=t".to_owned(), link_id }, "verify?token=t"),
            (EmailContent::Reset { link: "https://tea.example/reset?token=t".to_owned(), link_id }, "reset?token=t"),
            (
                EmailContent::Receipt {
                    number: number.clone(),
                    date: "2026-03-01".to_owned(),
                    lines: vec![line.clone()],
                    shipping: None,
                    taxes: Vec::new(),
                    tax_included: true,
                    total: "9.00 EUR".to_owned(),
                },
                "2 x <b>Cup</b>\n    4.50 EUR each, 9.00 EUR\n\nTotal: 9.00 EUR\n\nTea",
            ),
            (
                EmailContent::Receipt {
                    number: number.clone(),
                    date: "2026-03-01".to_owned(),
                    lines: vec![line.clone()],
                    shipping: Some(("Parcel".to_owned(), "3.00 EUR".to_owned())),
                    taxes: vec![("VAT 20 %".to_owned(), "2.00 EUR".to_owned())],
                    tax_included: true,
                    total: "12.00 EUR".to_owned(),
                },
                "9.00 EUR\n\nParcel: 3.00 EUR\nTotal: 12.00 EUR\nincluding VAT 20 %: 2.00 EUR\n\nTea",
            ),
            (
                EmailContent::Receipt {
                    number: number.clone(),
                    date: "2026-03-01".to_owned(),
                    lines: vec![line],
                    shipping: None,
                    taxes: vec![("VAT 20 %".to_owned(), "1.80 EUR".to_owned())],
                    tax_included: false,
                    total: "10.80 EUR".to_owned(),
                },
                "9.00 EUR\n\nVAT 20 %: 1.80 EUR\nTotal: 10.80 EUR\n\nTea",
            ),
            (
                EmailContent::Refund {
                    number,
                    amount: "9.00 EUR".to_owned(),
                    all: true,
                    out_of_stock: true,
                    late: false,
                },
                "sold out",
            ),
            (
                EmailContent::Refund {
                    number: "INV-000008".to_owned(),
                    amount: "9.00 EUR".to_owned(),
                    all: true,
                    out_of_stock: false,
                    late: true,
                },
                "had already expired or been cancelled",
            ),
        ];
        let changes = [
            (CredentialChange::EmailRequested, "takes effect when it is confirmed"),
            (CredentialChange::Email, "is now used instead of this one"),
            (CredentialChange::Password, "password of your account was changed"),
            (CredentialChange::ApiKey, "API key"),
            (CredentialChange::Role, "role"),
            (CredentialChange::SecondFactorOn, "switched on"),
            (CredentialChange::SecondFactorOff, "switched off"),
            (CredentialChange::OfStaff, "another member of staff"),
        ];
        let notices = changes.map(|(change, part)| (EmailContent::Security { change, by_staff: true }, part));
        for (content, part) in cases.into_iter().chain(notices) {
            let RenderedEmail { subject, text, html } = renderer().render(&content, "Ada <script>\r\nBcc: x").unwrap();
            assert!(subject.contains("Tea & Co") && !subject.contains('\n'), "{subject}");
            assert!(text.contains("Hello Ada <script> Bcc: x,") && text.contains(part), "{text}");
            assert!(html.contains("Ada &lt;script&gt;") && html.contains("Tea &amp; Co"), "{html}");
            assert!(!html.contains("<script>") && !html.contains("<b>Cup"), "{html}");
            assert!(renderer().render(&content, "").unwrap().text.starts_with("Hello,\n"));
        }
    }
}
