//! Scopes of an API key: the domains that it may read, or read and change.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::DOMAIN_NAMES;

/// Bits per domain: read, then write.
const BITS: usize = 2;
const READ: u32 = 0b01;
const WRITE: u32 = 0b11;
const _: () = assert!(DOMAIN_NAMES.len() * BITS <= u32::BITS as usize);

/// Set of scopes. In JSON an array of `DOMAIN:read` and `DOMAIN:write`, where writing includes reading, or `["*"]` for
/// everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u32);

/// Error of a scope that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must contain `*`, or DOMAIN:read and DOMAIN:write for domains of {domains}; {0:?} is none of these", domains = DOMAIN_NAMES.join(", "))]
pub struct UnknownScope(String);

impl Scopes {
    /// Everything, as a session may.
    pub const ALL: Self = Self(u32::MAX);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Returns the set of these scopes.
    ///
    /// # Errors
    /// The first one that does not exist.
    pub fn parse<T: AsRef<str>>(names: &[T]) -> Result<Self, UnknownScope> {
        let mut bits = 0;
        for name in names.iter().map(AsRef::as_ref) {
            let known = name.split_once(':').and_then(|(domain, mode)| {
                let right = match mode {
                    "read" => READ,
                    "write" => WRITE,
                    _ => return None,
                };
                Some(right << shift(domain)?)
            });
            bits |= match known {
                Some(right) => right,
                None if name == "*" => u32::MAX,
                None => return Err(UnknownScope(name.chars().take(50).collect())),
            };
        }
        Ok(Self(bits))
    }

    /// Returns the names of the scopes, which [`Self::parse`] reads.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        if self == Self::ALL {
            return vec!["*".to_owned()];
        }
        let scope = |domain: &&str| {
            let right = self.0 >> shift(domain)? & WRITE;
            match right {
                0 => None,
                READ => Some(format!("{domain}:read")),
                _ => Some(format!("{domain}:write")),
            }
        };
        DOMAIN_NAMES.iter().filter_map(scope).collect()
    }

    /// Whether a request to a domain is allowed. A name that is no domain's, such as that of placement, needs all scopes.
    #[must_use]
    pub fn allows(self, domain: &str, is_read: bool) -> bool {
        let right = if is_read { READ } else { WRITE };
        self == Self::ALL || shift(domain).is_some_and(|shift| self.0 >> shift & right == right)
    }

    /// Whether all scopes of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether everything is allowed.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }
}

impl Default for Scopes {
    fn default() -> Self {
        Self::ALL
    }
}

/// Position of a domain's bits.
fn shift(domain: &str) -> Option<usize> {
    DOMAIN_NAMES.iter().position(|name| *name == domain).map(|n| n * BITS)
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Vec::<String>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_allow_what_they_name() {
        let scopes = Scopes::parse(&["catalog:write", "payments:read"]).unwrap();
        assert_eq!(scopes.names(), ["catalog:write", "payments:read"]);
        for (domain, is_read, allowed) in [
            ("catalog", true, true),
            ("catalog", false, true),
            ("payments", true, true),
            ("payments", false, false),
            ("users", true, false),
            ("placement", true, false),
        ] {
            assert_eq!(scopes.allows(domain, is_read), allowed, "{domain} {is_read}");
            assert!(Scopes::ALL.allows(domain, is_read));
        }
        assert!(Scopes::ALL.contains(scopes) && !scopes.contains(Scopes::ALL));
        assert_eq!(Scopes::parse(&["*"]), Ok(Scopes::ALL));
        for unknown in ["catalog", "catalog:all", "shop:read", ""] {
            assert!(Scopes::parse(&[unknown]).is_err(), "{unknown}");
        }
    }
}
