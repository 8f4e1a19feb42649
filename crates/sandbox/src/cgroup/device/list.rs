//! cgroup v1: a default and a flat list of exceptions to it, written rule by rule.
//!
//! Documentation/admin-guide/cgroup-v1/devices.rst and security/device_cgroup.c.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Devices, Kind, MKNOD, Policy, READ, WRITE};
use crate::{Error, Result};

/// What `devices.list` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct Lists {
    default_allow: bool,
    pub(super) exceptions: BTreeMap<Devices, u8>,
}

impl Lists {
    /// The policy as a v1 list.
    ///
    /// # Errors
    /// A rule that takes a part out of an earlier, wider one: the list has no holes, and the kernel ignores such a
    /// request without a word. cgroup v2 has no such limit.
    pub(in crate::cgroup) fn of(policy: &Policy) -> Result<Self> {
        let mut exceptions: BTreeMap<Devices, u8> = BTreeMap::new();
        for rule in &policy.rules {
            if rule.allow != policy.default_allow {
                *exceptions.entry(rule.devices).or_default() |= rule.access;
                continue;
            }
            for (devices, access) in &mut exceptions {
                if rule.devices.contain(*devices) {
                    *access &= !rule.access;
                } else if *access & rule.access != 0 && devices.meet(rule.devices) {
                    return Err(Error::Refused(format!(
                        "linux.resources.devices: \"{} {}\" takes a part out of \"{} {}\", which cgroup v1 cannot do",
                        if rule.allow { "allow" } else { "deny" },
                        text(rule.devices, rule.access),
                        if rule.allow { "deny" } else { "allow" },
                        text(*devices, *access)
                    )));
                }
            }
        }
        exceptions.retain(|_, access| *access != 0);
        if !policy.default_allow {
            join_covered(&mut exceptions);
        }
        Ok(Self { default_allow: policy.default_allow, exceptions })
    }

    /// Whether every device is allowed that is not excepted.
    pub(in crate::cgroup) fn allows_by_default(&self) -> bool {
        self.default_allow
    }

    /// Reads `devices.list`.
    ///
    /// # Errors
    /// A line that is not in the kernel's form.
    pub(in crate::cgroup) fn parse(list: &str) -> Result<Self> {
        let mut lists = Self { default_allow: false, exceptions: BTreeMap::new() };
        for line in list.lines() {
            if line.starts_with('a') {
                // With an open default the kernel shows this line alone; the exceptions cannot be seen.
                lists.default_allow = true;
                continue;
            }
            let (devices, access) =
                parse_line(line).ok_or_else(|| Error::Refused(format!("devices.list: unexpected line {line:?}")))?;
            lists.exceptions.insert(devices, access);
        }
        Ok(lists)
    }
}

/// The kernel grants an open for reading and writing only by one exception that has both: adds to each exception what
/// wider ones grant to the same devices anyway.
fn join_covered(exceptions: &mut BTreeMap<Devices, u8>) {
    let wide: Vec<(Devices, u8)> = exceptions.iter().map(|(devices, access)| (*devices, *access & !MKNOD)).collect();
    for (devices, access) in exceptions.iter_mut() {
        if *access & (READ | WRITE) != 0 {
            *access |= wide.iter().filter(|(other, _)| other.contain(*devices)).fold(0, |sum, (_, bits)| sum | bits);
        }
    }
}

/// One write: the file (`devices.allow`, `devices.deny`) and the rule.
pub(in crate::cgroup) type Step = (&'static str, String);

/// The writes that lead from `current` to `target`; `current` is None for a cgroup that nobody has entered: its
/// inherited list is swept away at once. Otherwise only the difference is written: `a` would open or close everything
/// for an instant, and the kernel refuses it (EINVAL) where the container has made cgroups below.
pub(in crate::cgroup) fn transition(current: Option<&Lists>, target: &Lists) -> Vec<Step> {
    let (add, remove) =
        if target.default_allow { ("devices.deny", "devices.allow") } else { ("devices.allow", "devices.deny") };
    let none = BTreeMap::new();
    let mut steps = Vec::new();
    let present = match current {
        Some(current) if current.default_allow == target.default_allow && !target.default_allow => &current.exceptions,
        Some(current) if current.default_allow && target.default_allow && target.exceptions.is_empty() => {
            // Exceptions that may be there cannot be seen: `a` takes them away.
            return vec![(remove, "a".into())];
        }
        _ => {
            steps.push((remove, "a".into()));
            &none
        }
    };
    let missing = |from: &BTreeMap<Devices, u8>, of: &BTreeMap<Devices, u8>, file: &'static str| {
        of.iter()
            .map(|(devices, access)| (*devices, access & !from.get(devices).copied().unwrap_or(0)))
            .filter(|(_, access)| *access != 0)
            .map(|(devices, access)| (file, text(devices, access)))
            .collect::<Vec<_>>()
    };
    steps.extend(missing(present, &target.exceptions, add));
    steps.extend(missing(&target.exceptions, present, remove));
    steps
}

fn text(devices: Devices, access: u8) -> String {
    let mut text = String::from(match devices.kind {
        Kind::Block => "b ",
        Kind::Char => "c ",
    });
    for (number, end) in [(devices.major, ':'), (devices.minor, ' ')] {
        match number {
            Some(number) => write!(text, "{number}{end}").expect("a String takes everything"),
            None => text.extend(['*', end]),
        }
    }
    for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')] {
        if access & bit != 0 {
            text.push(letter);
        }
    }
    text
}

fn parse_line(line: &str) -> Option<(Devices, u8)> {
    let (kind, rest) = line.split_once(' ')?;
    let kind = match kind {
        "b" => Kind::Block,
        "c" => Kind::Char,
        _ => return None,
    };
    let (numbers, access) = rest.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let devices = Devices { kind, major: number(major)?, minor: number(minor)? };
    Some((devices, super::parse_access(access).ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NUMBERS, RULES, policy, random_policies};
    use super::*;

    /// What the kernel keeps and answers: security/device_cgroup.c in miniature.
    struct Kernel(Lists);

    impl Kernel {
        fn write(&mut self, file: &str, rule: &str) {
            let allow = file == "devices.allow";
            if rule == "a" {
                self.0 = Lists { default_allow: allow, exceptions: BTreeMap::new() };
                return;
            }
            let (devices, access) = parse_line(rule).unwrap();
            let entry = self.0.exceptions.entry(devices).or_default();
            // dev_exception_add merges, dev_exception_rm subtracts from the very same devices only.
            if allow == self.0.default_allow {
                *entry &= !access
            } else {
                *entry |= access
            }
            self.0.exceptions.retain(|_, access| *access != 0);
        }

        fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
            let device = Devices { kind, major: Some(major), minor: Some(minor) };
            let mut matching = self.0.exceptions.iter().filter(|(devices, _)| devices.contain(device));
            if self.0.default_allow {
                !matching.any(|(_, bits)| bits & access != 0)
            } else {
                matching.any(|(_, bits)| access & !bits == 0)
            }
        }
    }

    fn open_host() -> Lists {
        Lists { default_allow: true, exceptions: BTreeMap::new() }
    }

    #[test]
    fn the_writes_make_the_kernel_answer_as_the_rules_say() {
        let mut refused = Vec::new();
        for rules in RULES {
            let policy = policy(rules);
            let Ok(target) = Lists::of(&policy) else {
                refused.push(*rules);
                continue;
            };
            let mut kernel = Kernel(open_host());
            for (file, rule) in transition(None, &target) {
                kernel.write(file, &rule);
            }
            for kind in [Kind::Block, Kind::Char] {
                for &major in NUMBERS {
                    for &minor in NUMBERS {
                        for access in [MKNOD, READ, WRITE, READ | WRITE] {
                            let expected = policy.allows(kind, major, minor, access);
                            let got = kernel.allows(kind, major, minor, access);
                            assert_eq!(got, expected, "{rules:?} {kind:?} {major}:{minor} {access}");
                        }
                    }
                }
            }
        }
        // The first one's hole are the default devices below 1:*.
        let holes: [&[&str]; 2] =
            [&["allow a", "deny c 1:* rwm", "deny b *:* rw"], &["allow b 8:* rw", "deny b 8:1 w"]];
        assert_eq!(refused, holes);
    }

    #[test]
    fn whatever_the_rules_the_kernel_never_allows_more_than_they_do() {
        let mut expressible = 0;
        for policy in random_policies() {
            let Ok(target) = Lists::of(&policy) else { continue };
            expressible += 1;
            let mut kernel = Kernel(open_host());
            for (file, rule) in transition(None, &target) {
                kernel.write(file, &rule);
            }
            for (kind, major, minor) in [Kind::Block, Kind::Char]
                .into_iter()
                .flat_map(|kind| [(kind, 1, 3), (kind, 1, 8), (kind, 8, 8), (kind, 7, 3)])
            {
                for access in [MKNOD, READ, WRITE] {
                    let expected = policy.allows(kind, major, minor, access);
                    assert_eq!(kernel.allows(kind, major, minor, access), expected, "{policy:?}");
                }
                // Of exceptions that overlap in part (1:* r, *:3 w) the kernel makes no sum: it may allow less.
                assert!(
                    !kernel.allows(kind, major, minor, READ | WRITE) || policy.allows(kind, major, minor, READ | WRITE)
                );
            }
        }
        assert!(expressible > 100, "{expressible}");
    }

    #[test]
    fn an_update_writes_the_difference_alone_and_ends_at_the_same_list() {
        for from in RULES {
            for to in RULES {
                let (Ok(from), Ok(to)) = (Lists::of(&policy(from)), Lists::of(&policy(to))) else { continue };
                let mut kernel = Kernel(from.clone());
                let steps = transition(Some(&from), &to);
                if !from.default_allow && !to.default_allow {
                    assert!(steps.iter().all(|(_, rule)| rule != "a"), "{steps:?}");
                }
                for (file, rule) in steps {
                    kernel.write(file, &rule);
                }
                assert_eq!(kernel.0, to);
            }
        }
        let same = Lists::of(&policy(&[])).unwrap();
        assert_eq!(transition(Some(&same), &same), []);
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused() {
        let error = Lists::of(&policy(&["allow b 8:* rw", "deny b 8:1 w"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linux.resources.devices: \"deny b 8:1 w\" takes a part out of \"allow b 8:* rw\", which cgroup v1 cannot do"
        );
    }

    #[test]
    fn the_list_of_the_kernel_is_read_back() {
        let list = Lists::of(&policy(&["allow b 8:* r"])).unwrap();
        let lines: Vec<String> = list.exceptions.iter().map(|(devices, access)| text(*devices, *access)).collect();
        assert!(lines.contains(&"b 8:* r".into()) && lines.contains(&"c 136:* rwm".into()), "{lines:?}");
        assert_eq!(Lists::parse(&lines.join("\n")).unwrap(), list);
        assert_eq!(Lists::parse("a *:* rwm\n").unwrap(), open_host());
        assert!(Lists::parse("x 1:3 r\n").is_err());
    }
}
