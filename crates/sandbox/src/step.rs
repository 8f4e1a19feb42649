//! Every phase of a command by name, shared by errors, logs and timings.

use std::fmt;

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A phase. The order of the variants is the order in which a container comes to be; ARCHITECTURE.md says why.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Step {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Step {
            /// All phases in order.
            pub const ALL: &[Step] = &[$(Step::$name,)+];

            /// The phase as logs and errors name it.
            pub fn name(self) -> &'static str {
                match self { $(Step::$name => $text,)+ }
            }
        }
    };
}

steps! {
    /// Parent: reading the bundle and working out what to do.
    Plan = "plan",
    /// Parent: claiming the name in the state directory.
    Claim = "claim",
    /// Parent: making the cgroup and writing its limits.
    MakeCgroup = "make cgroup",
    /// Parent: forking stage 1, on cgroup2 straight into its cgroup.
    Fork = "fork",
    /// Parent: which devices the cgroup allows, while stage 1 makes the namespaces.
    AllowDevices = "allow devices",
    /// Stage 1: entering the v1 hierarchies.
    EnterCgroup = "enter cgroup",
    /// Stage 1: joining namespaces by their files.
    JoinNamespaces = "join namespaces",
    /// Stage 1 and parent: a new user namespace and its id maps.
    MapIds = "map ids",
    /// Stage 1: clock offsets of a new time namespace.
    SetClocks = "set clocks",
    /// Stage 1: forking stage 2 into the new namespaces.
    ForkInit = "fork init",
    /// Stage 2: session and session keyring.
    Session = "session",
    /// Stage 2: the loopback device.
    Network = "network",
    /// Stage 2: kernel parameters of the new namespaces.
    Sysctl = "sysctl",
    /// Stage 2: the root file system bound on itself.
    AttachRoot = "attach root",
    /// Stage 2: the mounts of the configuration.
    Mount = "mount",
    /// Stage 2: device nodes and links in /dev.
    Devices = "devices",
    /// Parent: prestart hooks.
    Prestart = "prestart",
    /// Parent: createRuntime hooks.
    CreateRuntime = "createRuntime",
    /// Stage 2: createContainer hooks.
    CreateContainer = "createContainer",
    /// Stage 2: the root becomes `/`.
    EnterRoot = "enter root",
    /// Stage 2: the terminal.
    Console = "console",
    /// Stage 2: host and domain name.
    Hostname = "hostname",
    /// Stage 2: read-only paths, masked paths, read-only root.
    Seal = "seal root",
    /// Parent or stage 2: resource limits.
    Rlimits = "rlimits",
    /// Parent or stage 2: scheduling, I/O priority, personality, memory policy, labels.
    Attributes = "attributes",
    /// Stage 2: user, groups, working directory, capabilities.
    Credentials = "credentials",
    /// Stage 2: the seccomp filter.
    Seccomp = "seccomp",
    /// Stage 2: finding the program.
    FindProgram = "find program",
    /// Parent: serving the stages until init is ready.
    AwaitInit = "await init",
    /// Parent: what becomes known once init is: the late limits, its record, the pid file.
    Announce = "announce",
    /// Stage 2: waiting for `start`.
    AwaitStart = "await start",
    /// Stage 2: startContainer hooks.
    StartContainer = "startContainer",
    /// Stage 2: execve.
    Exec = "exec",
    /// Parent: poststart hooks.
    Poststart = "poststart",
    /// Parent: waiting for the process in the foreground.
    Wait = "wait",
    /// Parent: killing what is left and removing cgroup and state.
    Remove = "remove",
    /// Parent: poststop hooks.
    Poststop = "poststop",
}

impl Step {
    /// The phase with this number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_the_wire() {
        for (number, step) in Step::ALL.iter().enumerate() {
            assert_eq!(Step::from_number(u8::try_from(number).unwrap()), Some(*step));
            assert_eq!(*step as usize, number);
        }
        assert_eq!(Step::from_number(u8::MAX), None);
    }
}
