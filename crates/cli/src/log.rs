//! runc's log format, for the file of `--log` and for messages on stderr. Nothing is formatted when nobody listens.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use crate::args::Global;
use crate::report::{self, Failure};
use crate::time;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// How grave a line is, in runc's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The file of `--log`.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    file: Arc<File>,
    format: Format,
}

impl Log {
    /// Opens the file that the flags name, if any.
    ///
    /// # Errors
    /// An unknown format, a file that cannot be opened.
    pub(crate) fn open(global: &Global) -> Result<Option<Self>, Failure> {
        let format = match global.log_format.as_str() {
            "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(Failure::new(format!("invalid log-format: {other}"))),
        };
        let Some(path) = &global.log else { return Ok(None) };
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let file = file.map_err(|error| Failure::new(format!("open log {path:?}: {}", report::cause(&error))))?;
        Ok(Some(Self { file: Arc::new(file), format }))
    }

    /// Appends one line, in one write: several processes may share the file.
    pub(crate) fn write(&self, level: Level, message: &str) {
        // A full disk is no reason to fail a container; the error itself also goes to stderr.
        let _ = (&*self.file).write_all(line(self.format, level, message, &time::now()).as_bytes());
    }
}

/// A line as logrus writes it.
fn line(format: Format, level: Level, message: &str, time: &str) -> String {
    let level = level.word();
    match format {
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
        Format::Text => {
            // logrus quotes only what needs it.
            let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
            if !message.is_empty() && message.bytes().all(bare) {
                format!("time=\"{time}\" level={level} msg={message}\n")
            } else {
                format!("time=\"{time}\" level={level} msg={message:?}\n")
            }
        }
    }
}

/// Lets the messages of all crates out: warnings always, everything with `--debug`.
///
/// # Errors
/// Only if called twice.
pub(crate) fn install(log: Option<&Log>, debug: bool) -> Result<(), Failure> {
    let most = if debug { LevelFilter::DEBUG } else { LevelFilter::WARN };
    tracing::subscriber::set_global_default(Messages { log: log.cloned(), most })
        .map_err(|error| Failure::new(format!("log: {error}")))
}

/// The subscriber: events only, spans are not recorded.
struct Messages {
    log: Option<Log>,
    most: LevelFilter,
}

impl Subscriber for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let message = text.message + &text.fields;
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            _ => Level::Debug,
        };
        match &self.log {
            Some(log) => log.write(level, &message),
            None => {
                let _ = io::stderr().write_all(line(Format::Text, level, &message, &time::now()).as_bytes());
            }
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event as text: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_runc() {
        let time = "2026-11-21T00:38:28Z";
        let cases = [
            (Format::Text, "container does not exist", "msg=\"container does not exist\""),
            (Format::Text, "state.json", "msg=state.json"),
            (Format::Text, "exec \"x\"", r#"msg="exec \"x\"""#),
            (Format::Text, "", "msg=\"\""),
        ];
        for (format, message, expected) in cases {
            assert_eq!(line(format, Level::Error, message, time), format!("time=\"{time}\" level=error {expected}\n"));
        }
        assert_eq!(
            line(Format::Json, Level::Warning, "a \"b\"\n\u{1}", time),
            "{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\n\\u0001\",\"time\":\"2026-11-21T00:38:28Z\"}\n"
        );
    }
}
