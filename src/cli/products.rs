//! `mercat import products` and `mercat export products`.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::config::Configuration;
use super::open::{context, reason_of, require_shop, with_shop};
use super::{CliError, logging, one_line, print, print_error};
use crate::contract::catalog::{CatalogError, ExportProducts, ImportOutcome, ImportProducts, NewProduct};
use crate::domains::catalog::CatalogActor;
use crate::domains::catalog::import_export::{self, FileError, Format, ImportEntry, ProductWriter};
use crate::messaging::{Backoff, Client, DomainError as _, ErrorKind};
use crate::settings::Settings;

/// Most rows per request to the catalog.
const BATCH_ROWS: usize = 500;
/// Approximate bytes per request, which bounds the memory for a file of huge rows.
const BATCH_BYTES: usize = 4 << 20;
/// Batches that are read ahead while the catalog imports one.
const BATCHES_AHEAD: usize = 2;
/// Most refused rows that are printed; the rest is counted.
const REPORTED_MAX: u64 = 1_000;
/// Attempts per batch if the shop is busy.
const ATTEMPTS: u32 = 5;
/// Delays before the further attempts.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));

/// Part of a file that is imported with one request.
#[derive(Default)]
struct Batch {
    rows: Vec<(u64, NewProduct)>,
    bytes: usize,
    refused: Vec<(u64, String)>,
    notes: Vec<String>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.refused.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }
}

/// Numbers of rows by outcome.
#[derive(Default)]
struct ImportCounts {
    created: u64,
    updated: u64,
    refused: u64,
}

fn format(file: &Path) -> Result<Format, CliError> {
    Format::from_path(file).ok_or_else(|| {
        let name = file.display();
        CliError::start(format!("the file {name}: its extension must be .csv, .ndjson or .json"))
    })
}

/// Imports the products of a file.
pub fn import(configuration: &Configuration, settings: Settings, file: &Path) -> Result<(), CliError> {
    let format = format(file)?;
    let fail = |reason: &str| CliError::start(format!("the file {}: {reason}", file.display()));
    let input = File::open(file).map_err(|error| fail(&format!("cannot be read: {}", reason_of(&error))))?;
    let about = input.metadata().map_err(|error| fail(&format!("cannot be read: {}", reason_of(&error))))?;
    if about.is_dir() {
        return Err(fail("is a folder"));
    }
    let bar = bar(about.len(), "{bar:40} {bytes} of {total_bytes}, {msg}");
    let currency = settings.shop.currency;
    // On a thread of its own, so that the next rows are ready when the catalog is.
    let (send, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let reader = std::thread::spawn({
        let input = BufReader::with_capacity(1 << 16, bar.wrap_read(input));
        move || read(format, input, currency, &send)
    });
    let name = file.display().to_string();
    with_shop(configuration, settings, &["catalog"], |app| {
        let catalog = app.clients.catalog.clone();
        async move {
            let mut counts = ImportCounts::default();
            while let Some(batch) = batches.recv().await {
                let batch: Result<Batch, FileError> = batch;
                match batch {
                    Ok(batch) => import_batch(&catalog, batch, &mut counts, &bar, &name).await?,
                    Err(error) => {
                        bar.finish_and_clear();
                        let nothing = counts.created + counts.updated + counts.refused == 0;
                        let message = format!("the file {name}: {error}");
                        if nothing {
                            return Err(CliError::start(message));
                        }
                        print(&summary(&counts, &name));
                        return Err(CliError::operation(message));
                    }
                }
            }
            bar.finish_and_clear();
            if counts.refused > REPORTED_MAX {
                print_error(&format!("and {} more rows were refused", counts.refused - REPORTED_MAX));
            }
            if counts.created + counts.updated + counts.refused == 0 {
                return Err(CliError::start(format!("the file {name}: there are no products in it")));
            }
            print(&summary(&counts, &name));
            if counts.refused == 0 { Ok(()) } else { Err(CliError::partial()) }
        }
    })?;
    // The thread has ended, since its channel is closed.
    let _ = reader.join();
    Ok(())
}

/// Reads a file into batches; ends early if the receiver was dropped.
fn read(
    format: Format,
    input: BufReader<impl std::io::Read + Send>,
    currency: crate::types::Currency,
    send: &mpsc::Sender<Result<Batch, FileError>>,
) {
    let rows = match import_export::read(format, input, currency) {
        Ok(rows) => rows,
        Err(error) => {
            let _ = send.blocking_send(Err(error));
            return;
        }
    };
    let mut batch = Batch::default();
    // Hashes of the SKUs, with the lines they came first in: the texts of a large file would fill the memory.
    let (hashing, mut first_lines) = (RandomState::new(), HashMap::new());
    for entry in rows {
        match entry {
            Ok(ImportEntry::Product { line, product }) => {
                let first = *first_lines.entry(hashing.hash_one(product.sku.trim())).or_insert(line);
                if first == line {
                    batch.bytes += estimated_size(&product);
                    batch.rows.push((line, *product));
                } else {
                    let sku = &product.sku;
                    let reason = format!("its SKU {sku:?} is that of line {first} too; one would replace the other");
                    batch.refused.push((line, reason));
                }
            }
            Ok(ImportEntry::Refused { line, reason }) => batch.refused.push((line, reason)),
            Ok(ImportEntry::Note(note)) => batch.notes.push(note),
            Err(error) => {
                let _ = send.blocking_send(Ok(std::mem::take(&mut batch)));
                let _ = send.blocking_send(Err(error));
                return;
            }
        }
        if batch.is_full() && send.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return;
        }
    }
    let _ = send.blocking_send(Ok(batch));
}

/// Estimates the memory of a row in bytes.
fn estimated_size(product: &NewProduct) -> usize {
    let pairs = product.attributes.iter().chain(&product.options).map(|(name, value)| name.len() + value.len());
    let tags = product.tags.iter().map(String::len);
    product.name.len() + product.description.len() + pairs.chain(tags).map(|bytes| bytes + 64).sum::<usize>() + 256
}

/// Imports a batch and prints its refused rows in the order of the file.
async fn import_batch(
    catalog: &Client<CatalogActor>,
    batch: Batch,
    counts: &mut ImportCounts,
    bar: &ProgressBar,
    name: &str,
) -> Result<(), CliError> {
    let Batch { rows, mut refused, notes, .. } = batch;
    let (lines, rows): (Vec<u64>, Vec<NewProduct>) = rows.into_iter().unzip();
    if !rows.is_empty() {
        let outcomes = send_batch(catalog, rows).await.map_err(|error| {
            bar.finish_and_clear();
            print(&summary(counts, name));
            let line = lines.first().copied().unwrap_or(0);
            CliError::operation(format!(
                "the import stopped before line {line}: {error}; the rows before it were imported, and it is safe to \
                 import the file again"
            ))
        })?;
        for (line, outcome) in lines.into_iter().zip(outcomes) {
            match outcome {
                ImportOutcome::Created(_) => counts.created += 1,
                ImportOutcome::Updated(_) => counts.updated += 1,
                ImportOutcome::Refused(reason) => refused.push((line, reason)),
            }
        }
    }
    refused.sort_by_key(|(line, _)| *line);
    bar.suspend(|| {
        for note in notes {
            print_error(&format!("note: {}", one_line(&note)));
        }
        for (line, reason) in refused {
            counts.refused += 1;
            if counts.refused <= REPORTED_MAX {
                print_error(&format!("line {line}: {}", one_line(&reason)));
            }
        }
    });
    bar.set_message(format!("{} products", counts.created + counts.updated));
    Ok(())
}

/// Sends a batch, which may be repeated: a second import updates its products to the same values.
async fn send_batch(catalog: &Client<CatalogActor>, rows: Vec<NewProduct>) -> Result<Vec<ImportOutcome>, CatalogError> {
    let (mut attempt, mut backoff) = (1, RETRY_BACKOFF);
    loop {
        match catalog.call(context(), ImportProducts { rows: rows.clone() }).await {
            Err(error)
                if attempt < ATTEMPTS
                    && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) =>
            {
                log::warn!("import: {error}; retrying");
                backoff.wait().await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn summary(counts: &ImportCounts, name: &str) -> String {
    let ImportCounts { created, updated, refused } = counts;
    format!("{name}: {created} created, {updated} updated, {refused} refused")
}

/// Exports the active products to a file.
pub fn export(configuration: &Configuration, settings: Settings, file: &Path) -> Result<(), CliError> {
    let format = format(file)?;
    require_shop(configuration, &settings)?;
    let target = AtomicFile::new(file)?;
    with_shop(configuration, settings, &["catalog"], |app| {
        let catalog = app.clients.catalog.clone();
        async move {
            let bar = bar(0, "{spinner} {msg}");
            let fail = |error: std::io::Error| {
                CliError::operation(format!(
                    "the file {} cannot be written: {}",
                    target.file.display(),
                    reason_of(&error)
                ))
            };
            let mut writer = ProductWriter::new(format, BufWriter::new(target.open().map_err(fail)?)).map_err(fail)?;
            let (mut after, mut count) = (None, 0_u64);
            loop {
                let part = catalog.call(context(), ExportProducts { after }).await.map_err(CliError::operation)?;
                for product in &part.rows {
                    writer.write(product).map_err(fail)?;
                    count += 1;
                }
                bar.set_message(format!("{count} products"));
                bar.tick();
                match part.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            let out = writer.finish().map_err(fail)?.into_inner().map_err(|error| fail(error.into_error()))?;
            target.finish(out).map_err(fail)?;
            bar.finish_and_clear();
            print(&format!("{}: {count} products", target.file.display()));
            Ok(())
        }
    })
}

/// Destination of an export. It is written to a temporary file first, so that an existing file is replaced completely or
/// not at all.
struct AtomicFile {
    file: PathBuf,
    /// Temporary file; `None` if the destination is not a regular file, such as a pipe.
    temporary: Option<PathBuf>,
}

impl AtomicFile {
    fn new(file: &Path) -> Result<Self, CliError> {
        let special = std::fs::metadata(file).is_ok_and(|about| !about.is_file());
        let mut name = file.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
        name.push(".part");
        let temporary = (!special).then(|| file.with_file_name(name));
        let target = Self { file: file.to_owned(), temporary };
        // Fails at once rather than after everything was read.
        target.open().map_err(|error| {
            CliError::start(format!("the file {} cannot be written: {}", file.display(), reason_of(&error)))
        })?;
        Ok(target)
    }

    fn open(&self) -> std::io::Result<File> {
        File::create(self.temporary.as_ref().unwrap_or(&self.file))
    }

    fn finish(&self, mut out: File) -> std::io::Result<()> {
        out.flush()?;
        match &self.temporary {
            None => Ok(()),
            Some(temporary) => {
                out.sync_all()?;
                std::fs::rename(temporary, &self.file)
            }
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // Left only if the export failed.
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Creates a progress bar, which is hidden unless standard error is a terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let target = if logging::is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
