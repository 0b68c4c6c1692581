//! Ids: a type each, so that no one hands a product where a user is meant. All are UUIDv7 (RFC 9562): unique
//! without asking anyone, and ordered by the time they were made, so that indexes grow at their end.

use std::io::Write as _;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A new UUIDv7, later in order than all made before it in this process.
#[must_use]
pub fn fresh() -> Uuid {
    // A simulation gives its own ids, so that equal seeds give equal runs.
    #[cfg(feature = "test-hooks")]
    if let Some(injector) = crate::fault_injection::current() {
        return injector.new_id();
    }
    Uuid::now_v7()
}

macro_rules! ids {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow)]
        #[diesel(sql_type = Text)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later in order than all made before it.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "an id has no default: two would never be equal")]
            pub fn new() -> Self {
                Self(fresh())
            }

            /// The id that has this UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl ToSql<Text, Sqlite> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                out.set_value(self.to_string());
                Ok(IsNull::No)
            }
        }

        impl ToSql<Text, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                write!(out, "{self}")?;
                Ok(IsNull::No)
            }
        }

        impl<B: Backend> FromSql<Text, B> for $name
        where
            String: FromSql<Text, B>,
        {
            fn from_sql(bytes: B::RawValue<'_>) -> deserialize::Result<Self> {
                Ok(Self(Uuid::try_parse(&String::from_sql(bytes)?)?))
            }
        }
    )+};
}

ids! {
    /// A person with an account, or a nameless guest.
    UserId;
    /// A sign-in that has not ended: what a bearer token stands for.
    SessionId;
    /// A named key of a program that acts for a user.
    ApiKeyId;
    /// A thing for sale; each variant is a product of its own.
    ProductId;
    /// A picture of a product.
    ImageId;
    /// Stock set aside for one checkout.
    HoldId;
    /// A line of a cart.
    CartItemId;
    /// One walk from cart to invoice.
    CheckoutId;
    /// What a buyer owes, owed or got back.
    InvoiceId;
    /// One try to take or return money.
    PaymentId;
    /// A message to a person's mailbox.
    EmailId;
    /// A rating and text on a product.
    CommentId;
    /// One entry of a user's notification stream.
    NotificationId;
    /// Something that happened in a domain and is told to others.
    EventId;
    /// One line of the action log.
    ActionId;
}
