//! `mercat import products` and `mercat export products`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::config::Configuration;
use super::open::{context, reason_of, require_shop, with_shop};
use super::pictures::{Fetched, PictureImport};
use super::{CliError, logging, print, print_error};
use crate::contract::catalog::{CatalogError, ExportProducts, ImportOutcome, ImportProducts, ImportRow, ProductPatch};
use crate::domains::catalog::CatalogActor;
use crate::domains::catalog::import_export::{self, FileError, Format, ImportEntry, ProductWriter};
use crate::messaging::{Backoff, Client, DomainError as _, ErrorKind};
use crate::settings::Settings;
use crate::types::collapse_whitespace;

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
    rows: Vec<ReadRow>,
    bytes: usize,
    refused: Vec<(u64, String)>,
    notes: Vec<String>,
}

/// A row as it was read: its line, the product, and the addresses of its pictures.
struct ReadRow {
    line: u64,
    row: ImportRow,
    images: Vec<String>,
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
    /// Updated, those included that were like their rows before.
    updated: u64,
    unchanged: u64,
    left_out: u64,
    refused: u64,
    /// Updated products by field.
    by_field: BTreeMap<String, u64>,
    /// Lines that were printed about single rows.
    reported: u64,
    /// Pictures that were added, that could not be, and that were not asked for.
    images: u64,
    images_failed: u64,
    images_left: u64,
}

impl ImportCounts {
    /// Rows that were about a product.
    const fn rows(&self) -> u64 {
        self.created + self.updated + self.left_out + self.refused
    }
}

/// Choices about the import of a file.
#[derive(Debug, Clone, Copy)]
pub struct ImportOptions {
    /// Whether stock and texts may be emptied, and deleted products brought back.
    pub overwrite: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Whether pictures are fetched.
    pub images: bool,
}

/// An import that runs: where to, how, and what to call the file.
struct ImportRun<'a> {
    catalog: Client<CatalogActor>,
    options: ImportOptions,
    /// Reader of pictures, if they are fetched.
    pictures: Option<PictureImport>,
    bar: &'a ProgressBar,
    name: &'a str,
}

fn format(file: &Path) -> Result<Format, CliError> {
    Format::from_path(file).ok_or_else(|| {
        let name = file.display();
        CliError::start(format!("the file {name}: its extension must be .csv, .ndjson or .json"))
    })
}

/// Imports the products of a file.
pub fn import(
    configuration: &Configuration,
    settings: Settings,
    file: &Path,
    options: ImportOptions,
) -> Result<(), CliError> {
    let format = format(file)?;
    let fail = |reason: &str| CliError::start(format!("the file {}: {reason}", file.display()));
    let input = File::open(file).map_err(|error| fail(&format!("cannot be read: {}", reason_of(&error))))?;
    let about = input.metadata().map_err(|error| fail(&format!("cannot be read: {}", reason_of(&error))))?;
    if about.is_dir() {
        return Err(fail("is a folder"));
    }
    let bar = bar(about.len(), "{bar:40} {bytes} of {total_bytes}, {msg}");
    let currency = settings.shop.currency;
    let picture_settings = settings.catalog.clone();
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
            let pictures = if options.images && !options.dry_run {
                let catalog = catalog.clone();
                Some(PictureImport::new(catalog, &picture_settings).map_err(CliError::operation)?)
            } else {
                None
            };
            let run = ImportRun { catalog, options, pictures, bar: &bar, name: &name };
            while let Some(batch) = batches.recv().await {
                let batch: Result<Batch, FileError> = batch;
                match batch {
                    Ok(batch) => run.import_batch(batch, &mut counts).await?,
                    Err(error) => {
                        bar.finish_and_clear();
                        let message = format!("the file {name}: {error}");
                        if counts.rows() == 0 {
                            return Err(CliError::start(message));
                        }
                        print(&run.summary(&counts));
                        return Err(CliError::operation(message));
                    }
                }
            }
            bar.finish_and_clear();
            run.finish(&counts)
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
    // Hashes of what products are known by, with the lines they came first in: the texts of a large file would fill the
    // memory.
    let (hashing, mut first_lines) = (RandomState::new(), HashMap::new());
    for entry in rows {
        match entry {
            Ok(ImportEntry::Product { line, row, images }) => {
                let identity = row.source_key.as_deref().or(row.fields.sku.as_deref()).unwrap_or_default().trim();
                let first = *first_lines.entry((hashing.hash_one(identity), is_grouping(&row))).or_insert(line);
                if first == line {
                    batch.bytes += estimated_size(&row);
                    batch.rows.push(ReadRow { line, row: *row, images });
                } else {
                    let reason = match &row.source_key {
                        Some(_) => format!("is the same variant as line {first}; one would replace the other"),
                        None => {
                            format!("its SKU {identity:?} is that of line {first} too; one would replace the other")
                        }
                    };
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

/// Whether the row only says which group a product belongs to, which another row of the file describes.
const fn is_grouping(row: &ImportRow) -> bool {
    row.fields.group.is_some() && row.fields.name.is_none() && row.fields.price.is_none()
}

/// Estimates the memory of a row in bytes.
fn estimated_size(row: &ImportRow) -> usize {
    let ProductPatch { name, description, tags, attributes, options, .. } = &row.fields;
    let texts = name.iter().chain(description).chain(tags.iter().flatten()).map(String::len);
    let pairs = attributes.iter().chain(options).flatten().map(|(name, value)| name.len() + value.len());
    texts.chain(pairs).map(|bytes| bytes + 64).sum::<usize>() + 512
}

impl ImportRun<'_> {
    /// Prints the result of a file that was read to its end.
    fn finish(&self, counts: &ImportCounts) -> Result<(), CliError> {
        if counts.reported > REPORTED_MAX {
            let what = if self.options.dry_run { "lines like these" } else { "rows were refused" };
            print_error(&format!("and {} more {what}", counts.reported - REPORTED_MAX));
        }
        if counts.rows() == 0 {
            return Err(CliError::start(format!("the file {}: there are no products in it", self.name)));
        }
        print(&self.summary(counts));
        if counts.rows() == counts.left_out {
            return Err(CliError::start("none of the products in the file is for sale; nothing was imported"));
        }
        if counts.images_left > 0 {
            print_error(&format!(
                "note: {} pictures are given by their addresses; --images fetches them",
                counts.images_left
            ));
        }
        if counts.refused + counts.images_failed == 0 { Ok(()) } else { Err(CliError::partial()) }
    }

    /// Imports a batch and prints what there is to say about its rows, in the order of the file.
    async fn import_batch(&self, batch: Batch, counts: &mut ImportCounts) -> Result<(), CliError> {
        let Batch { rows, refused, notes, .. } = batch;
        let mut reports: Vec<(u64, String)> = Vec::new();
        counts.refused += refused.len() as u64;
        reports.extend(refused);
        if !rows.is_empty() {
            let outcomes = self.send(&rows).await.map_err(|error| {
                self.bar.finish_and_clear();
                print(&self.summary(counts));
                let line = rows.first().map_or(0, |read| read.line);
                CliError::operation(format!(
                    "the import stopped before line {line}: {error}; the rows before it were imported, and it is safe \
                     to import the file again"
                ))
            })?;
            self.import_pictures(&rows, &outcomes, &mut reports, counts).await;
            for (ReadRow { line, row, .. }, outcome) in rows.into_iter().zip(outcomes) {
                let sku = row.fields.sku.unwrap_or_default();
                let effect = match outcome {
                    ImportOutcome::Created(_) => {
                        counts.created += 1;
                        format!("would create {sku}")
                    }
                    ImportOutcome::Updated { fields, .. } => {
                        counts.updated += 1;
                        let effect = format!("would change {sku}: {}", fields.join(", "));
                        for field in fields {
                            *counts.by_field.entry(field).or_default() += 1;
                        }
                        effect
                    }
                    ImportOutcome::Unchanged(_) => {
                        counts.updated += 1;
                        counts.unchanged += 1;
                        continue;
                    }
                    ImportOutcome::LeftOut => {
                        counts.left_out += 1;
                        continue;
                    }
                    ImportOutcome::Refused(reason) => {
                        counts.refused += 1;
                        reports.push((line, reason));
                        continue;
                    }
                };
                if self.options.dry_run {
                    reports.push((line, effect));
                }
            }
        }
        self.report(reports, notes, counts);
        Ok(())
    }

    /// Adds the pictures of products that have none yet.
    async fn import_pictures(
        &self,
        rows: &[ReadRow],
        outcomes: &[ImportOutcome],
        reports: &mut Vec<(u64, String)>,
        counts: &mut ImportCounts,
    ) {
        let product = |outcome: &ImportOutcome| match outcome {
            ImportOutcome::Created(id) | ImportOutcome::Unchanged(id) => Some(*id),
            ImportOutcome::Updated { product_id, .. } => Some(*product_id),
            ImportOutcome::LeftOut | ImportOutcome::Refused(_) => None,
        };
        for (ReadRow { line, images, .. }, outcome) in rows.iter().zip(outcomes) {
            let (Some(product_id), false) = (product(outcome), images.is_empty()) else { continue };
            let Some(pictures) = &self.pictures else {
                counts.images_left += images.len() as u64;
                continue;
            };
            let Fetched { added, failed } = pictures.add_to(product_id, images).await;
            counts.images += added;
            counts.images_failed += failed.len() as u64;
            reports.extend(failed.into_iter().map(|reason| (*line, reason)));
        }
    }

    fn report(&self, mut reports: Vec<(u64, String)>, notes: Vec<String>, counts: &mut ImportCounts) {
        reports.sort_by_key(|(line, _)| *line);
        self.bar.suspend(|| {
            for note in notes {
                print_error(&format!("note: {}", collapse_whitespace(&note)));
            }
            for (line, text) in reports {
                counts.reported += 1;
                if counts.reported <= REPORTED_MAX {
                    print_error(&format!("line {line}: {}", collapse_whitespace(&text)));
                }
            }
        });
        self.bar.set_message(format!("{} products", counts.created + counts.updated));
    }

    /// Sends a batch, which may be repeated: a second import updates its products to the same values.
    async fn send(&self, rows: &[ReadRow]) -> Result<Vec<ImportOutcome>, CatalogError> {
        let ImportOptions { overwrite, dry_run, .. } = self.options;
        let rows: Vec<ImportRow> = rows.iter().map(|read| read.row.clone()).collect();
        let (mut attempt, mut backoff) = (1, RETRY_BACKOFF);
        loop {
            match self.catalog.call(context(), ImportProducts { rows: rows.clone(), overwrite, dry_run }).await {
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

    fn summary(&self, counts: &ImportCounts) -> String {
        let ImportCounts { created, updated, unchanged, left_out, refused, by_field, .. } = counts;
        let mut text = if self.options.dry_run { "dry run, nothing was written: " } else { "" }.to_owned();
        text += &format!("{}: {created} created, {updated} updated", self.name);
        let mut details: Vec<String> = by_field.iter().map(|(field, count)| format!("{field} {count}")).collect();
        if *unchanged > 0 {
            details.push(format!("{unchanged} as before"));
        }
        if self.options.dry_run && !details.is_empty() {
            text += &format!(" ({})", details.join(", "));
        }
        text += &format!(", {refused} refused");
        if *left_out > 0 {
            text += &format!(", {left_out} left out that are not for sale");
        }
        if self.pictures.is_some() {
            text += &format!(", {} pictures added", counts.images);
        }
        if counts.images_failed > 0 {
            text += &format!(", {} pictures not", counts.images_failed);
        }
        text
    }
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
