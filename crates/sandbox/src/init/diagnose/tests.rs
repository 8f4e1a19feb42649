use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// Files that go away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tare-diagnose-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, contents: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// The error of an execve of this file that answered `errno`, without the path of the directory, and its hint.
fn told(dir: &Dir, path: &Path, errno: Errno) -> (String, String) {
    let error = exec(&c_string(path), errno);
    assert_eq!(error.errno(), Some(errno));
    let text = error.to_string().replace(&format!("{}/", dir.0.display()), "");
    (text, error.hint().unwrap_or_default().to_owned())
}

/// A 64-bit little-endian ELF header with one program header, PT_INTERP of `interpreter`.
fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.resize(32, 0);
    bytes.extend(64u64.to_le_bytes());
    bytes.resize(54, 0);
    bytes.extend(56u16.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend(3u32.to_le_bytes());
    bytes.resize(72, 0);
    bytes.extend(120u64.to_le_bytes());
    bytes.resize(96, 0);
    bytes.extend((interpreter.len() as u64 + 1).to_le_bytes());
    bytes.resize(120, 0);
    bytes.extend(interpreter.as_bytes());
    bytes.push(0);
    bytes
}

#[test]
fn the_cause_is_named_and_the_words_of_the_errno_stay() {
    const AARCH64: u16 = 183;
    const X86_64: u16 = 62;
    let dir = Dir::new("cause");
    let other = if cfg!(target_arch = "aarch64") { X86_64 } else { AARCH64 };
    let long = format!("#!/{}\n", "x".repeat(400));
    let (noent, noexec) = ("no such file or directory (ENOENT)", "exec format error (ENOEXEC)");
    let table: [(&str, Vec<u8>, Errno, String, &str); 9] = [
        (
            "crlf",
            b"#!/bin/bash\r\necho\r\n".to_vec(),
            Errno::ENOENT,
            format!("interpreter \"/bin/bash\\r\" not found: {noent}"),
            "Windows line endings",
        ),
        (
            "gone",
            b"#! /no/such/python3 -u\n".to_vec(),
            Errno::ENOENT,
            format!("interpreter \"/no/such/python3\" not found: there is no \"/no\": {noent}"),
            "install it",
        ),
        (
            "musl",
            elf(X86_64, "/lib/ld-musl-none.so.1"),
            Errno::ENOENT,
            format!("\"musl\" needs the interpreter \"/lib/ld-musl-none.so.1\", which is not found: {noent}"),
            "musl",
        ),
        (
            "text",
            b"echo hello\n".to_vec(),
            Errno::ENOEXEC,
            format!("\"text\" is a text without a #! line: {noexec}"),
            "#!/bin/sh",
        ),
        (
            "bom",
            b"\xef\xbb\xbf#!/bin/sh\n".to_vec(),
            Errno::ENOEXEC,
            format!("\"bom\" begins with a byte order mark: {noexec}"),
            "BOM",
        ),
        ("empty", Vec::new(), Errno::ENOEXEC, format!("\"empty\" is empty: {noexec}"), ""),
        (
            "windows",
            b"MZ\x90\0".to_vec(),
            Errno::ENOEXEC,
            format!("\"windows\" is a program for Windows: {noexec}"),
            "",
        ),
        (
            "nothing",
            b"#!\n".to_vec(),
            Errno::ENOEXEC,
            format!("the first line of \"nothing\" names no interpreter: {noexec}"),
            "",
        ),
        (
            "long",
            long.into_bytes(),
            Errno::ENOEXEC,
            format!("the first line of \"long\" is longer than 256 bytes: {noexec}"),
            "",
        ),
    ];
    for (name, contents, errno, cause, hint) in table {
        let (text, hinted) = told(&dir, &dir.file(name, &contents, 0o755), errno);
        assert_eq!(text, format!("exec \"{name}\": {cause}"));
        assert!(hinted.contains(hint) && hinted.is_empty() == hint.is_empty(), "{name}: {hinted}");
    }
    let (text, hint) = told(&dir, &dir.file("other", &elf(other, "/lib/ld.so"), 0o755), Errno::ENOEXEC);
    assert!(
        text.contains("\"other\" is for ") && text.contains(", this machine is ") && text.ends_with(noexec),
        "{text}"
    );
    assert!(hint.starts_with("use an image for "), "{hint}");
}

#[test]
fn an_interpreter_is_looked_at_in_its_turn() {
    let dir = Dir::new("nested");
    let interpreter = dir.file("interpreter", b"#!/no/such/thing\n", 0o755);
    let script = dir.file("script", format!("#!{}\n", interpreter.display()).as_bytes(), 0o755);
    let (text, _) = told(&dir, &script, Errno::ENOENT);
    assert!(
        text.starts_with("exec \"script\": interpreter \"interpreter\": interpreter \"/no/such/thing\" not found"),
        "{text}"
    );
    // An interpreter of itself ends too.
    let own = dir.0.join("own");
    dir.file("own", format!("#!{}\n", own.display()).as_bytes(), 0o755);
    assert!(told(&dir, &own, Errno::ELOOP).0.contains("and so on"));
}

#[test]
fn a_search_that_fails_says_what_was_there() {
    let dir = Dir::new("search");
    dir.file("plain", b"#!/bin/sh\n", 0o644);
    symlink("/no/such/target", dir.0.join("dangling")).unwrap();
    fs::create_dir(dir.0.join("sub")).unwrap();
    nix::unistd::mkfifo(&dir.0.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o755)).unwrap();
    let env = [CString::new(format!("PATH=/nowhere:{}", dir.0.display())).unwrap()];
    let refused = || Error::Refused("exec: \"x\": permission denied".into());
    for (name, cause) in [
        ("plain", "\"plain\" has no execute bit (mode 0644)"),
        ("dangling", "\"dangling\" is a link to \"/no/such/target\", which is missing"),
        ("sub", "\"sub\" is a directory"),
        ("fifo", "\"fifo\" is a fifo, not a program"),
    ] {
        for wanted in [CString::new(name).unwrap(), c_string(&dir.0.join(name))] {
            let text = search(&wanted, &env, refused()).to_string().replace(&format!("{}/", dir.0.display()), "");
            assert_eq!(text, format!("exec: \"x\": permission denied: {cause}"));
        }
    }
    assert_eq!(search(c"no-such", &env, refused()).to_string(), refused().to_string());
    assert!(search(c"no-such", &[], refused()).to_string().ends_with(": the environment has no PATH"));
    let below = search(&c_string(&dir.0.join("plain/x")), &env, refused()).to_string();
    assert!(below.ends_with("plain\" is not a directory"), "{below}");
}

#[test]
fn a_program_that_works_has_nothing_said_about_it() {
    let shell = fs::canonicalize("/bin/sh").unwrap();
    if elf::is_linked(&shell) {
        assert_eq!(exec(&c_string(&shell), Errno::ENOENT).hint(), None);
    }
    assert_eq!(exec(c"/bin/sh", Errno::ENOMEM).to_string(), "exec \"/bin/sh\": out of memory (ENOMEM)");
}

#[test]
fn no_bytes_make_it_panic() {
    let dir = Dir::new("bytes");
    let whole = elf(62, "/lib64/ld");
    for length in 0..whole.len() {
        let path = dir.file("cut", &whole[..length], 0o755);
        for errno in [Errno::ENOENT, Errno::ENOEXEC] {
            exec(&c_string(&path), errno);
        }
    }
    let mut state = 7u64;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..6 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(state >> 33).unwrap() % bytes.len();
            bytes[at.max(4)] = (state >> 24).to_le_bytes()[0];
        }
        let path = dir.file("random", &bytes, 0o755);
        exec(&c_string(&path), Errno::ENOENT);
    }
}
