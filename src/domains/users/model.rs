//! Rules for accounts that need neither a clock nor a database: lengths, limits, roles, search text.

use std::time::Duration;

use crate::messaging::Role;
use crate::store::text_enum;
use crate::types::{EmailAddress, FieldError, Validator, collapse_whitespace, is_invisible};

/// Length of a password in characters. The maximum bounds the cost of hashing one.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=200;
/// Maximum length of the name of a user or an API key, in characters.
const NAME_MAX: usize = 100;
/// Maximum length of a search text, in characters.
const SEARCH_TEXT_MAX: usize = 100;
/// Maximum number of API keys per user.
pub const API_KEYS_MAX: i64 = 50;
/// Minimum length of an idempotency key that another client cannot be expected to use too, such as a UUID, in characters.
pub const UNGUESSABLE_KEY_MIN: usize = 16;
/// Maximum number of sessions per user; one more ends the oldest.
pub const SESSIONS_MAX: i64 = 1_000;
/// Maximum number of password reset e-mails per account within the lifetime of [`EmailLinkKind::Reset`], an hour.
pub const RESET_EMAILS_MAX: i64 = 3;

/// TokenPurpose of a mailed link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailLinkKind {
    /// Resets the password.
    Reset,
    /// Verifies an e-mail address.
    Verify,
}

text_enum!(EmailLinkKind { Reset => "reset", Verify => "verify" });

impl EmailLinkKind {
    /// Time until the link expires. A reset gives access to the account, so it is short; a verification gives none, and
    /// may be read after a weekend.
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::Reset => Duration::from_secs(3_600),
            Self::Verify => Duration::from_secs(72 * 3_600),
        }
    }
}

/// Passwords that guessers try first, one per line, in lower case: the most frequent ones of published lists that have the
/// minimum length.
const COMMON_PASSWORDS: &str = include_str!("common_passwords.txt");

/// Returns `true` if a password is among the first that are tried: a frequent one, one repeated character, or nothing that
/// is visible.
fn is_guessable(password: &str) -> bool {
    let lower = password.to_lowercase();
    let mut characters = lower.chars();
    let first = characters.next();
    characters.all(|c| Some(c) == first)
        || password.chars().all(is_invisible)
        || COMMON_PASSWORDS.lines().any(|common| common == lower)
}

/// Checks a new password. White space counts, and stays.
pub fn check_password(fields: &mut Validator, field: &'static str, password: &str) {
    let length = password.chars().count();
    if length < *PASSWORD_CHARS.start() {
        fields.add_error(field, "too_short", format!("must have at least {} characters", PASSWORD_CHARS.start()));
    } else if length > *PASSWORD_CHARS.end() {
        fields.add_error(field, "too_long", format!("must have at most {} characters", PASSWORD_CHARS.end()));
    } else if is_guessable(password) {
        fields.add_error(field, "too_common", "is one of the first that a guesser tries; choose another");
    }
}

/// Validates a name and returns it with white space normalized.
pub fn validate_name(fields: &mut Validator, name: &str) -> String {
    fields.line("name", name, 1, NAME_MAX);
    collapse_whitespace(name)
}

/// Validates the fields of a new account and returns its address and name.
///
/// # Errors
/// All invalid fields at once.
pub fn validate_registration(
    email: &str,
    password: &str,
    name: &str,
) -> Result<(EmailAddress, String), Vec<FieldError>> {
    let mut fields = Validator::new();
    let email = fields.email("email", email);
    check_password(&mut fields, "password", password);
    let name = validate_name(&mut fields, name);
    fields.finish()?;
    // An invalid address is recorded in `fields`, so the line above has returned.
    email.map(|email| (email, name)).ok_or_else(Vec::new)
}

/// Turns a search text into a pattern for `LIKE` with `\` as its escape; `None` for a blank text.
///
/// # Errors
/// The text is longer than [`SEARCH_TEXT_MAX`].
pub fn like_pattern(q: &str) -> Result<Option<String>, FieldError> {
    let text = collapse_whitespace(q).to_lowercase();
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

/// Value of the column that a search matches: the name, and the address in both spellings of its domain. The line breaks
/// keep a match from spanning two of them.
pub fn search_text(name: &str, email: Option<&EmailAddress>) -> String {
    let (email, unicode) = (email.map_or("", EmailAddress::as_str), email.map(EmailAddress::to_unicode));
    let other = unicode.filter(|unicode| unicode != email).map(|unicode| format!("\n{unicode}")).unwrap_or_default();
    format!("{}\n{email}{other}", name.to_lowercase())
}

/// Requirement on the role of an account, for its error.
pub const ROLE_EXPECTED: &str = "must be customer, read_only, support, manager or admin";

/// Checks that an account of role `from` can be given role `to`. Guests become customers by registering, which gives
/// them an address and a password; no account becomes a guest.
///
/// # Errors
/// The role cannot be changed, or not to `to`.
pub fn check_role(from: Role, to: Role) -> Result<(), FieldError> {
    match (from, to) {
        (Role::Guest, _) => Err(FieldError::new("role", "guest", "cannot be changed: a guest registers first")),
        (_, Role::Guest) => Err(FieldError::new("role", "invalid", ROLE_EXPECTED)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_pattern_escapes_wildcards() {
        assert_eq!(like_pattern("  100%_A\\ "), Ok(Some("%100\\%\\_a\\\\%".to_owned())));
        assert_eq!(like_pattern("   "), Ok(None));
        assert!(like_pattern(&"x".repeat(101)).is_err());
    }

    #[test]
    fn check_role_rejects_guests() {
        use Role::{Admin, Customer, Guest, Manager, ReadOnly, Support};
        for (from, to, allowed) in [
            (Customer, Admin, true),
            (Admin, Customer, true),
            (Customer, Support, true),
            (Manager, ReadOnly, true),
            (Admin, Guest, false),
            (Customer, Guest, false),
            (Guest, Customer, false),
            (Guest, Admin, false),
        ] {
            assert_eq!(check_role(from, to).is_ok(), allowed, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn validate_registration_reports_all_fields() {
        let errors = validate_registration("not-an-address", "short", " ").unwrap_err();
        assert_eq!(errors.iter().map(|e| &*e.field).collect::<Vec<_>>(), ["email", "password", "name"]);
        for (password, good) in
            [("sevench", false), ("eightchr", true), (&"ßz".repeat(100), true), (&"x".repeat(201), false)]
        {
            assert_eq!(validate_registration("ada@example.com", password, "Ada").is_ok(), good, "{password}");
        }
    }
}
