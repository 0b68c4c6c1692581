//! Conversion of HTML to plain text, for descriptions.
//!
//! Does not sanitize: the result is shown as text and never as HTML, so doubtful input is left as it is written.

/// Converts HTML to text: blocks on lines of their own, list items with a dash, no scripts, no tags.
#[must_use]
pub fn to_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (plain, from) = rest.split_at(at);
        push(&mut text, plain);
        rest = if from.starts_with('<') { tag(&mut text, from) } else { entity(&mut text, from) };
    }
    push(&mut text, rest);
    // Lines trimmed, at most one empty line in sequence.
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n").trim().to_owned()
}

/// Appends text with runs of white space collapsed, as browsers render it.
fn push(text: &mut String, plain: &str) {
    for c in plain.chars() {
        if c.is_whitespace() {
            if !text.ends_with([' ', '\n']) {
                text.push(' ');
            }
        } else if !c.is_control() {
            text.push(c);
        }
    }
}

/// Converts what begins with `<` and returns the rest.
fn tag<'a>(text: &mut String, from: &'a str) -> &'a str {
    if let Some(comment) = from.strip_prefix("<!--") {
        return comment.split_once("-->").map_or("", |(_, rest)| rest);
    }
    let inner = from.get(1..).unwrap_or_default();
    let closing = inner.starts_with('/');
    let name: String = inner
        .trim_start_matches('/')
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .take(16)
        .collect();
    if name.is_empty() && !inner.starts_with(['!', '?']) {
        text.push('<'); // No tag: "a < b".
        return inner;
    }
    let Some(end) = end_of_tag(inner) else { return "" };
    let rest = inner.get(end..).unwrap_or_default();
    match name.as_str() {
        "script" | "style" | "template" | "iframe" if !closing => {
            let close = format!("</{name}");
            let lower = rest.to_ascii_lowercase();
            let Some(at) = lower.find(&close) else { return "" };
            let behind = rest.get(at..).unwrap_or_default();
            return behind.split_once('>').map_or("", |(_, rest)| rest);
        }
        "br" | "tr" | "dt" | "dd" | "hr" => text.push('\n'),
        "li" if !closing => text.push_str("\n- "),
        "td" | "th" if closing => text.push(' '),
        "p" | "div" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "dl" | "table" | "blockquote"
        | "section" | "article" | "pre"
            if closing || !text.ends_with('\n') =>
        {
            text.push('\n');
            if closing && matches!(name.as_str(), "p" | "h1" | "h2" | "h3" | "ul" | "ol") {
                text.push('\n');
            }
        }
        _ => {}
    }
    rest
}

/// Finds the end of a tag: after the first `>` outside quotes.
fn end_of_tag(inner: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            (None, '>') => return Some(at + 1),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    // A quote that never ends hides the `>`: then take the first one.
    inner.find('>').map(|at| at + 1)
}

/// Converts what begins with `&` and returns the rest.
fn entity<'a>(text: &mut String, from: &'a str) -> &'a str {
    let inner = from.get(1..).unwrap_or_default();
    let known = inner
        .char_indices()
        .take(12)
        .find(|(_, c)| *c == ';')
        .and_then(|(at, _)| Some((decode(inner.get(..at)?)?, inner.get(at + 1..)?)));
    match known {
        Some((c, rest)) => {
            push(text, c.encode_utf8(&mut [0; 4]));
            rest
        }
        None => {
            text.push('&');
            inner
        }
    }
}

fn decode(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    // The ones shops use; any other stays as it is written.
    let named = [
        ("amp", '&'),
        ("lt", '<'),
        ("gt", '>'),
        ("quot", '"'),
        ("apos", '\''),
        ("nbsp", ' '),
        ("ndash", '–'),
        ("mdash", '—'),
        ("hellip", '…'),
        ("lsquo", '‘'),
        ("rsquo", '’'),
        ("ldquo", '“'),
        ("rdquo", '”'),
        ("laquo", '«'),
        ("raquo", '»'),
        ("bull", '•'),
        ("middot", '·'),
        ("copy", '©'),
        ("reg", '®'),
        ("trade", '™'),
        ("deg", '°'),
        ("frac12", '½'),
        ("frac14", '¼'),
        ("frac34", '¾'),
        ("times", '×'),
        ("micro", 'µ'),
        ("euro", '€'),
        ("pound", '£'),
        ("cent", '¢'),
        ("yen", '¥'),
        ("plusmn", '±'),
        ("sup2", '²'),
        ("sup3", '³'),
        ("eacute", 'é'),
        ("egrave", 'è'),
        ("ecirc", 'ê'),
        ("agrave", 'à'),
        ("aacute", 'á'),
        ("acirc", 'â'),
        ("auml", 'ä'),
        ("Auml", 'Ä'),
        ("ouml", 'ö'),
        ("Ouml", 'Ö'),
        ("uuml", 'ü'),
        ("Uuml", 'Ü'),
        ("szlig", 'ß'),
        ("ccedil", 'ç'),
        ("ntilde", 'ñ'),
        ("aring", 'å'),
        ("oslash", 'ø'),
        ("aelig", 'æ'),
        ("iacute", 'í'),
        ("oacute", 'ó'),
        ("uacute", 'ú'),
    ];
    named.into_iter().find(|(known, _)| *known == name).map(|(_, c)| c)
}
