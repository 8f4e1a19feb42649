//! The runtime under test.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Bundle, Container, Invocation, Output, Residue, TempDir, host};

/// Which runtime it is. Tests expect the same of each, but for what [`crate::known!`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Tare,
    /// opencontainers/runc
    Runc,
    /// containers/crun
    Crun,
    /// youki-dev/youki
    Youki,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tare => "tare",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
        })
    }
}

/// A runtime with a `--root` of its own. When it is dropped, nothing of its containers may be left on the host.
#[derive(Debug)]
pub struct Runtime {
    kind: Kind,
    program: PathBuf,
    dir: TempDir,
    tag: String,
    cgroup2: bool,
    systemd: bool,
    user: Option<u32>,
    /// What goes around each command, as root: see [`Invocation::through_shell`].
    around: Vec<String>,
    /// The same with the user's rights.
    inside: Vec<String>,
    leaves: bool,
}

impl Runtime {
    /// The runtime that `TARE_UNDER_TEST` names (`tare`, `runc`, `crun`, `youki` or a path), by default `tare`: the
    /// path of the binary that cargo has built.
    pub fn from_env(tare: &str) -> Self {
        let named = std::env::var("TARE_UNDER_TEST").unwrap_or_default();
        Self::of(if named.is_empty() || named == "tare" { tare } else { &named })
    }

    /// The runtime of this name or path: for a test that looks at two beside each other.
    pub fn of(program: &str) -> Self {
        let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
        let kind = match name {
            name if name.contains("runc") => Kind::Runc,
            name if name.contains("crun") => Kind::Crun,
            name if name.contains("youki") => Kind::Youki,
            _ => Kind::Tare,
        };
        // The last letter keeps one tag from being the beginning of another.
        let tag = format!("tk{}x{}e", std::process::id(), crate::fixture::next());
        Self {
            kind,
            program: program.into(),
            dir: TempDir::new(&tag),
            tag,
            cgroup2: false,
            systemd: systemd_driver(),
            user: None,
            around: Vec::new(),
            inside: Vec::new(),
            leaves: false,
        }
    }

    /// The program, for a test that starts it in its own way.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same, with a pure cgroup2 in place of the host's cgroup mounts: each command runs in a mount namespace of
    /// its own that has it on /sys/fs/cgroup. A host of v2 has it there, and mount(2) refuses it a second time.
    #[must_use]
    pub fn on_cgroup2(mut self) -> Self {
        self.cgroup2 = host::cgroup_mode() != host::CgroupMode::V2;
        self
    }

    /// The same, run by an ordinary user: no privileges, no groups, nothing in the environment that is root's. Bundles
    /// have to be that user's too, see [`Bundle::owned_by`]. The user has not logged in, so no systemd is theirs.
    #[must_use]
    pub fn as_user(mut self, uid: u32) -> Self {
        self.systemd = false;
        std::os::unix::fs::chown(self.dir.path(), Some(uid), Some(uid)).unwrap();
        self.user = Some(uid);
        self
    }

    /// The same, with each command run by a shell script as its `"$@"`, as root, before the user's rights are all that
    /// is left.
    #[must_use]
    pub fn around(mut self, script: impl Into<String>) -> Self {
        self.around.push(script.into());
        self
    }

    /// As [`Runtime::around`], with the user's rights.
    #[must_use]
    pub fn inside(mut self, script: impl Into<String>) -> Self {
        self.inside.push(script.into());
        self
    }

    /// Do not look for residue at the end: the test is about it, or the runtime is known to leave some.
    pub fn leaves_residue(&mut self) {
        self.leaves = true;
    }

    /// Which runtime this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is ours.
    pub fn is_tare(&self) -> bool {
        self.kind == Kind::Tare
    }

    /// Whether it is this one, in a release whose version begins so (all do with "").
    ///
    /// # Panics
    /// If it does not tell its version.
    pub fn is_release(&self, kind: Kind, version: &str) -> bool {
        if self.kind != kind || version.is_empty() {
            return self.kind == kind;
        }
        // runc version 1.1.5+ds1
        let output = Invocation::new(&self.program, &self.dir).arg("--version").run().ok();
        let told = output.lines().first().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
        told.starts_with(version)
    }

    /// The `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A directory of this test.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// What all ids of this runtime's containers begin with; no one else's do.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// An id no one else uses.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{}-{name}", self.tag, crate::fixture::next())
    }

    /// The same, with systemd making the cgroups, whatever `TARE_CGROUP_DRIVER` says.
    #[must_use]
    pub fn on_systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// Whether cgroups are made by systemd: `TARE_CGROUP_DRIVER=systemd`.
    pub fn uses_systemd(&self) -> bool {
        self.systemd
    }

    /// Where a container's cgroup is to be when its bundle does not say, for the systemd driver: `slice:prefix:name`.
    pub(crate) fn default_cgroups_path(&self, id: &str) -> Option<String> {
        self.systemd.then(|| format!("system.slice:{}:{id}", self.kind))
    }

    /// The name of the directory of a container's cgroup when its bundle does not say.
    pub fn cgroup_name(&self, id: &str) -> String {
        if self.systemd { format!("{}-{id}.scope", self.kind) } else { id.to_owned() }
    }

    /// The runtime's command line up to `--root`.
    pub fn raw(&self) -> Invocation {
        let invocation = self.bare().arg("--root").arg(self.root());
        if self.systemd { invocation.arg("--systemd-cgroup") } else { invocation }
    }

    /// The runtime's command line without `--root`.
    pub fn bare(&self) -> Invocation {
        let mut invocation = Invocation::new(&self.program, &self.dir).env("TARE_TEST_TAG", &self.tag);
        invocation = self.inside.iter().fold(invocation, |invocation, script| invocation.through_shell(script));
        if let Some(uid) = self.user {
            // The innermost: what is around it is root's.
            let drop = format!("exec setpriv --reuid {uid} --regid {uid} --clear-groups -- \"$@\"");
            // Empty is unset.
            invocation = invocation.through_shell(&drop).env("XDG_RUNTIME_DIR", "");
        }
        if self.cgroup2 {
            invocation = invocation.through_shell(CGROUP2_SCRIPT);
        } else if self.kind == Kind::Crun && host::cgroup_mode() == host::CgroupMode::Hybrid {
            invocation = invocation.through_shell(V1_SCRIPT);
        }
        self.around.iter().fold(invocation, |invocation, script| invocation.through_shell(script))
    }

    /// A container of this runtime; nothing is created yet.
    pub fn container<'a>(&'a self, bundle: &'a Bundle) -> Container<'a> {
        Container::new(self, bundle, self.id("c"))
    }

    /// Runs a bundle in the foreground.
    pub fn run(&self, bundle: &Bundle) -> Output {
        self.container(bundle).run()
    }

    /// A verb with arguments.
    pub fn verb<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.raw().args(args).run()
    }

    /// `list`
    pub fn list(&self, args: &[&str]) -> Output {
        self.raw().arg("list").args(args).run()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let residue = Residue::of(self);
        if self.leaves || std::thread::panicking() {
            return residue.sweep();
        }
        let found = residue.find_settled();
        if !found.is_empty() {
            residue.sweep();
        }
        assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
    }
}

fn systemd_driver() -> bool {
    match std::env::var("TARE_CGROUP_DRIVER").unwrap_or_default().as_str() {
        "" | "cgroupfs" => false,
        "systemd" => true,
        other => panic!("TARE_CGROUP_DRIVER is cgroupfs or systemd, not {other}"),
    }
}

/// crun 1.8.1 refuses a hybrid host whose cgroup2 has controllers: hide that mount from it.
const V1_SCRIPT: &str = "exec unshare --mount --propagation slave \
     sh -c 'umount /sys/fs/cgroup/unified && exec \"$@\"' sh \"$@\"";

const CGROUP2_SCRIPT: &str = "exec unshare --mount --propagation slave \
     sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"' sh \"$@\"";
