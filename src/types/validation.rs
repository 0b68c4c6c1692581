//! What is wrong with a field, said so that a person can mend it; and the checks that every domain needs.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{EmailAddress, Quantity};

/// One thing that is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field's name as in the request; nested ones with dots, as `lines.0.quantity`.
    pub field: Cow<'static, str>,
    /// A stable word for programs.
    pub code: Cow<'static, str>,
    /// A sentence for people: what is wrong and what would be right.
    pub message: Cow<'static, str>,
}

impl FieldError {
    /// Says what is wrong with `field`.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into() }
    }
}

/// Collects what is wrong with all fields of a request, so that a person hears it all at once.
#[derive(Debug, Default)]
pub struct Validator(Vec<FieldError>);

impl Validator {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that something is wrong with `field`.
    pub fn wrong(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) {
        self.0.push(FieldError::new(field, code, message));
    }

    /// Keeps the value of `result`, or notes why there is none.
    pub fn keep<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// A text of `min..=max` characters after trimming, without control characters other than line ends and tabs.
    pub fn text(&mut self, field: &'static str, text: &str, min: usize, max: usize) {
        let length = text.trim().chars().count();
        if length < min && length == 0 {
            self.wrong(field, "required", "must not be empty");
        } else if length < min {
            self.wrong(field, "too_short", format!("must have at least {min} characters"));
        } else if length > max {
            self.wrong(field, "too_long", format!("must have at most {max} characters"));
        } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.wrong(field, "invalid", "must not have control characters");
        }
    }

    /// Like [`Validator::text`], on one line.
    pub fn line(&mut self, field: &'static str, text: &str, min: usize, max: usize) {
        self.text(field, text, min, max);
        if text.contains(['\n', '\r', '\t']) {
            self.wrong(field, "invalid", "must be on one line");
        }
    }

    /// A number within `min..=max`.
    pub fn range(&mut self, field: impl Into<Cow<'static, str>>, value: i64, min: i64, max: i64) {
        if !(min..=max).contains(&value) {
            self.wrong(field, "out_of_range", format!("must be between {min} and {max}"));
        }
    }

    /// A number of pieces, at least one and at most what a line may hold.
    pub fn quantity(&mut self, field: impl Into<Cow<'static, str>>, value: Quantity) {
        self.range(field, value, 1, 10_000);
    }

    /// An e-mail address.
    pub fn email(&mut self, field: &'static str, text: &str) -> Option<EmailAddress> {
        let address = text.parse().map_err(|e| FieldError::new(field, "invalid_email", format!("is {e}")));
        self.keep(address)
    }

    /// All is well, or everything that is wrong.
    pub fn done(self) -> Result<(), Vec<FieldError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// The text trimmed, with each run of white space made one space: how names are kept.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
/// Bytes in hexadecimal, small letters.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
