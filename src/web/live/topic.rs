//! Topics of live events, and the rights to subscribe to them.

use std::fmt;

use crate::messaging::{Identity, Role};
use crate::types::ProductId;

/// Topic that a session can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The user's own stream of notifications.
    User,
    /// All products.
    Catalog,
    /// One product.
    Product(ProductId),
    /// Comments of one product.
    Comments(ProductId),
    /// Statistics of the shop. For administrators.
    Stats,
    /// All orders. For administrators.
    Orders,
    /// All e-mails. For administrators.
    Emails,
}

impl Topic {
    /// Name of [`Topic::User`].
    pub const USER: &'static str = "user";

    /// Parses the name of a topic.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.split_once(':') {
            Some(("product", id)) => Self::Product(id.parse().ok()?),
            Some(("comments", id)) => Self::Comments(id.parse().ok()?),
            Some(_) => return None,
            None => match name {
                Self::USER => Self::User,
                "catalog" => Self::Catalog,
                "stats" => Self::Stats,
                "orders" => Self::Orders,
                "emails" => Self::Emails,
                _ => return None,
            },
        })
    }

    /// Checks the right of a user, or of an anonymous client, to subscribe.
    ///
    /// # Errors
    /// Code and sentence of the error frame.
    pub fn check(self, identity: Option<&Identity>) -> Result<(), (&'static str, &'static str)> {
        let Some((domain, role)) = self.rights() else { return Ok(()) };
        match identity {
            None => Err(("unauthenticated", "sign in first to listen to this topic")),
            Some(identity) if identity.role < role => Err(("forbidden", "only staff may listen to this topic")),
            Some(identity) if !identity.scopes.allows(domain, true) => {
                Err(("scope_missing", "this API key lacks the scope of this topic"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The domain whose data the topic shows, and the role that it takes, as for requests; none for what is public.
    const fn rights(self) -> Option<(&'static str, Role)> {
        match self {
            Self::Catalog | Self::Product(_) | Self::Comments(_) => None,
            Self::User => Some(("notifications", Role::Guest)),
            Self::Stats => Some(("stats", Role::ReadOnly)),
            Self::Orders => Some(("payments", Role::ReadOnly)),
            Self::Emails => Some(("mailer", Role::Support)),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str(Self::USER),
            Self::Catalog => f.write_str("catalog"),
            Self::Product(id) => write!(f, "product:{id}"),
            Self::Comments(id) => write!(f, "comments:{id}"),
            Self::Stats => f.write_str("stats"),
            Self::Orders => f.write_str("orders"),
            Self::Emails => f.write_str("emails"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::{Credential, Scopes};
    use crate::types::{ApiKeyId, UserId};

    #[test]
    fn n07_topics_take_role_and_scope() {
        let of = |role, scopes: &[&str]| Identity {
            scopes: Scopes::parse(scopes).unwrap(),
            ..Identity::new(UserId::new(), role, Credential::ApiKey(ApiKeyId::new()))
        };
        for (topic, role, scopes, allowed) in [
            (Topic::Catalog, Role::Guest, &["cart:read"][..], true),
            (Topic::User, Role::Guest, &["*"], true),
            (Topic::User, Role::Admin, &["catalog:write"], false),
            (Topic::Stats, Role::Customer, &["*"], false),
            (Topic::Stats, Role::ReadOnly, &["*"], true),
            (Topic::Emails, Role::ReadOnly, &["*"], false),
            (Topic::Orders, Role::Manager, &["payments:read"], true),
        ] {
            assert_eq!(topic.check(Some(&of(role, scopes))).is_ok(), allowed, "{topic} {role:?} {scopes:?}");
        }
        assert!(Topic::Catalog.check(None).is_ok() && Topic::User.check(None).is_err());
    }
}
