//! What the types cannot say: pure checks of a decoded configuration. Each names the JSON pointer of its field.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{Hook, Linux, LinuxDeviceType, LinuxNamespaceType, Process, Spec, User};

use crate::decode::escape;

mod attribute;
mod mapping;
mod seccomp;
mod sysctl;
mod text;

pub(crate) use text::all as all_in_text;
pub use text::check as text;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The JSON pointer of the field.
    pub pointer: String,
    /// What is wrong with it.
    pub cause: String,
}

impl Finding {
    fn new(pointer: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), cause: cause.into() }
    }
}

/// The result of a check.
pub type Result = std::result::Result<(), Finding>;

/// What was found so far, in the order of the checks.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, pointer: impl Into<String>, cause: impl Into<String>) {
        self.0.push(Finding::new(pointer, cause));
    }

    fn take(&mut self, result: Result) {
        self.0.extend(result.err());
    }

    fn first(self) -> Result {
        self.0.into_iter().next().map_or(Ok(()), Err)
    }
}

/// Checks a whole configuration: the first thing found is returned.
///
/// # Errors
/// The pointer of a field and what is wrong with it.
pub fn spec(spec: &Spec) -> Result {
    walk(spec).first()
}

/// Everything that is wrong with a configuration.
pub fn all(spec: &Spec) -> Vec<Finding> {
    walk(spec).0
}

fn walk(spec: &Spec) -> Findings {
    let mut found = Findings::default();
    found.take(version(spec.version()));
    match spec.root() {
        Some(root) => found.take(path("/root/path", root.path())),
        None => found.add("/root", "required"),
    }
    match spec.process() {
        Some(process) => walk_process("/process", process, &mut found),
        None => found.add("/process", "required"),
    }
    match spec.linux() {
        Some(linux) => walk_linux(spec, linux, &mut found),
        None => found.add("/linux", "required"),
    }
    found
}

fn walk_linux(spec: &Spec, linux: &Linux, found: &mut Findings) {
    namespaces(linux, found);
    for (field, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if value.as_ref().is_some_and(|name| !name.is_empty()) && !has(linux, LinuxNamespaceType::Uts) {
            found.add(format!("/{field}"), "needs a uts namespace in /linux/namespaces");
        }
    }
    mounts(spec, found);
    hooks(spec, found);
    devices(linux, found);
    mapping::check(spec, linux, found);
    time_offsets(linux, found);
    restricted_paths(spec, linux, found);
    sysctl::check(linux, found);
    memory(linux, found);
    found.take(seccomp::check(linux));
    found.take(attribute::linux(linux));
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => {}
        Some("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable") => {
            if !has(linux, LinuxNamespaceType::Mount) {
                found.add("/linux/rootfsPropagation", "needs a mount namespace in /linux/namespaces");
            }
        }
        Some(other) => found.add("/linux/rootfsPropagation", format!("unknown propagation {other:?}")),
    }
}

/// Whether the container has a namespace of that kind, its own or a joined one.
pub(crate) fn has(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// `major.minor.patch` with an optional suffix, and major 1: minor releases only add.
fn version(version: &str) -> Result {
    if version.is_empty() {
        return Err(Finding::new("/ociVersion", "required"));
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = core.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        (digits && (part == "0" || !part.starts_with('0'))).then_some(part)
    });
    let suffix = &version[core.len()..];
    let suffix_is_well_formed =
        suffix.len() != 1 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(&byte));
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(major)), Some(Some(_)), Some(Some(_)), None) if suffix_is_well_formed => match major {
            "1" => Ok(()),
            _ => Err(Finding::new("/ociVersion", format!("version {version} is not supported, only 1.x is"))),
        },
        _ => Err(Finding::new("/ociVersion", format!("{version:?} is not a semantic version (major.minor.patch)"))),
    }
}

/// Checks a process. `at` is its own pointer, empty for a document that is nothing else.
///
/// # Errors
/// The pointer of a field and what is wrong with it.
pub fn process(at: &str, process: &Process) -> Result {
    let mut found = Findings::default();
    walk_process(at, process, &mut found);
    found.first()
}

fn walk_process(at: &str, process: &Process, found: &mut Findings) {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        found.add(format!("{at}/args"), "must not be empty");
    }
    found.take(absolute(&format!("{at}/cwd"), process.cwd()));
    user(at, process.user(), found);
    for (index, variable) in process.env().iter().flatten().enumerate() {
        if variable.find('=').is_none_or(|equals| equals == 0) {
            found.add(format!("{at}/env/{index}"), format!("{variable:?} is not NAME=value"));
        }
    }
    let mut seen = HashMap::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let pointer = || format!("{at}/rlimits/{index}");
        if let Some(first) = seen.insert(limit.typ().to_string(), index) {
            found.add(pointer(), format!("{} is already set by {at}/rlimits/{first}", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            found.add(pointer(), format!("soft limit {} is above hard limit {}", limit.soft(), limit.hard()));
        }
    }
    if let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) {
        for (field, value) in [("height", size.height()), ("width", size.width())] {
            // struct winsize holds unsigned shorts.
            if value > u64::from(u16::MAX) {
                found.add(format!("{at}/consoleSize/{field}"), format!("{value} is above 65535"));
            }
        }
    }
    found.take(attribute::process(at, process));
    if let Some(value) = process.oom_score_adj().filter(|value| !(-1000..=1000).contains(value)) {
        found.add(format!("{at}/oomScoreAdj"), format!("{value} is outside -1000..1000"));
    }
}

fn user(at: &str, user: &User, found: &mut Findings) {
    let own = [("uid".to_owned(), user.uid()), ("gid".to_owned(), user.gid())];
    let more = user.additional_gids().iter().flatten().enumerate();
    let more = more.map(|(index, &gid)| (format!("additionalGids/{index}"), gid));
    for (field, id) in own.into_iter().chain(more) {
        // To setresuid(2) that is -1, "leave as it is": the process would stay root.
        if id == u32::MAX {
            found.add(format!("{at}/user/{field}"), format!("{id} is not an id"));
        }
    }
}

fn path(pointer: &str, path: &Path) -> Result {
    if path.as_os_str().is_empty() {
        return Err(Finding::new(pointer, "must not be empty"));
    }
    Ok(())
}

fn absolute(pointer: &str, path: &Path) -> Result {
    self::path(pointer, path)?;
    if path.is_relative() {
        return Err(Finding::new(pointer, format!("must be an absolute path, not {path:?}")));
    }
    Ok(())
}

fn mounts(spec: &Spec, found: &mut Findings) {
    let has_user = spec.linux().as_ref().is_some_and(|linux| has(linux, LinuxNamespaceType::User));
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        found.take(path(&format!("/mounts/{index}/destination"), mount.destination()));
        let (uids, gids) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
        let (uids, gids) = (uids.unwrap_or_default(), gids.unwrap_or_default());
        for (field, list, other) in [("uidMappings", uids, gids), ("gidMappings", gids, uids)] {
            let pointer = format!("/mounts/{index}/{field}");
            if list.is_empty() && !other.is_empty() {
                found.add(&pointer, "uidMappings and gidMappings need each other");
            }
            mapping::list(&pointer, list, found);
        }
        let mut options = mount.options().iter().flatten();
        let by_option = options.position(|option| matches!(option.as_str(), "idmap" | "ridmap"));
        if let Some(option) = by_option.filter(|_| uids.is_empty() && !has_user) {
            let cause = "needs uidMappings and gidMappings of the mount, or a user namespace in /linux/namespaces";
            found.add(format!("/mounts/{index}/options/{option}"), cause);
        }
    }
}

fn hooks(spec: &Spec, found: &mut Findings) {
    let Some(hooks) = spec.hooks() else { return };
    let lists: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, list) in lists {
        for (index, hook) in list.iter().flatten().enumerate() {
            found.take(absolute(&format!("/hooks/{name}/{index}/path"), hook.path()));
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                found.add(format!("/hooks/{name}/{index}/timeout"), "must be greater than zero");
            }
        }
    }
}

fn namespaces(linux: &Linux, found: &mut Findings) {
    let mut seen = HashMap::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        if let Some(first) = seen.insert(namespace.typ() as u64, index) {
            let cause = format!("{} is already given by /linux/namespaces/{first}", namespace.typ());
            found.add(format!("/linux/namespaces/{index}"), cause);
        }
        if let Some(path) = namespace.path() {
            found.take(absolute(&format!("/linux/namespaces/{index}/path"), path));
        }
    }
}

fn devices(linux: &Linux, found: &mut Findings) {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        found.take(absolute(&format!("/linux/devices/{index}/path"), device.path()));
        if device.typ() == LinuxDeviceType::A {
            found.add(format!("/linux/devices/{index}/type"), "\"a\" is not the type of a node");
        }
    }
}

fn time_offsets(linux: &Linux, found: &mut Findings) {
    let mut offsets: Vec<_> = linux.time_offsets().iter().flatten().collect();
    // A map has no order: the same errors in the same order every time.
    offsets.sort_by_key(|(clock, _)| *clock);
    for (clock, offset) in offsets {
        let pointer = format!("/linux/timeOffsets/{}", escape(clock));
        let time = linux.namespaces().iter().flatten().find(|one| one.typ() == LinuxNamespaceType::Time);
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            found.add(pointer, "unknown clock, only monotonic and boottime can be shifted");
        } else if time.is_none() {
            found.add(pointer, "needs a time namespace in /linux/namespaces");
        } else if time.is_some_and(|time| time.path().is_some()) {
            found.add(pointer, "needs a new time namespace: those of one that is joined are fixed");
        } else if offset.nanosecs().is_some_and(|nanosecs| nanosecs >= 1_000_000_000) {
            found.add(format!("{pointer}/nanosecs"), "must be below 1000000000");
        }
    }
}

fn restricted_paths(spec: &Spec, linux: &Linux, found: &mut Findings) {
    let has_mount = has(linux, LinuxNamespaceType::Mount);
    for (field, list) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        let list = list.as_deref().unwrap_or_default();
        for (index, path) in list.iter().enumerate() {
            found.take(absolute(&format!("/linux/{field}/{index}"), Path::new(path)));
        }
        if !has_mount && !list.is_empty() {
            found.add(format!("/linux/{field}"), "needs a mount namespace in /linux/namespaces");
        }
    }
    if !has_mount && spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        found.add("/root/readonly", "needs a mount namespace in /linux/namespaces");
    }
}

/// What neither version of cgroups takes.
fn memory(linux: &Linux, found: &mut Findings) {
    const AT: &str = "/linux/resources/memory";
    let Some(memory) = linux.resources().as_ref().and_then(|resources| resources.memory().as_ref()) else { return };
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit(), memory.swap())
        && swap < limit
    {
        found.add(format!("{AT}/swap"), format!("memory and swap together, {swap}, is below the memory limit {limit}"));
    }
    if let Some(swappiness) = memory.swappiness().filter(|swappiness| *swappiness > 100) {
        found.add(format!("{AT}/swappiness"), format!("{swappiness} is not in 0..=100"));
    }
}

#[cfg(test)]
mod tests;
