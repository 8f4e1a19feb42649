//! Text to oci-spec's types. The hot path is serde_json alone; only when that refuses is the text looked at again:
//! once for what Go's decoder lets pass and clients therefore write, once for the place of the error.

use std::path::Path;

use oci_spec::runtime::{Capability, LinuxResources, Mount, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::Error;
use crate::check::{self, Finding};
use crate::position::{Position, locate};

/// Decodes the text of a config.json, without checking it. `path` is for errors.
///
/// # Errors
/// One line: path, line, column, JSON pointer, cause.
pub fn spec(path: &Path, text: &[u8]) -> Result<Spec, Error> {
    let mut spec: Spec = decode(path, text, tolerate_spec)?;
    settle(&mut spec, text);
    Ok(spec)
}

/// Decodes and checks the text of a process, as `exec --process` takes it.
///
/// # Errors
/// One line: path, line, column, JSON pointer, cause.
pub fn process(path: &Path, text: &[u8]) -> Result<Process, Error> {
    let process: Process = decode(path, text, tolerate_process)?;
    check::process("", &process).and_then(|()| check::text(text)).map_err(|finding| finding.at(path, text))?;
    Ok(process)
}

/// Decodes limits, as `update --resources` takes them.
///
/// # Errors
/// One line: path, line, column, JSON pointer, cause.
pub fn resources(path: &Path, text: &[u8]) -> Result<LinuxResources, Error> {
    if text.trim_ascii_start().starts_with(b"[") {
        // serde takes an array for a struct, member by member: an empty one would be an update of nothing.
        let cause = "invalid type: array, expected an object".to_owned();
        return Err(Finding { pointer: String::new(), cause }.at(path, text));
    }
    let mut resources: LinuxResources = decode(path, text, tolerate_resources)?;
    check::text(text).map_err(|finding| finding.at(path, text))?;
    settle_pids(&mut resources, text, "/pids/limit");
    Ok(resources)
}

/// Decodes mounts, as `mounts add` takes them: the array, or an object that has it as its member `mounts`.
///
/// # Errors
/// One line: path, line, column, JSON pointer, cause.
pub fn mounts(path: &Path, text: &[u8]) -> Result<Vec<Mount>, Error> {
    #[derive(serde::Deserialize)]
    struct Section {
        mounts: Vec<Mount>,
    }
    let is_array = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let mounts =
        if is_array { decode(path, text, drop_nulls)? } else { decode::<Section>(path, text, drop_nulls)?.mounts };
    check::text(text).map_err(|finding| finding.at(path, text))?;
    Ok(mounts)
}

impl Finding {
    /// The finding as an error of the file `path`, whose text is `text`.
    pub(crate) fn at(&self, path: &Path, text: &[u8]) -> Error {
        let Position { line, column } = locate(text, &self.pointer);
        let separator = if self.pointer.is_empty() { "" } else { ": " };
        let text = format!("{}{separator}{}", self.pointer, self.cause);
        Error::Invalid(format!("{}:{line}:{column}: {}", path.display(), one_line(&text)))
    }
}

/// Names and words of the document may hold line breaks: an error is one line.
pub(crate) fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect::<String>().into()
}

fn decode<T: DeserializeOwned>(path: &Path, text: &[u8], tolerate: fn(&mut Value)) -> Result<T, Error> {
    match serde_json::from_slice(text) {
        Ok(decoded) => Ok(decoded),
        Err(_) => decode_again(path, text, tolerate),
    }
}

/// Apart, since a stack frame is as large as all that is inlined into it, and every page of it is touched.
#[cold]
#[inline(never)]
fn decode_again<T: DeserializeOwned>(path: &Path, text: &[u8], tolerate: fn(&mut Value)) -> Result<T, Error> {
    let mut value: Value = serde_json::from_slice(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::Invalid(format!("{}:{line}:{column}: {}", path.display(), plain(&error)))
    })?;
    tolerate(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer(error.path());
        Finding { pointer, cause: plain(error.inner()) }.at(path, text)
    })
}

/// serde_json's message in the words of JSON, without the position at its end.
pub(crate) fn plain(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    if let Some(stripped) = message.strip_suffix(&position) {
        message.truncate(stripped.len());
    }
    if let Some((before, after)) = message.split_once("expected struct ") {
        let rest = after.split_once(' ').map(|(_, rest)| format!(" {rest}")).unwrap_or_default();
        message = format!("{before}expected an object{rest}");
    }
    for (serde, json) in [
        ("expected a sequence", "expected an array"),
        ("expected a map", "expected an object"),
        ("invalid type: sequence", "invalid type: array"),
        ("invalid type: map", "invalid type: object"),
    ] {
        message = message.replace(serde, json);
    }
    message
}

pub(crate) fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            // The text of the enum is itself the value.
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

/// A member's name as a segment of a JSON pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

pub(crate) fn tolerate_spec(spec: &mut Value) {
    drop_nulls(spec);
    if let Some(members) = spec.as_object_mut() {
        // For other platforms: not ours to judge.
        for platform in ["windows", "solaris", "zos", "vm", "freebsd"] {
            members.remove(platform);
        }
    }
    if let Some(process) = spec.get_mut("process") {
        tolerate_process(process);
    }
    if let Some(resources) = spec.pointer_mut("/linux/resources") {
        tolerate_resources(resources);
    }
}

fn tolerate_process(process: &mut Value) {
    drop_nulls(process);
    let Some(members) = process.as_object_mut() else { return };
    // Go's zero value is uid 0, gid 0.
    members.entry("user").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Some(affinity) = members.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        // "Omitted or empty", says the specification; oci-spec takes no empty list.
        affinity.retain(|_, list| list != "");
    }
    let flags = members.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        // The names of the specification, and how oci-spec 0.10 spells them.
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = Value::from("SCHED_RESET_ON_FORK"),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = Value::from("SCHED_FLAG_D_L_OVERRUN"),
            _ => {}
        }
    }
    let Some(sets) = members.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                // A newer client's list on an older runtime or kernel; runc only warns.
                tracing::warn!("/process/capabilities/{set}: unknown capability {name} ignored");
            }
            known
        });
    }
}

fn tolerate_resources(resources: &mut Value) {
    drop_nulls(resources);
    let rules = resources.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten();
    for rule in rules.filter_map(Value::as_object_mut) {
        // Both "every device" for runc; oci-spec knows the absent one only.
        if rule.get("type").is_some_and(|kind| kind == "") {
            rule.remove("type");
        }
    }
    let limits = resources.get_mut("hugepageLimits").and_then(Value::as_array_mut).into_iter().flatten();
    for limit in limits.filter_map(|limit| limit.get_mut("limit")) {
        // The specification says uint64, oci-spec i64; past i64 both mean "no limit" to the kernel.
        if limit.as_u64().is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            *limit = Value::from(i64::MAX);
        }
    }
}

/// Go's decoder takes null for anything as "not there".
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Brings the several ways to say one thing to one.
pub(crate) fn settle(spec: &mut Spec, text: &[u8]) {
    if let Some(linux) = spec.linux_mut() {
        for namespace in linux.namespaces_mut().iter_mut().flatten() {
            if namespace.path().as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                namespace.set_path(None);
            }
        }
        if let Some(resources) = linux.resources_mut() {
            settle_pids(resources, text, "/linux/resources/pids/limit");
        }
    }
    for (index, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        let destination = mount.destination();
        if destination.is_relative() && !destination.as_os_str().is_empty() {
            tracing::warn!("/mounts/{index}/destination: relative path {destination:?} is taken as relative to /");
            let absolute = Path::new("/").join(destination);
            mount.set_destination(absolute);
        }
    }
}

/// `"pids": {}` limits nothing since runtime-spec 1.3, but decodes as a limit of 0.
fn settle_pids(resources: &mut LinuxResources, text: &[u8], pointer: &str) {
    if resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0) {
        let limit_is_written = serde_json::from_slice::<Value>(text)
            .is_ok_and(|document| document.pointer(pointer).is_some_and(|limit| !limit.is_null()));
        if !limit_is_written {
            resources.set_pids(None);
        }
    }
}
