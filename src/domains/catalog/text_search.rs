//! Normalization of text for sorting and search, and the query languages of both databases.
//!
//! Invariant: a text is folded and cut into words in the same way for the index and for queries, on SQLite and on
//! PostgreSQL, and no input is an operator or a syntax error.
//!
//! Words are sequences of letters and digits. One with hyphens or apostrophes inside is found by its parts and as one word
//! (T-Shirt, tshirt). Scripts that put no spaces between words are cut into pairs of adjacent characters, so that any part
//! of a text is found.

use std::collections::BTreeMap;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

/// Maximum number of words of a search; each costs index lookups.
const SEARCH_WORDS_MAX: usize = 16;
/// Maximum number of pairs of characters that a search looks up for one sequence of a script without spaces.
const PAIRS_MAX: usize = 32;
/// Maximum number of characters of a word: that of a PostgreSQL lexeme, whose limit is about 2,000 bytes.
const WORD_MAX: usize = 400;
/// Number of characters that the stem of a word has at least.
const STEM_MIN: usize = 3;

/// The text in lower case without accents, by which names are sorted and slugs are written: NFKC, and letters with a
/// stroke or a ligature as those that people type for them.
pub fn sort_key(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(text).to_lowercase();
    let mut folded = String::with_capacity(decomposed.len());
    for c in decomposed.chars().filter(|c| !is_accent(*c)) {
        match plain_letters(c) {
            Some(plain) => folded.push_str(plain),
            None => folded.push(c),
        }
    }
    // Japanese and Korean are written composed.
    ComposingNormalizerBorrowed::new_nfc().normalize(&folded).into_owned()
}

/// The letters that people type for a letter which has no decomposition.
const fn plain_letters(c: char) -> Option<&'static str> {
    Some(match c {
        'æ' => "ae",
        'œ' => "oe",
        'ß' => "ss",
        'þ' => "th",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ı' => "i",
        'ł' => "l",
        'ŋ' => "n",
        'ŧ' => "t",
        'ς' => "σ",
        _ => return None,
    })
}

/// Returns `true` for a mark above or below a letter of Latin, Greek, Cyrillic, Hebrew or Arabic, which many people leave
/// out. Marks of other scripts tell words apart.
const fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}'
        | '\u{5c4}' | '\u{5c5}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Returns `true` for a character of a script that puts no spaces between words, or particles behind them: Chinese,
/// Japanese, Korean, Thai, Lao, Khmer, Burmese.
const fn is_dense(c: char) -> bool {
    matches!(c,
        '\u{e01}'..='\u{e3a}' | '\u{e40}'..='\u{e4e}' | '\u{e81}'..='\u{ecd}' | '\u{1000}'..='\u{104f}'
        | '\u{1780}'..='\u{17d3}' | '\u{3005}' | '\u{3041}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Returns `true` for a character of a word. The signs for vowels and conjuncts of Indic scripts are not letters to
/// Unicode, and parts of words.
fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || is_dense(c) || matches!(c, '\u{900}'..='\u{963}' | '\u{971}'..='\u{ddf}')
}

/// Returns `true` for a sign that may stand inside a word.
const fn is_connector(c: char) -> bool {
    matches!(c, '\'' | '’' | 'ʼ' | '-' | '\u{2010}' | '\u{2011}' | '\u{ad}')
}

/// A word of a folded text.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Letters and digits: the parts between hyphens and apostrophes.
    Plain(Vec<String>),
    /// Characters of a script without spaces.
    Dense(Vec<char>),
}

/// Cuts a text into folded words.
fn words(text: &str) -> Vec<Word> {
    let folded: Vec<char> = sort_key(text).chars().collect();
    let mut words = Vec::new();
    let mut at = 0;
    let is_part = |at: usize| folded.get(at).is_some_and(|c| is_word_char(*c) && !is_dense(*c));
    while let Some(&c) = folded.get(at) {
        if is_dense(c) {
            let run: Vec<char> = folded.iter().skip(at).copied().take_while(|c| is_dense(*c)).collect();
            at += run.len();
            words.push(Word::Dense(run));
        } else if is_part(at) {
            let mut parts = vec![String::new()];
            loop {
                match (folded.get(at), parts.last_mut()) {
                    (Some(&c), Some(part)) if is_part(at) => part.push(c),
                    (Some(&c), _) if is_connector(c) && is_part(at + 1) => parts.push(String::new()),
                    _ => break,
                }
                at += 1;
            }
            words.push(Word::Plain(parts.iter().map(|part| part.chars().take(WORD_MAX).collect()).collect()));
        } else {
            at += 1;
        }
    }
    words
}

/// The words by which a text is found, with spaces between.
pub fn index_words(text: &str) -> String {
    let mut tokens = Vec::new();
    for word in words(text) {
        match word {
            Word::Plain(parts) => {
                if parts.len() > 1 {
                    tokens.push(parts.concat().chars().take(WORD_MAX).collect());
                }
                tokens.extend(parts);
            }
            Word::Dense(run) => {
                tokens.extend(run.windows(2).map(|pair| pair.iter().collect()));
                // The last one begins no pair.
                tokens.extend(run.last().map(char::to_string));
            }
        }
    }
    tokens.join(" ")
}

/// The folded words of a search, those with hyphens and apostrophes as one.
pub fn query_words(text: &str) -> Vec<String> {
    let word = |word| match word {
        Word::Plain(parts) => parts.concat(),
        Word::Dense(run) => run.into_iter().collect(),
    };
    words(text).into_iter().take(SEARCH_WORDS_MAX).map(word).collect()
}

/// A condition of a search on the words of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    /// A word that begins so.
    Prefix(String),
    /// This very word.
    Exact(String),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// A search, which a product matches that has all of its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchTerms(Vec<Term>);

impl SearchTerms {
    /// Parses the text of a search; `None` if it has no word. Each word may be unfinished.
    pub fn parse(text: &str) -> Option<Self> {
        let terms: Vec<Term> = words(text).into_iter().take(SEARCH_WORDS_MAX).map(term).collect();
        (!terms.is_empty()).then_some(Self(terms))
    }

    /// The search as an FTS5 expression. Every word is quoted, so that none is an operator.
    pub fn to_fts(&self) -> String {
        let leaf = |word: &str, is_prefix: bool| format!("\"{word}\"{}", if is_prefix { " *" } else { "" });
        Term::All(self.0.clone()).write(&leaf, ["AND", "OR"])
    }

    /// The search as a `tsquery` for words that have one of the `weights`.
    pub fn to_tsquery(&self, weights: &str) -> String {
        let leaf = |word: &str, is_prefix: bool| format!("'{word}':{}{weights}", if is_prefix { "*" } else { "" });
        Term::All(self.0.clone()).write(&leaf, ["&", "|"])
    }
}

impl Term {
    fn write(&self, leaf: &impl Fn(&str, bool) -> String, operators: [&str; 2]) -> String {
        let (terms, operator) = match self {
            Self::Prefix(word) => return leaf(word, true),
            Self::Exact(word) => return leaf(word, false),
            Self::All(terms) => (terms, operators[0]),
            Self::Any(terms) => (terms, operators[1]),
        };
        let parts: Vec<String> = terms.iter().map(|term| term.write(leaf, operators)).collect();
        match &parts[..] {
            [one] => one.clone(),
            _ => format!("({})", parts.join(&format!(" {operator} "))),
        }
    }
}

fn term(word: Word) -> Term {
    match word {
        Word::Dense(run) => match &run[..] {
            [one] => Term::Prefix(one.to_string()),
            run => Term::All(run.windows(2).take(PAIRS_MAX).map(|pair| Term::Exact(pair.iter().collect())).collect()),
        },
        Word::Plain(parts) => match &parts[..] {
            [word] => {
                let others = related_forms(word).into_iter().map(Term::Exact);
                Term::Any(std::iter::once(Term::Prefix(word.clone())).chain(others).collect())
            }
            parts => {
                let each = parts.iter().cloned().map(Term::Prefix).collect();
                Term::Any(vec![Term::Prefix(parts.concat()), Term::All(each)])
            }
        },
    }
}

/// Other forms of a word that do not begin with it: its singular, or a plural that changes the end.
fn related_forms(word: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for (end, others) in [
        ("ies", &["y"][..]),
        ("ves", &["f", "fe"]),
        ("es", &[""]),
        ("s", &[""]),
        ("en", &[""]),
        ("er", &[""]),
        ("n", &[""]),
        ("e", &[""]),
        ("y", &["ies"]),
        ("f", &["ves"]),
        ("fe", &["ves"]),
    ] {
        let Some(stem) = word.strip_suffix(end) else { continue };
        if stem.chars().count() >= STEM_MIN && !(end == "s" && stem.ends_with('s')) {
            forms.extend(others.iter().map(|other| format!("{stem}{other}")));
        }
    }
    forms
}

/// Builds the `tsvector` of a product from its words: each once, with weight `A` if it is in the name, `B` in the labels,
/// `C` in the description.
pub fn ts_vector(name: &str, labels: &str, description: &str) -> String {
    let mut all: BTreeMap<&str, [bool; 3]> = BTreeMap::new();
    for (n, words) in [name, labels, description].into_iter().enumerate() {
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            all.entry(word).or_default()[n] = true;
        }
    }
    let one = |(word, has): (&&str, &[bool; 3])| {
        let places = ["1A", "2B", "3C"].into_iter().zip(has).filter_map(|(place, has)| has.then_some(place));
        format!("'{word}':{}", places.collect::<Vec<_>>().join(","))
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_fold_to_those_that_people_type() {
        let cases = [
            ("Straße", "strasse"),
            ("Smørrebrød", "smorrebrod"),
            ("Łódź", "lodz"),
            ("Æblegrød, Þór", "aeblegrod, thor"),
            ("ΚΑΦΈΣ", "καφεσ"),
            ("Καφές", "καφεσ"),
            ("Ёлка", "елка"),
            ("Ｆｕｌｌ ﬁt", "full fit"),
            ("İstanbul", "istanbul"),
            ("cre\u{300}me", "creme"),
            ("ﾃｨｰﾎﾟｯﾄ", "ティーポット"),
            ("한국어", "한국어"),
        ];
        for (text, folded) in cases {
            assert_eq!(sort_key(text), folded, "{text}");
        }
    }

    #[test]
    fn words_are_indexed_by_parts_and_pairs() {
        let cases = [
            ("T-Shirt, O’Neil", "tshirt t shirt oneil o neil"),
            ("rock 'n' roll - 5.0", "rock n roll 5 0"),
            ("ティー茶", "ティ ィー ー茶 茶"),
            ("Thé ชา", "the ชา า"),
            ("हिन्दी", "हिन्दी"),
            ("--", ""),
        ];
        for (text, words) in cases {
            assert_eq!(index_words(text), words, "{text}");
        }
    }

    #[test]
    fn search_quotes_every_word() {
        let cases = [
            ("tea", Some("\"tea\" *")),
            ("Blue mugs", Some("((\"blue\" * OR \"blu\") AND (\"mugs\" * OR \"mug\"))")),
            ("a OR NEAR(b) -c", Some("(\"a\" * AND \"or\" * AND \"near\" * AND \"b\" * AND \"c\" *)")),
            ("t-shirt", Some("(\"tshirt\" * OR (\"t\" * AND \"shirt\" *))")),
            ("茶", Some("\"茶\" *")),
            ("茶碗蒸", Some("(\"茶碗\" AND \"碗蒸\")")),
            ("\"*(", None),
            ("  ", None),
        ];
        for (text, words) in cases {
            assert_eq!(SearchTerms::parse(text).map(|terms| terms.to_fts()).as_deref(), words, "{text}");
        }
        let terms = SearchTerms::parse("mugs o'neil").unwrap();
        assert_eq!(terms.to_tsquery("AB"), "(('mugs':*AB | 'mug':AB) & ('oneil':*AB | ('o':*AB & 'neil':*AB)))");
    }
}
