//! Which devices a container may make and open: the rules of `linux.resources.devices` as the two languages of the
//! kernel, a v1 list and a v2 program, and as systemd's list.

mod allow;
mod list;
mod program;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::plan::mounts::clean;
use crate::sys::bpf::Instruction;
use crate::{Error, Result};

pub(super) use allow::Allowed;
pub(super) use list::{Lists, Step, transition};
use program::compile;

/// BPF_DEVCG_ACC_MKNOD.
pub(super) const MKNOD: u8 = 1;
/// BPF_DEVCG_ACC_READ.
pub(super) const READ: u8 = 2;
/// BPF_DEVCG_ACC_WRITE.
pub(super) const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// The kind of a device; the numbers are BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block = 1,
    Char = 2,
}

/// Devices; None stands for every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Devices {
    /// Whether every device of `other` is one of these.
    fn contain(self, other: Self) -> bool {
        let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
        self.kind == other.kind && covers(self.major, other.major) && covers(self.minor, other.minor)
    }

    /// Whether some device is in both.
    fn meet(self, other: Self) -> bool {
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meets(self.major, other.major) && meets(self.minor, other.minor)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    devices: Devices,
    access: u8,
}

/// What a container may do with devices: for each bit of access the last rule that speaks of the device decides,
/// without one `default_allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    default_allow: bool,
    rules: Vec<Rule>,
}

/// Kind, major, minor, access, path.
type DefaultDevice = (Kind, Option<u32>, Option<u32>, u8, Option<&'static str>);

/// The devices that every container has, runc's list: mknod of anything (opening it is another matter), the devices of
/// the specification's default list, terminals, and tun (gone in runc 1.2.0, missed, back in 1.2.4). Not 5:1, the
/// host's console: a container's /dev/console is a pty bound over it.
///
/// With the path, where the configuration can have a device of its own in its place.
const DEFAULTS: [DefaultDevice; 11] = [
    (Kind::Char, None, None, MKNOD, None),
    (Kind::Block, None, None, MKNOD, None),
    (Kind::Char, Some(1), Some(3), ALL, Some("/dev/null")),
    (Kind::Char, Some(1), Some(8), ALL, Some("/dev/random")),
    (Kind::Char, Some(1), Some(7), ALL, Some("/dev/full")),
    (Kind::Char, Some(5), Some(0), ALL, Some("/dev/tty")),
    (Kind::Char, Some(1), Some(5), ALL, Some("/dev/zero")),
    (Kind::Char, Some(1), Some(9), ALL, Some("/dev/urandom")),
    (Kind::Char, Some(136), None, ALL, None),
    (Kind::Char, Some(5), Some(2), ALL, None),
    (Kind::Char, Some(10), Some(200), ALL, None),
];

/// The devices of the configuration that are at the path of a default one. Where a rule names the number of that one, the
/// rules alone speak of it: `docker run --device /dev/full:/dev/full:r` is not to be written to. As in runc, but that runc
/// lets nobody open one that no rule names.
pub fn own_devices(devices: &[LinuxDevice]) -> Vec<PathBuf> {
    let is_default = |path: &PathBuf| DEFAULTS.iter().any(|(.., at)| at.is_some_and(|at| path == Path::new(at)));
    devices.iter().map(|device| clean(device.path())).filter(is_default).collect()
}

/// The program of a cgroup2 with these rules, and the default devices less `own`.
///
/// # Errors
/// A rule with an unknown type, access or number.
pub fn device_program(rules: &[LinuxDeviceCgroup], own: &[PathBuf]) -> Result<Vec<Instruction>> {
    Ok(compile(&Policy::of(rules, own)?))
}

impl Policy {
    /// As [`Policy::of`], of a container without devices of its own.
    pub(super) fn new(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        Self::of(rules, &[])
    }

    /// Deny, then `rules` in order, then the default devices less `own`, those of [`own_devices`]: never a list of denials
    /// over an open default (GHSA-g54h-m393-cpwq), not even without rules.
    ///
    /// # Errors
    /// A rule with an unknown type, access or number.
    pub(super) fn of(rules: &[LinuxDeviceCgroup], own: &[PathBuf]) -> Result<Self> {
        let mut policy = Self { default_allow: false, rules: Vec::new() };
        for (index, rule) in rules.iter().enumerate() {
            policy.push(rule).map_err(|cause| {
                Error::Refused(format!("linux.resources.devices[{index}]: \"{}\": {cause}", rule.to_string().trim()))
            })?;
        }
        for (kind, major, minor, access, path) in DEFAULTS {
            let devices = Devices { kind, major, minor };
            let is_own = path.is_some_and(|path| own.iter().any(|own| own == Path::new(path)));
            if !is_own || !policy.rules.iter().any(|rule| rule.devices == devices) {
                policy.rules.push(Rule { allow: true, devices, access });
            }
        }
        policy.drop_idle_rules();
        Ok(policy)
    }

    fn push(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), String> {
        let kinds: &[Kind] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => &[Kind::Block, Kind::Char],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Char],
            LinuxDeviceType::P => return Err("a FIFO is not a device".into()),
        };
        let every = kinds.len() == 2;
        let access = match rule.access().as_deref().unwrap_or("") {
            // The kernel's `a` has no access: it is all. A denial without access denies all; an allowance says what.
            "" if every || !rule.allow() => ALL,
            "" => return Err("no access given".into()),
            letters => parse_access(letters)?,
        };
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        if every && access == ALL && major.is_none() && minor.is_none() {
            // Every device, every access: what was said before no longer matters.
            self.default_allow = rule.allow();
            self.rules.clear();
            return Ok(());
        }
        for &kind in kinds {
            self.rules.push(Rule { allow: rule.allow(), devices: Devices { kind, major, minor }, access });
        }
        Ok(())
    }

    /// Drops what changes nothing: a rule that says what the default says, with no contrary rule before it.
    fn drop_idle_rules(&mut self) {
        let mut kept: Vec<Rule> = Vec::with_capacity(self.rules.len());
        for rule in self.rules.drain(..) {
            let contrary = |earlier: &Rule| {
                earlier.allow != rule.allow && earlier.access & rule.access != 0 && earlier.devices.meet(rule.devices)
            };
            if rule.allow != self.default_allow || kept.iter().any(contrary) {
                kept.push(rule);
            }
        }
        self.rules = kept;
    }

    /// Whether `access` to one device is allowed: the reference that the list and the program are tested against.
    #[cfg(test)]
    fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let device = Devices { kind, major: Some(major), minor: Some(minor) };
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let last = self.rules.iter().rev().find(|rule| rule.access & bit != 0 && rule.devices.contain(device));
            last.map_or(self.default_allow, |rule| rule.allow)
        })
    }
}

fn parse_access(letters: &str) -> Result<u8, String> {
    letters.chars().try_fold(0, |access, letter| match letter {
        'm' => Ok(access | MKNOD),
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        other => Err(format!("access {other:?} is none of r, w, m")),
    })
}

/// −1 and nothing stand for every number.
fn number(number: Option<i64>) -> Result<Option<u32>, String> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| format!("{number} is not a device number")),
    }
}

#[cfg(test)]
pub(in crate::cgroup) mod tests {
    use super::*;

    /// A rule as one writes it: `allow c 1:3 rwm`, `deny a`.
    pub(in crate::cgroup) fn rule(text: &str) -> LinuxDeviceCgroup {
        let mut words = text.split(' ');
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(words.next() == Some("allow"));
        rule.set_typ(words.next().map(|letter| match letter {
            "a" => LinuxDeviceType::A,
            "b" => LinuxDeviceType::B,
            "c" => LinuxDeviceType::C,
            "u" => LinuxDeviceType::U,
            "p" => LinuxDeviceType::P,
            other => panic!("{other}"),
        }));
        if let Some((major, minor)) = words.next().and_then(|numbers| numbers.split_once(':')) {
            rule.set_major(major.parse().ok());
            rule.set_minor(minor.parse().ok());
        }
        rule.set_access(words.next().map(str::to_owned));
        rule
    }

    pub(super) fn policy(rules: &[&str]) -> Policy {
        Policy::new(&rules.iter().map(|text| rule(text)).collect::<Vec<_>>()).unwrap()
    }

    /// Sets of rules, and questions worth asking of each.
    pub(super) const RULES: &[&[&str]] = &[
        &[],
        &["deny a"],
        &["allow a"],
        &["deny a *:* rwm", "allow c 10:229 rw", "allow b 8:* r"],
        &["allow a", "deny b 8:0 w", "deny c 1:3 rwm"],
        &["allow a", "deny c 1:* rwm", "deny b *:* rw"],
        &["allow c 4:* rw", "deny c *:* w", "allow c 4:64 w"],
        &["allow b *:3 r", "allow b *:3 w", "deny a"],
        &["allow a 7:1 rwm", "allow u 9:9 r"],
        &["allow b *:* r", "allow b 8:1 w"],
        &["deny c 5:2 m"],
        &["allow b 8:* rw", "deny b 8:1 w"],
    ];
    pub(super) const NUMBERS: &[u32] = &[0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 64, 136, 200, 229, 254];

    /// Rules that nobody would write, the same ones every time.
    pub(super) fn random_policies() -> impl Iterator<Item = Policy> {
        // Knuth's MMIX generator; the upper bits are the good ones.
        let mut state = 1u64;
        let mut below = move |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % limit
        };
        (0..300).map(move |_| {
            let count = below(6);
            let rules: Vec<LinuxDeviceCgroup> = (0..count)
                .map(|_| {
                    let verdict = ["allow", "deny"][below(2)];
                    let kind = ["b", "c", "a"][below(3)];
                    let (major, minor) = (["*", "1", "8"][below(3)], ["*", "3", "8"][below(3)]);
                    rule(&format!("{verdict} {kind} {major}:{minor} {}", ["r", "w", "rw", "m", "rwm"][below(5)]))
                })
                .collect();
            Policy::new(&rules).unwrap()
        })
    }

    #[test]
    fn of_a_device_of_ones_own_the_rules_alone_speak_if_one_names_it() {
        let own = [PathBuf::from("/dev/full")];
        let of = |rules: &[&str]| Policy::of(&rules.iter().map(|text| rule(text)).collect::<Vec<_>>(), &own).unwrap();
        let read = of(&["deny a", "allow c 1:7 r"]);
        assert!(read.allows(Kind::Char, 1, 7, READ) && !read.allows(Kind::Char, 1, 7, WRITE));
        // To make one is another matter, and so are the other devices.
        assert!(read.allows(Kind::Char, 1, 7, MKNOD) && read.allows(Kind::Char, 1, 3, READ | WRITE));
        assert!(!of(&["allow c 1:7 rw", "deny c 1:7 rw"]).allows(Kind::Char, 1, 7, READ));
        for rules in [&[][..], &["deny a"], &["allow c 1:3 r"], &["allow c 1:* r"], &["allow c 1:7 r", "deny a"]] {
            assert!(of(rules).allows(Kind::Char, 1, 7, READ | WRITE), "{rules:?}");
        }
        assert!(policy(&["deny a", "allow c 1:7 r"]).allows(Kind::Char, 1, 7, WRITE), "not one of its own");
    }

    #[test]
    fn without_rules_only_the_default_devices_may_be_opened() {
        for policy in [policy(&[]), policy(&["deny a"])] {
            assert!(policy.allows(Kind::Char, 1, 3, READ | WRITE));
            assert!(policy.allows(Kind::Char, 136, 77, READ | WRITE));
            assert!(policy.allows(Kind::Char, 10, 200, READ | WRITE));
            assert!(policy.allows(Kind::Block, 8, 0, MKNOD));
            assert!(!policy.allows(Kind::Char, 1, 11, READ));
            assert!(!policy.allows(Kind::Char, 5, 1, WRITE));
            assert!(!policy.allows(Kind::Block, 8, 0, READ));
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let policy = policy(&["allow b 8:* rw", "deny b 8:1 w"]);
        assert!(policy.allows(Kind::Block, 8, 0, READ | WRITE));
        assert!(policy.allows(Kind::Block, 8, 1, READ));
        assert!(!policy.allows(Kind::Block, 8, 1, READ | WRITE));
    }

    #[test]
    fn a_privileged_container_needs_no_rules_at_all() {
        assert_eq!(policy(&["deny b 1:1 r", "allow a"]), Policy { default_allow: true, rules: Vec::new() });
    }

    #[test]
    fn a_bad_rule_is_named() {
        for (text, message) in [
            ("allow c 1:3 x", "linux.resources.devices[0]: \"c 1:3 x\": access 'x' is none of r, w, m"),
            ("allow c 1:3", "linux.resources.devices[0]: \"c 1:3\": no access given"),
            ("allow p 1:3 r", "linux.resources.devices[0]: \"p 1:3 r\": a FIFO is not a device"),
            (
                "allow c 4294967296:3 r",
                "linux.resources.devices[0]: \"c 4294967296:3 r\": 4294967296 is not a device number",
            ),
        ] {
            assert_eq!(Policy::new(&[rule(text)]).unwrap_err().to_string(), message);
        }
    }
}
