//! The verdict on one call, straight from the configuration: no ranges, no tree, no program.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
};

use super::super::arch::Abi;
use super::ENOSYS;
use super::interpreter::Call;

pub(super) fn verdict(seccomp: &LinuxSeccomp, native: Abi, call: &Call) -> u32 {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret());
    let listed = |arch: Arch| seccomp.architectures().iter().flatten().any(|listed| *listed == arch);
    let abi = match (native, call.arch) {
        (Abi::X86_64, 0xc000_003e) if call.number < 1 << 30 => Abi::X86_64,
        (Abi::X86_64, 0xc000_003e) if listed(Arch::ScmpArchX32) => Abi::X32,
        (Abi::X86_64, 0xc000_003e) if call.number == u32::MAX => return default,
        (Abi::X86_64, 0x4000_0003) if listed(Arch::ScmpArchX86) => Abi::X86,
        (Abi::Aarch64, 0xc000_00b7) => Abi::Aarch64,
        (Abi::Aarch64, 0x4000_0028) if listed(Arch::ScmpArchArm) => Abi::Arm,
        _ => return 0,
    };
    let number = if abi == Abi::X32 { call.number - (1 << 30) } else { call.number };
    let entries =
        || seccomp.syscalls().iter().flatten().flat_map(|entry| entry.names().iter().map(move |name| (name, entry)));
    let lets_through =
        matches!(seccomp.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    let numbers = |name: &str| [abi.number(name), abi.multiplexed(name).map(|way| way.number)];
    let newest = entries().flat_map(|(name, _)| numbers(name)).flatten().filter(|number| *number < 0xf0000).max();
    if let Some(newest) = newest.filter(|_| !lets_through)
        && number > newest
        && (abi != Abi::Arm || number < 0xf0000)
    {
        return ENOSYS;
    }
    let mut met = None;
    for (name, entry) in entries() {
        let verdict = action(entry.action(), entry.errno_ret());
        if verdict == default {
            continue;
        }
        let args = entry.args().as_deref().unwrap_or_default();
        if abi.number(name) == Some(number) {
            if args.is_empty() {
                return verdict;
            }
            met = met.or_else(|| all_met(abi, args, call).then_some(verdict));
        }
        if let Some(way) = abi.multiplexed(name).filter(|way| way.number == number) {
            met = met.or_else(|| (call.args[0] & 0xffff_ffff & way.mask == way.call).then_some(verdict));
        }
    }
    met.unwrap_or(default)
}

fn all_met(abi: Abi, args: &[LinuxSeccompArg], call: &Call) -> bool {
    let one_met = |arg: &LinuxSeccompArg| {
        let width = if matches!(abi, Abi::X86_64 | Abi::Aarch64) { u64::MAX } else { 0xffff_ffff };
        let (is, value) = (call.args[arg.index()] & width, arg.value() & width);
        match arg.op() {
            Op::ScmpCmpNe => is != value,
            Op::ScmpCmpLt => is < value,
            Op::ScmpCmpLe => is <= value,
            Op::ScmpCmpEq => is == value,
            Op::ScmpCmpGe => is >= value,
            Op::ScmpCmpGt => is > value,
            Op::ScmpCmpMaskedEq => is & value == arg.value_two().unwrap_or(0) & value,
        }
    };
    let twice = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
    if twice { args.iter().any(one_met) } else { args.iter().all(one_met) }
}

fn action(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}
