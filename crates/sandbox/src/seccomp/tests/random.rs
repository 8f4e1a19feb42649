//! Random profiles, calls and arguments: the program decides as the model does.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::super::arch::{Abi, X32_BIT};
use super::super::compile::compile;
use super::super::profile::Profile;
use super::super::table::SYSCALLS;
use super::interpreter::Call;
use super::{model, seccomp};

const PROFILES: u32 = 2000;
const CALLS: u32 = 40;

/// SplitMix64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// A few values, so that they meet.
    fn value(&mut self) -> u64 {
        let near = [0, 1, 2, 0x7fff_ffff, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 5 << 32, u64::MAX - 1, u64::MAX];
        match self.below(8) {
            0 => self.next(),
            _ => *self.of(&near),
        }
    }
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
const ARCHITECTURES: [&str; 7] = [
    "SCMP_ARCH_NATIVE",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_RISCV64",
];

fn profile(random: &mut Random) -> LinuxSeccomp {
    let size = *random.of(&[0, 1, 2, 3, 3, 5, 10, 60]);
    // A few names more often than others, so that rules meet.
    let known = ["socket", "semop", "set_tls"].map(str::to_owned);
    let favourites: Vec<String> = (0..3).map(|_| random.of(SYSCALLS).0.text()).chain(known).collect();
    let with_errno = |random: &mut Random, action: &str| {
        (matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && random.below(2) == 0).then(|| random.below(4096))
    };
    let rules: Vec<Value> = (0..size)
        .map(|_| {
            let names: Vec<String> = (0..=random.below(6))
                .map(|_| match random.below(10) {
                    0 => "no_such_call".to_owned(),
                    1..4 => random.of(&favourites).clone(),
                    _ => random.of(SYSCALLS).0.text(),
                })
                .collect();
            let action = *random.of(&ACTIONS);
            let errno = with_errno(random, action);
            let count = if random.below(2) == 0 { 0 } else { random.below(4) };
            let args: Vec<Value> = (0..count)
                .map(|_| {
                    let (value, two) = (random.value(), random.value());
                    let most = *random.of(&[2, 6]);
                    let index = random.below(most);
                    json!({"index": index, "value": value, "valueTwo": two, "op": random.of(&OPERATORS)})
                })
                .collect();
            json!({"names": names, "action": action, "errnoRet": errno, "args": args})
        })
        .collect();
    let architectures: Vec<&str> = (0..random.below(5)).map(|_| *random.of(&ARCHITECTURES)).collect();
    let default = *random.of(&ACTIONS);
    let errno = with_errno(random, default);
    seccomp(json!({
        "defaultAction": default, "defaultErrnoRet": errno, "architectures": architectures, "syscalls": rules,
    }))
}

fn any_call(random: &mut Random, profile: &LinuxSeccomp) -> Call {
    let abi = *random.of(&Abi::ALL);
    let entries = profile.syscalls().as_deref().unwrap_or_default();
    let number = match random.below(4) {
        0 => u32::try_from(random.below(600)).unwrap(),
        1 => *random.of(&[u32::MAX, X32_BIT - 1, X32_BIT, 0xf_0000, 0xf_0005, 0xe_ffff, u32::MAX - 1, 470, 471]),
        _ if !entries.is_empty() => {
            let entry = random.of(entries);
            let name = random.of(entry.names());
            let shift = u32::try_from(random.below(2)).unwrap();
            abi.number(name).or(abi.multiplexed(name).map(|way| way.number)).unwrap_or(0) + shift
        }
        _ => u32::try_from(random.next() >> 32).unwrap(),
    };
    let arch = if random.below(50) == 0 { 0x1234 } else { abi.audit() };
    Call { arch, number: number | abi.base(), args: [(); 6].map(|()| random.value()) }
}

#[test]
fn the_program_decides_as_the_model_does() {
    let mut random = Random(20_261_121);
    let mut verdicts = std::collections::BTreeMap::new();
    let mut longest = 0;
    for _ in 0..PROFILES {
        let profile = profile(&mut random);
        for native in [Abi::X86_64, Abi::Aarch64] {
            let program = compile(&Profile::new(&profile, native));
            longest = longest.max(program.len());
            for _ in 0..CALLS {
                let call = any_call(&mut random, &profile);
                let verdict = call.run(&program);
                assert_eq!(verdict, model::verdict(&profile, native, &call), "{call:x?} on {native:?} by {profile:#?}");
                *verdicts.entry(verdict >> 16).or_insert(0u32) += 1;
            }
        }
    }
    // The test means something: every verdict came up, and programs long enough to need trampolines.
    assert!(verdicts.len() == 8 && verdicts.values().all(|count| *count > 500), "{verdicts:x?}");
    assert!(longest > 600, "{longest}");
    eprintln!("{} programs, the longest of {longest} instructions, verdicts {verdicts:x?}", 2 * PROFILES);
}
