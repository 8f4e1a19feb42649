//! A plan in words: every step of `create` and `start`, without taking any. For `check --plan`.

use oci_spec::runtime::{Hook, LinuxNamespaceType, LinuxSeccomp};
use serde::Serialize;
use tare_spec::Bundle;

use super::Plan;
use super::mounts::{Kind, MountPlan};
use crate::Result;
use crate::cgroup::outline::{DEVICES, Version, Write, version, writes};
use crate::cgroup::{Driver, Location};
use crate::step::Step;

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// The phase: `make cgroup`, `mount`.
    pub step: &'static str,
    /// The JSON pointer of the field that asks for it; empty for what every container gets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// In one line.
    pub action: String,
    /// What the field's value became, where that is not the value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Everything that `create` and `start` would do, in order. Nothing is opened, written or run.
///
/// # Errors
/// What the cgroups at `location` cannot do.
pub fn outline(plan: &Plan, bundle: &Bundle, location: &Location) -> Result<Vec<Action>> {
    let mut list = List(Vec::new());
    let devices = list.cgroup(plan, location)?;
    list.processes(plan, location, &devices);
    list.root(plan, bundle);
    list.hooks(Step::Prestart, "prestart", &plan.hooks.prestart);
    list.hooks(Step::CreateRuntime, "createRuntime", &plan.hooks.create_runtime);
    list.hooks(Step::CreateContainer, "createContainer", &plan.hooks.create_container);
    list.enter(plan);
    list.process(plan, bundle);
    list.hooks(Step::StartContainer, "startContainer", &plan.hooks.start_container);
    let argv: Vec<_> = plan.process.args.iter().map(|arg| arg.to_string_lossy()).collect();
    list.add(Step::Exec, "/process/args", format!("execve {argv:?} with {} variables", plan.process.env.len()));
    list.hooks(Step::Poststart, "poststart", &plan.hooks.poststart);
    list.add(Step::Remove, "", "on delete: kill what is left, remove the cgroup and the state");
    list.hooks(Step::Poststop, "poststop", &plan.hooks.poststop);
    Ok(list.0)
}

struct List(Vec<Action>);

impl List {
    fn add(&mut self, step: Step, field: &str, action: impl Into<String>) {
        self.0.push(Action { step: step.name(), field: field.to_owned(), action: action.into(), note: None });
    }

    fn note(&mut self, note: String) {
        if let Some(last) = self.0.last_mut() {
            last.note = Some(note);
        }
    }

    /// Returns what is to be written once stage 1 is there: about devices.
    fn cgroup(&mut self, plan: &Plan, location: &Location) -> Result<Vec<Write>> {
        if location.driver == Driver::Disabled || location.directories.is_empty() {
            self.add(Step::MakeCgroup, "", "stay in the caller's cgroup, without limits");
            return Ok(Vec::new());
        }
        for directory in &location.directories {
            let action = match &location.unit {
                // Its own hierarchy; the others are made beside.
                Some(unit) if matches!(directory.hierarchy.as_str(), "" | "name=systemd") => {
                    format!(
                        "let systemd start {:?} in {:?}, with stage 1 in {:?}",
                        unit.name, unit.slice, directory.path
                    )
                }
                _ => format!("mkdir {:?}", directory.path),
            };
            self.add(Step::MakeCgroup, "/linux/cgroupsPath", action);
        }
        let v2 = version(location) == Some(Version::V2);
        let (devices, limits): (Vec<_>, Vec<_>) =
            writes(location, &plan.resources)?.into_iter().partition(|write| write.field == DEVICES);
        for write in limits {
            let field = pointer(&write.field);
            self.add(Step::MakeCgroup, &field, format!("write {:?} to {:?}", write.value, write.path));
            match (&write.rather, v2.then(|| translation(&field)).flatten()) {
                (Some((path, value)), _) => {
                    self.note(format!("or {value:?} to {path:?}, where the kernel has that file"))
                }
                (None, Some(translation)) => self.note(translation.to_owned()),
                (None, None) => {}
            }
        }
        if let (true, Some(uid)) = (v2, plan.cgroup_owner) {
            self.add(
                Step::MakeCgroup,
                "/mounts",
                format!("give the cgroup to user {uid}, as the kernel's list of files says"),
            );
        }
        Ok(devices)
    }

    fn processes(&mut self, plan: &Plan, location: &Location, devices: &[Write]) {
        let own = location.unit.is_none();
        let into = location.directories.iter().find(|directory| own && directory.hierarchy.is_empty());
        let into = into.map(|directory| format!(" into {:?}", directory.path)).unwrap_or_default();
        self.add(Step::Fork, "", format!("fork stage 1{into}"));
        for write in devices {
            let action = format!("write {:?} to {:?}", write.value, write.path);
            self.add(Step::AllowDevices, &pointer(&write.field), action);
        }
        let hierarchies = location.directories.iter().filter(|directory| !directory.hierarchy.is_empty()).count();
        if hierarchies > 0 {
            self.add(Step::EnterCgroup, "", format!("enter {hierarchies} hierarchies of cgroup v1"));
        }
        for (typ, path) in &plan.namespaces.joined {
            self.add(Step::JoinNamespaces, "/linux/namespaces", format!("join the {typ} namespace {path:?}"));
        }
        if plan.namespaces.makes(LinuxNamespaceType::User) {
            self.add(Step::MapIds, "/linux/namespaces", "make a user namespace");
            for (field, map) in [("uidMappings", &plan.id_mappings.uid), ("gidMappings", &plan.id_mappings.gid)] {
                for (index, one) in map.iter().enumerate() {
                    let (inside, outside, size) = (one.container_id(), one.host_id(), one.size());
                    let what = format!("map {size} from {inside} in the container to {outside} on the host");
                    self.add(Step::MapIds, &format!("/linux/{field}/{index}"), what);
                }
            }
        }
        if plan.namespaces.makes(LinuxNamespaceType::Time) {
            self.add(Step::SetClocks, "/linux/namespaces", "make a time namespace");
            for line in plan.time_offsets.lines() {
                self.add(Step::SetClocks, "/linux/timeOffsets", format!("shift {line}"));
            }
        }
        let separate = [LinuxNamespaceType::User, LinuxNamespaceType::Time];
        let made: Vec<String> =
            plan.namespaces.new.iter().filter(|typ| !separate.contains(typ)).map(ToString::to_string).collect();
        let made = if made.is_empty() {
            "no new namespace".to_owned()
        } else {
            format!("new namespaces: {}", made.join(", "))
        };
        self.add(Step::ForkInit, "/linux/namespaces", format!("fork stage 2, init, with {made}"));
        match &plan.keyring {
            Some(name) => self.add(Step::Session, "", format!("new session, session keyring {name:?}")),
            None => self.add(Step::Session, "", "new session, the caller's keyring"),
        }
        if let Some(value) = plan.process.oom_score_adj {
            self.add(Step::Session, "/process/oomScoreAdj", format!("write {value} to oom_score_adj"));
        }
        if plan.namespaces.makes(LinuxNamespaceType::Network) {
            self.add(Step::Network, "", "bring lo up");
        }
        for (path, value) in &plan.sysctl {
            self.add(Step::Sysctl, "/linux/sysctl", format!("write {value:?} to /proc/{path}"));
        }
    }

    fn root(&mut self, plan: &Plan, bundle: &Bundle) {
        let spec = &bundle.spec;
        let has_mount = plan.namespaces.has(LinuxNamespaceType::Mount);
        if has_mount {
            let linux = spec.linux().as_ref();
            let name = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).filter(|name| !name.is_empty());
            let propagation = name.unwrap_or("rslave");
            self.add(Step::AttachRoot, "/linux/rootfsPropagation", format!("make the host's mounts {propagation}"));
            self.add(Step::AttachRoot, "/root/path", format!("bind {:?} on itself", plan.rootfs));
        }
        for mount in &plan.mounts {
            let configured = spec.mounts().as_ref().and_then(|mounts| mounts.get(mount.index));
            let options = configured.and_then(|mount| mount.options().as_deref()).unwrap_or_default();
            self.add(Step::Mount, &format!("/mounts/{}", mount.index), describe(mount, options));
        }
        let how = if plan.namespaces.has(LinuxNamespaceType::User) { "bind from the host" } else { "make" };
        self.add(
            Step::Devices,
            "",
            format!("{how} /dev/null, random, full, tty, zero, urandom; link /dev/fd, stdin, stdout, stderr, ptmx"),
        );
        for (index, device) in plan.devices.iter().enumerate() {
            let typ = device.typ();
            let typ = typ.as_str();
            let (path, major, minor) = (device.path(), device.major(), device.minor());
            self.add(
                Step::Devices,
                &format!("/linux/devices/{index}"),
                format!("{how} {path:?} {typ} {major}:{minor}"),
            );
        }
    }

    fn enter(&mut self, plan: &Plan) {
        let has_mount = plan.namespaces.has(LinuxNamespaceType::Mount);
        let how = match (has_mount, plan.no_pivot) {
            (false, _) => "chroot",
            (true, true) => "move the root, chroot",
            (true, false) => "pivot_root",
        };
        self.add(Step::EnterRoot, "/root/path", how);
        if plan.process.terminal {
            self.add(
                Step::Console,
                "/process/terminal",
                "allocate a pty, bind it on /dev/console, hand its master out",
            );
        }
        if let Some(name) = &plan.hostname {
            self.add(Step::Hostname, "/hostname", format!("sethostname {name:?}"));
        }
        if let Some(name) = &plan.domainname {
            self.add(Step::Hostname, "/domainname", format!("setdomainname {name:?}"));
        }
        for (index, path) in plan.read_only_paths.iter().enumerate() {
            self.add(Step::Seal, &format!("/linux/readonlyPaths/{index}"), format!("make {path:?} read-only"));
        }
        for (index, path) in plan.masked_paths.iter().enumerate() {
            self.add(Step::Seal, &format!("/linux/maskedPaths/{index}"), format!("mask {path:?}"));
        }
        if plan.read_only_root {
            self.add(Step::Seal, "/root/readonly", "make the root read-only");
        }
    }

    fn process(&mut self, plan: &Plan, bundle: &Bundle) {
        let process = &plan.process;
        for (index, limit) in process.rlimits.iter().enumerate() {
            let value = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
            let (typ, soft, hard) = (limit.typ, value(limit.soft), value(limit.hard));
            self.add(Step::Rlimits, &format!("/process/rlimits/{index}"), format!("{typ} soft {soft} hard {hard}"));
        }
        self.add(Step::Credentials, "/process/user/umask", format!("umask {:04o}", process.umask));
        let groups: Vec<u32> = process.additional_gids.iter().map(|gid| gid.as_raw()).collect();
        let who = format!("become {}:{} with groups {groups:?}", process.uid, process.gid);
        self.add(Step::Credentials, "/process/user", who);
        self.add(Step::Credentials, "/process/cwd", format!("chdir {:?}, made if it is missing", process.cwd));
        let sets = bundle.spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
        let lists = sets.map(|sets| {
            [
                ("bounding", sets.bounding()),
                ("effective", sets.effective()),
                ("permitted", sets.permitted()),
                ("inheritable", sets.inheritable()),
                ("ambient", sets.ambient()),
            ]
        });
        for (name, set) in lists.into_iter().flatten() {
            let mut names: Vec<String> = set.iter().flatten().map(|one| format!("CAP_{one}")).collect();
            names.sort_unstable();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
            self.add(Step::Credentials, &format!("/process/capabilities/{name}"), format!("{name}: {names}"));
        }
        if sets.is_none() {
            self.add(Step::Credentials, "/process/capabilities", "no capabilities");
        }
        if process.no_new_privileges {
            self.add(Step::Credentials, "/process/noNewPrivileges", "set no_new_privs");
        }
        if let Some(seccomp) = bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
            self.add(Step::Credentials, "/linux/seccomp", summarize(seccomp));
        }
        let name = process.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.add(Step::FindProgram, "/process/args/0", format!("find {name:?}"));
        self.add(Step::AwaitStart, "", "create ends here; start goes on");
    }

    fn hooks(&mut self, step: Step, name: &str, hooks: &[Hook]) {
        for (index, hook) in hooks.iter().enumerate() {
            let args = hook.args().as_deref().unwrap_or_default();
            let timeout = hook.timeout().map(|seconds| format!(", killed after {seconds} s")).unwrap_or_default();
            self.add(step, &format!("/hooks/{name}/{index}"), format!("run {:?} {args:?}{timeout}", hook.path()));
        }
    }
}

fn describe(plan: &MountPlan, options: &[String]) -> String {
    let on = &plan.destination;
    let mut text = match &plan.kind {
        Kind::Bind { source, .. } => format!("bind {source:?} on {on:?}"),
        Kind::Fs(fs) => {
            let source = fs.source.as_ref().map(|source| format!(" ({})", source.display())).unwrap_or_default();
            format!("mount {}{source} on {on:?}", fs.fstype.display())
        }
        Kind::Remount => format!("change the attributes of the mount on {on:?}"),
        Kind::Cgroup { .. } => format!("mount the container's cgroup on {on:?}"),
    };
    if !options.is_empty() {
        text.push_str(&format!(": {}", options.join(",")));
    }
    text
}

/// How cgroup v2 counts what the specification says in the terms of v1.
fn translation(field: &str) -> Option<&'static str> {
    Some(match field.strip_prefix("/linux/resources/")? {
        "cpu/shares" => "shares 2..262144 as a weight 1..10000: 10^((l²+125l)/612-7/34) with l = log2(shares)",
        "memory/swap" => "the specification counts memory and swap together, cgroup v2 swap alone: the difference",
        "memory/reservation" => "the soft limit of v1 is memory.low on v2",
        "blockIO/weight" | "blockIO/weightDevice" => "10..1000 as 1..10000: 1+(weight-10)*9999/990",
        _ => return None,
    })
}

/// `linux.resources.cpu.shares` as `/linux/resources/cpu/shares`; `rdma["mlx"]` and `devices[0]` lead to their member.
pub fn pointer(field: &str) -> String {
    let mut pointer = String::new();
    let mut rest = field;
    while !rest.is_empty() {
        if let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let key = index.trim_matches('"').replace('~', "~0").replace('/', "~1");
            if !key.is_empty() {
                pointer.push_str(&format!("/{key}"));
            }
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end > 0 {
                pointer.push_str(&format!("/{}", &rest[..end]));
            }
            rest = match &rest[end..] {
                // A bracket that nobody closes ends it.
                open if open.starts_with('[') && !open.contains(']') => "",
                after => after.strip_prefix('.').unwrap_or(after),
            };
        }
    }
    pointer
}

fn summarize(seccomp: &LinuxSeccomp) -> String {
    let rules = seccomp.syscalls().as_deref().unwrap_or_default();
    let names: usize = rules.iter().map(|rule| rule.names().len()).sum();
    let action = seccomp.default_action();
    format!("load a seccomp filter: {} rules for {names} system calls, others {action}", rules.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_in_words_becomes_a_pointer() {
        for (field, expected) in [
            ("linux.resources.cpu.shares", "/linux/resources/cpu/shares"),
            ("mounts[3].options", "/mounts/3/options"),
            ("mounts[3]", "/mounts/3"),
            ("linux.resources.rdma[\"mlx/5\"]", "/linux/resources/rdma/mlx~15"),
            ("linux.resources.blockIO.weightDevice[].leafWeight", "/linux/resources/blockIO/weightDevice/leafWeight"),
            ("process", "/process"),
            ("", ""),
            ("[", ""),
            ("a..b[", "/a/b"),
        ] {
            // An unfinished bracket must not keep it here for ever.
            assert_eq!(pointer(field), expected, "{field}");
        }
    }
}
