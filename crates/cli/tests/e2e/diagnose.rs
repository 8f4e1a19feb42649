//! Programs that cannot be executed: what the user is told, by `run`, by `start` and by `exec`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use tare_testkit::{Bundle, Kind, known};

use crate::runtime;

/// A little-endian 64-bit ELF header with one program header: PT_INTERP of `interpreter`.
fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, number) in [(16, 2), (18, machine), (20, 1), (52, 64), (54, 56), (56, 1), (64, 3), (72, 120)] {
        bytes[at..at + 2].copy_from_slice(&u16::to_le_bytes(number));
    }
    bytes[32] = 64;
    // Readable, its length in file and memory.
    bytes[68] = 4;
    let length = u8::try_from(interpreter.len() + 1).unwrap();
    (bytes[96], bytes[104]) = (length, length);
    bytes.extend(interpreter.as_bytes());
    bytes.push(0);
    bytes
}

fn put(bundle: &Bundle, contents: &[u8], mode: u32) {
    let path = bundle.rootfs().join("prog");
    fs::write(&path, contents).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// One broken bundle.
struct Case {
    name: &'static str,
    bundle: Bundle,
    /// What clients look for, which every runtime says.
    words: &'static [&'static str],
    /// What tare says besides.
    cause: &'static str,
    /// Its hint, or nothing.
    hint: &'static str,
}

fn program(contents: &[u8], mode: u32) -> Bundle {
    let bundle = Bundle::new().args(["/prog"]);
    put(&bundle, contents, mode);
    bundle
}

const NOT_FOUND: &[&str] = &["no such file or directory"];
const DENIED: &[&str] = &["permission denied", "is a directory", "operation not permitted"];
const FORMAT: &[&str] = &["exec format error"];

fn scripts() -> Vec<Case> {
    let own = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let other = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let case = |name, bundle, words, cause, hint| Case { name, bundle, words, cause, hint };
    vec![
        case(
            "CRLF",
            program(b"#!/bin/sh\r\necho hi\r\n", 0o755),
            NOT_FOUND,
            "exec \"/prog\": interpreter \"/bin/sh\\r\" not found: ",
            "hint: the script has Windows line endings",
        ),
        case(
            "no bash",
            program(b"#!/bin/bash -e\n", 0o755),
            NOT_FOUND,
            "exec \"/prog\": interpreter \"/bin/bash\" not found: ",
            "hint: the image has no \"/bin/bash\": ",
        ),
        case(
            "glibc",
            program(&elf(own, "/lib64/ld-linux-none.so.2"), 0o755),
            NOT_FOUND,
            "\"/prog\" needs the interpreter \"/lib64/ld-linux-none.so.2\", which is not found: ",
            "hint: the program was built for glibc, which this image lacks",
        ),
        case(
            "musl",
            program(&elf(own, "/lib/ld-musl-none.so.1"), 0o755),
            NOT_FOUND,
            "\"/prog\" needs the interpreter \"/lib/ld-musl-none.so.1\", which is not found: ",
            "hint: the program was built for musl, which this image lacks",
        ),
        case(
            "another machine",
            program(&elf(other, "/lib/ld.so"), 0o755),
            FORMAT,
            "\"/prog\" is for ",
            "hint: use an image for ",
        ),
        case(
            "no first line",
            program(b"echo hi\n", 0o755),
            FORMAT,
            "\"/prog\" is a text without a #! line: ",
            "hint: begin it with #!/bin/sh",
        ),
        case(
            "byte order mark",
            program(b"\xef\xbb\xbf#!/bin/sh\n", 0o755),
            FORMAT,
            "\"/prog\" begins with a byte order mark: ",
            "hint: save the script",
        ),
        case("Windows program", program(b"MZ\x90\0\x03\0", 0o755), FORMAT, "\"/prog\" is a program for Windows: ", ""),
        case("empty", program(b"", 0o755), FORMAT, "\"/prog\" is empty: ", ""),
        case(
            "interpreter without execute bit",
            program(b"#!/etc/passwd\n", 0o755),
            &["permission denied"],
            "interpreter \"/etc/passwd\": \"/etc/passwd\" has no execute bit",
            "hint: chmod +x",
        ),
        case(
            "interpreter is a directory",
            program(b"#!/etc\n", 0o755),
            &["permission denied"],
            "interpreter \"/etc\": \"/etc\" is a directory",
            "",
        ),
    ]
}

/// Those that are seen when the program is looked for.
fn searches() -> Vec<Case> {
    let case = |name, bundle, words, cause, hint| Case { name, bundle, words, cause, hint };
    let noexec = serde_json::json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
        "options": ["noexec", "tmpcopyup"]});
    let copied = Bundle::new().args(["/mnt/prog"]).mount(noexec).file("/mnt/prog", "#!/bin/sh\n");
    fs::set_permissions(copied.rootfs().join("mnt/prog"), Permissions::from_mode(0o755)).unwrap();
    let private = Bundle::new().args(["/secret/prog"]).file("/secret/prog", "#!/bin/sh\n").user(1000, 1000);
    fs::set_permissions(private.rootfs().join("secret"), Permissions::from_mode(0o700)).unwrap();
    vec![
        case(
            "no execute bit",
            program(b"#!/bin/sh\n", 0o644),
            DENIED,
            "\"/prog\" has no execute bit (mode 0644)",
            "hint: chmod +x",
        ),
        case("a directory", Bundle::new().args(["/etc"]), DENIED, "\"/etc\" is a directory", ""),
        case("noexec", copied, DENIED, "\"/mnt/prog\" is on a mount with the option noexec", "hint: take noexec out"),
        case(
            "a dangling link",
            Bundle::new().args(["/prog"]).symlink("/prog", "/opt/real"),
            NOT_FOUND,
            "\"/prog\" is a link to \"/opt/real\", which is missing",
            "",
        ),
        case("no directory", Bundle::new().args(["/opt/app/prog"]), NOT_FOUND, "there is no \"/opt\"", ""),
        case(
            "a closed directory",
            private,
            &["permission denied", "operation not permitted"],
            "\"/secret\" may not be entered by user 1000",
            "",
        ),
        case(
            "no execute bit in PATH",
            {
                let bundle = Bundle::new().args(["tool"]).file("/usr/bin/tool", "#!/bin/sh\n");
                fs::set_permissions(bundle.rootfs().join("usr/bin/tool"), Permissions::from_mode(0o644)).unwrap();
                bundle
            },
            &["permission denied", "executable file not found in $PATH", "executable file `tool` not found"],
            "\"/usr/bin/tool\" has no execute bit",
            "hint: chmod +x",
        ),
    ]
}

fn judge(case: &Case, output: tare_testkit::Output, kind: Kind) {
    let output = output.fails(case.words);
    if kind != Kind::Tare {
        return;
    }
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert!(lines[0].contains(case.cause), "{}: {output}", case.name);
    match case.hint {
        "" => assert_eq!(lines.len(), 1, "{}: {output}", case.name),
        hint => assert!(lines.len() == 2 && lines[1].trim_start().starts_with(hint), "{}: {output}", case.name),
    }
}

#[test]
fn run_tells_why_a_program_cannot_be_executed() {
    let runtime = runtime();
    for case in scripts().iter().chain(&searches()) {
        judge(case, runtime.run(&case.bundle), runtime.kind());
    }
}

#[test]
fn start_tells_what_is_seen_at_exec_and_create_what_is_seen_before() {
    let runtime = runtime();
    for case in &scripts() {
        // The others find out in start, but not all of them tell.
        if runtime.kind() != Kind::Tare {
            continue;
        }
        let container = runtime.container(&case.bundle);
        container.create().ok();
        judge(case, container.start(), runtime.kind());
    }
    for case in &searches() {
        judge(case, runtime.container(&case.bundle).create(), runtime.kind());
    }
}

#[test]
fn exec_tells_it_with_255() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for case in &scripts() {
        let path = case.bundle.rootfs().join("prog");
        put(&bundle, &fs::read(&path).unwrap(), 0o755);
        let output = container.exec(["/prog"]);
        if runtime.is_tare() {
            assert_eq!(output.code(), Some(255), "{}", case.name);
        }
        judge(case, output, runtime.kind());
    }
}

#[test]
fn a_hint_is_for_people_and_not_in_the_log() {
    let runtime = runtime();
    known!(runtime, Runc: "has no hints", Crun: "has no hints");
    let bundle = program(b"#!/bin/sh\r\n", 0o755);
    bundle.write();
    let log = runtime.dir().join("log.json");
    let run = runtime.raw().arg("--log").arg(&log).args(["--log-format", "json", "run", "--bundle"]);
    run.arg(bundle.path()).arg(runtime.id("c")).run().fails(NOT_FOUND);
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("hint") && text.lines().count() == 1, "{text}");
}
