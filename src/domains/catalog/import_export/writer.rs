//! Writes products so that [`super::read`] reads the same products back.

use std::io::{self, Write};

use super::Format;
use super::csv::{COLUMNS, from_pairs, from_words, guarded};
use crate::contract::catalog::NewProduct;

/// Writes products, one after the other.
pub struct Writer<W: Write>(Form<W>);

enum Form<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Ndjson(W),
    Json { out: W, first: bool },
}

impl<W: Write> Writer<W> {
    /// Begins a file of this format.
    pub fn new(format: Format, mut out: W) -> io::Result<Self> {
        Ok(Self(match format {
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(COLUMNS)?;
                Form::Csv(Box::new(csv))
            }
            Format::Ndjson => Form::Ndjson(out),
            Format::Json => {
                out.write_all(b"[")?;
                Form::Json { out, first: true }
            }
        }))
    }

    /// Writes one product.
    pub fn write(&mut self, product: &NewProduct) -> io::Result<()> {
        match &mut self.0 {
            Form::Csv(csv) => Ok(csv.write_record(record(product))?),
            Form::Ndjson(out) => {
                serde_json::to_writer(&mut *out, product)?;
                out.write_all(b"\n")
            }
            Form::Json { out, first } => {
                out.write_all(if std::mem::take(first) { b"\n" } else { b",\n" })?;
                Ok(serde_json::to_writer(out, product)?)
            }
        }
    }

    /// Ends the file and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.0 {
            Form::Csv(csv) => csv.into_inner().map_err(csv::IntoInnerError::into_error)?,
            Form::Ndjson(out) => out,
            Form::Json { mut out, .. } => {
                out.write_all(b"\n]\n")?;
                out
            }
        };
        out.flush()?;
        Ok(out)
    }
}

fn record(product: &NewProduct) -> [String; COLUMNS.len()] {
    let optional = |text: &Option<String>| text.as_deref().map(guarded).unwrap_or_default();
    [
        guarded(&product.name),
        guarded(&product.sku),
        guarded(&product.description),
        product.currency.decimal(product.price),
        product.currency.to_string(),
        product.stock.to_string(),
        product.compare_at_price.map(|price| product.currency.decimal(price)).unwrap_or_default(),
        optional(&product.category),
        guarded(&from_words(&product.tags)),
        guarded(&from_pairs(&product.attributes)),
        optional(&product.group),
        guarded(&from_pairs(&product.options)),
    ]
}
