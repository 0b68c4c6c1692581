//! Access to the cells of a row by the names that a shop system gives its columns.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::csv::{parse_integer, parse_price};
use super::unused_columns;
use crate::types::{Amount, Currency};

/// Columns of a file by name, and which of them were looked at.
pub struct NamedColumns {
    header: Vec<String>,
    positions: BTreeMap<String, usize>,
    used: RefCell<BTreeSet<usize>>,
}

impl NamedColumns {
    pub fn new(header: &[String]) -> Self {
        let positions = header.iter().enumerate().rev().map(|(at, name)| (name.trim().to_lowercase(), at)).collect();
        Self { header: header.to_vec(), positions, used: RefCell::default() }
    }

    /// Whether the file has a column of one of these names, given in lower case.
    pub fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.positions.contains_key(*name))
    }

    /// Row with the cells of a record.
    pub const fn row<'a>(&'a self, cells: &'a [String]) -> NamedRow<'a> {
        NamedRow { columns: self, cells }
    }

    /// The note about columns that no row was asked for.
    pub fn unused(&self) -> Option<String> {
        let used = self.used.borrow();
        let is_unused = |(at, name): &(usize, &String)| !used.contains(at) && !name.trim().is_empty();
        unused_columns(&self.header.iter().enumerate().filter(is_unused).map(|(_, name)| name.clone()).collect())
    }
}

/// A row of a file.
#[derive(Clone, Copy)]
pub struct NamedRow<'a> {
    columns: &'a NamedColumns,
    cells: &'a [String],
}

impl<'a> NamedRow<'a> {
    /// The trimmed cell of the first of these columns that is not empty.
    pub fn get(&self, names: &[&str]) -> Option<&'a str> {
        let cell = |name: &&str| {
            let at = *self.columns.positions.get(*name)?;
            self.columns.used.borrow_mut().insert(at);
            self.cells.get(at).map(|cell| cell.trim()).filter(|cell| !cell.is_empty())
        };
        names.iter().find_map(cell)
    }

    /// The name in the file's own spelling of the column that [`NamedRow::get`] reads.
    fn title(&self, names: &[&str]) -> &'a str {
        let filled = names.iter().find(|name| self.get(&[name]).is_some());
        let position = filled.and_then(|name| self.columns.positions.get(*name));
        position.and_then(|at| self.columns.header.get(*at)).map_or("", String::as_str)
    }

    /// Whether the file has a column of one of these names.
    pub fn has(&self, names: &[&str]) -> bool {
        self.columns.has(names)
    }

    /// The cell as a text; `None` if the file has no such column, the empty text for an empty cell.
    pub fn text(&self, names: &[&str]) -> Option<&'a str> {
        self.has(names).then(|| self.get(names).unwrap_or_default())
    }

    /// The cell as a price.
    ///
    /// # Errors
    /// Names the column and the expected form.
    pub fn price(&self, names: &[&str], currency: Currency) -> Result<Option<Amount>, String> {
        self.get(names).map(|text| parse_price(self.title(names), text, currency)).transpose()
    }

    /// The cell as a whole number.
    ///
    /// # Errors
    /// Names the column.
    fn integer(&self, names: &[&str]) -> Result<Option<i64>, String> {
        self.get(names).map(|text| parse_integer(self.title(names), text)).transpose()
    }

    /// The cell as a stock; one below zero, of what was sold and not there, is none.
    ///
    /// # Errors
    /// Names the column.
    pub fn stock(&self, names: &[&str]) -> Result<Option<i64>, String> {
        Ok(self.integer(names)?.map(|stock| stock.max(0)))
    }

    /// Whether the cell says yes.
    pub fn is_yes(&self, names: &[&str]) -> bool {
        self.get(names).is_some_and(|text| ["1", "yes", "y", "true"].iter().any(|yes| text.eq_ignore_ascii_case(yes)))
    }

    /// Whether the cell says no; not of an empty one.
    pub fn is_no(&self, names: &[&str]) -> bool {
        self.get(names).is_some_and(|text| ["0", "no", "n", "false"].iter().any(|no| text.eq_ignore_ascii_case(no)))
    }
}

/// Words with commas between.
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    words
}

/// A category as a path: the parts between `separator`, with ` > ` between.
pub fn path(text: &str, separator: char) -> Option<String> {
    let parts: Vec<&str> = text.split(separator).map(str::trim).filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(" > "))
}

/// Addresses with commas, bars or white space between; parts that are none are left out.
pub fn addresses(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '|' | ';'));
    parts.filter(|part| part.starts_with("http://") || part.starts_with("https://")).map(str::to_owned).collect()
}
