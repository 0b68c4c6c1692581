//! E-mail addresses that are safe in the header of a message.

use std::fmt;
use std::str::FromStr;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use icu_normalizer::ComposingNormalizerBorrowed;
use idna::AsciiDenyList;
use serde::{Deserialize, Serialize};

use super::text::is_invisible;

/// Plain mailbox `local@domain` (RFC 5321): at most 254 bytes, without display name, quotes and control characters.
/// Normalized, because an address identifies an account however it was typed at sign-in: lower case, the domain in its
/// ASCII form (IDNA, UTS 46), in which every mail server accepts it, the part before the `@` in Unicode form NFC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
#[serde(try_from = "String", into = "String")]
pub struct EmailAddress(String);

/// Error of [`EmailAddress`]'s `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address, such as ada@example.com")]
pub struct InvalidEmail;

/// Maximum length of an address in bytes.
const MAX_LENGTH: usize = 254;

impl EmailAddress {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address with its domain in Unicode, as a person writes it.
    #[must_use]
    pub fn to_unicode(&self) -> String {
        match self.0.rsplit_once('@') {
            Some((local, domain)) => format!("{local}@{}", idna::domain_to_unicode(domain).0),
            None => self.0.clone(),
        }
    }
}

impl FromStr for EmailAddress {
    type Err = InvalidEmail;
    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        let rules =
            email_address::Options::default().with_required_tld().without_domain_literal().without_display_text();
        let strange =
            |c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '<' | '>' | ',' | ';' | ':' | '\\');
        if text.len() > MAX_LENGTH || text.contains(strange) {
            return Err(InvalidEmail);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let domain = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::URL).map_err(|_| InvalidEmail)?;
        let local = ComposingNormalizerBorrowed::new_nfc().normalize(&local.to_lowercase()).into_owned();
        let text = format!("{local}@{domain}");
        email_address::EmailAddress::parse_with_options(&text, rules).map_err(|_| InvalidEmail)?;
        if text.len() > MAX_LENGTH || local.chars().all(is_invisible) {
            return Err(InvalidEmail);
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for EmailAddress {
    type Error = InvalidEmail;
    fn try_from(text: String) -> Result<Self, InvalidEmail> {
        text.parse()
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.0
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToSql<Text, Sqlite> for EmailAddress {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_str());
        Ok(IsNull::No)
    }
}

impl ToSql<Text, Pg> for EmailAddress {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <str as ToSql<Text, Pg>>::to_sql(&self.0, out)
    }
}

impl<B: Backend> FromSql<Text, B> for EmailAddress
where
    String: FromSql<Text, B>,
{
    fn from_sql(bytes: B::RawValue<'_>) -> deserialize::Result<Self> {
        String::from_sql(bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_rejects_addresses_unsafe_in_headers() {
        for good in ["ada@example.com", " Ada@Example.COM ", "a.b+c@sub.example.org"] {
            assert!(good.parse::<EmailAddress>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "a@b.c\r\nBcc: x@y.z",
            "Ada <ada@example.com>",
            "a b@example.com",
            "a@b.com,c@d.com",
            "\"x\"@example.com",
            "ada@[127.0.0.1]",
        ] {
            assert!(bad.parse::<EmailAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        let address = |text: &str| text.parse::<EmailAddress>().unwrap_or_else(|_| panic!("{text}"));
        for (spellings, stored) in [
            (
                ["kunde@b\u{fc}cher.example", "Kunde@BU\u{308}CHER.example", "kunde@xn--bcher-kva.example"],
                "kunde@xn--bcher-kva.example",
            ),
            (["a@stra\u{df}e.example", "a@STRA\u{df}E.example", "a@xn--strae-oqa.example"], "a@xn--strae-oqa.example"),
            (["ren\u{e9}@example.com", "REN\u{c9}@example.com", "rene\u{301}@example.com"], "ren\u{e9}@example.com"),
            (["a@\u{ff45}xample.com", "a@example\u{3002}com", "a@EXAMPLE.com"], "a@example.com"),
        ] {
            for spelling in spellings {
                assert_eq!(address(spelling).as_str(), stored, "{spelling}");
            }
        }
        assert_eq!(address("kunde@xn--bcher-kva.example").to_unicode(), "kunde@b\u{fc}cher.example");
        for bad in ["a@xn--.example", "a@xn--a.example", "a@\u{200b}.example", "\u{200b}@example.com"] {
            assert!(bad.parse::<EmailAddress>().is_err(), "{bad:?}");
        }
    }
}
