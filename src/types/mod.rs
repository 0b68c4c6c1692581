//! Values with their rules inside: ids, money, instants, pages, addresses.
//!
//! Contains: small types that more than one module uses, each of which cannot hold an invalid value.
//! Does not contain: types of a single domain, SQL (except how a value is stored in a column), HTTP, settings.

mod address;
mod clock;
mod country;
mod email;
mod id;
mod money;
mod network;
mod order_details;
mod page;
mod peer_tls;
mod percentage;
mod postal_address;
mod text;
mod timestamp;
mod validation;

pub use address::Address;
pub use clock::Clock;
pub use country::{AddressFormat, CountryCode};
pub use email::EmailAddress;
pub use id::*;
pub use money::{Amount, Currency, Quantity};
pub use network::ClientNetwork;
pub use order_details::OrderDetails;
pub use page::{Cursor, Page, PageRequest};
pub use peer_tls::PeerTls;
pub use percentage::{Percentage, share};
pub use postal_address::PostalAddress;
pub use text::{collapse_whitespace, hex, is_invisible};
pub use timestamp::Timestamp;
pub use validation::{FieldError, Validator};
