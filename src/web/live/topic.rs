//! What can be listened to, and who may.

use std::fmt;

use crate::messaging::{Identity, Role};
use crate::types::ProductId;

/// Something to listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The listener's own stream.
    User,
    /// All products.
    Catalog,
    /// One product.
    Product(ProductId),
    /// What is said of one product.
    Comments(ProductId),
    /// The shop's figures.
    Stats,
    /// All orders.
    Orders,
    /// All mails.
    Emails,
}

impl Topic {
    /// The topic of this name.
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

    /// Whether this listener may listen, or why not: a stable word and a sentence.
    pub fn check(self, who: Option<&Identity>) -> Result<(), (&'static str, &'static str)> {
        let signed_out = ("unauthenticated", "sign in first to listen to this topic");
        match (self, who) {
            (Self::Catalog | Self::Product(_) | Self::Comments(_), _) | (Self::User, Some(_)) => Ok(()),
            (Self::Stats | Self::Orders | Self::Emails, Some(who)) if who.role == Role::Admin => Ok(()),
            (_, Some(_)) => Err(("forbidden", "only administrators may listen to this topic")),
            (_, None) => Err(signed_out),
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
