//! `mercat import products` and `mercat export products`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::config::Configuration;
use super::open::{ctx, needs_shop, why, with_shop};
use super::{CliError, logging, one_line, say, tell};
use crate::contract::catalog::{CatalogError, ExportProducts, ImportOutcome, ImportProducts, NewProduct};
use crate::domains::catalog::CatalogActor;
use crate::domains::catalog::import_export::{self, FileError, Format, ImportEntry, ProductWriter};
use crate::messaging::{Client, DomainError as _, ErrorKind};
use crate::settings::Settings;

/// Rows that go to the catalog together.
const BATCH_ROWS: usize = 500;
/// Bytes of such rows, so that a file of huge rows takes no more memory than others.
const BATCH_BYTES: usize = 4 << 20;
/// Batches read ahead while the catalog works on one.
const BATCHES_AHEAD: usize = 2;
/// Refused rows that are told one by one; the rest is counted.
const TOLD_MAX: u64 = 1_000;
/// How often a batch that met a busy shop is tried.
const ATTEMPTS: u32 = 5;

/// What was read of a file at a time.
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

/// What became of the rows.
#[derive(Default)]
struct ImportCounts {
    created: u64,
    updated: u64,
    refused: u64,
}

fn format(file: &Path) -> Result<Format, CliError> {
    Format::from_path(file).ok_or_else(|| {
        let name = file.display();
        CliError::start(format!("the file {name}: its name must end in .csv, .ndjson or .json, which tells what it is"))
    })
}

/// Puts the products of a file into the shop.
pub fn import(configuration: &Configuration, settings: Settings, file: &Path) -> Result<(), CliError> {
    let format = format(file)?;
    let fail = |reason: &str| CliError::start(format!("the file {}: {reason}", file.display()));
    let input = File::open(file).map_err(|error| fail(&format!("cannot be read: {}", why(&error))))?;
    let about = input.metadata().map_err(|error| fail(&format!("cannot be read: {}", why(&error))))?;
    if about.is_dir() {
        return Err(fail("is a folder"));
    }
    let bar = bar(about.len(), "{bar:40} {bytes} of {total_bytes}, {msg}");
    let currency = settings.shop.currency;
    // Read on a thread of its own, so that the next rows are ready when the catalog is.
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
                    Ok(batch) => put(&catalog, batch, &mut counts, &bar, &name).await?,
                    Err(error) => {
                        bar.finish_and_clear();
                        let nothing = counts.created + counts.updated + counts.refused == 0;
                        let message = format!("the file {name}: {error}");
                        if nothing {
                            return Err(CliError::start(message));
                        }
                        say(&summary(&counts, &name));
                        return Err(CliError::operation(message));
                    }
                }
            }
            bar.finish_and_clear();
            if counts.refused > TOLD_MAX {
                tell(&format!("and {} more rows were refused", counts.refused - TOLD_MAX));
            }
            say(&summary(&counts, &name));
            if counts.refused == 0 { Ok(()) } else { Err(CliError::in_part()) }
        }
    })?;
    // It has ended: its channel is empty and closed.
    let _ = reader.join();
    Ok(())
}

/// Reads a file into batches. Ends early when nobody wants them any more.
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
    for entry in rows {
        match entry {
            Ok(ImportEntry::Product { line, product }) => {
                batch.bytes += weight(&product);
                batch.rows.push((line, *product));
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

/// About how many bytes a row takes.
fn weight(product: &NewProduct) -> usize {
    let pairs = product.attributes.iter().chain(&product.options).map(|(name, value)| name.len() + value.len());
    let tags = product.tags.iter().map(String::len);
    product.name.len() + product.description.len() + pairs.chain(tags).map(|bytes| bytes + 64).sum::<usize>() + 256
}

/// Gives a batch to the catalog and tells what was refused, in the order of the file.
async fn put(
    catalog: &Client<CatalogActor>,
    batch: Batch,
    counts: &mut ImportCounts,
    bar: &ProgressBar,
    name: &str,
) -> Result<(), CliError> {
    let Batch { rows, mut refused, notes, .. } = batch;
    let (lines, rows): (Vec<u64>, Vec<NewProduct>) = rows.into_iter().unzip();
    if !rows.is_empty() {
        let outcomes = hand_over(catalog, rows).await.map_err(|error| {
            bar.finish_and_clear();
            say(&summary(counts, name));
            let line = lines.first().copied().unwrap_or(0);
            CliError::operation(format!(
                "the import stopped before line {line}: {error}; what came before is in, and importing the file again \
                 does no harm"
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
            tell(&format!("note: {}", one_line(&note)));
        }
        for (line, reason) in refused {
            counts.refused += 1;
            if counts.refused <= TOLD_MAX {
                tell(&format!("line {line}: {}", one_line(&reason)));
            }
        }
    });
    bar.set_message(format!("{} products", counts.created + counts.updated));
    Ok(())
}

/// A batch may be given twice: the second time its products are brought up to date to what they are.
async fn hand_over(catalog: &Client<CatalogActor>, rows: Vec<NewProduct>) -> Result<Vec<ImportOutcome>, CatalogError> {
    let mut tries = 1;
    loop {
        match catalog.call(ctx(), ImportProducts { rows: rows.clone() }).await {
            Err(error)
                if tries < ATTEMPTS && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) =>
            {
                log::warn!("{error}; trying again");
                tokio::time::sleep(Duration::from_millis(200) * tries).await;
                tries += 1;
            }
            answer => return answer,
        }
    }
}

fn summary(counts: &ImportCounts, name: &str) -> String {
    let ImportCounts { created, updated, refused } = counts;
    format!("{name}: {created} created, {updated} updated, {refused} refused")
}

/// Writes the products of the shop to a file.
pub fn export(configuration: &Configuration, settings: Settings, file: &Path) -> Result<(), CliError> {
    let format = format(file)?;
    needs_shop(configuration, &settings)?;
    let target = AtomicFile::new(file)?;
    with_shop(configuration, settings, &["catalog"], |app| {
        let catalog = app.clients.catalog.clone();
        async move {
            let bar = bar(0, "{spinner} {msg}");
            let fail = |error: std::io::Error| {
                CliError::operation(format!("the file {} cannot be written: {}", target.file.display(), why(&error)))
            };
            let mut writer = ProductWriter::new(format, BufWriter::new(target.open().map_err(fail)?)).map_err(fail)?;
            let (mut after, mut count) = (None, 0_u64);
            loop {
                let part = catalog.call(ctx(), ExportProducts { after }).await.map_err(CliError::operation)?;
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
            target.done(out).map_err(fail)?;
            bar.finish_and_clear();
            say(&format!("{}: {count} products", target.file.display()));
            Ok(())
        }
    })
}

/// Where an export goes: beside its place first, so that a file that was there is replaced by a whole one or not at all.
struct AtomicFile {
    file: PathBuf,
    /// Nothing when it goes straight to something that is no plain file, such as a pipe.
    beside: Option<PathBuf>,
}

impl AtomicFile {
    fn new(file: &Path) -> Result<Self, CliError> {
        let special = std::fs::metadata(file).is_ok_and(|about| !about.is_file());
        let mut name = file.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
        name.push(".part");
        let beside = (!special).then(|| file.with_file_name(name));
        let target = Self { file: file.to_owned(), beside };
        // PeerInfo at once rather than after everything was read.
        target.open().map_err(|error| {
            CliError::start(format!("the file {} cannot be written: {}", file.display(), why(&error)))
        })?;
        Ok(target)
    }

    fn open(&self) -> std::io::Result<File> {
        File::create(self.beside.as_ref().unwrap_or(&self.file))
    }

    fn done(&self, mut out: File) -> std::io::Result<()> {
        out.flush()?;
        match &self.beside {
            None => Ok(()),
            Some(beside) => {
                out.sync_all()?;
                std::fs::rename(beside, &self.file)
            }
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // What was left unfinished. After `done` there is none, and that is no error.
        if let Some(beside) = &self.beside {
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// A progress bar, for a person who looks.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let target = if logging::is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
