//! Normalization of text for sorting and search, and the query languages of both databases.
//!
//! Invariant: a text is split into words and folded in the same way for the index and for queries, on SQLite and on
//! PostgreSQL, and no input is an operator or a syntax error.

use std::collections::BTreeMap;

/// Maximum number of words of a search; each costs an index lookup.
const SEARCH_WORDS_MAX: usize = 16;

/// The text in lower case without accents, by which names are sorted and slugs are written.
pub fn sort_key(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        let plain = match c {
            'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
            'æ' => "ae",
            'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
            'ď' | 'đ' | 'ð' => "d",
            'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
            'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
            'ĥ' | 'ħ' => "h",
            'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
            'ĵ' => "j",
            'ķ' => "k",
            'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
            'ñ' | 'ń' | 'ņ' | 'ň' => "n",
            'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
            'œ' => "oe",
            'ŕ' | 'ŗ' | 'ř' => "r",
            'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
            'ß' => "ss",
            'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
            'þ' => "th",
            'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
            'ŵ' => "w",
            'ý' | 'ÿ' | 'ŷ' => "y",
            'ź' | 'ż' | 'ž' => "z",
            accent if is_accent(accent) => "",
            other => {
                folded.push(other);
                continue;
            }
        };
        folded.push_str(plain);
    }
    folded
}

/// Returns `true` for a combining accent of decomposed text.
const fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

/// Maximum number of characters of a PostgreSQL lexeme, whose limit is about 2,000 bytes.
const LEXEME_MAX: usize = 400;

/// Translates a search text into an FTS5 query; `None` if it has no word. Every word is quoted, so that no input is an
/// operator or a syntax error; the last one matches as a prefix.
pub fn fts_query(text: &str) -> Option<String> {
    let quoted: Vec<String> = words(text).take(SEARCH_WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
    if quoted.is_empty() { None } else { Some(quoted.join(" AND ") + " *") }
}

/// Splits a text into words. Combining accents belong to their word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && !is_accent(c))
        .filter(|word| word.contains(|c: char| c.is_alphanumeric() && !is_accent(c)))
}

/// Turns a word into a PostgreSQL lexeme: lower case, without accents, at most [`LEXEME_MAX`] characters.
fn lexeme(word: &str) -> String {
    sort_key(word).chars().filter(|c| !is_accent(*c)).take(LEXEME_MAX).collect()
}

/// Translates a search text into a `tsquery` for words that have one of the `weights`; see [`fts_query`].
pub fn ts_query(text: &str, weights: &str) -> String {
    let quoted: Vec<String> = words(text).take(SEARCH_WORDS_MAX).map(|word| format!("'{}':", lexeme(word))).collect();
    let last = quoted.len().saturating_sub(1);
    let part = |(n, word): (usize, &String)| format!("{word}{}{weights}", if n == last { "*" } else { "" });
    quoted.iter().enumerate().map(part).collect::<Vec<_>>().join(" & ")
}

/// Builds the `tsvector` of a product: each word once, with weight `A` if it is in the name, `B` in the labels, `C` in the
/// description.
pub fn ts_vector(name: &str, labels: &str, description: &str) -> String {
    let mut all: BTreeMap<String, [bool; 3]> = BTreeMap::new();
    for (n, text) in [name, labels, description].into_iter().enumerate() {
        for word in words(text) {
            all.entry(lexeme(word)).or_default()[n] = true;
        }
    }
    let one = |(word, has): (&String, &[bool; 3])| {
        let places = ["1A", "2B", "3C"].into_iter().zip(has).filter_map(|(place, has)| has.then_some(place));
        format!("'{word}':{}", places.collect::<Vec<_>>().join(","))
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fts_query_quotes_every_word() {
        let cases = [
            ("tea", Some("\"tea\" *")),
            ("blue tea", Some("\"blue\" AND \"tea\" *")),
            ("a OR NEAR(b) -c", Some("\"a\" AND \"OR\" AND \"NEAR\" AND \"b\" AND \"c\" *")),
            ("\"*(", None),
            ("  ", None),
        ];
        for (text, words) in cases {
            assert_eq!(fts_query(text).as_deref(), words, "{text}");
        }
    }
}
