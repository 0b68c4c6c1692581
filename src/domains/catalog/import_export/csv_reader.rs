//! Reader of lines and of CSV records (RFC 4180) that recovers from malformed records.
//!
//! Common readers, the `csv` crate's included, take an opening quote without an end for a field that contains the rest of
//! the file. Here the lines of a malformed record are unread: the line it began on is rejected, and the next one is parsed
//! as the start of a record.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::{FileError, ROW_MAX};

/// Maximum number of lines of a record.
const RECORD_LINES_MAX: usize = 10_000;

/// A line with its number, from 1, and its line break; `None` for one longer than [`ROW_MAX`].
type NumberedLine = (u64, Option<Vec<u8>>);

/// Reader of lines of bounded length, which can be unread.
pub struct LineReader<R> {
    input: R,
    /// Last byte of a line.
    line_end: u8,
    number: u64,
    unread: VecDeque<NumberedLine>,
}

impl<R: BufRead> LineReader<R> {
    /// Creates a reader that skips a byte order mark. Lines end with LF or CR LF, or all with CR alone, as some spreadsheets
    /// write on request.
    ///
    /// # Errors
    /// The input is UTF-16, or cannot be read.
    pub fn new(mut input: R) -> Result<Self, FileError> {
        let start = input.fill_buf()?;
        if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(FileError::Format { line: 1, reason: "the file is UTF-16; save it as UTF-8".to_owned() });
        }
        let line_end = if start.contains(&b'\r') && !start.contains(&b'\n') { b'\r' } else { b'\n' };
        if start.starts_with(b"\xEF\xBB\xBF") {
            input.consume(3);
        }
        Ok(Self { input, line_end, number: 0, unread: VecDeque::new() })
    }

    /// The next line, or `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<NumberedLine>> {
        if let Some(line) = self.unread.pop_front() {
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
            let end = chunk.iter().position(|byte| *byte == self.line_end);
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

    /// Puts lines back in front, to be read again.
    fn unread(&mut self, lines: impl DoubleEndedIterator<Item = NumberedLine>) {
        for line in lines.rev() {
            self.unread.push_front(line);
        }
    }
}

/// The reason for which a too long row is rejected.
pub fn too_long() -> String {
    format!("the row is longer than {ROW_MAX} bytes")
}

/// Decodes UTF-8.
///
/// # Errors
/// Names the first invalid byte.
pub fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 (byte {}); save the file as UTF-8", error.valid_up_to() + 1))
}

/// A record: the line it begins on, and its fields or its defect.
pub type CsvRecord = (u64, Result<Vec<String>, String>);

/// The records of a CSV file.
pub struct CsvRecords<R> {
    lines: LineReader<R>,
    delimiter: u8,
    /// Number of fields of a record, that of the header.
    width: usize,
}

impl<R: BufRead> CsvRecords<R> {
    pub fn new(input: R) -> Result<Self, FileError> {
        Ok(Self { lines: LineReader::new(input)?, delimiter: b',', width: 0 })
    }

    /// Reads the header and detects the delimiter from it: a comma, or, as spreadsheets in some languages write, a
    /// semicolon or a tab. A first line `sep=;` names it.
    ///
    /// # Errors
    /// The file is empty or the header is malformed.
    pub fn header(&mut self) -> Result<Vec<String>, FileError> {
        let fail = |line: u64, reason: String| FileError::Format { line, reason };
        let mut named = None;
        let empty = || fail(1, "the file is empty; its first line must name the columns".to_owned());
        loop {
            let (line, bytes) = self.lines.next()?.ok_or_else(empty)?;
            let bytes = bytes.ok_or_else(|| fail(line, too_long()))?;
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            if let (None, [b's', b'e', b'p', b'=', sign]) = (named, without_line_end(&bytes)) {
                named = Some(*sign);
                continue;
            }
            self.delimiter = named.unwrap_or_else(|| detect_delimiter(&bytes));
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

    /// Reads the next record; `None` at the end. Empty lines are skipped.
    pub fn next(&mut self) -> io::Result<Option<CsvRecord>> {
        let mut lines: Vec<NumberedLine> = Vec::new();
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
                break if lines.len() == 1 { too_long() } else { unclosed_quote() };
            };
            if lines.is_empty() && bytes.trim_ascii().is_empty() {
                continue;
            }
            record.extend_from_slice(&bytes);
            quotes += bytes.iter().filter(|byte| **byte == b'"').count();
            lines.push((number, Some(bytes)));
            if record.len() > ROW_MAX || lines.len() > RECORD_LINES_MAX {
                break unclosed_quote();
            }
            // With an odd number of quotes a record continues. So it is parsed after its first line (to reject a stray
            // quote at once) and when it is complete, but not after each of its lines.
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
        self.lines.unread(lines);
        Ok(Some((first, Err(reason))))
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The delimiter that makes the most columns of a header: a name may contain another one.
fn detect_delimiter(header: &[u8]) -> u8 {
    let columns = |delimiter: &u8| match split(header, *delimiter) {
        SplitResult::Whole(fields) => fields.len(),
        SplitResult::Open | SplitResult::Wrong(_) => 0,
    };
    // Of equal ones the last.
    [b'\t', b';', b','].into_iter().max_by_key(columns).unwrap_or(b',')
}

fn unclosed_quote() -> String {
    format!("a quote is opened and not closed within {ROW_MAX} bytes or {RECORD_LINES_MAX} lines")
}

enum SplitResult {
    Whole(Vec<Vec<u8>>),
    /// The record ends inside quotes.
    Open,
    Wrong(String),
}

/// Splits a record into its fields, strictly: a guess about quotes could move text into another column.
fn split(record: &[u8], delimiter: u8) -> SplitResult {
    let record = without_line_end(record);
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
            // Spreadsheets write `="00123"` for a text of digits.
            let is_text_formula = |text: &[u8]| {
                text.strip_prefix(b"=\"")
                    .and_then(|text| text.strip_suffix(b"\""))
                    .is_some_and(|text| !text.contains(&b'"'))
            };
            if text.contains(&b'"') && !is_text_formula(text) {
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
