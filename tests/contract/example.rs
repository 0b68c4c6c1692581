//! Examples of wire types: their encoding, and how a stored encoding is decoded again.

use mercat::messaging::{Event, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An example of one golden file.
pub struct Example {
    /// Name of the golden file, without `.json`.
    pub name: String,
    /// `message`, `event` or `variants`.
    pub kind: &'static str,
    /// Encoding of the example by today's code.
    pub encoding: Value,
    /// Decodes a stored encoding and encodes it again.
    pub reencode: fn(&Value) -> Result<Value, String>,
    /// Type of a message's error.
    pub error_type: Option<&'static str>,
    /// Type whose variants are listed.
    pub variants_of: Option<&'static str>,
}

fn encode<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Decodes from text, as the transports do.
fn reencode<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let decoded: T = serde_json::from_str(&value.to_string()).map_err(|error| format!("{error} in {value}"))?;
    Ok(encode(&decoded))
}

/// Example of a request and its reply.
pub fn message<R: Request>(request: R, reply: R::Reply) -> Example {
    Example {
        name: R::NAME.to_owned(),
        kind: "message",
        encoding: json!({ "request": encode(&request), "reply": encode(&reply) }),
        reencode: |value| {
            let (request, reply) = (reencode::<R>(&value["request"])?, reencode::<R::Reply>(&value["reply"])?);
            Ok(json!({ "request": request, "reply": reply }))
        },
        error_type: Some(std::any::type_name::<R::Error>()),
        variants_of: None,
    }
}

/// Example of an event.
pub fn event<E: Event>(event: E) -> Example {
    Example {
        name: E::NAME.to_owned(),
        kind: "event",
        encoding: encode(&event),
        reencode: reencode::<E>,
        error_type: None,
        variants_of: None,
    }
}

/// Examples of all variants of an error or another enumeration; see `variants!`.
pub fn list_variants<T: Serialize + DeserializeOwned>(name: &str, all: &[T]) -> Example {
    Example {
        name: name.to_owned(),
        kind: "variants",
        encoding: encode(&all),
        reencode: reencode::<Vec<T>>,
        error_type: None,
        variants_of: Some(std::any::type_name::<T>()),
    }
}

/// Lists all variants of an enumeration with example values. Does not compile if one is missing.
macro_rules! variants {
    ($enum:ident { $($variant:ident { $($field:tt : $value:expr),* $(,)? }),+ $(,)? }) => {{
        let all = [$($enum::$variant { $($field: $value),* }),+];
        all.iter().for_each(|example| match example {
            $($enum::$variant { .. } => {})+
        });
        $crate::example::list_variants(stringify!($enum), &all)
    }};
}
pub(crate) use variants;
