//! The letters that the shop writes by itself: from templates that are part of the program.
//!
//! Never enters: when a letter is due or to whom. What people typed (names, descriptions) is escaped in HTML, because
//! a product called `<script>` must not become one in somebody's mail program.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

use super::model::EmailContent;
use crate::settings::Settings;
use crate::types::collapse_whitespace;

macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name)))),+]
    };
}

/// Each letter as text and as HTML; the ending decides what is escaped.
const TEMPLATES: [(&str, &str); 10] = templates![
    "welcome.txt",
    "welcome.html",
    "verify.txt",
    "verify.html",
    "reset.txt",
    "reset.html",
    "receipt.txt",
    "receipt.html",
    "refund.txt",
    "refund.html",
];

/// Writes letters.
pub struct TemplateRenderer {
    templates: Environment<'static>,
    shop: String,
    url: String,
}

/// A letter ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEmail {
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
    /// Its HTML.
    pub html: String,
}

/// What a template can speak of.
#[derive(Serialize)]
struct TemplateContext<'a> {
    shop: &'a str,
    url: &'a str,
    name: &'a str,
    subject: &'a str,
    #[serde(flatten)]
    letter: &'a EmailContent,
}

impl TemplateRenderer {
    /// The letters of this shop.
    pub fn new(settings: &Settings) -> Result<Self, minijinja::Error> {
        let mut templates = Environment::new();
        // A misspelt name in a template is an error that the tests find, not a hole in a letter.
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in TEMPLATES {
            templates.add_template(name, source)?;
        }
        let url = settings.public_url.clone().unwrap_or_else(|| format!("http://{}", settings.listen));
        Ok(Self { templates, shop: collapse_whitespace(&settings.shop.name), url })
    }

    /// The address people reach the shop at, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes a letter to somebody called `name`, or to somebody nameless.
    pub fn write(&self, letter: &EmailContent, name: &str) -> Result<RenderedEmail, minijinja::Error> {
        let subject = letter.subject(&self.shop);
        let name = collapse_whitespace(name);
        let facts = TemplateContext { shop: &self.shop, url: &self.url, name: &name, subject: &subject, letter };
        let facts = Value::from(Serde(&facts));
        let render = |ending: &str| {
            self.templates.get_template(&format!("{}.{ending}", letter.template()))?.render(facts.clone())
        };
        Ok(RenderedEmail { text: render("txt")?, html: render("html")?, subject })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::mailer::model::ReceiptLine;

    fn letters() -> TemplateRenderer {
        let mut settings = Settings::for_test(std::path::Path::new("."));
        settings.shop.name = "Tea & Co".to_owned();
        settings.public_url = Some("https://tea.example".to_owned());
        TemplateRenderer::new(&settings).unwrap()
    }

    #[test]
    fn every_letter_can_be_written_and_what_people_typed_is_escaped_in_html_alone() {
        let line = ReceiptLine {
            description: "<b>Cup</b>".to_owned(),
            quantity: 2,
            unit_price: "4.50 EUR".to_owned(),
            total: "9.00 EUR".to_owned(),
        };
        let number = "INV-000007".to_owned();
        let cases = [
            (EmailContent::Welcome, "https://tea.example/"),
            (EmailContent::Verify { link: "https://tea.example/verify?token=t".to_owned() }, "verify?token=t"),
            (EmailContent::Reset { link: "https://tea.example/reset?token=t".to_owned() }, "reset?token=t"),
            (
                EmailContent::Receipt {
                    number: number.clone(),
                    date: "2026-03-01".to_owned(),
                    lines: vec![line],
                    total: "9.00 EUR".to_owned(),
                },
                "2 x <b>Cup</b>\n    4.50 EUR each, 9.00 EUR\n\nTotal: 9.00 EUR",
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
                "could not be paid any more",
            ),
        ];
        for (letter, part) in cases {
            let RenderedEmail { subject, text, html } = letters().write(&letter, "Ada <script>\r\nBcc: x@y.z").unwrap();
            assert!(subject.contains("Tea & Co") && !subject.contains('\n'), "{subject}");
            assert!(text.contains("Hello Ada <script> Bcc: x@y.z,") && text.contains(part), "{text}");
            assert!(html.contains("Ada &lt;script&gt;") && html.contains("Tea &amp; Co"), "{html}");
            assert!(!html.contains("<script>") && !html.contains("<b>Cup"), "{html}");
            assert!(letters().write(&letter, "").unwrap().text.starts_with("Hello,\n"));
        }
    }
}
