//! The default profiles of Docker and containerd whole, as their own code makes them for Docker's default capabilities
//! (github.com/moby/profiles/seccomp v0.2.3, github.com/containerd/containerd/v2 v2.4.2; Apache-2.0).

use std::time::Instant;

use oci_spec::runtime::LinuxSeccomp;

use super::super::arch::Abi;
use super::super::compile::compile;
use super::super::profile::Profile;
use super::super::table::SYSCALLS;
use super::interpreter::Call;
use super::model;

pub(super) const PROFILES: [(&str, &str); 2] =
    [("docker", include_str!("../testdata/docker.json")), ("containerd", include_str!("../testdata/containerd.json"))];

/// What performance.md promises for Docker's.
const MOST_PER_ARCHITECTURE: usize = 200;

pub(super) fn parse(text: &str) -> LinuxSeccomp {
    serde_json::from_str(text).unwrap()
}

/// Arguments about every value that a profile compares with.
pub(super) fn grid(profile: &LinuxSeccomp) -> Vec<u64> {
    let args = profile.syscalls().iter().flatten().flat_map(|entry| entry.args().iter().flatten());
    let values = args.flat_map(|arg| [arg.value(), arg.value_two().unwrap_or(0)]);
    let near = values.flat_map(|value| {
        [value, value.wrapping_sub(1), value.wrapping_add(1), value | 1 << 32, value | 1 << 63, !value]
    });
    let mut grid: Vec<u64> = near.chain([0, u64::MAX, 0x1_0000, 0x2000_0000, 0x1000_0011]).collect();
    grid.sort_unstable();
    grid.dedup();
    grid
}

/// Whether any rule of this number is about arguments.
pub(super) fn looks_at_arguments(profile: &LinuxSeccomp, abi: Abi, number: u32) -> bool {
    let with_args = profile.syscalls().iter().flatten().filter(|entry| entry.args().is_some());
    with_args.flat_map(|entry| entry.names()).any(|name| {
        let numbers = [abi.number(name), abi.multiplexed(name).map(|way| way.number)];
        numbers.contains(&Some(number))
    })
}

#[test]
fn the_default_profiles_are_decided_as_the_model_decides_for_every_number() {
    for (name, text) in PROFILES {
        let mut profile = parse(text);
        for (native, architectures) in
            [(Abi::X86_64, None), (Abi::Aarch64, Some(serde_json::json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])))]
        {
            if let Some(architectures) = architectures {
                profile.set_architectures(serde_json::from_value(architectures).unwrap());
            }
            let program = compile(&Profile::new(&profile, native));
            let grid = grid(&profile);
            for abi in [native].iter().chain(native.compatible()) {
                for number in (0..600).chain([0xe_ffff, 0xf_0000, 0xf_0005, 0x3fff_ffff]) {
                    let looks = looks_at_arguments(&profile, *abi, number);
                    for value in if looks { &grid } else { &grid[..1] } {
                        let call =
                            Call { arch: abi.audit(), number: abi.base() | number, args: [*value, 0, 0, 0, 0, 0] };
                        let expected = model::verdict(&profile, native, &call);
                        assert_eq!(call.run(&program), expected, "{name}: {call:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn dockers_program_is_short() {
    for (name, text) in PROFILES {
        for (native, architectures) in [
            (Abi::X86_64, &["SCMP_ARCH_X86_64"] as &[_]),
            (Abi::X86_64, &["SCMP_ARCH_X86"]),
            (Abi::X86_64, &["SCMP_ARCH_X32"]),
            (Abi::X86_64, &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
            (Abi::Aarch64, &["SCMP_ARCH_AARCH64"]),
            (Abi::Aarch64, &["SCMP_ARCH_ARM"]),
        ] {
            let mut profile = parse(text);
            profile.set_architectures(serde_json::from_value(serde_json::json!(architectures)).unwrap());
            let begun = Instant::now();
            let resolved = Profile::new(&profile, native);
            let program = compile(&resolved);
            let took = begun.elapsed();
            let depth = (0..600)
                .map(|number| steps(&program, Call { arch: native.audit(), number, args: [0; 6] }))
                .max()
                .unwrap_or_default();
            eprintln!(
                "{name} {architectures:?}: {} instructions, at most {depth} run, made in {took:?}",
                program.len()
            );
            // Two architectures in one program, three conventions.
            let allowed = MOST_PER_ARCHITECTURE * resolved.calls.len();
            assert!(program.len() <= allowed, "{name} {architectures:?}: {} > {allowed}", program.len());
        }
    }
    assert!(SYSCALLS.len() > 450);
}

/// How many instructions a call takes.
fn steps(program: &[seccompiler::sock_filter], call: Call) -> usize {
    call.trace(program).1
}

/// `cargo test --release -p tare-sandbox --lib docker_default_timing -- --ignored --nocapture`: medians of many, for docs/seccomp.md.
/// Ignored because a time is a promise of a machine; the lengths are tested above.
#[test]
#[ignore = "a measurement"]
fn docker_default_timing() {
    const ROUNDS: usize = 1000;
    let median = |mut times: Vec<std::time::Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    for (name, text) in PROFILES {
        let time = |work: &mut dyn FnMut()| {
            let rounds = (0..ROUNDS).map(|_| {
                let begun = Instant::now();
                work();
                begun.elapsed()
            });
            median(rounds.collect())
        };
        let profile = parse(text);
        let decoded = time(&mut || drop(parse(text)));
        let compiled = time(&mut || drop(super::super::Filter::new(&profile).unwrap()));
        let filter = super::super::Filter::new(&profile).unwrap();
        let loads = (0..ROUNDS / 10).map(|_| super::kernel::load_time(&filter));
        let loaded = median(loads.collect());
        eprintln!(
            "{name}: {} instructions; decoded in {decoded:?}, compiled in {compiled:?}, loaded in {loaded:?}",
            filter.program.len()
        );
    }
}
