//! A profile of the configuration as what each convention of a machine does with each of its system calls.

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};
use seccompiler::SeccompCmpOp;

use super::arch::{ARM_PRIVATE, Abi, Call};

/// What a filter returns: `SECCOMP_RET_*` with its data.
pub type Verdict = u32;

/// `SECCOMP_RET_ERRNO` of ENOSYS.
pub const ENOSYS: Verdict = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// One comparison of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u32,
    /// How it is compared.
    pub operator: SeccompCmpOp,
    /// With what.
    pub value: u64,
}

/// A verdict for the calls whose arguments meet all conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of them.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub verdict: Verdict,
}

/// What happens to one system call. Small: there are some hundred of them for each convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Always this.
    Always(Verdict),
    /// That of the first rule that is met, else the default: which of [`Calls::rules`].
    ByArguments(u32),
}

/// What one convention does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// Whose.
    pub abi: Abi,
    /// By number, without the convention's base. What is None, or not here, has the default verdict.
    pub decisions: Vec<Option<Decision>>,
    /// Of ARM's private calls, by their distance from [`ARM_PRIVATE`].
    pub private: Vec<Option<Decision>>,
    /// What looks at arguments.
    pub rules: Vec<Vec<Rule>>,
    /// The highest number that the profile names, if what is above gets -ENOSYS.
    pub newest: Option<u32>,
}

/// The verdicts of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Of calls that have no rule.
    pub default: Verdict,
    /// The machine's own convention first.
    pub calls: Vec<Calls>,
    /// Names that no convention has.
    pub unknown: BTreeSet<String>,
}

impl Profile {
    /// Resolves the names for a machine whose own convention is `native`: its own is always filtered, another of its
    /// conventions when it is listed; calls of a convention that is not listed kill.
    pub fn new(seccomp: &LinuxSeccomp, native: Abi) -> Self {
        let default = verdict(seccomp.default_action(), seccomp.default_errno_ret());
        let listed: Vec<Abi> =
            seccomp.architectures().iter().flatten().filter_map(|arch| Abi::of(*arch, native)).collect();
        let compatible = native.compatible().iter().copied().filter(|abi| listed.contains(abi));
        let mut profile = Self {
            default,
            calls: [native].into_iter().chain(compatible).map(Calls::new).collect(),
            unknown: BTreeSet::new(),
        };
        let mut row = 0;
        for entry in seccomp.syscalls().iter().flatten() {
            let verdict = verdict(entry.action(), entry.errno_ret());
            let alternatives = alternatives(entry.args().as_deref().unwrap_or_default());
            for name in entry.names() {
                let Some(call) = Call::after(&mut row, name) else {
                    profile.unknown.insert(name.clone());
                    continue;
                };
                for calls in &mut profile.calls {
                    calls.name(call);
                    // Redundant, and so without effect on other rules of the same call: as runc.
                    if verdict != default {
                        calls.add(call, &alternatives, verdict);
                    }
                }
            }
        }
        if !refuses(default) {
            // What is let through anyway is let through when it is new.
            profile.calls.iter_mut().for_each(|calls| calls.newest = None);
        }
        profile
    }
}

impl Calls {
    fn new(abi: Abi) -> Self {
        Self { abi, decisions: Vec::new(), private: Vec::new(), rules: Vec::new(), newest: None }
    }

    fn name(&mut self, call: Call) {
        // ARM's private calls say nothing of the profile's age.
        let number = call.number(self.abi).filter(|number| *number < ARM_PRIVATE);
        let shared = call.multiplexed(self.abi).map(|way| way.number);
        self.newest = self.newest.max(number).max(shared);
    }

    fn add(&mut self, call: Call, alternatives: &[Vec<Condition>], verdict: Verdict) {
        if let Some(number) = call.number(self.abi) {
            self.add_number(number, alternatives, verdict);
        }
        if let Some(way) = call.multiplexed(self.abi) {
            // The arguments of the call are in memory, where a filter cannot look: only which call it is counts.
            let is_it = Condition { argument: 0, operator: SeccompCmpOp::MaskedEq(way.mask), value: way.call };
            self.add_number(way.number, &[vec![is_it]], verdict);
        }
    }

    /// As libseccomp combines them: a rule without conditions takes the place of those with, wherever it stands; of two
    /// without, the first counts.
    fn add_number(&mut self, number: u32, alternatives: &[Vec<Condition>], verdict: Verdict) {
        let (table, place) = match number.checked_sub(ARM_PRIVATE) {
            Some(private) => (&mut self.private, private as usize),
            None => (&mut self.decisions, number as usize),
        };
        if table.len() <= place {
            table.resize(place + 1, None);
        }
        let rules = match table[place] {
            Some(Decision::Always(_)) => return,
            _ if alternatives.is_empty() => {
                table[place] = Some(Decision::Always(verdict));
                return;
            }
            Some(Decision::ByArguments(rules)) => rules,
            None => {
                // No more than there are numbers.
                let rules = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
                table[place] = Some(Decision::ByArguments(rules));
                self.rules.push(Vec::new());
                rules
            }
        };
        let rule = |conditions: &Vec<Condition>| Rule { conditions: conditions.clone(), verdict };
        self.rules[rules as usize].extend(alternatives.iter().map(rule));
    }
}

/// The rules that the `args` of one entry make: one whose conditions must all be met, or, when two are of the same
/// argument, one for each condition. The latter is runc's oldest behaviour, on which profiles rely.
fn alternatives(args: &[LinuxSeccompArg]) -> Vec<Vec<Condition>> {
    if args.is_empty() {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let each_once = args.iter().all(|arg| seen.insert(arg.index()));
    let conditions = args.iter().map(condition);
    if each_once { vec![conditions.collect()] } else { conditions.map(|condition| vec![condition]).collect() }
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        // `value` is the mask, `valueTwo` what is left under it.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0) & arg.value())
        }
    };
    // The configuration was checked: the index is below 6.
    Condition { argument: u32::try_from(arg.index()).unwrap_or(0), operator, value }
}

/// seccomp(2), "Filters". EPERM unless the configuration says which errno, as the specification wants.
fn verdict(action: LinuxSeccompAction, errno: Option<u32>) -> Verdict {
    let data = errno.unwrap_or(libc::EPERM.cast_unsigned()) & libc::SECCOMP_RET_DATA;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data,
        LinuxSeccompAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActTrace => libc::SECCOMP_RET_TRACE | data,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    }
}

/// Whether a default keeps calls from being made. A tracer is to see new calls too.
fn refuses(default: Verdict) -> bool {
    !matches!(
        default & libc::SECCOMP_RET_ACTION_FULL,
        libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
    )
}
