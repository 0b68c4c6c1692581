//! The log: lines on standard error, as text or JSON.

use std::io::{self, Write as _};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};
use serde_json::Map;

use super::print_error;
use crate::messaging::trace;
use crate::settings::LogSettings;

/// Key of the trace id of a line.
const TRACE_ID: &str = "trace_id";

/// Starts logging. Panics are logged too, as one line.
pub fn start(settings: &LogSettings) {
    let mut builder = env_logger::Builder::new();
    // It logs every worker that it starts.
    builder.filter_module("actix_server", log::LevelFilter::Warn);
    // It logs every request that it cannot read as an error: strangers could fill the disk with such lines.
    builder.filter_module("actix_http", log::LevelFilter::Off);
    builder.parse_filters(&settings.filter);
    if settings.json {
        builder.format(|out, record| {
            let time = out.timestamp_micros().to_string();
            writeln!(out, "{}", json(&time, record))
        });
    } else {
        builder.format(|out, record| {
            let (time, level) = (out.timestamp_millis(), record.level());
            let style = out.default_level_style(level);
            write!(out, "{time} {style}{level:<5}{style:#} {}: {}", record.target(), record.args())?;
            let mut pairs = Map::new();
            let _ = record.key_values().visit(&mut Pairs(&mut pairs));
            for (name, value) in pairs {
                write!(out, " {name}={value}")?;
            }
            if let Some(trace) = trace::current() {
                write!(out, " {TRACE_ID}={}", trace::id(&trace))?;
            }
            writeln!(out)
        });
    }
    // Fails only if there is a logger already, which then stays in use.
    let _ = builder.try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no message");
        log::error!(target: "panic", "{text} ({place})");
    }));
}

/// Logs a line that other programs wait for; it is printed also if the log level would suppress it.
pub fn announce(json_lines: bool, text: &str) {
    if log::log_enabled!(target: "mercat", Level::Info) {
        log::info!(target: "mercat", "{text}");
    } else if json_lines {
        let record = serde_json::json!({ "level": "INFO", "target": "mercat", "message": text });
        print_error(&record.to_string());
    } else {
        print_error(text);
    }
}

fn json(time: &str, record: &Record<'_>) -> serde_json::Value {
    let mut line = Map::new();
    let _ = record.key_values().visit(&mut Pairs(&mut line));
    line.insert("time".to_owned(), time.into());
    line.insert("level".to_owned(), record.level().as_str().into());
    line.insert("target".to_owned(), record.target().into());
    line.insert("message".to_owned(), record.args().to_string().into());
    if let Some(trace) = trace::current() {
        line.insert(TRACE_ID.to_owned(), trace::id(&trace).into());
    }
    line.into()
}

/// Collects the key-value pairs of a record.
struct Pairs<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value
            .to_i64()
            .map(Into::into)
            .or_else(|| value.to_bool().map(Into::into))
            .unwrap_or_else(|| value.to_string().into());
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

/// Returns whether standard error is a terminal.
pub fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}
