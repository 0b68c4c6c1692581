//! Request bodies: read within limits of size and time, and errors reported with the field they are in.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::BytesMut;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::extract::ApiRequest;
use super::problem::Problem;
use crate::messaging::CommonError;
use crate::types::FieldError;

/// Most unknown fields that are reported for one body.
const UNKNOWN_FIELDS_MAX: usize = 20;

/// Extractor: a body that has not been read yet, so that the caller's right to send it is checked first.
pub struct UnreadBody(Payload);

/// JSON body of a request, with the fields that only the server sets. A client that reads a resource, changes it and
/// sends it back sends them along: they are ignored, where any other unknown field is an error.
pub trait ServerSetFields {
    /// Names of the ignored fields.
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
    pub async fn json<T: DeserializeOwned + ServerSetFields>(self, request: &ApiRequest) -> Result<T, Problem> {
        expect_json(request.http())?;
        read_json(&read_bounded(request, self.0, request.state().settings.http.body_max).await?)
    }

    /// Reads the body as JSON; an empty body is one without fields.
    pub async fn json_or_default<T: DeserializeOwned + ServerSetFields + Default>(
        self,
        request: &ApiRequest,
    ) -> Result<T, Problem> {
        let bytes = read_bounded(request, self.0, request.state().settings.http.body_max).await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        expect_json(request.http())?;
        read_json(&bytes)
    }

    /// Reads the unchanged body as UTF-8 text of any media type, at most `max` bytes.
    pub async fn text(self, request: &ApiRequest, max: usize) -> Result<String, Problem> {
        let bytes = read_bounded(request, self.0, max.min(request.state().settings.http.body_max)).await?;
        String::from_utf8(bytes.into()).map_err(|_| Problem::malformed_body("the body is not text"))
    }
}

fn expect_json(request: &HttpRequest) -> Result<(), Problem> {
    let media = request.content_type();
    let is_json = media.eq_ignore_ascii_case("application/json") || media.to_ascii_lowercase().ends_with("+json");
    // An encoded body (gzip) would be reported as malformed JSON.
    let is_encoded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if is_json && !is_encoded { Ok(()) } else { Err(Problem::unsupported_media_type("plain application/json")) }
}

/// Reads the whole body: at most `max` bytes, and until the request's deadline.
async fn read_bounded(request: &ApiRequest, mut payload: Payload, max: usize) -> Result<BytesMut, Problem> {
    expect_length(request.http(), max)?;
    let expected = declared_length(request.http());
    let reading = async {
        let mut bytes = BytesMut::new();
        // The parser takes what follows a request with `Upgrade: websocket` for its body without an end.
        while expected.is_none_or(|expected| bytes.len() < expected) {
            let Some(chunk) = payload.next().await.transpose()? else { break };
            let chunk = &chunk[..chunk.len().min(expected.map_or(usize::MAX, |expected| expected - bytes.len()))];
            if bytes.len() + chunk.len() > max {
                return Err(Problem::too_large(max));
            }
            bytes.extend_from_slice(chunk);
        }
        Ok(bytes)
    };
    tokio::time::timeout_at(request.ctx().deadline, reading).await.unwrap_or_else(|_| Err(Problem::request_timeout()))
}

/// Rejects a body by its `Content-Length`, before a byte of it is read.
pub fn expect_length(request: &HttpRequest, max: usize) -> Result<(), Problem> {
    match content_length(request) {
        Some(length) if usize::try_from(length).is_ok_and(|length| length <= max) => Ok(()),
        Some(_) => Err(Problem::too_large(max)),
        None => Ok(()),
    }
}

/// Length of the body by the request's head (RFC 9112 §6.3); `None` for a body of chunks, which has an end of its own.
fn declared_length(request: &HttpRequest) -> Option<usize> {
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    // A length of more bytes than memory has was refused before.
    Some(content_length(request).and_then(|length| usize::try_from(length).ok()).unwrap_or(0))
}

fn content_length(request: &HttpRequest) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn read_json<T: DeserializeOwned + ServerSetFields>(bytes: &[u8]) -> Result<T, Problem> {
    let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !is_object {
        // Serde would accept a list in place of an object.
        return match serde_json::from_slice::<IgnoredAny>(bytes) {
            Ok(_) => Err(CommonError::field(FieldError::new("", "invalid_type", "must be a JSON object")).into()),
            Err(error) => Err(invalid_json(&error)),
        };
    }
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let result = serde_ignored::deserialize(&mut json, |path| {
        // An optional value has a step of its own, which is no part of the field's name.
        let path = path.to_string().replace(".?", "");
        if unknown.len() < UNKNOWN_FIELDS_MAX && !T::NAMES.contains(&path.as_str()) {
            unknown.push(FieldError::new(path, "unknown_field", "is not a field of this request"));
        }
    });
    match result.and_then(|value: T| json.end().map(|()| value)) {
        Ok(value) if unknown.is_empty() => Ok(value),
        Ok(_) => Err(CommonError::from(unknown).into()),
        Err(error) => match error.classify() {
            Category::Data => Err(CommonError::field(find_invalid_field::<T>(bytes)).into()),
            _ => Err(invalid_json(&error)),
        },
    }
}

fn invalid_json(error: &serde_json::Error) -> Problem {
    // Serde's syntax errors name no Rust types, and end with line and column.
    Problem::malformed_body(format!("the body is not JSON: {error}"))
}

/// Reads an invalid body once more, to find the field that is wrong.
fn find_invalid_field<T: DeserializeOwned>(bytes: &[u8]) -> FieldError {
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
            return FieldError::new(path, "invalid_type", format!("must be {}", expected_type(expected)));
        }
    }
    if text.starts_with("UUID parsing failed") {
        return FieldError::new(path, "invalid", "must be an id");
    }
    // The remaining texts come from the types of this crate and are written for people.
    FieldError::new(path, "invalid", format!("is {text}"))
}

/// Serde's name of an expected type, in terms of JSON.
fn expected_type(expected: &str) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Currency, ProductId};
    use actix_web::ResponseError;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct ThingBody {
        name: String,
        product_id: ProductId,
        currency: Currency,
        #[serde(default)]
        lines: Vec<ThingLine>,
        #[serde(default)]
        color: Option<ThingColor>,
        #[serde(default)]
        gift: Option<ThingLine>,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct ThingLine {
        quantity: i64,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum ThingColor {
        Red,
        Blue,
    }
    impl ServerSetFields for ThingBody {
        const NAMES: &'static [&'static str] = &["id"];
    }

    const ID: &str = "018f3c5e-0000-7000-8000-000000000000";

    #[test]
    fn invalid_body_names_field_and_code() {
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
            (format!(r#"{{{good},"gift":{{"quantity":1,"colour":"red"}}}}"#), "gift.colour", "unknown_field"),
            ("[1]".to_owned(), "", "invalid_type"),
        ];
        for (body, field, code) in cases {
            let problem = read_json::<ThingBody>(body.as_bytes()).unwrap_err();
            let error = problem.first_error().unwrap_or_else(|| panic!("{body}: {problem}"));
            assert_eq!((error.field.as_ref(), error.code.as_ref()), (field, code), "{body}: {problem}");
            assert!(!problem.to_string().contains("struct"), "{problem}");
        }
        assert!(read_json::<ThingBody>(format!(r#"{{{good},"id":"sent back"}}"#).as_bytes()).is_ok());
    }

    #[test]
    fn malformed_json_names_line_and_column() {
        for bad in ["", "{", "{\"name\": }", "nonsense", "{} {}", "{\"a\":\"\u{0}\"}"] {
            let problem = read_json::<ThingBody>(bad.as_bytes()).unwrap_err();
            if bad == "{} {}" {
                continue; // its missing fields are reported first
            }
            assert_eq!(problem.status_code(), 400, "{bad}: {problem}");
            assert!(problem.to_string().contains("line 1 column"), "{bad}: {problem}");
        }
        assert_eq!(read_json::<ThingBody>(b"{\"name\": \"\xff\"}").unwrap_err().status_code(), 400);
    }
}
