//! systemd: a policy, and a list of devices that are exceptions to a denial.
//!
//! systemd.resource-control(5), `DeviceAllow=` and `DevicePolicy=`.

use super::{Devices, Kind, Lists, MKNOD, Policy, READ, Rule, WRITE};

/// `DevicePolicy` and `DeviceAllow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct Allowed {
    /// Nothing but what is on the list.
    pub(in crate::cgroup) strict: bool,
    /// Which devices (`/dev/char/1:3`, `char-136`, `block-*`) and what with them (`rwm`).
    pub(in crate::cgroup) devices: Vec<(String, String)>,
}

impl Allowed {
    /// The policy as systemd can say it, at least: denials over something allowed, and a minor number without a major
    /// one, it cannot. Its program hangs beside ours, which is exact, and both have to allow: more in its list does no harm.
    pub(in crate::cgroup) fn of(policy: &Policy) -> Self {
        if policy.default_allow {
            return Self { strict: false, devices: Vec::new() };
        }
        let minor_alone = |rule: &Rule| rule.devices.major.is_none() && rule.devices.minor.is_some();
        let exact = if policy.rules.iter().any(minor_alone) { None } else { Lists::of(policy).ok() };
        let exceptions =
            exact.or_else(|| Lists::of(&widen(policy)).ok()).map(|lists| lists.exceptions).unwrap_or_default();
        let devices = exceptions.into_iter().map(|(devices, access)| (name(devices), letters(access))).collect();
        Self { strict: true, devices }
    }
}

/// What is allowed, and more: without the denials, and every device of a kind instead of a minor number of each major.
fn widen(policy: &Policy) -> Policy {
    let rules = policy.rules.iter().filter(|rule| rule.allow).map(|rule| {
        let minor = rule.devices.major.and(rule.devices.minor);
        Rule { devices: Devices { minor, ..rule.devices }, ..*rule }
    });
    Policy { default_allow: false, rules: rules.collect() }
}

/// As systemd reads it without looking for a device node of that name.
fn name(devices: Devices) -> String {
    let kind = match devices.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    match (devices.major, devices.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, _) => format!("{kind}-*"),
    }
}

fn letters(access: u8) -> String {
    let all = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    all.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NUMBERS, RULES, policy, random_policies};
    use super::*;

    /// systemd's program: one entry has to have all that is asked for, and nothing else counts.
    fn permits(allowed: &Allowed, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let device = Devices { kind, major: Some(major), minor: Some(minor) };
        let names = [name(device), name(Devices { minor: None, ..device }), name(Devices { major: None, ..device })];
        !allowed.strict
            || allowed.devices.iter().any(|(listed, granted)| {
                names.contains(listed) && letters(access).chars().all(|letter| granted.contains(letter))
            })
    }

    #[test]
    fn the_unit_never_denies_what_the_rules_allow() {
        for policy in RULES.iter().map(|rules| policy(rules)).chain(random_policies()) {
            let allowed = Allowed::of(&policy);
            for kind in [Kind::Block, Kind::Char] {
                for (&major, &minor) in NUMBERS.iter().flat_map(|major| NUMBERS.iter().map(move |minor| (major, minor)))
                {
                    for access in [MKNOD, READ, WRITE, READ | WRITE] {
                        if policy.allows(kind, major, minor, access) {
                            assert!(permits(&allowed, kind, major, minor, access), "{policy:?} {major}:{minor}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_unit_says_the_same_as_rules_without_holes() {
        for rules in [&[][..], &["allow c 10:229 rw", "allow b 8:* r"], &["allow a 7:* rwm"]] {
            let policy = policy(rules);
            let allowed = Allowed::of(&policy);
            for kind in [Kind::Block, Kind::Char] {
                for (&major, &minor) in NUMBERS.iter().flat_map(|major| NUMBERS.iter().map(move |minor| (major, minor)))
                {
                    for access in [MKNOD, READ, WRITE, READ | WRITE] {
                        let expected = policy.allows(kind, major, minor, access);
                        assert_eq!(permits(&allowed, kind, major, minor, access), expected, "{kind:?} {major}:{minor}");
                    }
                }
            }
        }
    }

    #[test]
    fn devices_have_names_that_need_no_node() {
        let allowed = Allowed::of(&policy(&["allow b 8:1 rw"]));
        let text = |device: &str, access: &str| (device.to_owned(), access.to_owned());
        for entry in [
            text("/dev/char/1:3", "rwm"),
            text("/dev/block/8:1", "rw"),
            text("char-136", "rwm"),
            text("char-*", "m"),
            text("block-*", "m"),
        ] {
            assert!(allowed.devices.contains(&entry), "{entry:?} in {:?}", allowed.devices);
        }
        assert_eq!(Allowed::of(&policy(&["allow a"])), Allowed { strict: false, devices: Vec::new() });
    }
}
