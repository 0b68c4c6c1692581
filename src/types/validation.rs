//! Validation of request fields: errors that a person can act on, and the checks that several domains need.
//!
//! A [`Validator`] collects the errors of all fields, so that a client learns all of them from one response.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::text::is_invisible;
use super::{EmailAddress, Quantity};

/// Error of one field of a request, as in the `errors` of a problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Name of the field as in the request; nested ones with dots, as `lines.0.quantity`.
    pub field: Cow<'static, str>,
    /// Machine-readable code, stable across releases.
    pub code: Cow<'static, str>,
    /// Message for people: the rule that the value breaks. Continues the field's name, as in "must not be empty".
    pub message: Cow<'static, str>,
}

impl FieldError {
    /// Makes the error of `field`.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into() }
    }
}

/// Collects the errors of all fields of a request.
#[derive(Debug, Default)]
pub struct Validator(Vec<FieldError>);

impl Validator {
    /// Makes one without errors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an error of `field`.
    pub fn add_error(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) {
        self.0.push(FieldError::new(field, code, message));
    }

    /// Returns the value of `result`, or adds its error and returns `None`.
    pub fn capture<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// Checks a text of `min..=max` characters after trimming, without control characters other than line ends and
    /// tabs. A text of invisible characters only counts as empty.
    pub fn text(&mut self, field: impl Into<Cow<'static, str>>, text: &str, min: usize, max: usize) {
        let length = text.trim().chars().count();
        if min > 0 && text.chars().all(is_invisible) {
            self.add_error(field, "required", "must not be empty");
        } else if length < min {
            self.add_error(field, "too_short", format!("must have at least {min} characters"));
        } else if length > max {
            self.add_error(field, "too_long", format!("must have at most {max} characters"));
        } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.add_error(field, "invalid", "must not have control characters");
        }
    }

    /// Checks like [`Validator::text`], and that there is one line only.
    pub fn line(&mut self, field: impl Into<Cow<'static, str>>, text: &str, min: usize, max: usize) {
        let field = field.into();
        self.text(field.clone(), text, min, max);
        if text.contains(['\n', '\r', '\t']) {
            self.add_error(field, "invalid", "must be on one line");
        }
    }

    /// Checks that a number is within `min..=max`.
    pub fn range(&mut self, field: impl Into<Cow<'static, str>>, value: i64, min: i64, max: i64) {
        if !(min..=max).contains(&value) {
            self.add_error(field, "out_of_range", format!("must be between {min} and {max}"));
        }
    }

    /// Checks a quantity: 1 to 10,000, the most that a line of a cart or an invoice may have.
    pub fn quantity(&mut self, field: impl Into<Cow<'static, str>>, value: Quantity) {
        self.range(field, value, 1, 10_000);
    }

    /// Parses an e-mail address, or adds an error.
    pub fn email(&mut self, field: &'static str, text: &str) -> Option<EmailAddress> {
        let address = text.parse().map_err(|e| FieldError::new(field, "invalid_email", format!("is {e}")));
        self.capture(address)
    }

    /// Ends the validation.
    ///
    /// # Errors
    ///
    /// All errors that were added, if there are any.
    pub fn finish(self) -> Result<(), Vec<FieldError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}
