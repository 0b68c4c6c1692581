//! The rules about people, without clock or database.

use std::time::Duration;

use crate::messaging::Role;
use crate::types::{EmailAddress, FieldError, Validator, one_line};

/// How long a password must and may be, in characters. The upper end keeps hashing cheap to ask for.
pub const PASSWORD: std::ops::RangeInclusive<usize> = 8..=200;
/// The longest name of a person or a key, in characters.
const NAME_MAX: usize = 100;
/// The longest text to search for, in characters.
const SEARCH_TEXT_MAX: usize = 100;
/// API keys one user may have.
pub const KEYS_MAX: i64 = 50;
/// Sign-ins one user may have at once; one more ends the oldest.
pub const SESSIONS_MAX: i64 = 1_000;
/// Mails to set the password anew that one account may cause within [`EmailLinkKind::Reset`]'s lifetime, which is an hour.
pub const RESETS_MAX: i64 = 3;

/// What a mailed link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailLinkKind {
    /// Setting the password anew.
    Reset,
    /// Showing that an address is one's own.
    Verify,
}

impl EmailLinkKind {
    /// The word for it in a column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Verify => "verify",
        }
    }

    /// How long it is good. A reset opens the account, so it is short; a proof of address opens nothing, and mail
    /// may lie over a weekend.
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::Reset => Duration::from_secs(3_600),
            Self::Verify => Duration::from_secs(72 * 3_600),
        }
    }
}

/// Checks a new password. It is taken as it is, white space and all: what people type is theirs to choose.
pub fn check_password(fields: &mut Validator, field: &'static str, password: &str) {
    let length = password.chars().count();
    if length < *PASSWORD.start() {
        fields.wrong(field, "too_short", format!("must have at least {} characters", PASSWORD.start()));
    } else if length > *PASSWORD.end() {
        fields.wrong(field, "too_long", format!("must have at most {} characters", PASSWORD.end()));
    }
}

/// A name as it is kept, or why it cannot be.
pub fn name(fields: &mut Validator, name: &str) -> String {
    fields.line("name", name, 1, NAME_MAX);
    one_line(name)
}

/// The address and name of a new account, or all that is wrong with them and the password.
pub fn newcomer(email: &str, password: &str, name: &str) -> Result<(EmailAddress, String), Vec<FieldError>> {
    let mut fields = Validator::new();
    let email = fields.email("email", email);
    check_password(&mut fields, "password", password);
    let name = self::name(&mut fields, name);
    fields.done()?;
    // An address that was wrong has been noted, so `done` has returned.
    email.map(|email| (email, name)).ok_or_else(Vec::new)
}

/// What a search looks for, in the form of the column it looks at: a pattern of `LIKE` with `\` as its escape.
pub fn pattern(q: &str) -> Result<Option<String>, FieldError> {
    let text = one_line(q).to_lowercase();
    if text.chars().count() > SEARCH_TEXT_MAX {
        return Err(FieldError::new("q", "too_long", format!("must have at most {SEARCH_TEXT_MAX} characters")));
    }
    if text.is_empty() {
        return Ok(None);
    }
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    Ok(Some(pattern))
}

/// What a search looks at. The line between keeps a search from matching across name and address.
pub fn search_text(name: &str, email: Option<&EmailAddress>) -> String {
    format!("{}\n{}", name.to_lowercase(), email.map_or("", EmailAddress::as_str))
}

/// Whether an account of role `from` can be given role `to`. Guests become customers by registering, which gives
/// them an address and a password, and nobody becomes a guest.
pub fn check_role(from: Role, to: Role) -> Result<(), FieldError> {
    match (from, to) {
        (Role::Guest, _) => Err(FieldError::new("role", "guest", "cannot be changed: a guest registers first")),
        (_, Role::Guest) => Err(FieldError::new("role", "invalid", "must be customer or admin")),
        (Role::Customer | Role::Admin, Role::Customer | Role::Admin) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_takes_its_text_literally() {
        assert_eq!(pattern("  100%_A\\ "), Ok(Some("%100\\%\\_a\\\\%".to_owned())));
        assert_eq!(pattern("   "), Ok(None));
        assert!(pattern(&"x".repeat(101)).is_err());
    }

    #[test]
    fn nobody_is_made_a_guest_and_no_guest_is_promoted() {
        use Role::{Admin, Customer, Guest};
        for (from, to, allowed) in [
            (Customer, Admin, true),
            (Admin, Customer, true),
            (Admin, Guest, false),
            (Customer, Guest, false),
            (Guest, Customer, false),
            (Guest, Admin, false),
        ] {
            assert_eq!(check_role(from, to).is_ok(), allowed, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_newcomer_is_said_at_once() {
        let wrong = newcomer("nobody", "short", " ").unwrap_err();
        assert_eq!(wrong.iter().map(|e| &*e.field).collect::<Vec<_>>(), ["email", "password", "name"]);
        for (password, good) in
            [("sevench", false), ("eightchr", true), (&"ß".repeat(200), true), (&"x".repeat(201), false)]
        {
            assert_eq!(newcomer("ada@example.com", password, "Ada").is_ok(), good, "{password}");
        }
    }
}
