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
    /// Parses the name of a topic.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.split_once(':') {
            Some(("product", id)) => Self::Product(id.parse().ok()?),
            Some(("comments", id)) => Self::Comments(id.parse().ok()?),
            Some(_) => return None,
            None => match name {
                "user" => Self::User,
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
        let unauthenticated = ("unauthenticated", "sign in first to listen to this topic");
        match (self, identity) {
            (Self::Catalog | Self::Product(_) | Self::Comments(_), _) | (Self::User, Some(_)) => Ok(()),
            (Self::Stats | Self::Orders | Self::Emails, Some(identity)) if identity.role >= Role::ReadOnly => Ok(()),
            (_, Some(_)) => Err(("forbidden", "only administrators may listen to this topic")),
            (_, None) => Err(unauthenticated),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Catalog => f.write_str("catalog"),
            Self::Product(id) => write!(f, "product:{id}"),
            Self::Comments(id) => write!(f, "comments:{id}"),
            Self::Stats => f.write_str("stats"),
            Self::Orders => f.write_str("orders"),
            Self::Emails => f.write_str("emails"),
        }
    }
}
