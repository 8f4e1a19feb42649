//! cgroup v2: the rules as a BPF_PROG_TYPE_CGROUP_DEVICE program.
//!
//! The program sees `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, access in the upper half of
//! the first word and the kind in the lower one, and returns 1 to allow. It asks the rules from the last to the first:
//! an allowing rule takes its bits off what is still asked for (nothing left: allowed), a denying one that speaks of a
//! bit still asked for ends it. So for every bit the last rule decides, whatever mixture was asked for.
//!
//! The kernel's verifier follows the branch that does not jump first, and passes over what it comes to again with less
//! possible than before. So what a rule does not speak of goes straight on, and the program is verified in one pass: with the jumps the
//! other way, and a jump for each number, Linux 6.18 verified three times as many instructions, which was a tenth of a `run`.

use super::{Kind, Policy, Rule};
use crate::sys::bpf::Instruction;

/// The instruction codes used: linux/bpf_common.h, linux/bpf.h.
mod code {
    /// `BPF_LDX | BPF_MEM | BPF_W`
    pub(super) const LOAD_WORD: u8 = 0x61;
    /// `BPF_ALU | BPF_AND | BPF_K` (32 bits)
    pub(super) const AND: u8 = 0x54;
    /// `BPF_ALU | BPF_RSH | BPF_K`
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    /// `BPF_ALU | BPF_LSH | BPF_K`
    pub(super) const SHIFT_LEFT: u8 = 0x64;
    /// `BPF_ALU | BPF_OR | BPF_X`
    pub(super) const OR: u8 = 0x4c;
    /// `BPF_ALU | BPF_MOV | BPF_X`
    pub(super) const COPY: u8 = 0xbc;
    /// `BPF_ALU64 | BPF_MOV | BPF_K`
    pub(super) const SET: u8 = 0xb7;
    /// `BPF_JMP | BPF_JA`
    pub(super) const JUMP: u8 = 0x05;
    /// `BPF_JMP32 | BPF_JEQ | BPF_K` would need 5.1; `BPF_JMP | BPF_JEQ | BPF_K` is in every kernel that has the
    /// program type, but extends its immediate by its sign: numbers above 2³¹ never match (majors have 12 bits).
    pub(super) const JUMP_IF_EQUAL: u8 = 0x15;
    /// `BPF_JMP | BPF_JNE | BPF_K`
    pub(super) const JUMP_IF_DIFFERENT: u8 = 0x55;
    /// `BPF_JMP | BPF_EXIT`
    pub(super) const EXIT: u8 = 0x95;
}

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Major and minor number in one word, as the kernel's `dev_t` has them.
const DEVICE: u8 = 6;
/// `MINORBITS` of linux/kdev_t.h; 12 are left for the major number.
const MINOR_BITS: i32 = 20;
/// Most rules that share what follows a match: a jump reaches 2¹⁵ instructions.
const MOST_ALIKE: usize = 1000;
/// The context is not needed after the loads: its register serves again.
const SCRATCH: u8 = CONTEXT;

/// The program for `policy`.
pub(in crate::cgroup) fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        load(ACCESS, 0),
        register(code::COPY, KIND, ACCESS),
        with(code::AND, KIND, 0xffff),
        with(code::SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
        register(code::COPY, DEVICE, MAJOR),
        with(code::SHIFT_LEFT, DEVICE, MINOR_BITS),
        register(code::OR, DEVICE, MINOR),
    ];
    let rules: Vec<&Rule> = policy.rules.iter().rev().collect();
    // Neighbours that differ in the device alone.
    let alike = |one: &&Rule, other: &&Rule| {
        let kind = |rule: &Rule| (rule.allow, rule.access, rule.devices.kind);
        kind(one) == kind(other) && number(one).is_some() && number(other).is_some()
    };
    for alike in rules.chunk_by(alike).flat_map(|alike| alike.chunks(MOST_ALIKE)) {
        push_rules(&mut program, alike);
    }
    program.extend(verdict(policy.default_allow));
    program
}

/// The device of a rule that speaks of one, as in [`DEVICE`]; None too where a jump's immediate would be negative.
fn number(rule: &Rule) -> Option<i32> {
    let (major, minor) = rule.devices.major.zip(rule.devices.minor)?;
    (major < 1 << 11 && minor < 1 << MINOR_BITS).then(|| (major << MINOR_BITS | minor).cast_signed())
}

/// Rules that differ in the device alone; one, if it speaks of several.
fn push_rules(program: &mut Vec<Instruction>, alike: &[&Rule]) {
    let Some(rule) = alike.first() else { return };
    let mut matched = Vec::with_capacity(5);
    if rule.allow {
        matched.push(with(code::AND, ACCESS, !i32::from(rule.access)));
        matched.push(jump(code::JUMP_IF_DIFFERENT, ACCESS, 0, 2));
    } else {
        matched.push(register(code::COPY, SCRATCH, ACCESS));
        matched.push(with(code::AND, SCRATCH, i32::from(rule.access)));
        matched.push(jump(code::JUMP_IF_EQUAL, SCRATCH, 0, 2));
    }
    matched.extend(verdict(rule.allow));

    let kind = match rule.devices.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    // Each test: the values of a register that go on with the next test; no other does.
    let numbers: Option<Vec<i32>> = alike.iter().map(|rule| number(rule)).collect();
    let tests = match numbers {
        Some(numbers) => vec![(KIND, vec![kind]), (DEVICE, numbers)],
        None => {
            let one = |register: u8, value: Option<u32>| value.map(|value| (register, vec![value.cast_signed()]));
            let (major, minor) = (one(MAJOR, rule.devices.major), one(MINOR, rule.devices.minor));
            [Some((KIND, vec![kind])), major, minor].into_iter().flatten().collect()
        }
    };
    let mut left = tests.iter().map(|(_, values)| values.len() + 1).sum::<usize>() + matched.len();
    let distance = |instructions: usize| i16::try_from(instructions).expect("no more than MOST_ALIKE and a few");
    for (source, values) in tests {
        left -= values.len() + 1;
        for (at, value) in values.iter().enumerate() {
            program.push(jump(code::JUMP_IF_EQUAL, source, *value, distance(values.len() - at)));
        }
        program.push(jump(code::JUMP, 0, 0, distance(left)));
    }
    program.extend(matched);
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [with(code::SET, RESULT, i32::from(allow)), with(code::EXIT, 0, 0)]
}

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: code::LOAD_WORD, registers: CONTEXT << 4 | to, offset, immediate: 0 }
}

fn register(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset: 0, immediate: 0 }
}

fn with(code: u8, to: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: to, offset: 0, immediate }
}

fn jump(code: u8, test: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { code, registers: test, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NUMBERS, RULES, policy, random_policies};
    use super::super::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0;
        while let Some(&Instruction { code, registers: pair, offset, immediate }) = program.get(at) {
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let extended = i64::from(immediate).cast_unsigned();
            at += 1;
            let mut jump = |taken: bool| {
                if taken {
                    at += usize::try_from(offset).expect("forward only: it ends");
                }
            };
            #[allow(clippy::cast_possible_truncation)]
            let low = |value: u64| value as u32;
            match code {
                code::LOAD_WORD => registers[to] = u64::from(context[usize::try_from(offset).unwrap() / 4]),
                code::AND => registers[to] = u64::from(low(registers[to]) & immediate.cast_unsigned()),
                code::SHIFT_RIGHT => registers[to] = u64::from(low(registers[to]) >> immediate),
                code::SHIFT_LEFT => registers[to] = u64::from(low(registers[to]) << immediate),
                code::OR => registers[to] = u64::from(low(registers[to]) | low(registers[from])),
                code::COPY => registers[to] = u64::from(low(registers[from])),
                code::SET => registers[to] = extended,
                code::JUMP => jump(true),
                code::JUMP_IF_EQUAL => jump(registers[to] == extended),
                code::JUMP_IF_DIFFERENT => jump(registers[to] != extended),
                code::EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
        panic!("the program runs over its end");
    }

    #[test]
    fn the_program_answers_as_the_rules_say() {
        for policy in RULES.iter().map(|rules| policy(rules)).chain(random_policies()) {
            let program = compile(&policy);
            for kind in [Kind::Block, Kind::Char] {
                for &major in NUMBERS {
                    for &minor in NUMBERS {
                        for access in 1..=(MKNOD | READ | WRITE) {
                            let expected = policy.allows(kind, major, minor, access);
                            let got = run(&program, kind, major, minor, access);
                            assert_eq!(got, expected, "{policy:?} {kind:?} {major}:{minor} {access}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_policy_of_many_rules_is_a_program() {
        let words: Vec<String> = (0..40_000).map(|minor| format!("allow c 7:{minor} r")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = compile(&policy(&words));
        assert!(run(&program, Kind::Char, 7, 17, READ) && run(&program, Kind::Char, 7, 39_999, READ));
        assert!(!run(&program, Kind::Char, 7, 40_000, READ) && !run(&program, Kind::Char, 7, 17, READ | WRITE));
    }

    #[test]
    fn an_open_policy_is_eleven_instructions_and_the_default_one_is_short() {
        assert_eq!(compile(&policy(&["allow a"])).len(), 11);
        assert!(compile(&policy(&[])).len() < 75, "{}", compile(&policy(&[])).len());
    }
}
