//! Bodies and queries: read within limits, and when they are wrong, said where and how.

use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::BytesMut;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use futures_util::StreamExt;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, IntoDeserializer};
use serde_json::error::Category;

use super::asked::ApiRequest;
use super::problem::Problem;
use crate::messaging::CommonError;
use crate::types::{Cursor, FieldError, PageRequest, Timestamp};

/// The most fields of one body that are named as unknown.
const UNKNOWN_MAX: usize = 20;

/// A body that has not been read yet: it is read once it is known that the caller may send it.
pub struct UnreadBody(Payload);

/// A resource that is read, changed and sent back carries fields that the server alone sets. They are passed over
/// where any other unknown field is an error.
pub trait ServerSetFields {
    /// Their names.
    const NAMES: &'static [&'static str] = &[];
}

impl FromRequest for UnreadBody {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Ok(Self(payload.take())))
    }
}

impl UnreadBody {
    /// Reads the body as JSON.
    pub async fn json<T: DeserializeOwned + ServerSetFields>(self, asked: &ApiRequest) -> Result<T, Problem> {
        expect_json(asked.request())?;
        read_json(&collect(asked, self.0, asked.gate().settings.http.body_max).await?)
    }

    /// Reads the body as JSON; none at all is one without fields.
    pub async fn json_or_nothing<T: DeserializeOwned + ServerSetFields + Default>(
        self,
        asked: &ApiRequest,
    ) -> Result<T, Problem> {
        let bytes = collect(asked, self.0, asked.gate().settings.http.body_max).await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        expect_json(asked.request())?;
        read_json(&bytes)
    }

    /// Reads the body as it came, to the byte, of whatever type; at most `max` bytes of it.
    pub async fn text(self, asked: &ApiRequest, max: usize) -> Result<String, Problem> {
        let bytes = collect(asked, self.0, max.min(asked.gate().settings.http.body_max)).await?;
        String::from_utf8(bytes.into()).map_err(|_| Problem::malformed("the body is not text"))
    }
}

fn expect_json(request: &HttpRequest) -> Result<(), Problem> {
    let media = request.content_type();
    let json = media.eq_ignore_ascii_case("application/json") || media.to_ascii_lowercase().ends_with("+json");
    // A body in another coding (gzip) would be read as nonsense; it is told apart from nonsense here.
    let coded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    if json && !coded { Ok(()) } else { Err(Problem::unsupported_type("plain application/json")) }
}

/// Reads the whole body, never more than is allowed, and not for ever.
async fn collect(asked: &ApiRequest, mut payload: Payload, max: usize) -> Result<BytesMut, Problem> {
    expect_length(asked.request(), max)?;
    let reading = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk?;
            if bytes.len() + chunk.len() > max {
                return Err(Problem::too_large(max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    tokio::time::timeout_at(asked.ctx().deadline, reading).await.unwrap_or_else(|_| Err(Problem::too_slow()))
}

/// Refuses a body that says itself that it is too large, before a byte of it is read.
pub fn expect_length(request: &HttpRequest, max: usize) -> Result<(), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        Some::<u64>(length) if usize::try_from(length).is_ok_and(|length| length <= max) => Ok(()),
        Some(_) => Err(Problem::too_large(max)),
        None => Ok(()),
    }
}

fn read_json<T: DeserializeOwned + ServerSetFields>(bytes: &[u8]) -> Result<T, Problem> {
    let object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !object {
        // Serde would read a list as an object without names.
        return match serde_json::from_slice::<IgnoredAny>(bytes) {
            Ok(_) => Err(CommonError::field(FieldError::new("", "invalid_type", "must be a JSON object")).into()),
            Err(error) => Err(not_json(&error)),
        };
    }
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let result = serde_ignored::deserialize(&mut json, |path| {
        let path = path.to_string();
        if unknown.len() < UNKNOWN_MAX && !T::NAMES.contains(&path.as_str()) {
            unknown.push(FieldError::new(path, "unknown_field", "is not a field of this request"));
        }
    });
    match result.and_then(|value: T| json.end().map(|()| value)) {
        Ok(value) if unknown.is_empty() => Ok(value),
        Ok(_) => Err(CommonError::from(unknown).into()),
        Err(error) => match error.classify() {
            Category::Data => Err(CommonError::field(wrong_field::<T>(bytes)).into()),
            _ => Err(not_json(&error)),
        },
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    // Serde's words for a broken text name no types of ours, and end with the place.
    Problem::malformed(format!("the body is not JSON: {error}"))
}

/// Reads the body once more to learn which field it was: only a wrong body pays for that.
fn wrong_field<T: DeserializeOwned>(bytes: &[u8]) -> FieldError {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut json) else {
        return FieldError::new("", "invalid", "cannot be read");
    };
    let path = error.path().to_string();
    let path = if path == "." { String::new() } else { path.replace(['[', ']'], ".").replace("..", ".") };
    let path = path.trim_matches('.');
    let text = error.inner().to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let named = |prefix: &str| text.strip_prefix(prefix).and_then(|rest| rest.split('`').next());
    if let Some(name) = named("missing field `") {
        return FieldError::new(join(name), "required", "must be given");
    }
    if let Some(name) = named("duplicate field `") {
        return FieldError::new(join(name), "duplicate", "is given twice");
    }
    let path = path.to_owned();
    if let Some((_, expected)) = text.split_once("expected ") {
        if text.starts_with("unknown variant") {
            return FieldError::new(path, "unknown_value", format!("must be {}", expected.replace('`', "")));
        }
        if text.starts_with("invalid") {
            return FieldError::new(path, "invalid_type", format!("must be {}", plainly(expected)));
        }
    }
    if text.starts_with("UUID parsing failed") {
        return FieldError::new(path, "invalid", "must be an id");
    }
    // What is left was said by our own types, for people.
    FieldError::new(path, "invalid", format!("is {text}"))
}

/// Serde's word for what it wanted, in a client's words.
fn plainly(expected: &str) -> &'static str {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "a borrowed string" | "a formatted UUID string" | "a UUID string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other if other.contains("UUID") => "an id",
        _ => "of another type",
    }
}

/// A query, taken apart; what is wrong with its parameters is collected and told at once.
pub struct Query {
    pairs: Vec<(String, String)>,
    wrong: Vec<FieldError>,
}

impl Query {
    /// The query of a request. A parameter without a value counts as not given; the last of several counts.
    pub fn of(request: &HttpRequest) -> Self {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        Self { pairs: pairs.map(web::Query::into_inner).unwrap_or_default(), wrong: Vec::new() }
    }

    fn raw(&self, name: &str) -> Option<&str> {
        let mut found = self.pairs.iter().rev().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn read<T>(&mut self, name: &'static str, must: &'static str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = read(self.raw(name)?);
        if value.is_none() {
            self.wrong.push(FieldError::new(name, "invalid", must));
        }
        value
    }

    /// Any text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.raw(name).map(str::to_owned)
    }

    /// A whole number.
    pub fn number<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.read(name, "must be a whole number", |text| text.parse().ok())
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "must be true or false", |text| text.parse().ok())
    }

    /// An id.
    pub fn id<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.read(name, "must be an id", |text| text.parse().ok())
    }

    /// An instant. A plus that was not coded arrives as a space, and is taken for what it was.
    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let must = "must be a time as 2026-01-31T12:00:00Z or a date as 2026-01-31";
        self.read(name, must, |text| Timestamp::parse(&text.replace(' ', "+")))
    }

    /// One of the words of `T`.
    pub fn word<T: DeserializeOwned>(&mut self, name: &'static str, must: &'static str) -> Option<T> {
        self.read(name, must, |text| {
            let word: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
            T::deserialize(word).ok()
        })
    }

    /// Which page of a list.
    pub fn page(&mut self) -> PageRequest {
        PageRequest {
            limit: self.read("limit", "must be between 1 and 100", |text| text.parse().ok()),
            cursor: self.word::<Cursor>("cursor", "is not a cursor of this list; start again without one"),
        }
    }

    /// All is well, or everything that is wrong.
    pub fn done(self) -> Result<(), CommonError> {
        if self.wrong.is_empty() { Ok(()) } else { Err(self.wrong.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Currency, ProductId};
    use actix_web::ResponseError;
    use actix_web::test::TestRequest;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Thing {
        name: String,
        product_id: ProductId,
        currency: Currency,
        #[serde(default)]
        lines: Vec<Line>,
        #[serde(default)]
        color: Option<Color>,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Line {
        quantity: i64,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Color {
        Red,
        Blue,
    }
    impl ServerSetFields for Thing {
        const NAMES: &'static [&'static str] = &["id"];
    }

    const ID: &str = "018f3c5e-0000-7000-8000-000000000000";

    #[test]
    fn a_wrong_body_is_told_where_and_how() {
        let good = format!(r#""name":"x","product_id":"{ID}","currency":"EUR""#);
        let cases = [
            (format!(r#"{{"product_id":"{ID}","currency":"EUR"}}"#), "name", "required"),
            (format!(r#"{{"name":5,"product_id":"{ID}","currency":"EUR"}}"#), "name", "invalid_type"),
            (r#"{"name":"x","product_id":"abc","currency":"EUR"}"#.to_owned(), "product_id", "invalid"),
            (format!(r#"{{"name":"x","product_id":"{ID}","currency":"euro"}}"#), "currency", "invalid"),
            (format!(r#"{{{good},"lines":[{{"quantity":1}},{{}}]}}"#), "lines.1.quantity", "required"),
            (format!(r#"{{{good},"lines":[{{"quantity":1.5}}]}}"#), "lines.0.quantity", "invalid_type"),
            (format!(r#"{{{good},"color":"green"}}"#), "color", "unknown_value"),
            (format!(r#"{{{good},"name":"y"}}"#), "name", "duplicate"),
            (format!(r#"{{{good},"colour":"red"}}"#), "colour", "unknown_field"),
            ("[1]".to_owned(), "", "invalid_type"),
        ];
        for (body, field, code) in cases {
            let problem = read_json::<Thing>(body.as_bytes()).unwrap_err();
            let told = problem.first_error().unwrap_or_else(|| panic!("{body}: {problem}"));
            assert_eq!((told.field.as_ref(), told.code.as_ref()), (field, code), "{body}: {problem}");
            assert!(!problem.to_string().contains("struct"), "{problem}");
        }
        assert!(read_json::<Thing>(format!(r#"{{{good},"id":"sent back"}}"#).as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_json_is_malformed_and_the_place_is_named() {
        for bad in ["", "{", "{\"name\": }", "nonsense", "{} {}", "{\"a\":\"\u{0}\"}"] {
            let problem = read_json::<Thing>(bad.as_bytes()).unwrap_err();
            if bad == "{} {}" {
                continue; // its fields are missing, which is told first
            }
            assert_eq!(problem.status_code(), 400, "{bad}: {problem}");
            assert!(problem.to_string().contains("line 1 column"), "{bad}: {problem}");
        }
        assert_eq!(read_json::<Thing>(b"{\"name\": \"\xff\"}").unwrap_err().status_code(), 400);
    }

    #[test]
    fn a_query_is_read_or_all_that_is_wrong_with_it_is_told() {
        let request = |query: &str| TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
        let mut query = Query::of(&request("limit=5&from=2026-01-31T00:00:00+01:00&q=&flag=true&limit=7"));
        assert_eq!(query.page().limit, Some(7));
        assert_eq!(query.text("q"), None);
        assert_eq!(query.flag("flag"), Some(true));
        assert_eq!(query.time("from"), Timestamp::parse("2026-01-30T23:00:00Z"));
        assert!(query.done().is_ok());
        let mut query = Query::of(&request("limit=-1&flag=yes&from=soon&id=7"));
        let _ = (query.page(), query.flag("flag"), query.time("from"), query.id::<ProductId>("id"));
        let Err(CommonError::ValidationFailed { errors }) = query.done() else { panic!() };
        assert_eq!(errors.iter().map(|e| e.field.as_ref()).collect::<Vec<_>>(), ["limit", "flag", "from", "id"]);
    }
}
