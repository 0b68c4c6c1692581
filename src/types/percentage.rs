//! Percentages, exactly: tax rates and discounts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Amount;

/// Parts of one percent that a [`Percentage`] counts: four decimal digits.
const PARTS: u32 = 10_000;
/// A hundred percent, in parts.
const HUNDRED: i128 = 100 * PARTS as i128;

/// A percentage from 0 to 100 with at most four decimal digits, written as a decimal number such as `5.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percentage(u32);

/// Error of [`Percentage`]'s `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a percentage from 0 to 100 with at most four decimal digits, such as 5.5")]
pub struct InvalidPercentage;

impl Percentage {
    /// Returns this percentage of an amount that is not negative, rounded half up.
    #[must_use]
    pub fn of(self, amount: Amount) -> Amount {
        share(amount, i128::from(self.0), HUNDRED)
    }

    /// Returns the part of an amount that was added as this percentage of the rest, rounded half up: the tax in a price.
    #[must_use]
    pub fn included_in(self, amount: Amount) -> Amount {
        share(amount, i128::from(self.0), HUNDRED + i128::from(self.0))
    }
}

/// Returns `amount * part / whole`, rounded half up, for values that are not negative and a part of at most the whole.
#[must_use]
pub fn share(amount: Amount, part: i128, whole: i128) -> Amount {
    let doubled = i128::from(amount) * part * 2 + whole;
    Amount::try_from(doubled / (2 * whole)).unwrap_or(Amount::MAX)
}

impl FromStr for Percentage {
    type Err = InvalidPercentage;
    fn from_str(text: &str) -> Result<Self, InvalidPercentage> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(InvalidPercentage);
        }
        let parts = format!("{whole}{fraction:0<4}").parse().map_err(|_| InvalidPercentage)?;
        if parts <= 100 * PARTS { Ok(Self(parts)) } else { Err(InvalidPercentage) }
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / PARTS, format!("{:04}", self.0 % PARTS));
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{whole}"),
            fraction => write!(f, "{whole}.{fraction}"),
        }
    }
}

impl Serialize for Percentage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn percent(text: &str) -> Percentage {
        text.parse().unwrap()
    }

    #[test]
    fn percentages_are_decimal_numbers() {
        for (text, shown) in [("20", "20"), ("5.50", "5.5"), ("0", "0"), ("100.0000", "100"), ("0.0001", "0.0001")] {
            assert_eq!(percent(text).to_string(), shown);
        }
        for invalid in ["", ".5", "5.", "-1", "100.0001", "1.00001", "5,5", "1e1", " 5"] {
            assert_eq!(invalid.parse::<Percentage>(), Err(InvalidPercentage), "{invalid}");
        }
    }

    #[test]
    fn percentages_are_rounded_half_up() {
        assert_eq!((percent("20").of(999), percent("20").included_in(1_199)), (200, 200));
        assert_eq!((percent("5.5").of(100), percent("5.5").included_in(100)), (6, 5));
        assert_eq!((percent("10").of(5), percent("10").of(4), percent("0").included_in(7)), (1, 0, 0));
        assert_eq!(percent("100").included_in(3), 2);
    }

    proptest! {
        /// The tax that is added to a net price is found again in the gross price, to the minor unit.
        #[test]
        fn tax_added_is_the_tax_included(net in 0..1_000_000_000_000_i64, parts in 0..1_000_000_u32) {
            let rate = Percentage(parts);
            prop_assert_eq!(rate.included_in(net + rate.of(net)), rate.of(net));
            prop_assert_eq!(percent(&rate.to_string()), rate);
        }
    }
}
