//! Amounts as Stripe counts them, which is not always as ISO 4217 does.
//!
//! Its rules are from <https://docs.stripe.com/currencies>: some currencies have no minor unit there, two that lost
//! theirs are still said in hundredths, and in thousandths the last digit must be 0. An amount that cannot be said
//! exactly is refused, never rounded: what is charged equals the invoice's total.

use crate::types::{Amount, Currency};

/// How many decimal digits Stripe gives a currency.
fn digits(currency: Currency) -> u32 {
    match currency.as_str() {
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV" | "XAF"
        | "XOF" | "XPF" => 0,
        // Without a minor unit today, said in hundredths for old times' sake.
        "ISK" | "UGX" => 2,
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => 3,
        _ => currency.digits(),
    }
}

/// Our minor units as Stripe's; nothing when it cannot say so much.
pub fn to_stripe(currency: Currency, amount: Amount) -> Option<Amount> {
    let (ours, theirs) = (currency.digits(), digits(currency));
    let said = if theirs >= ours {
        amount.checked_mul(10_i64.checked_pow(theirs - ours)?)?
    } else {
        divided(amount, 10_i64.checked_pow(ours - theirs)?)?
    };
    if theirs == 3 { divided(said, 10)?.checked_mul(10) } else { Some(said) }
}

/// Stripe's minor units as ours; nothing when we cannot say so little.
pub fn from_stripe(currency: Currency, amount: Amount) -> Option<Amount> {
    let (ours, theirs) = (currency.digits(), digits(currency));
    if theirs >= ours {
        divided(amount, 10_i64.checked_pow(theirs - ours)?)
    } else {
        amount.checked_mul(10_i64.checked_pow(ours - theirs)?)
    }
}

fn divided(amount: Amount, by: i64) -> Option<Amount> {
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
    fn each_currency_is_said_as_stripe_says_it() {
        for (code, ours, theirs) in [
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
            assert_eq!(to_stripe(currency(code), ours), theirs, "{ours} {code}");
        }
        assert_eq!(from_stripe(currency("ISK"), 501), None);
    }

    proptest! {
        #[test]
        fn what_was_said_is_understood_again(
            code in proptest::sample::select(vec!["EUR", "JPY", "ISK", "UGX", "MGA", "KWD", "TND", "KRW"]),
            amount in 0..1_000_000_000_000_i64,
        ) {
            let currency = currency(code);
            if let Some(said) = to_stripe(currency, amount) {
                prop_assert_eq!(from_stripe(currency, said), Some(amount));
            }
        }
    }
}
