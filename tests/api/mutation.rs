//! Mutations of valid input, the same in every run with one seed.

use std::fmt;

use fastrand::Rng;

/// Bytes that have a meaning to some parser here.
const TOKENS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\0",
    b"\"",
    b"'",
    b";",
    b",",
    b"=",
    b"&",
    b"%",
    b"%00",
    b"{",
    b"}",
    b"[",
    b"\\u0000",
    b"\\ud800",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"null",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    "\u{1f600}\u{202e}".as_bytes(),
];

/// Makes mutations. Displayed, it names the run and the case.
pub struct Mutator {
    seed: u64,
    random: Rng,
    case: usize,
}

impl Mutator {
    /// Mutations of the seed in `MERCAT_FUZZ_SEED`.
    pub fn from_environment() -> Self {
        let seed = std::env::var("MERCAT_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        Self { seed, random: Rng::with_seed(seed), case: 0 }
    }

    /// Number of inputs of one run.
    pub fn cases(&self) -> usize {
        std::env::var("MERCAT_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200)
    }

    /// One of the items.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `input` with one to eight changes: bits, bytes and tokens changed, put in, taken out, repeated, cut off.
    pub fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
        self.case += 1;
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below((bytes.len() - at).min(16) + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.random.u8(..),
                2 => drop(bytes.splice(at..at, self.choose(&TOKENS).iter().copied())),
                3 => drop(bytes.splice(at..end, self.choose(&TOKENS).iter().copied())),
                4 => drop(bytes.drain(at..end)),
                5 => {
                    let part = bytes[at..end].repeat(1 + self.below(200));
                    drop(bytes.splice(at..at, part));
                }
                6 if self.below(4) == 0 => bytes.truncate(at),
                _ => {}
            }
        }
        bytes
    }

    /// A number below `limit`, which is above 0.
    fn below(&mut self, limit: usize) -> usize {
        self.random.usize(..limit)
    }
}

impl fmt::Display for Mutator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MERCAT_FUZZ_SEED={}, case {}", self.seed, self.case)
    }
}
