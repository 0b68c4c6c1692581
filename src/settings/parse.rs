//! Parsers of values. An error says what the value must be, as a field error of the API does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::types::Address;

/// Parses a duration in seconds, at most a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    number(text, 1, 86_400).map(Duration::from_secs)
}

/// Parses an interval of minutes, hours or days, such as 12h; none if the text is empty.
pub fn interval(text: &str) -> Result<Option<Duration>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || "must be minutes, hours or days, such as 30m, 12h or 7d, at most 366d".to_owned();
    let unit = text.chars().last().ok_or_else(invalid)?;
    let minutes = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        _ => return Err(invalid()),
    };
    let count: u64 = number(text.trim_end_matches(unit), 1, 366 * 24 * 60 / minutes).map_err(|_| invalid())?;
    Ok(Some(Duration::from_secs(60 * minutes * count)))
}

/// Parses the public address of the shop; none if the text is empty.
pub fn public_url(text: &str) -> Result<Option<String>, String> {
    match text.trim_end_matches('/') {
        "" => Ok(None),
        url if url.starts_with("http://") || url.starts_with("https://") => Ok(Some(url.to_owned())),
        _ => Err("must begin with http:// or https://".to_owned()),
    }
}

/// Parses a socket address; `example` is named in the error.
pub fn socket_address(text: &str, example: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be an address and a port, such as {example}"))
}

/// Parses an address range in CIDR notation, or one address.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("must be networks such as 10.0.0.0/8, separated by commas; {text} is none"))
}

/// Parses address ranges separated by commas; none if the text is empty.
pub fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    if text.trim().is_empty() { Ok(Vec::new()) } else { text.split(',').map(network).collect() }
}

/// Parses gRPC addresses separated by commas; none if the text is empty.
pub fn addresses(text: &str) -> Result<Vec<Address>, String> {
    if text.trim().is_empty() {
        Ok(Vec::new())
    } else {
        text.split(',').map(|address| address.trim().parse()).collect()
    }
}

/// Parses origins separated by commas: scheme, host and port of a page, without a path; none if the text is empty.
pub fn origins(text: &str) -> Result<Vec<String>, String> {
    let origin = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(format!("must be origins such as https://shop.example, separated by commas; {text} is none"));
        }
        Ok(text)
    };
    if text.trim().is_empty() { Ok(Vec::new()) } else { text.split(',').map(origin).collect() }
}

/// Parses a whole number from `min` to `max`.
pub fn number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Result<T, String> {
    let invalid = || format!("must be a whole number from {min} to {max}");
    let number = text.parse::<u64>().ok().filter(|n| (min..=max).contains(n)).ok_or_else(invalid)?;
    T::try_from(number).map_err(|_| invalid())
}

/// Checks filters that the logger itself would accept with a warning: a misspelt level logs everything or nothing.
pub fn log_filter(text: &str) -> Result<String, String> {
    let is_level = |text: &str| text.trim().parse::<log::LevelFilter>().is_ok();
    let is_target = |text: &str| !text.trim().is_empty() && !text.contains(['=', '/']);
    let is_filter = |part: &str| match part.split_once('=') {
        None => is_level(part) || (part.contains("::") && is_target(part)),
        Some((target, level)) => is_target(target) && is_level(level),
    };
    if text.split(',').all(is_filter) {
        Ok(text.to_owned())
    } else {
        Err("must be error, warn, info, debug or trace, or filters such as info,mercat::web=debug".to_owned())
    }
}

/// Parses a signing secret; none if the text is empty.
pub fn signing_secret(text: &str) -> Result<Option<String>, String> {
    match text.len() {
        0 => Ok(None),
        32.. => Ok(Some(text.to_owned())),
        _ => Err("must have at least 32 characters".to_owned()),
    }
}

/// Parses `true` or `false`.
pub fn boolean(text: &str) -> Result<bool, String> {
    choice(text, &[("true", true), ("false", false)])
}

/// Parses one of several names.
pub fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("must be {}", names.join(" or "))
    })
}

/// Reads a text file; none if no name is given.
pub fn text_of_file(path: &str) -> Result<Option<String>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| format!("names a file that cannot be read: {error}"))
}
