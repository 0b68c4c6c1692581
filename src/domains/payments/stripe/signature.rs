//! What shows that a webhook is from Stripe: an HMAC of its time and its raw body under a secret we share.
//! <https://docs.stripe.com/webhooks#verify-manually>

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::types::Timestamp;

/// How far its time may be from ours. An older one may have been caught on its way and sent again.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// The most signatures of one message that are looked at. There is one for each secret that holds.
const SIGNATURES_MAX: usize = 16;
/// Bytes of an HMAC-SHA256.
const MAC: usize = 32;

/// Whether one of the signatures in `header` is that of `body` under one of `secrets`, and made near `now`.
///
/// The scheme is `t=SECONDS,v1=HEX,v1=HEX,...`; parts of other schemes are passed over. Comparing takes as long
/// whatever is right about a wrong one.
pub fn is_true(header: &str, body: &str, secrets: &[String], now: Timestamp) -> bool {
    let (mut seconds, mut signatures) = (None, Vec::new());
    for (name, value) in header.split(',').filter_map(|part| part.trim().split_once('=')) {
        match name {
            "t" => seconds = value.parse::<i64>().ok(),
            "v1" if signatures.len() < SIGNATURES_MAX => signatures.extend(bytes(value)),
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return false };
    let Some(at) = seconds.checked_mul(1_000_000).map(Timestamp::from_micros) else { return false };
    if at.plus(TOLERANCE) < now || now.plus(TOLERANCE) < at {
        return false;
    }
    let mut found = false;
    for secret in secrets {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { continue };
        mac.update(seconds.to_string().as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        // Every pair is tried: how long it takes says nothing about which secret was right.
        for signature in &signatures {
            found |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    found
}

/// The bytes of a signature in hexadecimal, when it has the right length.
fn bytes(hex: &str) -> Option<[u8; MAC]> {
    if hex.len() != 2 * MAC || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; MAC];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A header as Stripe makes it, for tests.
#[cfg(test)]
pub fn sign(body: &str, secret: &str, at: Timestamp) -> String {
    let seconds = at.micros() / 1_000_000;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{seconds}.{body}").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with another tool: `printf '1614000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test_secret`.
    const HEADER: &str = "t=1614000000,v1=a39bac6773e9b7c759626a8d3f01600e8d98cfdf8376e876650947e6b7145067";
    const BODY: &str = r#"{"id":"evt_1"}"#;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn secrets(all: &[&str]) -> Vec<String> {
        all.iter().map(|secret| (*secret).to_owned()).collect()
    }

    #[test]
    fn a_signature_that_another_tool_made_is_true() {
        assert!(is_true(HEADER, BODY, &secrets(&["whsec_test_secret"]), at(1_614_000_000)));
        assert_eq!(sign(BODY, "whsec_test_secret", at(1_614_000_000)), HEADER);
    }

    #[test]
    fn any_secret_that_holds_will_do_and_no_other() {
        let now = at(1_614_000_000);
        assert!(is_true(HEADER, BODY, &secrets(&["whsec_new", "whsec_test_secret"]), now));
        assert!(!is_true(HEADER, BODY, &secrets(&["whsec_new"]), now));
        assert!(!is_true(HEADER, BODY, &[], now));
        // While Stripe rolls a secret it signs with both.
        let both = format!("{},{}", sign(BODY, "whsec_old", now), &HEADER[13..]);
        assert!(is_true(&both, BODY, &secrets(&["whsec_test_secret"]), now));
    }

    #[test]
    fn the_time_is_part_of_it_and_must_be_near() {
        let secrets = secrets(&["whsec_test_secret"]);
        for (now, good) in
            [(1_614_000_300, true), (1_614_000_301, false), (1_613_999_700, true), (1_613_999_699, false)]
        {
            assert_eq!(is_true(HEADER, BODY, &secrets, at(now)), good, "{now}");
        }
        let later = HEADER.replace("t=1614000000", "t=1614000001");
        assert!(!is_true(&later, BODY, &secrets, at(1_614_000_000)));
    }

    #[test]
    fn nonsense_is_refused() {
        let (now, secrets) = (at(1_614_000_000), secrets(&["whsec_test_secret"]));
        let hex = &HEADER[16..];
        for header in [
            String::new(),
            "t=,v1=".to_owned(),
            format!("v1={hex}"),
            format!("t=1614000000,v0={hex}"),
            format!("t=1614000000,v1={}", &hex[2..]),
            format!("t=9223372036854775807,v1={hex}"),
            format!("t=1614000000,v1={}", "\u{e9}".repeat(32)),
        ] {
            assert!(!is_true(&header, BODY, &secrets, now), "{header}");
        }
        assert!(!is_true(HEADER, r#"{"id":"evt_2"}"#, &secrets, now));
    }
}
