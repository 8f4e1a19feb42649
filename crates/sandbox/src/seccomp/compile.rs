//! A profile to one BPF program: architecture, then a binary search over ranges of numbers with the same verdict, then
//! the rules on arguments.
//!
//! The kernel runs the program once per possible number when it is loaded (since Linux 5.11), and never again for the
//! numbers that are allowed without a look at arguments: what counts is that it is short to load and has no detours.

use seccompiler::sock_filter;

use super::arch::{Abi, X32_BIT};
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

/// Where ranges begin: each goes up to the next. Of several that begin at one number the first in this order counts.
type Ranges<'a> = Vec<(u32, Says, Target<'a>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    /// That this is no call of the architecture.
    Architecture,
    /// What a rule says of one number.
    Rule,
    /// Where what is said of no number changes.
    Boundary,
    /// What comes after a number with a rule.
    Rest,
}

/// A stretch of ranges that costs no search: one target, but for a few single numbers in it.
#[derive(Debug)]
struct Stretch<'a> {
    first: u32,
    target: Target<'a>,
    but: Vec<(u32, Target<'a>)>,
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
                let mut ranges = Ranges::new();
                add_ranges(&mut ranges, calls, profile.default);
                architectures.push((audit, ranges));
            }
        }
    }
    let has = |abi| profile.calls.iter().any(|calls| calls.abi == abi);
    if let Some((_, ranges)) = architectures.first_mut().filter(|_| has(Abi::X86_64) && !has(Abi::X32)) {
        ranges.push((X32_BIT, Says::Architecture, Target::Return(FOREIGN)));
        // Not a call: what a tracer puts in place of one that it suppresses.
        ranges.push((u32::MAX, Says::Architecture, Target::Return(profile.default)));
    }
    for (_, ranges) in &mut architectures {
        ranges.sort_unstable_by_key(|(first, says, _)| (*first, *says));
        ranges.dedup_by_key(|(first, ..)| *first);
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

/// Adds the numbers of one convention.
fn add_ranges<'a>(ranges: &mut Ranges<'a>, calls: &'a Calls, default: Verdict) {
    let abi = calls.abi;
    let mut add = |number: u32, says, target| ranges.push((number, says, target));
    add(abi.base(), Says::Boundary, Target::Return(default));
    if let Some(newest) = calls.newest {
        add(abi.base() + newest + 1, Says::Boundary, Target::Return(ENOSYS));
        if abi.end() != u32::MAX {
            add(abi.end(), Says::Boundary, Target::Return(default));
        }
    }
    for (number, decision) in &calls.decisions {
        let target = match decision {
            Decision::Always(verdict) => Target::Return(*verdict),
            Decision::ByArguments(rules) => Target::Rules { rules, is_64_bit: abi.is_64_bit() },
        };
        let number = abi.base() + number;
        add(number, Says::Rule, target);
        add(number + 1, Says::Rest, Target::Return(default));
    }
}

/// The program of one architecture.
fn section(assembler: &mut Assembler, ranges: &[(u32, Says, Target<'_>)], default: Verdict) -> Label {
    let stretches = stretches(ranges);
    let mut made = Vec::new();
    let search = search(assembler, &stretches, default, &mut made);
    match stretches.as_slice() {
        // Whatever the number.
        [Stretch { but, .. }] if but.is_empty() => search,
        _ => assembler.load(NUMBER, search),
    }
}

/// Joins ranges with the same target, and those with single numbers between them.
fn stretches<'a>(ranges: &[(u32, Says, Target<'a>)]) -> Vec<Stretch<'a>> {
    let mut distinct: Vec<(u32, Target<'a>)> = ranges.iter().map(|(first, _, target)| (*first, *target)).collect();
    distinct.dedup_by(|next, range| next.1 == range.1);
    let mut stretches: Vec<Stretch<'a>> = Vec::new();
    let mut rest = distinct.as_slice();
    while let [(first, target), after @ ..] = rest {
        let mut stretch = Stretch { first: *first, target: *target, but: Vec::new() };
        rest = after;
        while let [(number, single), (next, again), after @ ..] = rest
            && *again == stretch.target
            && *next == number + 1
            && stretch.but.len() < MOST_SINGLES
        {
            stretch.but.push((*number, *single));
            rest = after;
        }
        stretches.push(stretch);
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
            for (number, single) in but {
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
