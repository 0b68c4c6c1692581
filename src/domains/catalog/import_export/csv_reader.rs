//! From bytes to lines, from lines to the records of a CSV file (RFC 4180), so that one broken record does not take
//! its neighbours along.
//!
//! The usual readers, the `csv` crate's too, take an opening quote without an end for a field that holds the rest of
//! the file. Here a record that cannot be is given back line by line: the line it began on is refused, and the next
//! one is looked at as if it began a record.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::{FileError, ROW_MAX};

/// LineReader of one record.
const LINES_MAX: usize = 10_000;

/// One line with its number, its end included. `None` for one that is too long to keep.
type Line = (u64, Option<Vec<u8>>);

/// LineReader of bounded length.
pub struct LineReader<R> {
    input: R,
    number: u64,
    back: VecDeque<Line>,
}

impl<R: BufRead> LineReader<R> {
    /// The lines of `input`, a byte order mark left out. UTF-16 is refused, since all that follows would be noise.
    pub fn new(mut input: R) -> Result<Self, FileError> {
        let start = input.fill_buf()?;
        if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(FileError::Format { line: 1, reason: "the file is UTF-16; save it as UTF-8".to_owned() });
        }
        if start.starts_with(b"\xEF\xBB\xBF") {
            input.consume(3);
        }
        Ok(Self { input, number: 0, back: VecDeque::new() })
    }

    /// The next line, or `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.back.pop_front() {
            return Ok(Some(line));
        }
        let mut line = Vec::new();
        let (mut any, mut too_long) = (false, false);
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |at| at + 1);
            too_long |= line.len() + taken > ROW_MAX;
            if !too_long {
                line.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            }
            self.input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some((self.number, (!too_long).then_some(line))))
    }

    /// Gives lines back, to be read again.
    fn give_back(&mut self, lines: impl DoubleEndedIterator<Item = Line>) {
        for line in lines.rev() {
            self.back.push_front(line);
        }
    }
}

/// Why a line is refused that is too long.
pub fn too_long() -> String {
    format!("the row is longer than {ROW_MAX} bytes")
}

/// The bytes as text, or where they are none.
pub fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 (byte {}); save the file as UTF-8", error.valid_up_to() + 1))
}

/// A record: the line it begins on, and its fields or what is wrong with it.
pub type Record = (u64, Result<Vec<String>, String>);

/// The records of a CSV file.
pub struct CsvRecords<R> {
    lines: LineReader<R>,
    delimiter: u8,
    /// How many fields a record has; the header's.
    width: usize,
}

impl<R: BufRead> CsvRecords<R> {
    pub fn new(input: R) -> Result<Self, FileError> {
        Ok(Self { lines: LineReader::new(input)?, delimiter: b',', width: 0 })
    }

    /// The names of the columns. What stands between them tells what stands between fields: a comma, or, in files of
    /// spreadsheets that speak another language, a semicolon or a tab.
    pub fn header(&mut self) -> Result<Vec<String>, FileError> {
        let fail = |line: u64, reason: String| FileError::Format { line, reason };
        let empty = || fail(1, "the file is empty; its first line must name the columns".to_owned());
        loop {
            let (line, bytes) = self.lines.next()?.ok_or_else(empty)?;
            let bytes = bytes.ok_or_else(|| fail(line, too_long()))?;
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let count = |sign: u8| bytes.iter().filter(|byte| **byte == sign).count();
            if count(b',') == 0 {
                self.delimiter = [b';', b'\t'].into_iter().find(|sign| count(*sign) > 0).unwrap_or(b',');
            }
            let header = match split(&bytes, self.delimiter) {
                SplitResult::Whole(fields) => fields,
                SplitResult::Open => return Err(fail(line, "a quote in the header has no end".to_owned())),
                SplitResult::Wrong(reason) => return Err(fail(line, reason)),
            };
            let mut names = Vec::with_capacity(header.len());
            for name in header {
                names.push(text(&name).map_err(|reason| fail(line, format!("the header {reason}")))?.trim().to_owned());
            }
            self.width = names.len();
            return Ok(names);
        }
    }

    /// The next record, or `None` at the end. Empty lines are passed over.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        let mut lines: Vec<Line> = Vec::new();
        let mut record: Vec<u8> = Vec::new();
        let mut quotes = 0_usize;
        let reason = loop {
            let Some((number, bytes)) = self.lines.next()? else {
                if lines.is_empty() {
                    return Ok(None);
                }
                break "a quote is opened and never closed".to_owned();
            };
            let Some(bytes) = bytes else {
                lines.push((number, None));
                break if lines.len() == 1 { too_long() } else { unclosed() };
            };
            if lines.is_empty() && bytes.trim_ascii().is_empty() {
                continue;
            }
            record.extend_from_slice(&bytes);
            quotes += bytes.iter().filter(|byte| **byte == b'"').count();
            lines.push((number, Some(bytes)));
            if record.len() > ROW_MAX || lines.len() > LINES_MAX {
                break unclosed();
            }
            // An odd number of quotes is a record that goes on. So a record is looked at when its first line is read
            // (to refuse a stray quote at once) and when it is whole, and never once for each of its lines.
            if lines.len() > 1 && quotes % 2 == 1 {
                continue;
            }
            match split(&record, self.delimiter) {
                SplitResult::Open => {}
                SplitResult::Wrong(reason) => break reason,
                SplitResult::Whole(fields) if fields.len() != self.width => {
                    break format!("has {} columns where the header has {}", fields.len(), self.width);
                }
                SplitResult::Whole(fields) => {
                    let first = lines.first().map_or(0, |(number, _)| *number);
                    let fields = fields.iter().enumerate().map(|(i, field)| {
                        text(field).map(str::to_owned).map_err(|reason| format!("column {} {reason}", i + 1))
                    });
                    return Ok(Some((first, fields.collect())));
                }
            }
        };
        let mut lines = lines.into_iter();
        let first = lines.next().map_or(0, |(number, _)| number);
        self.lines.give_back(lines);
        Ok(Some((first, Err(reason))))
    }
}

fn unclosed() -> String {
    format!("a quote is opened and not closed within {ROW_MAX} bytes or {LINES_MAX} lines")
}

enum SplitResult {
    Whole(Vec<Vec<u8>>),
    /// It ends inside quotes.
    Open,
    Wrong(String),
}

/// Splits one record into its fields, strictly: a guess about quotes would put one column's text into another.
fn split(record: &[u8], delimiter: u8) -> SplitResult {
    let record = record.strip_suffix(b"\n").map_or(record, |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let mut field = Vec::new();
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = quoted;
            loop {
                let Some(at) = rest.iter().position(|byte| *byte == b'"') else { return SplitResult::Open };
                let (text, after) = rest.split_at(at);
                field.extend_from_slice(text);
                rest = after.get(1..).unwrap_or_default();
                match rest.strip_prefix(b"\"") {
                    Some(more) => {
                        field.push(b'"');
                        rest = more;
                    }
                    None => break,
                }
            }
            if rest.first().is_some_and(|byte| *byte != delimiter) {
                return SplitResult::Wrong(format!(
                    "column {} has text behind its closing quote; inside quotes a quote is written twice",
                    fields.len() + 1
                ));
            }
        } else {
            let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
            let (text, after) = rest.split_at(end);
            if text.contains(&b'"') {
                return SplitResult::Wrong(format!(
                    "column {} has a quote inside; put the whole text in quotes and write the quote twice",
                    fields.len() + 1
                ));
            }
            field.extend_from_slice(text);
            rest = after;
        }
        fields.push(field);
        match rest.split_first() {
            Some((_, after)) => rest = after,
            None => return SplitResult::Whole(fields),
        }
    }
}
