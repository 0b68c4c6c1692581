//! Ids: one type per kind of thing, so that a product's id cannot be passed for a user's. All are UUIDv7 (RFC 9562):
//! unique without coordination, and ordered by creation time, so that indexes grow at their end.

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

/// Makes a UUIDv7 that sorts after all that this process made before.
#[must_use]
pub fn new_uuid() -> Uuid {
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
            /// Makes an id that sorts after all that this process made before.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "an id has no default: two would never be equal")]
            pub fn new() -> Self {
                Self(new_uuid())
            }

            /// Wraps a UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID.
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
    /// User: a customer, an administrator or a guest.
    UserId;
    /// Session that a sign-in began; a bearer token names it.
    SessionId;
    /// API key of a user.
    ApiKeyId;
    /// Entry of a user's address book.
    AddressId;
    /// Product; each variant is a product of its own.
    ProductId;
    /// Image of a product.
    ImageId;
    /// Hold: stock that is reserved for one checkout.
    HoldId;
    /// Line of a cart.
    CartItemId;
    /// Checkout: the workflow from cart to invoice.
    CheckoutId;
    /// Invoice, in any state.
    InvoiceId;
    /// Payment attempt, or refund.
    PaymentId;
    /// E-mail in the mailer's queue or log.
    EmailId;
    /// Comment: a rating and a text about a product.
    CommentId;
    /// Entry of a user's notification stream.
    NotificationId;
    /// Domain event; subscribers recognise redeliveries by it.
    EventId;
    /// Entry of the action log.
    ActionId;
    /// Entry of the audit log.
    AuditEntryId;
}
