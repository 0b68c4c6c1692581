//! Writer of product files. Invariant: [`super::read`] returns the products that were written.

use std::io::{self, Write};

use super::Format;
use super::csv::{COLUMNS, escape_formula, format_pairs, format_tags};
use crate::contract::catalog::NewProduct;

/// Writer of one product file.
pub struct ProductWriter<W: Write>(FormatWriter<W>);

enum FormatWriter<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Ndjson(W),
    Json { out: W, first: bool },
}

impl<W: Write> ProductWriter<W> {
    /// Creates a writer and writes the start of the file.
    pub fn new(format: Format, mut out: W) -> io::Result<Self> {
        Ok(Self(match format {
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(COLUMNS)?;
                FormatWriter::Csv(Box::new(csv))
            }
            Format::Ndjson => FormatWriter::Ndjson(out),
            Format::Json => {
                out.write_all(b"[")?;
                FormatWriter::Json { out, first: true }
            }
        }))
    }

    /// Writes one product.
    pub fn write(&mut self, product: &NewProduct) -> io::Result<()> {
        match &mut self.0 {
            FormatWriter::Csv(csv) => Ok(csv.write_record(record(product))?),
            FormatWriter::Ndjson(out) => {
                serde_json::to_writer(&mut *out, product)?;
                out.write_all(b"\n")
            }
            FormatWriter::Json { out, first } => {
                out.write_all(if std::mem::take(first) { b"\n" } else { b",\n" })?;
                Ok(serde_json::to_writer(out, product)?)
            }
        }
    }

    /// Writes the end of the file and returns the output.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.0 {
            FormatWriter::Csv(csv) => csv.into_inner().map_err(csv::IntoInnerError::into_error)?,
            FormatWriter::Ndjson(out) => out,
            FormatWriter::Json { mut out, .. } => {
                out.write_all(b"\n]\n")?;
                out
            }
        };
        out.flush()?;
        Ok(out)
    }
}

fn record(product: &NewProduct) -> [String; COLUMNS.len()] {
    let optional = |text: &Option<String>| text.as_deref().map(escape_formula).unwrap_or_default();
    [
        escape_formula(&product.name),
        escape_formula(&product.sku),
        escape_formula(&product.description),
        product.currency.decimal(product.price),
        product.currency.to_string(),
        if product.track_stock { product.stock.to_string() } else { String::new() },
        product.compare_at_price.map(|price| product.currency.decimal(price)).unwrap_or_default(),
        optional(&product.category),
        escape_formula(&format_tags(&product.tags)),
        escape_formula(&format_pairs(&product.attributes)),
        optional(&product.group),
        escape_formula(&format_pairs(&product.options)),
        if product.track_stock { "yes" } else { "no" }.to_owned(),
    ]
}
