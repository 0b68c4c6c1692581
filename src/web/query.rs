//! Query parameters of requests.

use std::collections::BTreeSet;
use std::str::FromStr;

use actix_web::{HttpRequest, web};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::messaging::CommonError;
use crate::types::{Cursor, FieldError, PageRequest, Timestamp};

/// Most unknown parameters that are reported.
const UNKNOWN_MAX: usize = 20;
/// Characters of a parameter's name that are reported.
const NAME_MAX: usize = 100;

/// Parsed query of a request. Errors are collected, so that all of them are reported at once by [`Query::finish`].
pub struct Query {
    pairs: Vec<(String, String)>,
    /// Names of the parameters that were asked for.
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Query of a request. A parameter without a value counts as absent; of several the last one counts.
    pub fn of(request: &HttpRequest) -> Self {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
        Self { pairs, known: Vec::new(), errors: Vec::new() }
    }

    fn raw(&mut self, name: &'static str) -> Option<&str> {
        self.known.push(name);
        let last = self.pairs.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn parse<T>(
        &mut self,
        name: &'static str,
        requirement: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(self.raw(name)?);
        if value.is_none() {
            self.errors.push(FieldError::new(name, "invalid", requirement));
        }
        value
    }

    /// Parameter that may be any text.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.raw(name).map(str::to_owned)
    }

    /// Parameter that is a whole number.
    pub fn number<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.parse(name, "must be a whole number", |text| text.parse().ok())
    }

    /// Parameter that is `true` or `false`.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.parse(name, "must be true or false", |text| text.parse().ok())
    }

    /// Parameter that is an id.
    pub fn id<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.parse(name, "must be an id", |text| text.parse().ok())
    }

    /// Parameter that is a time. A plus that the client did not encode arrives as a space and is read as a plus.
    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let requirement = "must be a time as 2026-01-31T12:00:00Z or a date as 2026-01-31";
        self.parse(name, requirement, |text| Timestamp::parse(&text.replace(' ', "+")))
    }

    /// Parameter that is one of the names that `T` has in JSON.
    pub fn one_of<T: DeserializeOwned>(&mut self, name: &'static str, requirement: &'static str) -> Option<T> {
        self.parse(name, requirement, |text| {
            let name: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
            T::deserialize(name).ok()
        })
    }

    /// Requested page of a list: `limit` and `cursor`.
    pub fn page(&mut self) -> PageRequest {
        PageRequest {
            limit: self.parse("limit", "must be between 1 and 100", |text| text.parse().ok()),
            cursor: self.one_of::<Cursor>("cursor", "is not a cursor of this list; start again without one"),
        }
    }

    /// Ends the reading. Every parameter must have been asked for: one that is ignored, such as `page`, would return
    /// another list than the caller believes.
    ///
    /// # Errors
    /// [`CommonError::ValidationFailed`] with every invalid and every unknown parameter.
    pub fn finish(mut self) -> Result<(), CommonError> {
        let unknown = self.pairs.iter().map(|(name, _)| name).filter(|name| !self.known.contains(&name.as_str()));
        let unknown: BTreeSet<String> = unknown.map(|name| name.chars().take(NAME_MAX).collect()).collect();
        for name in unknown.into_iter().take(UNKNOWN_MAX) {
            let message = format!("is not a parameter of this path, which takes {}", self.known.join(", "));
            self.errors.push(FieldError::new(name, "unknown_parameter", message));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ProductId;
    use actix_web::test::TestRequest;

    #[test]
    fn query_reports_all_invalid_parameters() {
        let request = |query: &str| TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
        let mut query = Query::of(&request("limit=5&from=2026-01-31T00:00:00+01:00&q=&flag=true&limit=7"));
        assert_eq!(query.page().limit, Some(7));
        assert_eq!(query.text("q"), None);
        assert_eq!(query.flag("flag"), Some(true));
        assert_eq!(query.time("from"), Timestamp::parse("2026-01-30T23:00:00Z"));
        assert!(query.finish().is_ok());
        let mut query = Query::of(&request("limit=5&page=2&offset=&page=3"));
        let _ = query.page();
        let Err(CommonError::ValidationFailed { errors }) = query.finish() else { panic!() };
        assert_eq!(errors.iter().map(|e| e.field.as_ref()).collect::<Vec<_>>(), ["offset", "page"]);
        assert_eq!(errors[0].message, "is not a parameter of this path, which takes limit, cursor");
        let mut query = Query::of(&request("limit=-1&flag=yes&from=soon&id=7"));
        let _ = (query.page(), query.flag("flag"), query.time("from"), query.id::<ProductId>("id"));
        let Err(CommonError::ValidationFailed { errors }) = query.finish() else { panic!() };
        assert_eq!(errors.iter().map(|e| e.field.as_ref()).collect::<Vec<_>>(), ["limit", "flag", "from", "id"]);
    }
}
