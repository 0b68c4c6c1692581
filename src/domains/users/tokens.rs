//! TokenCodec, derived from an id and the signing secret, so that no database holds a usable one.
//!
//! A token is a prefix and the base64url form of an id's 16 bytes and their HMAC-SHA256 under the secret. It is
//! deterministic, so that a repeated request gets the same token although only the id is stored. A forged token is
//! rejected without a database query.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::model::EmailLinkKind;
use crate::messaging::Credential;
use crate::types::{ApiKeyId, SessionId};

/// Bytes of an id.
const ID_BYTES: usize = 16;
/// Bytes of an HMAC-SHA256.
const MAC_BYTES: usize = 32;
/// Characters of an API key that lists show: the prefix and nine bytes of the id, none of the HMAC.
const DISPLAY_PREFIX_CHARS: usize = 16;

/// TokenPurpose of a token. It is part of the signed message, so that a token of one purpose is invalid for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPurpose {
    Session,
    ApiKey,
    EmailLink(EmailLinkKind),
    /// Secret of a second factor; not a token.
    Totp,
    /// Code that replaces a second factor; not a token.
    RecoveryCode,
}

impl TokenPurpose {
    /// Prefix of its tokens, for people and for secret scanners.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Session => "mct_",
            Self::ApiKey => "mck_",
            Self::EmailLink(EmailLinkKind::Reset) => "mcr_",
            Self::EmailLink(EmailLinkKind::Verify) => "mcv_",
            Self::Totp => "mco_",
            Self::RecoveryCode => "mce_",
        }
    }

    /// Domain separator that is signed before the id. None is a prefix of another.
    const fn mac_domain(self) -> &'static [u8] {
        match self {
            Self::Session => b"mercat session 1\0",
            Self::ApiKey => b"mercat api key 1\0",
            Self::EmailLink(EmailLinkKind::Reset) => b"mercat reset 1\0",
            Self::EmailLink(EmailLinkKind::Verify) => b"mercat verify 1\0",
            Self::Totp => b"mercat totp 1\0",
            Self::RecoveryCode => b"mercat recovery code 1\0",
        }
    }
}

/// Encodes and verifies tokens under one secret.
pub struct TokenCodec {
    /// HMAC state after the key; cloning it is cheaper than setting the key again.
    hmac: Hmac<Sha256>,
}

impl TokenCodec {
    /// Creates the codec for a secret.
    pub fn new(secret: &[u8]) -> Self {
        Self { hmac: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    fn mac(&self, purpose: TokenPurpose, id: &[u8]) -> Hmac<Sha256> {
        self.hmac.clone().chain_update(purpose.mac_domain()).chain_update(id)
    }

    /// Returns `N` secret bytes, at most 32, that belong to an id and a number.
    pub fn derive<const N: usize>(&self, purpose: TokenPurpose, id: Uuid, n: u8) -> [u8; N] {
        let mac = self.mac(purpose, id.as_bytes()).chain_update([n]).finalize().into_bytes();
        std::array::from_fn(|at| mac[at])
    }

    /// Returns the token of an id.
    pub fn encode(&self, purpose: TokenPurpose, id: Uuid) -> String {
        let mut bytes = id.as_bytes().to_vec();
        bytes.extend_from_slice(&self.mac(purpose, id.as_bytes()).finalize().into_bytes());
        let mut token = purpose.prefix().to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut token);
        token
    }

    /// Verifies a token and returns its id; `None` if it was not issued for this purpose under this secret. Constant time
    /// for all invalid tokens of the right length.
    pub fn decode(&self, purpose: TokenPurpose, token: &str) -> Option<Uuid> {
        let text = token.strip_prefix(purpose.prefix())?;
        let mut bytes = [0; ID_BYTES + MAC_BYTES];
        // A longer text is an error of the decoder, a shorter one fails here.
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != bytes.len() {
            return None;
        }
        let (id, mac) = bytes.split_first_chunk::<ID_BYTES>()?;
        self.mac(purpose, id).verify_slice(mac).ok()?;
        Some(Uuid::from_bytes(*id))
    }

    /// Verifies a bearer token and returns its credential: a session or an API key.
    pub fn credential(&self, token: &str) -> Option<Credential> {
        let session =
            || self.decode(TokenPurpose::Session, token).map(|id| Credential::Session(SessionId::from_uuid(id)));
        let key = || self.decode(TokenPurpose::ApiKey, token).map(|id| Credential::ApiKey(ApiKeyId::from_uuid(id)));
        session().or_else(key)
    }

    /// First characters of the token of an API key.
    pub fn display_prefix(&self, id: ApiKeyId) -> String {
        self.encode(TokenPurpose::ApiKey, id.uuid()).chars().take(DISPLAY_PREFIX_CHARS).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [TokenPurpose; 4] = [
        TokenPurpose::Session,
        TokenPurpose::ApiKey,
        TokenPurpose::EmailLink(EmailLinkKind::Reset),
        TokenPurpose::EmailLink(EmailLinkKind::Verify),
    ];

    #[test]
    fn token_is_valid_for_its_purpose_and_secret_only() {
        let (tokens, others, id) = (TokenCodec::new(b"one"), TokenCodec::new(b"two"), Uuid::now_v7());
        for issued in ALL {
            let token = tokens.encode(issued, id);
            assert_eq!(token.len(), 68, "URL-safe, and short enough for a header and a link");
            assert_eq!(others.decode(issued, &token), None);
            for purpose in ALL {
                assert_eq!(tokens.decode(purpose, &token), (purpose == issued).then_some(id));
                // Nor under the prefix of another purpose.
                let disguised = format!("{}{}", purpose.prefix(), &token[4..]);
                assert_eq!(tokens.decode(purpose, &disguised), (purpose == issued).then_some(id));
            }
        }
    }

    proptest! {
        #[test]
        fn changed_token_is_invalid(at in 0usize..68, to in "[A-Za-z0-9_-]", id: u128) {
            let (tokens, id) = (TokenCodec::new(b"secret"), Uuid::from_u128(id));
            let token = tokens.encode(TokenPurpose::Session, id);
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(tokens.decode(TokenPurpose::Session, &changed), (changed == token).then_some(id));
        }

        #[test]
        fn arbitrary_text_is_no_token(text in ".{0,200}") {
            let tokens = TokenCodec::new(b"secret");
            prop_assert_eq!(tokens.credential(&text), None);
            prop_assert_eq!(tokens.credential(&format!("mct_{text}")), None);
        }
    }
}
