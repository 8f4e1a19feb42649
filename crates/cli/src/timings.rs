//! `--timings`: a line of JSON for each phase of a command, with the names that OpenTelemetry's protocol has for the fields of a span.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;
use tare_sandbox::timing::{self, Lap};

use crate::args::{Global, Verb};
use crate::report;

/// The trace that a caller is in: `00-TRACE-SPAN-FLAGS`, <https://www.w3.org/TR/trace-context/>.
#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace: String,
    span: String,
    flags: String,
}

impl Parent {
    /// None for what is not of that form.
    fn parse(word: &str) -> Option<Self> {
        let hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let parts: Vec<&str> = word.split('-').collect();
        let [version, trace, span, flags, ..] = parts[..] else { return None };
        let given = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let known = given && !zero(trace) && !zero(span);
        known.then(|| Self { trace: trace.to_owned(), span: span.to_owned(), flags: flags.to_owned() })
    }
}

/// What is written when the command ends.
pub(crate) struct Timings {
    file: File,
    begin: u64,
    trace: String,
    /// That of the command.
    span: u64,
    parent: Option<String>,
}

impl Timings {
    /// Opens the file and starts the clock, if the flags ask for that.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) fn begin(global: &Global) -> Result<Option<Self>, String> {
        let Some(path) = &global.timings else { return Ok(None) };
        let failed =
            |path: &Path, error: &std::io::Error| format!("--timings: open {path:?}: {}", report::cause(error));
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let file = file.map_err(|error| failed(path, &error))?;
        let parent = std::env::var("TRACEPARENT").ok().and_then(|word| Parent::parse(&word));
        let mut random = [0; 24];
        let source = Path::new("/dev/urandom");
        File::open(source).and_then(|mut file| file.read_exact(&mut random)).map_err(|error| failed(source, &error))?;
        let (words, _) = random.as_chunks();
        // None may be zero.
        let [span, first, second] = [0, 1, 2].map(|at| u64::from_be_bytes(words[at]) | 1);
        let (trace, parent, flags) = match parent {
            Some(Parent { trace, span, flags }) => (trace, Some(span), flags),
            None => (format!("{first:016x}{second:016x}"), None, "01".to_owned()),
        };
        let begin = timing::begin(format!("00-{trace}-{span:016x}-{flags}"));
        Ok(Some(Self { file, begin, trace, span, parent }))
    }

    /// Writes all phases, and the command as what they are part of.
    pub(crate) fn end(mut self, verb: &Verb, succeeded: bool) {
        let laps = timing::take().unwrap_or_default();
        let parent = self.parent.as_deref().unwrap_or_default();
        let id = verb.id().unwrap_or_default();
        let mut command =
            self.line(self.span, &format!("tare {}", verb.name()), self.begin, timing::now(), ("container", id));
        command["parentSpanId"] = parent.into();
        // STATUS_CODE_OK, STATUS_CODE_ERROR
        command["status"] = json!({ "code": if succeeded { 1 } else { 2 } });
        let mut text = format!("{command}\n");
        for (lap, number) in laps.iter().zip(1..) {
            let Lap { process, step, begin, took } = *lap;
            let end = begin + u64::from(took);
            let mut line =
                self.line(self.span.wrapping_add(number), step.name(), begin, end, ("process", process.name()));
            line["parentSpanId"] = format!("{:016x}", self.span).into();
            text.push_str(&format!("{line}\n"));
        }
        // In one write, as several commands may share the file. It is no reason to fail a container.
        let _may_be_full = self.file.write_all(text.as_bytes());
    }

    fn line(&self, span: u64, name: &str, begin: u64, end: u64, attribute: (&str, &str)) -> serde_json::Value {
        json!({
            "traceId": self.trace, "spanId": format!("{span:016x}"), "name": name, "kind": 1,
            "startTimeUnixNano": begin.to_string(), "endTimeUnixNano": end.to_string(),
            "attributes": [{ "key": attribute.0, "value": { "stringValue": attribute.1 } }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_whole_or_not_at_all() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let parent = Parent { trace: trace.into(), span: span.into(), flags: "01".into() };
        assert_eq!(Parent::parse(&format!("00-{trace}-{span}-01")), Some(parent));
        assert!(Parent::parse(&format!("01-{trace}-{span}-00-more")).is_some());
        for word in [
            "",
            "00",
            &format!("ff-{trace}-{span}-01"),
            &format!("00-{trace}-{span}"),
            &format!("00-{}-{span}-01", trace.to_uppercase()),
            &format!("00-{}-{span}-01", "0".repeat(32)),
            &format!("00-{trace}-{}-01", "0".repeat(16)),
            &format!("00-{trace}-{span}x-01"),
        ] {
            assert_eq!(Parent::parse(word), None, "{word}");
        }
    }
}
