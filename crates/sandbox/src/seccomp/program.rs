//! An assembler for filters, last instruction first: a jump goes forward only, so its target is always known.

use std::collections::HashMap;

use seccompiler::{SeccompCmpOp, sock_filter};

use super::profile::{Condition, Rule, Verdict};

/// Offsets in `struct seccomp_data`, `<linux/seccomp.h>`.
pub const NUMBER: u32 = 0;
/// `AUDIT_ARCH_*`.
pub const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// An instruction, by its distance from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A test to jump to: at its load, or past it when the word is loaded already.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    start: Label,
    loaded: Option<(u32, Label)>,
}

impl Point {
    /// Where to enter with the word at `offset` in the accumulator, if it is there.
    fn after(self, offset: Option<u32>) -> Label {
        match self.loaded {
            Some((word, label)) if Some(word) == offset => label,
            _ => self.start,
        }
    }
}

impl From<Label> for Point {
    fn from(start: Label) -> Self {
        Self { start, loaded: None }
    }
}

/// A comparison of the accumulator.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// `==`
    Equal(u32),
    /// `>`
    Above(u32),
    /// `>=`
    AtLeast(u32),
}

/// A program in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    /// The last instruction first.
    reversed: Vec<sock_filter>,
    /// Where the latest return of each verdict is.
    returns: HashMap<Verdict, Label>,
}

impl Assembler {
    /// The program, first instruction first.
    pub fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    /// A return of this verdict that is within reach.
    pub fn ret(&mut self, verdict: Verdict) -> Label {
        match self.returns.get(&verdict) {
            // One instruction and perhaps two trampolines may come between.
            Some(&label) if self.distance(label) + 3 <= REACH => label,
            _ => {
                let label = self.push(libc::BPF_RET | libc::BPF_K, verdict, 0, 0);
                self.returns.insert(verdict, label);
                label
            }
        }
    }

    /// A load of the word at `offset`, which falls through to `next`: that must be the instruction made last.
    pub fn load(&mut self, offset: u32, next: Label) -> Label {
        debug_assert_eq!(self.distance(next), 0);
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
    }

    /// A comparison of what is loaded.
    pub fn compare(&mut self, test: Test, yes: Label, no: Label) -> Label {
        let (yes, no) = self.within_reach(yes, no);
        let (code, operand) = match test {
            Test::Equal(value) => (libc::BPF_JEQ, value),
            Test::Above(value) => (libc::BPF_JGT, value),
            Test::AtLeast(value) => (libc::BPF_JGE, value),
        };
        self.push(libc::BPF_JMP | code | libc::BPF_K, operand, self.distance(yes), self.distance(no))
    }

    /// The verdict of the first rule that is met, else `otherwise`.
    pub fn rules(&mut self, rules: &[Rule], otherwise: Verdict, is_64_bit: bool) -> Label {
        let mut next = Point::from(self.ret(otherwise));
        let mut rest = rules;
        while let Some(last) = rest.last() {
            let group = alike(rest, is_64_bit);
            let (before, group) = rest.split_at(rest.len() - group);
            next = if group.len() > 1 {
                self.one_of(group, next, is_64_bit)
            } else {
                let met = Point::from(self.ret(last.verdict));
                let conditions = last.conditions.iter().rev();
                conditions.fold(met, |met, condition| self.condition(condition, met, next, is_64_bit))
            };
            rest = before;
        }
        next.start
    }

    /// Rules that [`alike`] found: one look at the upper word, then one comparison for each.
    fn one_of(&mut self, rules: &[Rule], otherwise: Point, is_64_bit: bool) -> Point {
        let [first, ..] = rules else { return otherwise };
        let Some(Condition { argument, value, .. }) = first.conditions.first() else { return otherwise };
        let (low_offset, high_offset) = words(*argument);
        let mut no = otherwise.after(Some(low_offset));
        for rule in rules.iter().rev() {
            let value = rule.conditions.first().map_or(0, |condition| condition.value);
            let met = self.ret(rule.verdict);
            no = self.compare(Test::Equal(low(value)), met, no);
        }
        let lower = Point { start: self.load(low_offset, no), loaded: Some((low_offset, no)) };
        if is_64_bit { self.test(high_offset, None, Test::Equal(high(*value)), lower, otherwise) } else { lower }
    }

    /// One condition. `yes` and `no` are where to go on.
    fn condition(&mut self, condition: &Condition, yes: Point, no: Point, is_64_bit: bool) -> Point {
        use SeccompCmpOp::{Eq, Ge, Gt, Le, Lt, MaskedEq, Ne};
        let value = condition.value;
        let (low_offset, high_offset) = words(condition.argument);
        // What the lower word is tested for once the upper ones are equal, and what to do then.
        let (test, yes, no) = match condition.operator {
            Eq => (Test::Equal(low(value)), yes, no),
            Ne => (Test::Equal(low(value)), no, yes),
            Ge => (Test::AtLeast(low(value)), yes, no),
            Lt => (Test::AtLeast(low(value)), no, yes),
            Gt => (Test::Above(low(value)), yes, no),
            Le => (Test::Above(low(value)), no, yes),
            MaskedEq(mask) => {
                let lower = self.test(low_offset, Some(low(mask)), Test::Equal(low(value)), yes, no);
                return if is_64_bit && high(mask) != 0 {
                    self.test(high_offset, Some(high(mask)), Test::Equal(high(value)), lower, no)
                } else {
                    lower
                };
            }
        };
        let lower = self.test(low_offset, None, test, yes, no);
        if !is_64_bit {
            return lower;
        }
        let equal = self.test(high_offset, None, Test::Equal(high(value)), lower, no);
        match test {
            Test::Equal(_) => equal,
            Test::Above(_) | Test::AtLeast(_) => {
                let (yes, equal) = (yes.after(Some(high_offset)), equal.after(Some(high_offset)));
                // Shares the load with the comparison that follows.
                let above = self.compare(Test::Above(high(value)), yes, equal);
                Point { start: self.load(high_offset, above), loaded: Some((high_offset, above)) }
            }
        }
    }

    /// Loads the word at `offset`, masks it, and compares.
    fn test(&mut self, offset: u32, mask: Option<u32>, test: Test, yes: Point, no: Point) -> Point {
        let mask = mask.filter(|mask| *mask != u32::MAX);
        let holds = mask.is_none().then_some(offset);
        let mut first = self.compare(test, yes.after(holds), no.after(holds));
        if let Some(mask) = mask {
            first = self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0);
        }
        Point { start: self.load(offset, first), loaded: Some((offset, first)) }
    }

    /// Puts trampolines in between where a target is too far.
    fn within_reach(&mut self, yes: Label, no: Label) -> (Label, Label) {
        // One trampoline may push the other target out of reach.
        let yes = if self.distance(yes) + 2 > REACH { self.jump(yes) } else { yes };
        let no = if self.distance(no) + 1 > REACH { self.jump(no) } else { no };
        (yes, no)
    }

    fn jump(&mut self, target: Label) -> Label {
        let distance = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.push(libc::BPF_JMP | libc::BPF_JA, distance, 0, 0)
    }

    /// How many instructions the one made next would skip to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    fn push(&mut self, code: u32, k: u32, jt: usize, jf: usize) -> Label {
        let within = |distance: usize| u8::try_from(distance).unwrap_or(u8::MAX);
        debug_assert!(jt <= REACH && jf <= REACH);
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        self.reversed.push(sock_filter { code, jt: within(jt), jf: within(jf), k });
        Label(self.reversed.len() - 1)
    }
}

/// How many rules at the end ask for one value each of the same argument, the upper words of the values being equal:
/// the shape of Docker's rules for personality(2).
fn alike(rules: &[Rule], is_64_bit: bool) -> usize {
    let subject = |rule: &Rule| match rule.conditions.as_slice() {
        [Condition { argument, operator: SeccompCmpOp::Eq, value }] => {
            Some((*argument, if is_64_bit { high(*value) } else { 0 }))
        }
        _ => None,
    };
    let last = rules.last().and_then(subject);
    if last.is_none() {
        return 1;
    }
    rules.iter().rev().take_while(|rule| subject(rule) == last).count()
}

/// The offsets of the lower and the upper word of an argument: both machines are little-endian.
fn words(argument: u32) -> (u32, u32) {
    (ARGUMENTS + 8 * argument, ARGUMENTS + 8 * argument + 4)
}

#[expect(clippy::cast_possible_truncation, reason = "that half is wanted")]
fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
