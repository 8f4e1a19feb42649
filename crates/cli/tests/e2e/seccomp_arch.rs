//! Programs of the machine's other calling conventions under a filter: 32-bit x86 and x32. They are made here byte by byte,
//! so that no compiler for them is needed. Each makes a directory and exits with the errno of that.

#![cfg(target_arch = "x86_64")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use tare_testkit::{Bundle, TempDir, skip};

use crate::runtime;

/// Where a program is loaded.
const BASE: u32 = 0x0040_0000;
const PATH: &[u8] = b"/tmp/made\0";
/// mkdir and exit of each convention.
const X86: [u32; 2] = [39, 1];
/// Ends as a program of 64 bits does, which every filter allows.
const X32: [u32; 2] = [1 << 30 | 83, 60];
const X86_64: [u32; 2] = [83, 60];

/// How a program calls the kernel.
struct Entry {
    /// `mov r32, imm32` for the first two arguments.
    arguments: [u8; 2],
    instruction: [u8; 2],
    /// `mov r32, eax` for the first.
    result_first: [u8; 2],
}

/// `int $0x80`, arguments in ebx and ecx.
const INT80: Entry = Entry { arguments: [0xbb, 0xb9], instruction: [0xcd, 0x80], result_first: [0x89, 0xc3] };

/// `syscall`, arguments in edi and esi.
const SYSCALL: Entry = Entry { arguments: [0xbf, 0xbe], instruction: [0x0f, 0x05], result_first: [0x89, 0xc7] };

/// Makes the directory and exits with the errno. Where the code lies says where the path does: right after it.
fn code(at: u32, entry: &Entry, [mkdir, exit]: [u32; 2]) -> Vec<u8> {
    const MOV_EAX: u8 = 0xb8;
    const NEG_EAX: [u8; 2] = [0xf7, 0xd8];
    let code = |path: u32| {
        let mut code = Vec::new();
        for (register, value) in [(MOV_EAX, mkdir), (entry.arguments[0], path), (entry.arguments[1], 0o755)] {
            code.push(register);
            code.extend(value.to_le_bytes());
        }
        code.extend([entry.instruction, NEG_EAX, entry.result_first].concat());
        code.push(MOV_EAX);
        code.extend(exit.to_le_bytes());
        code.extend(entry.instruction);
        code
    };
    let length = u32::try_from(code(0).len()).unwrap();
    [code(at + length).as_slice(), PATH].concat()
}

/// An ELF file of one segment: its class, its machine, the code that is to lie at an address.
fn elf(class: u8, machine: u16, code: impl FnOnce(u32) -> Vec<u8>) -> Vec<u8> {
    let wide = class == 2;
    let (header, segment): (u16, u16) = if wide { (64, 56) } else { (52, 32) };
    let start = u32::from(header + segment);
    let code = code(BASE + start);
    let size = start + u32::try_from(code.len()).unwrap();
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
    file.resize(16, 0);
    // An address or an offset.
    let word = |file: &mut Vec<u8>, value: u32| {
        file.extend(value.to_le_bytes());
        file.extend(&[0; 4][..if wide { 4 } else { 0 }]);
    };
    file.extend(2_u16.to_le_bytes()); // ET_EXEC
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    word(&mut file, BASE + start);
    word(&mut file, u32::from(header)); // the program headers
    word(&mut file, 0);
    file.extend(0_u32.to_le_bytes());
    for number in [header, segment, 1, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    const LOAD: u32 = 1;
    const READ_AND_EXECUTE: u32 = 5;
    file.extend(LOAD.to_le_bytes());
    if wide {
        file.extend(READ_AND_EXECUTE.to_le_bytes());
    }
    for value in [0, BASE, BASE, size, size] {
        word(&mut file, value);
    }
    if !wide {
        file.extend(READ_AND_EXECUTE.to_le_bytes());
    }
    word(&mut file, 0x1000);
    assert_eq!(file.len(), usize::try_from(start).unwrap());
    [file, code].concat()
}

/// A program of 32 bits, one of 64 bits that calls as one of 32 does, one that calls as x32 does.
fn programs() -> [(&'static str, Vec<u8>); 3] {
    [
        ("i386", elf(1, 3, |at| code(at, &INT80, X86))),
        ("int80", elf(2, 62, |at| code(at, &INT80, X86))),
        ("x32", elf(2, 62, |at| code(at, &SYSCALL, X32))),
    ]
}

fn bundle(program: &[u8], architectures: &[&str], rules: Value) -> Bundle {
    let bundle = Bundle::new().args(["/program"]);
    let path = bundle.rootfs().join("program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules}),
    )
}

/// The exit code of a program on this host without a filter; None if it does not run, as on a kernel without
/// IA32_EMULATION.
fn on_the_host(program: &[u8]) -> Option<i32> {
    let dir = TempDir::new("program");
    let path = dir.join("program");
    // In a root of its own: what it makes is in /tmp.
    fs::create_dir(dir.join("tmp")).unwrap();
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new("chroot").arg(dir.path()).arg("/program").status().ok()?.code()
}

const EACCES: i32 = 13;
const ENOSYS: i32 = 38;
/// 128 + SIGSYS
const KILLED: i32 = 159;

#[test]
fn a_32_bit_program_is_filtered_by_its_own_numbers() {
    let runtime = runtime();
    let mkdir = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": EACCES}]);
    // The number of mkdir for 32 bits is getpid's for 64.
    let getpid = json!([{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": EACCES}]);
    for (name, program) in &programs()[..2] {
        if on_the_host(program) != Some(0) {
            skip!("this kernel has no IA32_EMULATION, or it is off");
        }
        let both: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
        for (architectures, rules, code) in [
            (both, &mkdir, EACCES),
            (&["SCMP_ARCH_X86"], &mkdir, EACCES),
            (both, &getpid, 0),
            // Calls of an architecture that is not listed kill.
            (&["SCMP_ARCH_X86_64"], &getpid, KILLED),
            (&[], &mkdir, KILLED),
        ] {
            for none in [true, false] {
                let bundle = bundle(program, architectures, rules.clone()).set("/process/noNewPrivileges", json!(none));
                let output = runtime.run(&bundle);
                assert_eq!(output.code(), Some(code), "{name} {architectures:?} {rules}: {output}");
            }
        }
    }
}

#[test]
fn x32_calls_are_refused_unless_listed_and_then_have_rules() {
    let runtime = runtime();
    let (_, program) = &programs()[2];
    let plain = on_the_host(program);
    // Without X86_X32_ABI the kernel answers ENOSYS: after the filter, which sees the number all the same.
    assert!(matches!(plain, Some(0 | ENOSYS)), "{plain:?}");
    let mkdir = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": EACCES}]);
    let other = json!([{"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": EACCES}]);
    for (architectures, rules, code) in [
        (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"] as &[&str], &mkdir, Some(EACCES)),
        (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"], &other, plain),
        (&["SCMP_ARCH_X86_64"], &other, Some(KILLED)),
        (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], &mkdir, Some(KILLED)),
    ] {
        let output = runtime.run(&bundle(program, architectures, rules.clone()));
        assert_eq!(output.code(), code, "{architectures:?} {rules}: {output}");
    }
}

#[test]
fn the_programs_of_the_tests_work_without_a_filter() {
    let native = elf(2, 62, |at| code(at, &SYSCALL, X86_64));
    assert_eq!(on_the_host(&native), Some(0));
}
