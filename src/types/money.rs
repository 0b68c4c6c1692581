//! Money: integers in the minor unit of a currency. No floating-point number is involved anywhere.

use std::fmt;
use std::str::FromStr;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Amount in minor units (cents) of a currency that the containing type names.
pub type Amount = i64;

/// Number of units of a product. Messages carry it unchecked; each domain checks its own limits.
pub type Quantity = i64;

/// ISO 4217 currency code: three capital letters, of a currency that has a minor unit. Superseded ones stay valid, because
/// invoices are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub struct Currency([u8; 3]);

/// Error of [`Currency`]'s `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the ISO 4217 code of a currency, such as EUR")]
pub struct InvalidCurrency;

impl Currency {
    /// The euro, the default of a new shop.
    pub const EUR: Self = Self(*b"EUR");

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Number of decimal digits of the minor unit: 2 for EUR, 0 for JPY, 3 for KWD (ISO 4217, list one).
    #[must_use]
    pub fn exponent(self) -> u32 {
        minor_unit(self.as_str()).unwrap_or(2)
    }

    /// Parses a decimal number as people write it (`9.99`, `9`, `1234.5`) into minor units, exactly. Returns `None` for
    /// more digits than the currency has, signs and thousands separators.
    #[must_use]
    pub fn parse_amount(self, text: &str) -> Option<Amount> {
        let digits = self.exponent() as usize;
        let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let fraction = fraction.trim_end_matches('0');
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > digits {
            return None;
        }
        format!("{whole}{fraction:0<digits$}").parse().ok()
    }

    /// Formats minor units for people, with the code: `9.99 EUR`.
    #[must_use]
    pub fn format(self, amount: Amount) -> String {
        format!("{} {self}", self.decimal(amount))
    }

    /// Formats minor units as a plain decimal number, such as `9.99`. The inverse of [`Currency::parse_amount`].
    #[must_use]
    pub fn decimal(self, amount: Amount) -> String {
        let digits = self.exponent() as usize;
        let sign = if amount < 0 { "-" } else { "" };
        let units = format!("{:0>width$}", amount.unsigned_abs(), width = digits + 1);
        let (whole, fraction) = units.split_at(units.len() - digits);
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }
}

/// The decimal digits of a currency's minor unit; `None` for a code that is not assigned, and for gold, test codes and
/// others without one.
fn minor_unit(code: &str) -> Option<u32> {
    iso_currency::Currency::from_code(code)?.exponent().map(u32::from)
}

/// Three capital letters, whether or not they are assigned.
fn letters(text: &str) -> Result<[u8; 3], InvalidCurrency> {
    let letters: [u8; 3] = text.as_bytes().try_into().map_err(|_| InvalidCurrency)?;
    if letters.iter().all(u8::is_ascii_uppercase) { Ok(letters) } else { Err(InvalidCurrency) }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;
    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        let letters = letters(text)?;
        minor_unit(text).map(|_| Self(letters)).ok_or(InvalidCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl ToSql<Text, Sqlite> for Currency {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.as_str().to_owned());
        Ok(IsNull::No)
    }
}

impl ToSql<Text, Pg> for Currency {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <str as ToSql<Text, Pg>>::to_sql(self.as_str(), out)
    }
}

impl<B: Backend> FromSql<Text, B> for Currency
where
    String: FromSql<Text, B>,
{
    fn from_sql(bytes: B::RawValue<'_>) -> deserialize::Result<Self> {
        // Earlier versions took codes that are not assigned; what is stored stays readable.
        Ok(Self(letters(&String::from_sql(bytes)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_amount_rejects_inexact_numbers() {
        let jpy: Currency = "JPY".parse().unwrap();
        let cases = [
            (Currency::EUR, "9.99", Some(999)),
            (Currency::EUR, "9", Some(900)),
            (Currency::EUR, "9.5", Some(950)),
            (Currency::EUR, "9.990", Some(999)),
            (Currency::EUR, "0.07", Some(7)),
            (jpy, "1200", Some(1200)),
            (jpy, "1200.00", Some(1200)),
            (jpy, "1200.5", None),
            (Currency::EUR, "9.999", None),
            (Currency::EUR, "-1", None),
            (Currency::EUR, "1,000.00", None),
            (Currency::EUR, "", None),
            (Currency::EUR, ".5", None),
            (Currency::EUR, "NaN", None),
            (Currency::EUR, "99999999999999999999", None),
        ];
        for (currency, text, amount) in cases {
            assert_eq!(currency.parse_amount(text), amount, "{text} {currency}");
        }
    }

    #[test]
    fn only_currencies_with_a_minor_unit_are_valid() {
        for (code, exponent) in [("EUR", 2), ("HUF", 2), ("IDR", 2), ("JPY", 0), ("IQD", 3), ("XCG", 2), ("BGN", 2)] {
            assert_eq!(code.parse::<Currency>().map(Currency::exponent), Ok(exponent), "{code}");
        }
        for code in ["ZZZ", "XXX", "XTS", "XAU", "eur", "EURO", "EU", "", "€"] {
            assert_eq!(code.parse::<Currency>(), Err(InvalidCurrency), "{code}");
        }
    }

    #[test]
    fn decimal_and_parse_amount_round_trip() {
        for amount in [0, 7, 99, 100, 123_456] {
            assert_eq!(Currency::EUR.parse_amount(&Currency::EUR.decimal(amount)), Some(amount));
        }
        assert_eq!(Currency::EUR.format(-5), "-0.05 EUR");
    }
}
