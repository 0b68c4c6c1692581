//! Signatures of Stripe's webhooks: an HMAC-SHA256 of the time and the raw body under a shared secret.
//! See <https://docs.stripe.com/webhooks#verify-manually>

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::types::Timestamp;

/// Maximum distance of a signature's time from the current time, against replays of a captured webhook.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// Maximum number of signatures per webhook that are compared. Stripe sends one per valid secret.
const SIGNATURES_MAX: usize = 16;
/// Length of an HMAC-SHA256 in bytes.
const MAC_LEN: usize = 32;

/// Returns `true` if one of the signatures in `header` is valid for `body` under one of `secrets` and within
/// [`TOLERANCE`] of `now`.
///
/// The scheme is `t=SECONDS,v1=HEX,v1=HEX,...`; parts of other schemes are ignored. Comparison takes constant time.
pub fn verify(header: &str, body: &str, secrets: &[String], now: Timestamp) -> bool {
    let (mut seconds, mut signatures) = (None, Vec::new());
    for (name, value) in header.split(',').filter_map(|part| part.trim().split_once('=')) {
        match name {
            "t" => seconds = value.parse::<i64>().ok(),
            "v1" if signatures.len() < SIGNATURES_MAX => signatures.extend(parse_mac(value)),
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return false };
    let Some(at) = seconds.checked_mul(1_000_000).map(Timestamp::from_micros) else { return false };
    if at.saturating_add(TOLERANCE) < now || now.saturating_add(TOLERANCE) < at {
        return false;
    }
    let mut is_valid = false;
    for secret in secrets {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { continue };
        mac.update(seconds.to_string().as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        // Every pair is compared, so that the time reveals nothing about the matching secret.
        for signature in &signatures {
            is_valid |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    is_valid
}

/// Parses a signature of 64 hexadecimal digits.
fn parse_mac(hex: &str) -> Option<[u8; MAC_LEN]> {
    if hex.len() != 2 * MAC_LEN || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; MAC_LEN];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Signs a webhook as Stripe does, for tests.
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

    /// Made with another program: `printf '1614000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test_secret`.
    const HEADER: &str = "t=1614000000,v1=a39bac6773e9b7c759626a8d3f01600e8d98cfdf8376e876650947e6b7145067";
    const BODY: &str = r#"{"id":"evt_1"}"#;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn secrets(all: &[&str]) -> Vec<String> {
        all.iter().map(|secret| (*secret).to_owned()).collect()
    }

    #[test]
    fn signature_of_openssl_is_valid() {
        assert!(verify(HEADER, BODY, &secrets(&["whsec_test_secret"]), at(1_614_000_000)));
        assert_eq!(sign(BODY, "whsec_test_secret", at(1_614_000_000)), HEADER);
    }

    #[test]
    fn any_configured_secret_is_accepted() {
        let now = at(1_614_000_000);
        assert!(verify(HEADER, BODY, &secrets(&["whsec_new", "whsec_test_secret"]), now));
        assert!(!verify(HEADER, BODY, &secrets(&["whsec_new"]), now));
        assert!(!verify(HEADER, BODY, &[], now));
        // Stripe signs with both secrets while one is being rolled.
        let both = format!("{},{}", sign(BODY, "whsec_old", now), &HEADER[13..]);
        assert!(verify(&both, BODY, &secrets(&["whsec_test_secret"]), now));
    }

    #[test]
    fn signature_outside_tolerance_is_rejected() {
        let secrets = secrets(&["whsec_test_secret"]);
        for (now, is_valid) in
            [(1_614_000_300, true), (1_614_000_301, false), (1_613_999_700, true), (1_613_999_699, false)]
        {
            assert_eq!(verify(HEADER, BODY, &secrets, at(now)), is_valid, "{now}");
        }
        let later = HEADER.replace("t=1614000000", "t=1614000001");
        assert!(!verify(&later, BODY, &secrets, at(1_614_000_000)));
    }

    #[test]
    fn malformed_header_is_rejected() {
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
            assert!(!verify(&header, BODY, &secrets, now), "{header}");
        }
        assert!(!verify(HEADER, r#"{"id":"evt_2"}"#, &secrets, now));
    }
}
