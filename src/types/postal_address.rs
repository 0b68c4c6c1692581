//! Postal addresses: where goods are delivered and invoices are made out to.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{CountryCode, Validator};

/// Most characters of one part of an address.
const PART_MAX: usize = 200;
/// Most characters of a postal code, and of a telephone number.
const SHORT_MAX: usize = 40;

/// A postal address. Which parts it needs, and the form of its postal code, depend on the country.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostalAddress {
    /// Name of the recipient, 1 to 200 characters.
    pub name: String,
    /// Company, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// Street and number, 1 to 200 characters.
    pub line1: String,
    /// Floor, door and the like, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<String>,
    /// Postal code in the country's form; empty where the country has none.
    #[serde(default)]
    pub postal_code: String,
    /// City or town, at most 200 characters; empty in the few countries that are one.
    #[serde(default)]
    pub city: String,
    /// State, province or the like, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Country.
    pub country: CountryCode,
    /// Telephone number for the carrier, at most 40 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// VAT identification number of a business, such as `FR40303265045`, at most 40 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vat_id: Option<String>,
}

impl PostalAddress {
    /// Returns the address in its stored form: trimmed, empty parts absent, the postal code in capitals.
    #[must_use]
    pub fn normalized(self) -> Self {
        let trim = |part: String| part.trim().to_owned();
        let filled = |part: Option<String>| part.map(trim).filter(|part| !part.is_empty());
        Self {
            name: trim(self.name),
            company: filled(self.company),
            line1: trim(self.line1),
            line2: filled(self.line2),
            postal_code: self.postal_code.trim().to_uppercase(),
            city: trim(self.city),
            region: filled(self.region),
            country: self.country,
            phone: filled(self.phone),
            vat_id: filled(self.vat_id).map(|id| id.replace([' ', '.', '-'], "").to_uppercase()),
        }
    }

    /// Checks a normalized address by the rules of its country. The fields of the errors begin with `prefix`, such as
    /// `shipping_address.`, which is empty for an entry of the address book.
    pub fn validate(&self, prefix: &str, fields: &mut Validator) {
        let name = |part: &str| -> Cow<'static, str> { format!("{prefix}{part}").into() };
        let Some(format) = self.country.format() else { return };
        fields.line(name("name"), &self.name, 1, PART_MAX);
        fields.line(name("line1"), &self.line1, 1, PART_MAX);
        fields.line(name("city"), &self.city, usize::from(!format.city_optional), PART_MAX);
        fields.line(name("postal_code"), &self.postal_code, usize::from(format.postal_code_required), SHORT_MAX);
        if !self.postal_code.is_empty() && !format.accepts_postal_code(&self.postal_code) {
            let example = format.example.as_deref().unwrap_or_default();
            let message = format!("is not a postal code of {}, such as {example}", self.country);
            fields.add_error(name("postal_code"), "invalid", message);
        }
        let region = self.region.as_deref().unwrap_or_default();
        fields.line(name("region"), region, usize::from(format.region_required), PART_MAX);
        let optional =
            [("company", &self.company, PART_MAX), ("line2", &self.line2, PART_MAX), ("phone", &self.phone, SHORT_MAX)];
        for (part, text, max) in optional {
            fields.line(name(part), text.as_deref().unwrap_or_default(), 0, max);
        }
        if let Some(id) = &self.vat_id {
            let is_shaped = (4..=SHORT_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
                && id.bytes().take(2).all(|b| b.is_ascii_uppercase());
            if !is_shaped {
                fields.add_error(name("vat_id"), "invalid", "must begin with the country, such as FR40303265045");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(country: &str, postal_code: &str) -> PostalAddress {
        PostalAddress {
            name: " Ada Lovelace ".into(),
            company: Some(" ".into()),
            line1: "1 High Street".into(),
            line2: None,
            postal_code: postal_code.into(),
            city: "Town".into(),
            region: None,
            country: country.parse().unwrap(),
            phone: None,
            vat_id: Some("fr 40 303265045".into()),
        }
        .normalized()
    }

    fn errors(address: &PostalAddress) -> Vec<String> {
        let mut fields = Validator::new();
        address.validate("shipping_address.", &mut fields);
        fields.finish().err().unwrap_or_default().iter().map(|e| format!("{} {}", e.field, e.code)).collect()
    }

    #[test]
    fn addresses_are_checked_by_their_country() {
        for (country, postal_code) in [("FR", "75001"), ("GB", "ec1y 8sy"), ("HK", ""), ("PT", "1000-205"), ("IE", "")]
        {
            let wanted = if country == "HK" { vec!["shipping_address.region required"] } else { vec![] };
            assert_eq!(errors(&address(country, postal_code)), wanted, "{country} {postal_code}");
        }
        for (country, postal_code) in [("FR", "7500"), ("FR", "75001 X"), ("GB", "1234"), ("DE", "123456")] {
            assert_eq!(
                errors(&address(country, postal_code)),
                ["shipping_address.postal_code invalid"],
                "{postal_code}"
            );
        }
        assert_eq!(errors(&address("FR", "")), ["shipping_address.postal_code required"]);
        assert_eq!(errors(&address("US", "95014")), ["shipping_address.region required"]);
        let bad = PostalAddress { vat_id: Some("12".into()), line1: "a\nb".into(), ..address("FR", "75001") };
        assert_eq!(errors(&bad), ["shipping_address.line1 invalid", "shipping_address.vat_id invalid"]);
    }

    #[test]
    fn addresses_are_normalized() {
        let address = address("GB", " ec1y 8sy ");
        assert_eq!((address.name.as_str(), address.postal_code.as_str()), ("Ada Lovelace", "EC1Y 8SY"));
        assert_eq!((address.company, address.vat_id.as_deref()), (None, Some("FR40303265045")));
    }
}
