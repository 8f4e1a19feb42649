//! A profile to one BPF program: architecture, then a binary search over ranges of numbers with the same verdict, then
//! the rules on arguments.
//!
//! The kernel runs the program once per possible number when it is loaded (since Linux 5.11), and never again for the
//! numbers that are allowed without a look at arguments: what counts is that it is short to load and has no detours.

use seccompiler::sock_filter;

use super::arch::{ARM_PRIVATE, Abi, X32_BIT};
use super::profile::{Calls, Decision, ENOSYS, Profile, Rule, Verdict};
use super::program::{ARCH, Assembler, Label, NUMBER, Test};

/// `BPF_MAXINSNS`, `<linux/bpf_common.h>`.
pub const MOST_INSTRUCTIONS: usize = 4096;

/// What happens to calls of a convention that the profile does not list: libseccomp's answer.
const FOREIGN: Verdict = libc::SECCOMP_RET_KILL_THREAD;

/// What a range of numbers has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    Return(Verdict),
    Rules { rules: &'a [Rule], is_64_bit: bool },
}

/// Where ranges begin, in order: each goes up to the next.
#[derive(Debug, Default)]
struct Ranges<'a>(Vec<Range<'a>>);

/// The first number, and what happens from there on.
type Range<'a> = (u32, Target<'a>);

impl<'a> Ranges<'a> {
    /// From this number on, unless more is said of it: `target`. What is said later of the same number counts.
    fn from(&mut self, number: u32, target: Target<'a>) {
        while self.0.last().is_some_and(|(first, _)| *first >= number) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, before)| *before != target) {
            self.0.push((number, target));
        }
    }
}

/// A stretch of ranges that costs no search: one target, but for a few single numbers in it.
#[derive(Debug)]
struct Stretch<'a> {
    first: u32,
    target: Target<'a>,
    /// Each followed by the range that goes on as before.
    but: &'a [Range<'a>],
}

/// How many single numbers a stretch may have: each is one comparison more on the way, and one instruction less.
const MOST_SINGLES: usize = 3;

/// Compiles a profile.
pub fn compile(profile: &Profile) -> Vec<sock_filter> {
    // In the order of the profile, its machine's own first. x32 shares the architecture of x86_64, and the search.
    let mut architectures: Vec<(u32, Ranges<'_>)> = Vec::new();
    for calls in &profile.calls {
        let audit = calls.abi.audit();
        match architectures.iter_mut().find(|(known, _)| *known == audit) {
            Some((_, ranges)) => add_ranges(ranges, calls, profile.default),
            None => {
                let mut ranges = Ranges::default();
                add_ranges(&mut ranges, calls, profile.default);
                architectures.push((audit, ranges));
            }
        }
    }
    let has = |abi| profile.calls.iter().any(|calls| calls.abi == abi);
    if let Some((_, ranges)) = architectures.first_mut().filter(|_| has(Abi::X86_64) && !has(Abi::X32)) {
        ranges.from(X32_BIT, Target::Return(FOREIGN));
        // Not a call: what a tracer puts in place of one that it suppresses.
        ranges.from(u32::MAX, Target::Return(profile.default));
    }
    let mut assembler = Assembler::default();
    let sections: Vec<(u32, Label)> = architectures
        .iter()
        .rev()
        .map(|(audit, ranges)| (*audit, section(&mut assembler, ranges, profile.default)))
        .collect();
    let mut first = assembler.ret(FOREIGN);
    for (audit, section) in sections {
        first = assembler.compare(Test::Equal(audit), section, first);
    }
    assembler.load(ARCH, first);
    assembler.finish()
}

/// Adds the numbers of one convention: those that have been given out, what is newer than the profile, what is no call.
fn add_ranges<'a>(ranges: &mut Ranges<'a>, calls: &'a Calls, default: Verdict) {
    let (base, end) = (calls.abi.base(), calls.abi.end());
    ranges.from(base, Target::Return(default));
    add_decisions(ranges, calls, base, &calls.decisions, default);
    if let Some(newest) = calls.newest {
        ranges.from(base + newest + 1, Target::Return(ENOSYS));
        if end != u32::MAX {
            ranges.from(end, Target::Return(default));
        }
    }
    add_decisions(ranges, calls, ARM_PRIVATE, &calls.private, default);
}

fn add_decisions<'a>(
    ranges: &mut Ranges<'a>,
    calls: &'a Calls,
    first: u32,
    decisions: &[Option<Decision>],
    default: Verdict,
) {
    for (number, decision) in (first..).zip(decisions) {
        let target = match decision {
            Some(Decision::Always(verdict)) => Target::Return(*verdict),
            Some(Decision::ByArguments(rules)) => {
                Target::Rules { rules: &calls.rules[*rules as usize], is_64_bit: calls.abi.is_64_bit() }
            }
            None => continue,
        };
        ranges.from(number, target);
        ranges.from(number + 1, Target::Return(default));
    }
}

/// The program of one architecture.
fn section<'a>(assembler: &mut Assembler, ranges: &'a Ranges<'a>, default: Verdict) -> Label {
    let stretches = stretches(ranges);
    let mut made = Vec::new();
    let search = search(assembler, &stretches, default, &mut made);
    match stretches.as_slice() {
        // Whatever the number.
        [Stretch { but: [], .. }] => search,
        _ => assembler.load(NUMBER, search),
    }
}

/// Joins ranges with the same target that have only single numbers between them.
fn stretches<'a>(ranges: &'a Ranges<'a>) -> Vec<Stretch<'a>> {
    let mut stretches: Vec<Stretch<'a>> = Vec::new();
    let mut rest = ranges.0.as_slice();
    while let [(first, target), after @ ..] = rest {
        let single = |pair: &&[Range<'a>]| matches!(pair, [(number, _), (next, again)] if again == target && *next == number + 1);
        let singles = after.chunks(2).take(MOST_SINGLES).take_while(single).count();
        let (but, after) = after.split_at(2 * singles);
        stretches.push(Stretch { first: *first, target: *target, but });
        rest = after;
    }
    stretches
}

/// A binary search, by the number that is loaded. `made` holds the rules that are in the program already.
fn search<'a>(
    assembler: &mut Assembler,
    stretches: &[Stretch<'a>],
    default: Verdict,
    made: &mut Vec<(Target<'a>, Label)>,
) -> Label {
    match stretches {
        [] => assembler.ret(default),
        [Stretch { target, but, .. }] => {
            let mut label = leaf(assembler, *target, default, made);
            for (number, single) in but.iter().step_by(2) {
                let single = leaf(assembler, *single, default, made);
                label = assembler.compare(Test::Equal(*number), single, label);
            }
            label
        }
        _ => {
            let (below, above) = stretches.split_at(stretches.len() / 2);
            let boundary = above.first().map_or(0, |stretch| stretch.first);
            let above = search(assembler, above, default, made);
            let below = search(assembler, below, default, made);
            assembler.compare(Test::AtLeast(boundary), above, below)
        }
    }
}

fn leaf<'a>(
    assembler: &mut Assembler,
    target: Target<'a>,
    default: Verdict,
    made: &mut Vec<(Target<'a>, Label)>,
) -> Label {
    match target {
        Target::Return(verdict) => assembler.ret(verdict),
        Target::Rules { rules, is_64_bit } => match made.iter().find(|(known, _)| *known == target) {
            Some((_, label)) => *label,
            None => {
                let label = assembler.rules(rules, default, is_64_bit);
                made.push((target, label));
                label
            }
        },
    }
}
