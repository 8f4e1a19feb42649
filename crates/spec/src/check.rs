//! What the types cannot say: pure checks of a decoded configuration. Each names the JSON pointer of its field.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{Hook, Linux, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Process, Spec, User};

use crate::decode::escape;

mod sysctl;
mod text;

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

    /// Fields that are asked for and not implemented.
    pub(crate) fn unsupported(fields: &[String]) -> Self {
        let others = match fields {
            [] | [_] => String::new(),
            [_, others @ ..] => format!(" (nor {})", others.join(", ")),
        };
        Self::new(fields.first().cloned().unwrap_or_default(), format!("not supported by this version of tare{others}"))
    }
}

/// The result of a check.
pub type Result = std::result::Result<(), Finding>;

/// Checks a whole configuration: the first thing found is returned.
///
/// # Errors
/// The pointer of a field and what is wrong with it.
pub fn spec(spec: &Spec) -> Result {
    version(spec.version())?;
    let Some(root) = spec.root() else { return Err(Finding::new("/root", "required")) };
    path("/root/path", root.path())?;
    let Some(process) = spec.process() else { return Err(Finding::new("/process", "required")) };
    self::process("/process", process)?;
    let Some(linux) = spec.linux() else { return Err(Finding::new("/linux", "required")) };
    namespaces(linux)?;
    for (field, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if value.as_ref().is_some_and(|name| !name.is_empty()) && !has(linux, LinuxNamespaceType::Uts) {
            return Err(Finding::new(format!("/{field}"), "needs a uts namespace in /linux/namespaces"));
        }
    }
    mounts(spec)?;
    hooks(spec)?;
    devices(linux)?;
    id_mappings(linux)?;
    time_offsets(linux)?;
    restricted_paths(linux)?;
    sysctl::check(linux)?;
    match linux.rootfs_propagation().as_deref() {
        None
        | Some(
            "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable",
        ) => Ok(()),
        Some(other) => Err(Finding::new("/linux/rootfsPropagation", format!("unknown propagation {other:?}"))),
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
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Finding::new(format!("{at}/args"), "must not be empty"));
    }
    absolute(&format!("{at}/cwd"), process.cwd())?;
    user(at, process.user())?;
    for (index, variable) in process.env().iter().flatten().enumerate() {
        if variable.find('=').is_none_or(|equals| equals == 0) {
            return Err(Finding::new(format!("{at}/env/{index}"), format!("{variable:?} is not NAME=value")));
        }
    }
    let mut seen = HashMap::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let pointer = format!("{at}/rlimits/{index}");
        if let Some(first) = seen.insert(limit.typ().to_string(), index) {
            return Err(Finding::new(pointer, format!("{} is already set by {at}/rlimits/{first}", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            let cause = format!("soft limit {} is above hard limit {}", limit.soft(), limit.hard());
            return Err(Finding::new(pointer, cause));
        }
    }
    if let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) {
        for (field, value) in [("height", size.height()), ("width", size.width())] {
            // struct winsize holds unsigned shorts.
            if value > u64::from(u16::MAX) {
                return Err(Finding::new(format!("{at}/consoleSize/{field}"), format!("{value} is above 65535")));
            }
        }
    }
    match process.oom_score_adj() {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(Finding::new(format!("{at}/oomScoreAdj"), format!("{value} is outside -1000..1000")))
        }
        _ => Ok(()),
    }
}

fn user(at: &str, user: &User) -> Result {
    let own = [("uid".to_owned(), user.uid()), ("gid".to_owned(), user.gid())];
    let more = user.additional_gids().iter().flatten().enumerate();
    let more = more.map(|(index, &gid)| (format!("additionalGids/{index}"), gid));
    for (field, id) in own.into_iter().chain(more) {
        // To setresuid(2) that is -1, "leave as it is": the process would stay root.
        if id == u32::MAX {
            return Err(Finding::new(format!("{at}/user/{field}"), format!("{id} is not an id")));
        }
    }
    Ok(())
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

fn mounts(spec: &Spec) -> Result {
    let has_user = spec.linux().as_ref().is_some_and(|linux| has(linux, LinuxNamespaceType::User));
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        path(&format!("/mounts/{index}/destination"), mount.destination())?;
        let (uids, gids) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
        let (uids, gids) = (uids.unwrap_or_default(), gids.unwrap_or_default());
        for (field, list, other) in [("uidMappings", uids, gids), ("gidMappings", gids, uids)] {
            let pointer = format!("/mounts/{index}/{field}");
            if list.is_empty() && !other.is_empty() {
                return Err(Finding::new(pointer, "uidMappings and gidMappings need each other"));
            }
            id_ranges(&pointer, list)?;
        }
        let options = mount.options().iter().flatten();
        let by_option = options.clone().position(|option| matches!(option.as_str(), "idmap" | "ridmap"));
        if let Some(option) = by_option.filter(|_| uids.is_empty() && !has_user) {
            let cause = "needs uidMappings and gidMappings of the mount, or a user namespace in /linux/namespaces";
            return Err(Finding::new(format!("/mounts/{index}/options/{option}"), cause));
        }
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
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
            absolute(&format!("/hooks/{name}/{index}/path"), hook.path())?;
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(Finding::new(format!("/hooks/{name}/{index}/timeout"), "must be greater than zero"));
            }
        }
    }
    Ok(())
}

fn namespaces(linux: &Linux) -> Result {
    let mut seen = HashMap::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        if let Some(first) = seen.insert(namespace.typ() as u64, index) {
            let cause = format!("{} is already given by /linux/namespaces/{first}", namespace.typ());
            return Err(Finding::new(format!("/linux/namespaces/{index}"), cause));
        }
        if let Some(path) = namespace.path() {
            absolute(&format!("/linux/namespaces/{index}/path"), path)?;
        }
    }
    Ok(())
}

fn devices(linux: &Linux) -> Result {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        absolute(&format!("/linux/devices/{index}/path"), device.path())?;
        if device.typ() == LinuxDeviceType::A {
            return Err(Finding::new(format!("/linux/devices/{index}/type"), "\"a\" is not the type of a node"));
        }
    }
    Ok(())
}

fn id_mappings(linux: &Linux) -> Result {
    let user_namespace = linux.namespaces().iter().flatten().find(|one| one.typ() == LinuxNamespaceType::User);
    for (field, list) in [("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings())] {
        let pointer = format!("/linux/{field}");
        let list: &[LinuxIdMapping] = list.as_deref().unwrap_or_default();
        match user_namespace {
            None if !list.is_empty() => {
                return Err(Finding::new(pointer, "needs a user namespace in /linux/namespaces"));
            }
            Some(namespace) if list.is_empty() && namespace.path().is_none() => {
                return Err(Finding::new(pointer, "a new user namespace needs a mapping"));
            }
            _ => id_ranges(&pointer, list)?,
        }
    }
    Ok(())
}

/// Checks a list of mappings as the kernel will.
fn id_ranges(pointer: &str, list: &[LinuxIdMapping]) -> Result {
    // UID_GID_MAP_MAX_EXTENTS since Linux 4.15; the kernel answers EINVAL to more.
    const MOST: usize = 340;
    if list.len() > MOST {
        return Err(Finding::new(pointer, format!("{} mappings, the kernel takes {MOST}", list.len())));
    }
    for (index, mapping) in list.iter().enumerate() {
        let fits = |first: u32| first.checked_add(mapping.size() - 1).is_some_and(|last| last != u32::MAX);
        let cause = match mapping.size() {
            0 => "size must not be 0",
            _ if !fits(mapping.container_id()) || !fits(mapping.host_id()) => "exceeds the range of ids",
            _ => continue,
        };
        return Err(Finding::new(format!("{pointer}/{index}"), cause));
    }
    Ok(())
}

fn time_offsets(linux: &Linux) -> Result {
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let pointer = format!("/linux/timeOffsets/{}", escape(clock));
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Finding::new(pointer, "unknown clock, only monotonic and boottime can be shifted"));
        }
        if !has(linux, LinuxNamespaceType::Time) {
            return Err(Finding::new(pointer, "needs a time namespace in /linux/namespaces"));
        }
        if offset.nanosecs().is_some_and(|nanosecs| nanosecs >= 1_000_000_000) {
            return Err(Finding::new(format!("{pointer}/nanosecs"), "must be below 1000000000"));
        }
    }
    Ok(())
}

fn restricted_paths(linux: &Linux) -> Result {
    for (field, list) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        for (index, path) in list.iter().flatten().enumerate() {
            absolute(&format!("/linux/{field}/{index}"), Path::new(path))?;
            if !has(linux, LinuxNamespaceType::Mount) {
                return Err(Finding::new(format!("/linux/{field}"), "needs a mount namespace in /linux/namespaces"));
            }
        }
    }
    Ok(())
}

fn given(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// A field that is not implemented yet, and whether a configuration asks for it. To implement one: delete its line.
type NotYet<T> = (&'static str, fn(&T) -> bool);

const NOT_YET_IN_PROCESS: &[NotYet<Process>] = &[
    ("apparmorProfile", |process| given(process.apparmor_profile().as_ref())),
    ("selinuxLabel", |process| given(process.selinux_label().as_ref())),
    ("scheduler", |process| process.scheduler().is_some()),
    ("ioPriority", |process| process.io_priority().is_some()),
    ("execCPUAffinity", |process| process.exec_cpu_affinity().is_some()),
];

const NOT_YET_IN_LINUX: &[NotYet<Linux>] = &[
    ("seccomp", |linux| linux.seccomp().is_some()),
    ("mountLabel", |linux| given(linux.mount_label().as_ref())),
    ("memoryPolicy", |linux| linux.memory_policy().is_some()),
    ("intelRdt", |linux| linux.intel_rdt().is_some()),
    ("netDevices", |linux| linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
    ("personality", |linux| linux.personality().is_some()),
];

/// The pointers of what the process at `at` asks for and this version does not implement.
pub fn unsupported_in_process(at: &str, process: &Process) -> Vec<String> {
    let asked = NOT_YET_IN_PROCESS.iter().filter(|(_, is_asked)| is_asked(process));
    asked.map(|(field, _)| format!("{at}/{field}")).collect()
}

/// The pointers of what the configuration asks for and this version does not implement: refused, never ignored.
pub fn unsupported(spec: &Spec) -> Vec<String> {
    let mut fields = Vec::new();
    if let Some(linux) = spec.linux() {
        let asked = NOT_YET_IN_LINUX.iter().filter(|(_, is_asked)| is_asked(linux));
        fields.extend(asked.map(|(field, _)| format!("/linux/{field}")));
    }
    if let Some(process) = spec.process() {
        fields.extend(unsupported_in_process("/process", process));
    }
    fields
}

#[cfg(test)]
mod tests;
