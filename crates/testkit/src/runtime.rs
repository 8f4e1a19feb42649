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
        Self { kind, program: program.into(), dir: TempDir::new(&tag), tag, cgroup2: false, leaves: false }
    }

    /// The program, for a test that starts it in its own way.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same, with a pure cgroup2 in place of the host's cgroup mounts: each command runs in a mount namespace of
    /// its own that has it on /sys/fs/cgroup.
    #[must_use]
    pub fn on_cgroup2(mut self) -> Self {
        self.cgroup2 = true;
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

    /// The runtime's command line up to `--root`.
    pub fn raw(&self) -> Invocation {
        self.bare().arg("--root").arg(self.root())
    }

    /// The runtime's command line without `--root`.
    pub fn bare(&self) -> Invocation {
        let invocation = Invocation::new(&self.program, &self.dir).env("TARE_TEST_TAG", &self.tag);
        if self.cgroup2 {
            invocation.through_shell(CGROUP2_SCRIPT)
        } else if self.kind == Kind::Crun && host::cgroup_mode() == host::CgroupMode::Hybrid {
            invocation.through_shell(V1_SCRIPT)
        } else {
            invocation
        }
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

/// crun 1.8.1 refuses a hybrid host whose cgroup2 has controllers: hide that mount from it.
const V1_SCRIPT: &str = "exec unshare --mount --propagation slave \
     sh -c 'umount /sys/fs/cgroup/unified && exec \"$@\"' sh \"$@\"";

const CGROUP2_SCRIPT: &str = "exec unshare --mount --propagation slave \
     sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"' sh \"$@\"";
