//! Conversion between the shop's minor units (ISO 4217) and Stripe's.
//!
//! The rules are from <https://docs.stripe.com/currencies>: some currencies have no minor unit at Stripe, two that lost
//! theirs are still given in hundredths, and in thousandths the last digit must be 0. An amount without an exact form
//! is refused, never rounded: the charged amount equals the invoice's total.

use crate::types::{Amount, Currency};

/// Number of decimal digits of a currency at Stripe.
fn stripe_digits(currency: Currency) -> u32 {
    match currency.as_str() {
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV" | "XAF"
        | "XOF" | "XPF" => 0,
        // Without a minor unit today, but still given in hundredths.
        "ISK" | "UGX" => 2,
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => 3,
        _ => currency.exponent(),
    }
}

/// Converts the shop's minor units to Stripe's. Returns `None` if the amount has no exact form there.
pub fn to_stripe(currency: Currency, amount: Amount) -> Option<Amount> {
    let (own, stripe) = (currency.exponent(), stripe_digits(currency));
    let amount = if stripe >= own {
        amount.checked_mul(10_i64.checked_pow(stripe - own)?)?
    } else {
        divide_exact(amount, 10_i64.checked_pow(own - stripe)?)?
    };
    if stripe == 3 { divide_exact(amount, 10)?.checked_mul(10) } else { Some(amount) }
}

/// Converts Stripe's minor units to the shop's. Returns `None` if the amount has no exact form here.
pub fn from_stripe(currency: Currency, amount: Amount) -> Option<Amount> {
    let (own, stripe) = (currency.exponent(), stripe_digits(currency));
    if stripe >= own {
        divide_exact(amount, 10_i64.checked_pow(stripe - own)?)
    } else {
        amount.checked_mul(10_i64.checked_pow(own - stripe)?)
    }
}

/// Converts an amount with Stripe's lower-case currency code to the shop's minor units.
pub fn parse(currency: &str, amount: Amount) -> Option<Amount> {
    from_stripe(currency.to_ascii_uppercase().parse().ok()?, amount)
}

fn divide_exact(amount: Amount, by: i64) -> Option<Amount> {
    (amount % by == 0).then_some(amount / by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[test]
    fn each_currency_converts_by_stripes_rules() {
        for (code, own, stripe) in [
            ("EUR", 1099, Some(1099)),
            ("USD", 5, Some(5)),
            ("HUF", 1045, Some(1045)),
            ("TWD", 80045, Some(80045)),
            ("JPY", 500, Some(500)),
            ("XOF", 500, Some(500)),
            // 5 kronur and 5 shillings are 500.
            ("ISK", 5, Some(500)),
            ("UGX", 5, Some(500)),
            // ISO gives the ariary hundredths, Stripe none.
            ("MGA", 50_000, Some(500)),
            ("MGA", 50_001, None),
            ("KWD", 5120, Some(5120)),
            ("KWD", 5124, None),
            ("ISK", Amount::MAX, None),
        ] {
            assert_eq!(to_stripe(currency(code), own), stripe, "{own} {code}");
        }
        assert_eq!(from_stripe(currency("ISK"), 501), None);
    }

    proptest! {
        #[test]
        fn converted_amount_converts_back(
            code in proptest::sample::select(vec!["EUR", "JPY", "ISK", "UGX", "MGA", "KWD", "TND", "KRW"]),
            amount in 0..1_000_000_000_000_i64,
        ) {
            let currency = currency(code);
            if let Some(converted) = to_stripe(currency, amount) {
                prop_assert_eq!(from_stripe(currency, converted), Some(amount));
            }
        }
    }
}
