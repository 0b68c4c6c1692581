//! Tokens: what holders show, made from an id and the shop's secret, so that no database holds anything usable.
//!
//! A token is a prefix and base64url of an id's 16 bytes and their HMAC-SHA256 under the secret. The same id gives the
//! same token again, so that a repeated answer can show it although only the id was kept. A forged one is refused
//! without asking the database.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::model::EmailLinkKind;
use crate::messaging::Credential;
use crate::types::{ApiKeyId, SessionId};

/// Bytes of an id and of its HMAC.
const ID: usize = 16;
const MAC: usize = 32;
/// How many characters of a key are shown, to know it by: its prefix and nine bytes of its id, none of the HMAC.
const SHOWN: usize = 16;

/// What a token is good for. Part of what is signed, so that a token of one kind is never one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Session,
    ApiKey,
    EmailLink(EmailLinkKind),
}

impl Purpose {
    /// How its tokens begin: for people, and for tools that search for leaked secrets.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Session => "mct_",
            Self::ApiKey => "mck_",
            Self::EmailLink(EmailLinkKind::Reset) => "mcr_",
            Self::EmailLink(EmailLinkKind::Verify) => "mcv_",
        }
    }

    /// What is signed before the id. None is the beginning of another.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Session => b"mercat session 1\0",
            Self::ApiKey => b"mercat api key 1\0",
            Self::EmailLink(EmailLinkKind::Reset) => b"mercat reset 1\0",
            Self::EmailLink(EmailLinkKind::Verify) => b"mercat verify 1\0",
        }
    }
}

/// Makes tokens and tells true ones from others.
pub struct Tokens {
    /// Keyed once; a copy is cheaper than keying anew.
    keyed: Hmac<Sha256>,
}

impl Tokens {
    /// Those of this secret.
    pub fn new(secret: &[u8]) -> Self {
        Self { keyed: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    fn mac(&self, purpose: Purpose, id: &[u8]) -> Hmac<Sha256> {
        self.keyed.clone().chain_update(purpose.label()).chain_update(id)
    }

    /// The token of an id.
    pub fn show(&self, purpose: Purpose, id: Uuid) -> String {
        let mut bytes = id.as_bytes().to_vec();
        bytes.extend_from_slice(&self.mac(purpose, id.as_bytes()).finalize().into_bytes());
        let mut token = purpose.prefix().to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut token);
        token
    }

    /// The id of a token, if the token is one of ours for this purpose. Takes the same time for all wrong ones that
    /// have the right length.
    pub fn read(&self, purpose: Purpose, token: &str) -> Option<Uuid> {
        let text = token.strip_prefix(purpose.prefix())?;
        let mut bytes = [0; ID + MAC];
        // Exactly as long as the buffer, or it is none: a slice too small is an error of the decoder.
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != bytes.len() {
            return None;
        }
        let (id, mac) = bytes.split_first_chunk::<ID>()?;
        self.mac(purpose, id).verify_slice(mac).ok()?;
        Some(Uuid::from_bytes(*id))
    }

    /// What a bearer token stands for.
    pub fn credential(&self, token: &str) -> Option<Credential> {
        let session = || self.read(Purpose::Session, token).map(|id| Credential::Session(SessionId::from_uuid(id)));
        let key = || self.read(Purpose::ApiKey, token).map(|id| Credential::ApiKey(ApiKeyId::from_uuid(id)));
        session().or_else(key)
    }

    /// How the token of a key begins.
    pub fn beginning(&self, id: ApiKeyId) -> String {
        self.show(Purpose::ApiKey, id.uuid()).chars().take(SHOWN).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Purpose; 4] = [
        Purpose::Session,
        Purpose::ApiKey,
        Purpose::EmailLink(EmailLinkKind::Reset),
        Purpose::EmailLink(EmailLinkKind::Verify),
    ];

    #[test]
    fn a_token_is_good_for_its_own_purpose_and_secret_only() {
        let (tokens, others, id) = (Tokens::new(b"one"), Tokens::new(b"two"), Uuid::now_v7());
        for made in ALL {
            let token = tokens.show(made, id);
            assert_eq!(token.len(), 68, "URL-safe, and short enough for a header and a link");
            assert_eq!(others.read(made, &token), None);
            for asked in ALL {
                assert_eq!(tokens.read(asked, &token), (asked == made).then_some(id));
                // Nor under the prefix of another purpose.
                let disguised = format!("{}{}", asked.prefix(), &token[4..]);
                assert_eq!(tokens.read(asked, &disguised), (asked == made).then_some(id));
            }
        }
    }

    proptest! {
        #[test]
        fn a_token_changed_anywhere_is_none(at in 0usize..68, to in "[A-Za-z0-9_-]", id: u128) {
            let (tokens, id) = (Tokens::new(b"secret"), Uuid::from_u128(id));
            let token = tokens.show(Purpose::Session, id);
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(tokens.read(Purpose::Session, &changed), (changed == token).then_some(id));
        }

        #[test]
        fn no_text_is_a_token_by_chance_or_breaks_the_reader(text in ".{0,200}") {
            let tokens = Tokens::new(b"secret");
            prop_assert_eq!(tokens.credential(&text), None);
            prop_assert_eq!(tokens.credential(&format!("mct_{text}")), None);
        }
    }
}
