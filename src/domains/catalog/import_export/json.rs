//! Products as JSON: one object per line, or an array that is read element by element.
//!
//! An object with a `currency` is in the API's form. One without comes from another system: `title` may stand for `name`,
//! prices are decimal, and `brand` and `warrantyInformation` become attributes. Unused fields are listed once, at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use serde_json::{Map, Value};

use super::columns::addresses;
use super::csv_reader::{self, LineReader};
use super::{FileError, ImportEntry, ROW_MAX, row_in};
use crate::contract::catalog::{ImportRow, ProductPatch};
use crate::types::{Amount, Currency};

/// Maximum number of unused fields that are reported by name.
const UNUSED_FIELDS_MAX: usize = 40;
/// Fields of the API's product that an import ignores without a note.
const READ_ONLY_FIELDS: [&str; 10] =
    ["id", "slug", "variants", "images", "rating", "review_count", "deleted", "created_at", "updated_at", "pictures"];

/// Fields with addresses of pictures, of which the first that is there is read.
const IMAGE_FIELDS: [&str; 3] = ["images", "image", "thumbnail"];

/// Parser of product objects, which collects the unused fields.
struct ObjectParser {
    currency: Currency,
    unused: BTreeSet<String>,
}

impl ObjectParser {
    fn new(currency: Currency) -> Self {
        Self { currency, unused: BTreeSet::new() }
    }

    fn entry(&mut self, line: u64, bytes: Option<&[u8]>) -> ImportEntry {
        let mut images = Vec::new();
        let product = bytes
            .ok_or_else(csv_reader::too_long)
            .and_then(|bytes| csv_reader::text(bytes).map_err(|reason| format!("the row {reason}")))
            .and_then(|text| {
                serde_json::from_str(text.trim()).map_err(|error| match error.classify() {
                    serde_json::error::Category::Eof => "is not JSON: it ends too early".to_owned(),
                    _ => format!("is not JSON: {}", error_without_position(&error)),
                })
            })
            .and_then(|value| match value {
                Value::Object(object) => {
                    images = image_addresses(&object);
                    self.product(object)
                }
                _ => Err("is not a JSON object".to_owned()),
            });
        ImportEntry::from_row(line, product).with_images(images)
    }

    fn product(&mut self, mut object: Map<String, Value>) -> Result<ImportRow, String> {
        let is_api_form = object.get("currency").is_some_and(|value| !value.is_null());
        let mut take = |field: &'static str| object.remove(field);
        let filled = |value: Option<Value>| value.filter(|value| !value.is_null());
        let currency = match filled(take("currency")) {
            None => None,
            Some(value) => {
                let code = parse_text("currency", value)?;
                Some(code.parse().map_err(|e| format!("`currency`: {code:?} is {e}"))?)
            }
        };
        let price = |field: &'static str, value: Value| match currency {
            Some(currency) => parse_minor_units(field, &value, currency),
            None => parse_decimal(field, &value, self.currency),
        };
        let (name, title) = (filled(take("name")), filled(take("title")));
        let optional_text = |field: &'static str, value: Value| match value {
            Value::Null => Ok(None),
            value => parse_text(field, value).map(|text| Some(text).filter(|text| !text.trim().is_empty())),
        };
        let mut fields = ProductPatch {
            name: name.or(title).map(|value| parse_text("name", value)).transpose()?,
            sku: filled(take("sku"))
                .map(|value| parse_text("sku", value))
                .transpose()?
                .map(|sku| sku.trim().to_owned()),
            description: take("description").map(|value| text_or_empty("description", value)).transpose()?,
            price: filled(take("price")).map(|value| price("price", value)).transpose()?,
            currency,
            stock: filled(take("stock")).map(|value| parse_integer("stock", &value)).transpose()?,
            track_stock: filled(take("track_stock")).map(|value| parse_bool("track_stock", &value)).transpose()?,
            compare_at_price: take("compare_at_price")
                .map(|value| filled(Some(value)).map(|value| price("compare_at_price", value)).transpose())
                .transpose()?,
            category: take("category").map(|value| optional_text("category", value)).transpose()?,
            tags: take("tags").map(parse_tags).transpose()?,
            attributes: take("attributes").map(|value| parse_pairs("attributes", value)).transpose()?,
            group: take("group").map(|value| optional_text("group", value)).transpose()?,
            options: take("options").map(|value| parse_pairs("options", value)).transpose()?,
        };
        if fields.sku.as_deref().is_none_or(str::is_empty) {
            return Err("`sku` is missing".to_owned());
        }
        if !is_api_form {
            for (field, attribute) in [("brand", "Brand"), ("warrantyInformation", "Warranty")] {
                if let Some(Value::String(value)) = take(field)
                    && !value.trim().is_empty()
                {
                    fields.attributes.get_or_insert_default().entry(attribute.to_owned()).or_insert(value);
                }
            }
        }
        self.record_unused(&object, is_api_form);
        Ok(row_in(self.currency, fields))
    }

    /// Records the remaining fields of an object as unused.
    fn record_unused(&mut self, rest: &Map<String, Value>, is_api_form: bool) {
        let is_read =
            |field: &str| READ_ONLY_FIELDS.contains(&field) || (!is_api_form && IMAGE_FIELDS.contains(&field));
        for field in rest.keys().filter(|field| !is_read(field.as_str())) {
            if self.unused.len() < UNUSED_FIELDS_MAX && !self.unused.contains(field) {
                self.unused.insert(field.chars().take(60).collect());
            }
        }
    }

    /// Takes the next note for the end of the file.
    fn trailing_warnings(&mut self) -> Option<ImportEntry> {
        let unused = std::mem::take(&mut self.unused);
        if unused.is_empty() {
            return None;
        }
        let names: Vec<String> = unused.iter().map(|name| format!("`{name}`")).collect();
        Some(ImportEntry::Note(format!("fields that are not used: {}", names.join(", "))))
    }
}

/// Addresses of the pictures of an object: texts, or objects with a `src` or `url`. Those of the API are paths and so none.
fn image_addresses(object: &Map<String, Value>) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(image) => image.get("src").or_else(|| image.get("url"))?.as_str().map(str::to_owned),
        _ => None,
    };
    let values = IMAGE_FIELDS.iter().find_map(|field| object.get(*field).filter(|value| !value.is_null()));
    let found: Vec<String> = match values {
        Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    };
    found.iter().flat_map(|text| addresses(text)).collect()
}

/// The text of a serde_json error without its position, which is relative to the object.
fn error_without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn parse_text(field: &str, value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("`{field}` is not a text")),
    }
}

fn text_or_empty(field: &str, value: Value) -> Result<String, String> {
    if value.is_null() { Ok(String::new()) } else { parse_text(field, value) }
}

fn parse_bool(field: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("`{field}`: {value} is not true or false"))
}

fn parse_integer(field: &str, value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("`{field}`: {value} is not a whole number"))
}

fn parse_minor_units(field: &str, value: &Value, currency: Currency) -> Result<Amount, String> {
    value.as_i64().ok_or_else(|| {
        format!(
            "`{field}`: {value} is not a whole number; beside a `currency` a price is in its minor unit, so {} is 999",
            currency.format(999)
        )
    })
}

fn parse_decimal(field: &str, value: &Value, currency: Currency) -> Result<Amount, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        // serde_json writes the shortest number that reads back as this one, so 9.99 is `9.99` again.
        other => other.to_string(),
    };
    currency
        .parse_amount(&text)
        .ok_or_else(|| format!("`{field}`: {value} is not a price in {currency}, such as {}", currency.decimal(999)))
}

fn parse_tags(value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(words) => words.into_iter().map(|word| parse_text("tags", word)).collect(),
        Value::String(words) => {
            Ok(words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
        }
        _ => Err("`tags` is not a list of texts".to_owned()),
    }
}

fn parse_pairs(field: &str, value: Value) -> Result<BTreeMap<String, String>, String> {
    if value.is_null() {
        return Ok(BTreeMap::new());
    }
    let Value::Object(pairs) = value else { return Err(format!("`{field}` is not an object of texts")) };
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match value {
            Value::Bool(yes) => Ok((name, if yes { "yes" } else { "no" }.to_owned())),
            value => parse_text(field, value).map(|value| (name, value)),
        })
        .collect()
}

/// Iterator over the products of an NDJSON file.
pub struct Ndjson<R> {
    lines: LineReader<R>,
    objects: ObjectParser,
}

impl<R: BufRead> Ndjson<R> {
    pub fn new(input: R, currency: Currency) -> Result<Self, FileError> {
        Ok(Self { lines: LineReader::new(input)?, objects: ObjectParser::new(currency) })
    }
}

impl<R: BufRead> Iterator for Ndjson<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return match self.lines.next() {
                Err(error) => Some(Err(error.into())),
                Ok(None) => self.objects.trailing_warnings().map(Ok),
                Ok(Some((_, Some(bytes)))) if bytes.trim_ascii().is_empty() => continue,
                Ok(Some((line, bytes))) => Some(Ok(self.objects.entry(line, bytes.as_deref()))),
            };
        }
    }
}

/// Iterator over the products of a JSON array. Elements are found by their brackets, so that one at a time is in memory.
pub struct JsonArray<R> {
    bytes: ByteReader<R>,
    objects: ObjectParser,
    /// The file's own end was reached, or reading on would make no sense.
    ended: bool,
    first: bool,
}

/// Reader of single bytes with their line number.
struct ByteReader<R> {
    input: R,
    line: u64,
    /// Bytes of a malformed line to be read again, in reverse order.
    unread: Vec<u8>,
}

impl<R: BufRead> ByteReader<R> {
    fn peek(&mut self) -> io::Result<Option<u8>> {
        if let Some(byte) = self.unread.last() {
            return Ok(Some(*byte));
        }
        loop {
            match self.input.fill_buf() {
                Ok(chunk) => return Ok(chunk.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn next(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            if self.unread.pop().is_none() {
                self.input.consume(1);
            }
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }

    /// Skips white space and returns the next byte without consuming it.
    fn peek_non_space(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.next()?;
        }
        Ok(None)
    }

    /// Reads one value, up to where its brackets balance, or to a comma or closing bracket around it. `None` for a value
    /// longer than [`ROW_MAX`].
    ///
    /// A JSON string contains no bare line break. So one that is open at the end of its line has a quote too many or too
    /// few: the rest of that line is read again for its brackets alone, which usually limits the damage to this value.
    fn value(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (mut value, mut depth, mut kept) = (Vec::new(), 0_usize, true);
        let (mut string, mut escaped, mut broken) = (None, false, false);
        while let Some(byte) = self.peek()? {
            if depth == 0 && string.is_none() && matches!(byte, b',' | b']' | b'}') {
                break;
            }
            self.next()?;
            kept &= value.len() < ROW_MAX;
            if kept {
                value.push(byte);
            }
            if let Some(start) = string {
                if byte == b'\n' {
                    string = None;
                    if kept {
                        broken = true;
                        self.line -= 1;
                        self.unread = value.drain(start..).rev().collect();
                    }
                } else if byte == b'"' && !escaped {
                    string = None;
                }
                escaped = byte == b'\\' && !escaped;
                continue;
            }
            match byte {
                b'"' if !broken => (string, escaped) = (Some(value.len()), false),
                b'\n' => broken = false,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                _ => {}
            }
        }
        Ok(kept.then_some(value))
    }
}

impl<R: BufRead> JsonArray<R> {
    /// Finds the array: the file itself, or the first array of objects inside the object that the file is.
    ///
    /// # Errors
    /// There is no array of objects, or the file is UTF-16 or cannot be read.
    pub fn new(mut input: R, currency: Currency) -> Result<Self, FileError> {
        let start = input.fill_buf()?;
        if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(FileError::Format { line: 1, reason: "the file is UTF-16; save it as UTF-8".to_owned() });
        }
        if start.starts_with(b"\xEF\xBB\xBF") {
            input.consume(3);
        }
        let mut bytes = ByteReader { input, line: 1, unread: Vec::new() };
        let found = match bytes.peek_non_space()? {
            Some(b'[') => {
                bytes.next()?;
                true
            }
            Some(b'{') => Self::find_array(&mut bytes)?,
            _ => false,
        };
        if !found {
            let reason = "there is no list of products: the file must be a JSON array of objects, or an object that \
                          holds one (an object a line is NDJSON: name such a file .ndjson)";
            return Err(FileError::Format { line: bytes.line, reason: reason.to_owned() });
        }
        Ok(Self { bytes, objects: ObjectParser::new(currency), ended: false, first: true })
    }

    fn find_array(bytes: &mut ByteReader<R>) -> Result<bool, FileError> {
        bytes.next()?;
        loop {
            // A name, a colon, a value, a comma.
            if bytes.peek_non_space()? != Some(b'"') {
                return Ok(false);
            }
            let (mut escaped, mut open) = (false, true);
            bytes.next()?;
            while open {
                let Some(byte) = bytes.next()? else { return Ok(false) };
                open = byte != b'"' || escaped;
                escaped = byte == b'\\' && !escaped;
            }
            if bytes.peek_non_space()? != Some(b':') {
                return Ok(false);
            }
            bytes.next()?;
            if bytes.peek_non_space()? == Some(b'[') {
                bytes.next()?;
                if matches!(bytes.peek_non_space()?, Some(b'{' | b']')) {
                    return Ok(true);
                }
                // A list of something else: its values up to its end.
                while bytes.peek_non_space()? != Some(b']') {
                    bytes.value()?;
                    match bytes.peek_non_space()? {
                        Some(b',') => _ = bytes.next()?,
                        Some(b']') => {}
                        _ => return Ok(false),
                    }
                }
                bytes.next()?;
            } else {
                bytes.value()?;
            }
            if bytes.peek_non_space()? != Some(b',') {
                return Ok(false);
            }
            bytes.next()?;
        }
    }

    fn element(&mut self) -> Result<Option<ImportEntry>, FileError> {
        let fail = |line: u64, reason: &str| Err(FileError::Format { line, reason: reason.to_owned() });
        let cut = "the file ends before its list does; what came before has been read";
        if !std::mem::take(&mut self.first) {
            match self.bytes.peek_non_space()? {
                Some(b',') => _ = self.bytes.next()?,
                Some(b']') => {}
                Some(_) => {
                    return fail(self.bytes.line, "a comma is missing between two elements; the rest was not read");
                }
                None => return fail(self.bytes.line, cut),
            }
        }
        match self.bytes.peek_non_space()? {
            None => return fail(self.bytes.line, cut),
            Some(b']') => return Ok(None),
            Some(b'}') => {
                return fail(self.bytes.line, "a bracket is closed that was not opened; the rest was not read");
            }
            Some(_) => {}
        }
        let line = self.bytes.line;
        let value = self.bytes.value()?;
        Ok(Some(self.objects.entry(line, value.as_deref())))
    }
}

impl<R: BufRead> Iterator for JsonArray<R> {
    type Item = Result<ImportEntry, FileError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return self.objects.trailing_warnings().map(Ok);
        }
        match self.element() {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                self.ended = true;
                self.next()
            }
            Err(error) => {
                self.ended = true;
                self.objects = ObjectParser::new(self.objects.currency);
                Some(Err(error))
            }
        }
    }
}
