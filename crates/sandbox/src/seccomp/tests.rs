//! The compiled program against a model of the profile in plain Rust, and against libseccomp's.

mod interpreter;
mod kernel;
mod libseccomp;
mod model;
mod profiles;
mod random;

use oci_spec::runtime::LinuxSeccomp;
use seccompiler::sock_filter;
use serde_json::{Value, json};

use super::arch::{Abi, X32_BIT};
use super::compile::compile;
use super::profile::{ENOSYS, Profile};
use interpreter::Call;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;

fn seccomp(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

fn program(value: Value, native: Abi) -> Vec<sock_filter> {
    compile(&Profile::new(&seccomp(value), native))
}

fn call(abi: Abi, name: &str, args: [u64; 6]) -> Call {
    Call { arch: abi.audit(), number: abi.base() + abi.number(name).unwrap(), args }
}

#[test]
fn calls_of_an_architecture_that_is_not_listed_kill_but_the_machines_own_is_always_there() {
    let own = program(json!({"defaultAction": "SCMP_ACT_ALLOW"}), Abi::X86_64);
    assert_eq!(call(Abi::X86_64, "read", [0; 6]).run(&own), ALLOW);
    assert_eq!(call(Abi::X86, "read", [0; 6]).run(&own), libc::SECCOMP_RET_KILL_THREAD);
    assert_eq!(call(Abi::X32, "read", [0; 6]).run(&own), libc::SECCOMP_RET_KILL_THREAD);
    assert_eq!(Call { number: u32::MAX, ..call(Abi::X86_64, "read", [0; 6]) }.run(&own), ALLOW);
    let both = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"]});
    let both = program(both, Abi::X86_64);
    assert_eq!(call(Abi::X86_64, "read", [0; 6]).run(&both), ALLOW);
    assert_eq!(call(Abi::X86, "read", [0; 6]).run(&both), ALLOW);
    assert_eq!(call(Abi::X32, "read", [0; 6]).run(&both), libc::SECCOMP_RET_KILL_THREAD);
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    let rules = json!([{"names": ["read", "openat2", "no_such_call"], "action": "SCMP_ACT_ALLOW"}]);
    let profile =
        |default: &str| json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86"], "syscalls": rules});
    let number = |number: u32| Call { arch: Abi::X86_64.audit(), number, args: [0; 6] };
    for (default, newer, gap) in [
        ("SCMP_ACT_ERRNO", ENOSYS, EPERM),
        ("SCMP_ACT_KILL", ENOSYS, 0),
        ("SCMP_ACT_KILL_PROCESS", ENOSYS, libc::SECCOMP_RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", ENOSYS, libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_ALLOW", ALLOW, ALLOW),
        ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_LOG),
        ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE | 1, libc::SECCOMP_RET_TRACE | 1),
    ] {
        let program = program(profile(default), Abi::X86_64);
        assert_eq!(number(437).run(&program), ALLOW, "openat2, {default}");
        assert_eq!(number(438).run(&program), newer, "{default}");
        assert_eq!(number(X32_BIT - 1).run(&program), newer, "{default}");
        assert_eq!(number(436).run(&program), gap, "{default}");
        assert_eq!(call(Abi::X86, "faccessat2", [0; 6]).run(&program), newer, "{default}");
    }
    // On ARM the private calls have higher numbers, and are old.
    let rules = json!([{"names": ["read", "set_tls"], "action": "SCMP_ACT_ALLOW"}]);
    let arm = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"], "syscalls": rules});
    let arm = program(arm, Abi::Aarch64);
    let number = |number: u32| Call { arch: Abi::Arm.audit(), number, args: [0; 6] };
    assert_eq!(
        [3, 4, 0xe_ffff, 0xf_0004, 0xf_0005].map(|nr| number(nr).run(&arm)),
        [ALLOW, ENOSYS, ENOSYS, EPERM, ALLOW]
    );
}

#[test]
fn rules_of_one_call_combine_as_libseccomp_combines_them() {
    let with = |rules: Value| program(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}), Abi::X86_64);
    let arg = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let allow = |args: Value| json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args});
    let run = |program: &[sock_filter], a, b| call(Abi::X86_64, "socket", [a, b, 0, 0, 0, 0]).run(program);

    let and = with(json!([allow(json!([arg(0, 1), arg(1, 2)]))]));
    assert_eq!([run(&and, 1, 2), run(&and, 1, 3), run(&and, 0, 2)], [ALLOW, EPERM, EPERM]);
    // Two of the same argument could never both be met: they are alternatives, and all others of the rule with them.
    let or = with(json!([allow(json!([arg(0, 1), arg(0, 2), arg(1, 3)]))]));
    assert_eq!([run(&or, 1, 0), run(&or, 2, 0), run(&or, 0, 3), run(&or, 0, 0)], [ALLOW, ALLOW, ALLOW, EPERM]);
    // Without conditions beats with, wherever it stands; of two without the first counts.
    let kill = json!({"names": ["socket"], "action": "SCMP_ACT_KILL"});
    let trap = json!({"names": ["socket"], "action": "SCMP_ACT_TRAP"});
    let all = with(json!([allow(json!([arg(0, 1)])), kill, trap]));
    assert_eq!([run(&all, 1, 0), run(&all, 0, 0)], [libc::SECCOMP_RET_KILL_THREAD; 2]);
    // What is the default anyway is as if it were not there.
    let redundant = with(json!([{"names": ["socket"], "action": "SCMP_ACT_ERRNO"}, allow(json!([arg(0, 1)]))]));
    assert_eq!([run(&redundant, 1, 0), run(&redundant, 0, 0)], [ALLOW, EPERM]);
}

#[test]
fn a_socket_call_of_x86_is_filtered_by_both_of_its_numbers() {
    let rules = json!([{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules});
    let program = program(profile, Abi::X86_64);
    let refused = libc::SECCOMP_RET_ERRNO | 97;
    assert_eq!(call(Abi::X86, "socket", [2, 0, 0, 0, 0, 0]).run(&program), refused);
    assert_eq!(call(Abi::X86, "socketcall", [1, 0, 0, 0, 0, 0]).run(&program), refused);
    assert_eq!(call(Abi::X86, "socketcall", [2, 0, 0, 0, 0, 0]).run(&program), ALLOW);
}

#[test]
fn a_program_longer_than_the_kernel_takes_is_refused() {
    let rule = |value: u64| {
        let args: Vec<Value> =
            (0..6).map(|index| json!({"index": index, "value": value, "op": "SCMP_CMP_GT"})).collect();
        json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args})
    };
    let rules: Vec<Value> = (0..300).map(rule).collect();
    let long = seccomp(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    let error = super::Filter::new(&long).unwrap_err().to_string();
    assert!(error.starts_with("the filter has ") && error.ends_with("the kernel takes 4096"), "{error}");
}

#[test]
fn flags_are_those_given_and_without_a_list_speculation_stays_as_it_is() {
    use oci_spec::runtime::LinuxSeccompFilterFlag as Flag;
    assert_eq!(super::flags(None, false), libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    assert_eq!(super::flags(Some(&[]), false), 0);
    assert_eq!(super::flags(Some(&[]), true), libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    let all = [
        Flag::SeccompFilterFlagLog,
        Flag::SeccompFilterFlagSpecAllow,
        Flag::SeccompFilterFlagTsync,
        Flag::SeccompFilterFlagWaitKillableRecv,
    ];
    let alone = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    assert_eq!(super::flags(Some(&all), false), alone);
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    assert_eq!(super::flags(Some(&all), true), alone | listener);
}
