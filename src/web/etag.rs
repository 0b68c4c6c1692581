//! Entity tags (RFC 9110 §8.8.3), and the conditions that name them.
//!
//! The tag of a resource that can be edited has two parts: the time of its last change, which a later `If-Match` is
//! checked by where the resource is stored, and a hash of the whole response, which also contains what others change.

use std::hash::{DefaultHasher, Hasher as _};

use actix_web::http::header::{self, HeaderMap};

use crate::messaging::Versions;
use crate::types::Timestamp;

/// The tag of a response with a resource that was last changed at `updated_at`.
pub fn of_resource(updated_at: Timestamp, body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("\"{}-{:016x}\"", updated_at.micros(), hasher.finish())
}

/// The versions that `If-Match` allows; `None` without the header and for `*`, which allows any. A weak tag and one
/// of another server match none (RFC 9110 §13.1.1).
pub fn versions(headers: &HeaderMap) -> Option<Versions> {
    let lists: Vec<&str> = headers.get_all(header::IF_MATCH).map(|value| value.to_str().unwrap_or_default()).collect();
    if lists.is_empty() || lists.iter().any(|list| list.trim() == "*") {
        return None;
    }
    let tags = lists.iter().flat_map(|list| list.split(','));
    Some(Versions::parse(
        tags.filter_map(|tag| Some(tag.trim().strip_prefix('"')?.strip_suffix('"')?.split_once('-')?.0)),
    ))
}

/// Whether `If-None-Match` names this entity tag, compared weakly (RFC 9110 §13.1.2).
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(|one| one.trim().trim_start_matches("W/"));
    tags.any(|one| one == tag || one == "*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn if_none_match_compares_weakly() {
        let request = |value| TestRequest::default().insert_header((header::IF_NONE_MATCH, value)).to_http_request();
        let cases = [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"ab\"", false)];
        for (value, known) in cases {
            assert_eq!(is_known(request(value).headers(), "\"a\""), known, "{value}");
        }
    }

    #[test]
    fn if_match_allows_the_versions_it_names() {
        let at = Timestamp::from_micros(1_700_000_000_000_000);
        let tag = of_resource(at, b"{}");
        assert_ne!(tag, of_resource(at, b"{ }"));
        let headers = |value: &str| TestRequest::default().insert_header((header::IF_MATCH, value)).to_http_request();
        let allowed = |value: &str| versions(headers(value).headers()).map(|versions| versions.to_string());
        assert_eq!(versions(TestRequest::default().to_http_request().headers()), None);
        let cases = [
            ("*", None),
            (&*tag, Some("1700000000000000")),
            (&*format!("\"other\", {tag}"), Some("1700000000000000")),
            (&*format!("W/{tag}"), Some("")),
            ("\"x-y\"", Some("")),
            ("", Some("")),
        ];
        for (value, versions) in cases {
            assert_eq!(allowed(value).as_deref(), versions, "{value}");
        }
    }
}
