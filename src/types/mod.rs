//! Values with their rules inside: ids, money, instants, pages, addresses.
//!
//! Lives here: small types that more than one room speaks, each of which cannot hold a wrong value.
//! Never enters: anything of one domain alone, SQL (beyond how a value is stored in a column), HTTP, settings.

mod address;
mod clock;
mod email;
mod id;
mod money;
mod page;
mod timestamp;
mod validation;

pub use address::Address;
pub use clock::Clock;
pub use email::EmailAddress;
pub use id::*;
pub use money::{Amount, Currency, Quantity};
pub use page::{Cursor, Page, PageRequest};
pub use timestamp::Timestamp;
pub use validation::{FieldError, Validator, hex, one_line};
