//! Suggestions for searches that find nothing: the words of product names that are spelt almost like those of the search.
//!
//! Contains: the vocabulary, in memory, read again at most once a minute. Does not contain: the search itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use strsim::damerau_levenshtein;

use super::text_search::{query_words, sort_key};
use crate::types::Timestamp;

/// Time for which a vocabulary is used.
const TTL: Duration = Duration::from_secs(60);
/// Maximum number of words of a vocabulary.
const WORDS_MAX: usize = 100_000;
/// Number of characters from which on a word may have two misspellings instead of one.
const LONG_WORD: usize = 6;
/// Number of characters from which on words are compared.
const COMPARED_MIN: usize = 3;

/// Words of product names.
#[derive(Default)]
pub struct Vocabulary {
    /// By their folded form: how they are written, in lower case, and how many names have them.
    words: HashMap<String, (String, u32)>,
}

impl Vocabulary {
    /// Adds the words of a name.
    pub fn add(&mut self, name: &str) {
        for word in name.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric())) {
            let folded = sort_key(word);
            if let Some((_, count)) = self.words.get_mut(&folded) {
                *count += 1;
            } else if self.words.len() < WORDS_MAX && folded.chars().count() >= COMPARED_MIN {
                self.words.insert(folded, (word.to_lowercase(), 1));
            }
        }
    }

    /// The search with its unknown words replaced by the closest known ones; `None` if one has none, or all are known.
    pub fn suggest(&self, q: &str) -> Option<String> {
        let mut is_changed = false;
        let mut words = Vec::new();
        for word in query_words(q) {
            let is_known = self.words.keys().any(|known| known.starts_with(&word));
            if is_known {
                words.push(self.words.get(&word).map_or(word, |(written, _)| written.clone()));
            } else {
                words.push(self.closest(&word)?.to_owned());
                is_changed = true;
            }
        }
        is_changed.then(|| words.join(" "))
    }

    fn closest(&self, word: &str) -> Option<&str> {
        let length = word.chars().count();
        if length < COMPARED_MIN {
            return None;
        }
        let most = if length < LONG_WORD { 1 } else { 2 };
        let distance = |(known, written): (&String, &'_ (String, u32))| {
            let close = known.chars().count().abs_diff(length) <= most;
            let distance = if close { damerau_levenshtein(known, word) } else { usize::MAX };
            (distance <= most).then_some((distance, std::cmp::Reverse(written.1), known.clone()))
        };
        let (_, _, known) = self.words.iter().filter_map(distance).min()?;
        self.words.get(&known).map(|(written, _)| written.as_str())
    }
}

/// The vocabulary of a catalog, read when it is needed.
#[derive(Default)]
pub struct VocabularyCache(Mutex<Option<(Timestamp, Arc<Vocabulary>)>>);

impl VocabularyCache {
    /// Returns the vocabulary, read by `read` if it is too old; `None` while another thread reads it.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn get<E>(
        &self,
        now: Timestamp,
        read: impl FnOnce() -> Result<Vocabulary, E>,
    ) -> Result<Option<Arc<Vocabulary>>, E> {
        let Some(mut cached) = self.0.try_lock() else { return Ok(None) };
        if let Some((at, vocabulary)) = &*cached
            && now.duration_since(*at) < TTL
        {
            return Ok(Some(Arc::clone(vocabulary)));
        }
        let vocabulary = Arc::new(read()?);
        *cached = Some((now, Arc::clone(&vocabulary)));
        Ok(Some(vocabulary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_words_are_replaced_by_the_closest() {
        let mut vocabulary = Vocabulary::default();
        for name in ["Teapot, blue", "Blue Größe mug", "Mug of stoneware", "Mat"] {
            vocabulary.add(name);
        }
        let cases = [
            ("taepot", Some("teapot")),
            ("blu taepott", Some("blu teapot")),
            ("stonware mugg", Some("stoneware mug")),
            ("grosze", Some("größe")),
            ("teap", None),
            ("xyz", None),
            ("teapot xylophone", None),
        ];
        for (q, suggestion) in cases {
            assert_eq!(vocabulary.suggest(q).as_deref(), suggestion, "{q}");
        }
    }
}
