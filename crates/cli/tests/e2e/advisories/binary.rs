//! Class: the host's own runtime program is overwritten from inside a container. What stands against it is told in
//! docs/sealed-self.md.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use nix::sys::statvfs::{FsFlags, fstatvfs};
use tare_testkit::{Bundle, Container, Invocation, Runtime, TempDir, host, known, skip, wait_until};

use crate::rootless::{USER, as_user};
use crate::runtime;

/// open(2)'s, on all architectures.
const O_PATH: i32 = 0o10_000_000;

/// The program under test, and what it was like.
struct Program {
    path: PathBuf,
    contents: Vec<u8>,
    inode: (u64, u64),
}

impl Program {
    fn of(runtime: &Runtime) -> Self {
        let path = host::program(runtime.program()).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        Self { contents: fs::read(&path).unwrap(), inode: (metadata.dev(), metadata.ino()), path }
    }

    fn assert_unchanged(&self) {
        assert!(self.contents == fs::read(&self.path).unwrap(), "{} has changed", self.path.display());
    }

    /// Opens what a process executes, and each file that it has mapped, as an attacker would: a handle first, for writing
    /// when nothing executes it any more. No ETXTBSY guards it then: it must be another file, or one that cannot be
    /// written to.
    fn assert_out_of_reach(&self, pid: impl std::fmt::Display, end: impl FnOnce()) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let mapped = fs::read_dir(process.join("map_files")).unwrap().map(|entry| entry.unwrap().path());
        let handle = |link| fs::OpenOptions::new().read(true).custom_flags(O_PATH).open(link).unwrap();
        let held: Vec<fs::File> = mapped.chain([process.join("exe")]).map(handle).collect();
        assert!(held.len() > 1, "{} has nothing mapped", process.display());
        end();
        for held in held {
            let path = format!("/proc/self/fd/{}", held.as_raw_fd());
            let metadata = held.metadata().unwrap();
            let other = self.inode != (metadata.dev(), metadata.ino());
            let refused = match fs::OpenOptions::new().write(true).open(path) {
                Ok(_) => false,
                // Another test executes it now, which is no defence; the kernel would have looked at the mount next.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    fstatvfs(&held).unwrap().flags().contains(FsFlags::ST_RDONLY)
                }
                Err(_) => true,
            };
            assert!(other || refused, "the host's binary can be written to");
        }
        self.assert_unchanged();
    }
}

/// A bundle that has `/self`, a script whose interpreter is `/proc/self/exe`.
fn with_script(bundle: Bundle) -> Bundle {
    let bundle = bundle.file("self", "#!/proc/self/exe\n");
    fs::set_permissions(bundle.rootfs().join("self"), fs::Permissions::from_mode(0o755)).unwrap();
    bundle
}

/// CVE-2019-5736: the runtime is told to execute itself inside, directly or as the interpreter of a script, by run.
#[test]
fn cve_2019_5736_a_run_of_proc_self_exe_cannot_reach_the_runtime() {
    let runtime = runtime();
    let program = Program::of(&runtime);
    for args in [&["/proc/self/exe"][..], &["/proc/self/exe", "--help"], &["/self"]] {
        // It runs inside, as what it is, or not at all; either way it ends.
        let _ = runtime.run(&with_script(Bundle::new().args(args.iter().copied())));
        program.assert_unchanged();
    }
}

/// CVE-2019-5736 by exec.
#[test]
fn cve_2019_5736_an_exec_of_proc_self_exe_cannot_reach_the_runtime() {
    let runtime = runtime();
    let program = Program::of(&runtime);
    let bundle = with_script(Bundle::sleeper());
    let container = runtime.container(&bundle);
    container.up();
    for args in [&["/proc/self/exe"][..], &["/proc/self/exe", "--help"], &["/self"]] {
        let _ = container.exec(args);
        program.assert_unchanged();
    }
}

/// CVE-2019-5736: the program that init still is until its start.
#[test]
fn cve_2019_5736_the_program_of_a_created_init_cannot_be_written() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    Program::of(&runtime).assert_out_of_reach(container.pid(), || {
        container.kill("KILL").ok();
        container.wait_for("stopped");
    });
}

/// Looks for a process in the container whose program is not the image's, and holds that open; when the word comes, it
/// writes there.
const HOLD: &str = "echo looking; while :; do for p in /proc/[0-9]*; do \
     exe=$(readlink $p/exe) && test \"$exe\" != /bin/busybox && command exec 7<$p/exe && break 2; done; done 2>/dev/null; \
     echo held; while ! test -e /go; do sleep 0.02; done; \
     if (echo x > /proc/self/fd/7) 2>/dev/null; then echo written; else echo refused; fi";

/// Runs the looking script with all that it may need, and has `enter` bring the runtime into its sight.
fn hold_and_write(runtime: &Runtime, bundle: &Bundle, mut enter: impl FnMut(&Container<'_>)) {
    let program = Program::of(runtime);
    let container = runtime.container(bundle);
    let running = container.spawn();
    wait_until("it looks", || running.stdout_so_far().starts_with("looking\n"));
    wait_until("it holds one", || {
        enter(&container);
        running.stdout_so_far().contains("held\n")
    });
    fs::write(bundle.rootfs().join("go"), "").unwrap();
    let output = running.wait().ok();
    // A copy may be written to: it is nobody else's.
    assert!(output.stdout.contains("written") || output.stdout.contains("refused"), "{output}");
    program.assert_unchanged();
}

/// CVE-2019-5736 as it was done: a process of the container waits for an exec, opens `/proc/PID/exe`, and writes when
/// the runtime has gone.
#[test]
fn cve_2019_5736_a_container_that_holds_the_program_of_an_exec_cannot_write_it() {
    let runtime = runtime();
    let capabilities = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"];
    let bundle = with_script(Bundle::script(HOLD)).capabilities(&capabilities);
    hold_and_write(&runtime, &bundle, |container| {
        let _ = container.exec(["/self"]);
        let _ = container.exec(["/proc/self/exe", "--help"]);
    });
}

/// CVE-2019-5736: the process of a foreground run, which stays outside as long as the container lives.
#[test]
fn cve_2019_5736_the_program_of_a_foreground_run_cannot_be_written() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "protects init alone: this process is seen from the host's pid namespace only");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    let running = container.spawn();
    container.wait_for("running");
    Program::of(&runtime).assert_out_of_reach(running.pid(), || {
        container.kill("KILL").ok();
        let _ = running.wait();
    });
}

/// CVE-2019-5736 by a user without privileges, where no read-only mount can be made and a sealed copy serves.
#[test]
fn cve_2019_5736_the_program_of_a_users_container_cannot_be_written() {
    let runtime = as_user();
    let bundle = Bundle::sleeper().rootless(USER);
    let container = runtime.container(&bundle);
    container.create().ok();
    Program::of(&runtime).assert_out_of_reach(container.pid(), || {
        container.kill("KILL").ok();
        container.wait_for("stopped");
    });
    for args in [&["/proc/self/exe"][..], &["/self"]] {
        let _ = runtime.run(&with_script(Bundle::new().args(args.iter().copied())).rootless(USER));
    }
}

/// CVE-2019-5736 later: a program on a read-only mount of the host is no safer, as that is made writable for an upgrade,
/// and a handle from before can be written to then.
#[test]
fn cve_2019_5736_a_read_only_mount_of_the_host_is_not_relied_on() {
    let runtime = runtime();
    if !runtime.is_tare() {
        skip!("about what tare does for it");
    }
    let (dir, bundle) = (TempDir::new("usr"), Bundle::sleeper());
    let program = dir.join("tare");
    let mounted = format!(
        "exec unshare --mount --propagation slave sh -c 'mount -t tmpfs none {0} && cp \"{1}\" {0}/tare && \
         mount -o remount,ro {0} && shift && exec {0}/tare \"$@\"' sh \"$@\"",
        dir.path().display(),
        runtime.program().display()
    );
    let runtime = runtime.around(mounted);
    let container = runtime.container(&bundle);
    container.create().ok();
    let exe = container.link("exe");
    assert!(exe != program && exe.as_os_str() == "/", "{}", exe.display());
    container.delete_force().ok();
}

/// What the protection costs: nothing for a command that starts nothing, and for one that does no copy and no execution of it.
#[test]
fn cve_2019_5736_only_what_enters_a_container_is_sealed_and_without_a_copy() {
    if host::program("strace").is_none() {
        skip!("there is no strace");
    }
    let runtime = runtime();
    if !runtime.is_tare() {
        skip!("about what tare does for it");
    }
    let (dir, bundle) = (TempDir::new("trace"), Bundle::sleeper());
    let container = runtime.container(&bundle);
    let trace = |invocation: Invocation| {
        let script = "exec strace -e trace=execve,execveat,open_tree,memfd_create,prctl -o trace \"$@\"";
        invocation.through_shell(script).cwd(dir.path()).run().ok();
        let calls = fs::read_to_string(dir.join("trace")).unwrap();
        let executed = calls.lines().filter(|line| line.contains("exec")).count();
        assert!(executed == 1 && !calls.contains("memfd_create("), "{calls}");
        calls
    };
    let create = trace(container.verb("create").arg(container.id()));
    assert!(create.contains("open_tree(") && create.contains("PR_SET_MM_MAP"), "{create}");
    container.start().ok();
    let verbs = ["state", "ps", "pause", "resume", "kill"].map(|verb| container.verb(verb).arg(container.id()));
    let without_id = ["list", "features"].map(|verb| runtime.raw().arg(verb));
    for invocation in verbs.into_iter().chain(without_id) {
        let calls = trace(invocation);
        assert!(!calls.contains("open_tree(") && !calls.contains("PR_SET_MM_MAP"), "{calls}");
    }
}

/// Where the file cannot be exchanged, a sealed copy is executed, once.
#[test]
fn cve_2019_5736_where_the_file_cannot_be_exchanged_a_sealed_copy_serves() {
    if host::program("strace").is_none() {
        skip!("there is no strace");
    }
    let runtime = runtime();
    if !runtime.is_tare() {
        skip!("about what tare does for it");
    }
    let program = Program::of(&runtime);
    let (dir, bundle) = (TempDir::new("trace"), Bundle::sleeper());
    let container = runtime.container(&bundle);
    let script = format!(
        "exec strace -e trace=execve,execveat,memfd_create,prctl -e inject=prctl:error=EINVAL:when=1 -o {} \"$@\"",
        dir.join("trace").display()
    );
    container.verb("create").arg(container.id()).through_shell(&script).run().ok();
    let calls = fs::read_to_string(dir.join("trace")).unwrap();
    assert_eq!(calls.lines().filter(|line| line.contains("memfd_create(\"tare\"")).count(), 1, "{calls}");
    assert!(calls.contains("execveat("), "{calls}");
    program.assert_out_of_reach(container.pid(), || {
        container.kill("KILL").ok();
        container.wait_for("stopped");
    });
}
