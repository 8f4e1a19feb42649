//! Architectures: which calling conventions a machine has, and the numbers of system calls in each.

use oci_spec::runtime::Arch;

use super::name::{Name, name};
use super::table::SYSCALLS;

/// A calling convention. The order is that of the columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86: `int 0x80`, `sysenter`.
    X86,
    /// x86_64 with 32-bit pointers: the x86_64 entry, and bit 30 of the number.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
}

/// Bit 30 of a system call's number, by which x32 is told from x86_64: `__X32_SYSCALL_BIT`.
pub const X32_BIT: u32 = 1 << 30;
/// Where ARM's private calls begin: `__ARM_NR_BASE`.
pub const ARM_PRIVATE: u32 = 0x000f_0000;

impl Abi {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    /// The convention of this build.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The convention of this build.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// The convention of this name; None for those of machines that have no table here, of which a program on this
    /// machine can never be.
    pub fn of(arch: Arch, native: Self) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// The other conventions of a machine whose own is `self`.
    pub fn compatible(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Arm],
            _ => &[],
        }
    }

    /// `AUDIT_ARCH_*`, `<linux/audit.h>`: what the kernel calls it. That of x32 is x86_64's.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments are compared in all of their 64 bits. Those of the others have 32; libseccomp looks at no more
    /// of x32's.
    pub fn is_64_bit(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// What is added to the numbers of the table.
    pub fn base(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// The first number that is no system call of this convention, whatever the kernel.
    pub fn end(self) -> u32 {
        match self {
            Self::X86_64 => X32_BIT,
            Self::Arm => ARM_PRIVATE,
            _ => u32::MAX,
        }
    }
}

/// One call of `socketcall` or `ipc`: a number, the call's own in its first argument, and the bits that hold it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplexed {
    /// The number of the system call that takes others.
    pub number: u32,
    /// What its first argument is for this one.
    pub call: u64,
    /// The bits of it that count.
    pub mask: u64,
}

/// A call of x86 through `socketcall`, `<linux/net.h>`.
const fn socketcall(call: u64) -> Multiplexed {
    Multiplexed { number: 102, call, mask: !0 }
}

/// A call of x86 through `ipc`, `<linux/ipc.h>`: the upper half of the argument holds a version.
const fn ipc(call: u64) -> Multiplexed {
    Multiplexed { number: 117, call, mask: 0xffff }
}

/// Calls of x86 that reach the kernel through one number as well, sorted by name.
static MULTIPLEXED: &[(Name, Multiplexed)] = &[
    (name("accept"), socketcall(5)),
    (name("accept4"), socketcall(18)),
    (name("bind"), socketcall(2)),
    (name("connect"), socketcall(3)),
    (name("getpeername"), socketcall(7)),
    (name("getsockname"), socketcall(6)),
    (name("getsockopt"), socketcall(15)),
    (name("listen"), socketcall(4)),
    (name("msgctl"), ipc(14)),
    (name("msgget"), ipc(13)),
    (name("msgrcv"), ipc(12)),
    (name("msgsnd"), ipc(11)),
    (name("recv"), socketcall(10)),
    (name("recvfrom"), socketcall(12)),
    (name("recvmmsg"), socketcall(19)),
    (name("recvmsg"), socketcall(17)),
    (name("semctl"), ipc(3)),
    (name("semget"), ipc(2)),
    (name("semop"), ipc(1)),
    (name("semtimedop"), ipc(4)),
    (name("send"), socketcall(9)),
    (name("sendmmsg"), socketcall(20)),
    (name("sendmsg"), socketcall(16)),
    (name("sendto"), socketcall(11)),
    (name("setsockopt"), socketcall(14)),
    (name("shmat"), ipc(21)),
    (name("shmctl"), ipc(24)),
    (name("shmdt"), ipc(22)),
    (name("shmget"), ipc(23)),
    (name("shutdown"), socketcall(13)),
    (name("socket"), socketcall(1)),
    (name("socketpair"), socketcall(8)),
];

/// A name looked up once, for every convention.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// By convention; negative where there is none.
    numbers: [i32; 5],
    multiplexed: Option<Multiplexed>,
}

impl Call {
    /// One name alone.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Option<Self> {
        Self::after(&mut 0, text)
    }

    /// None for a name that no convention known here has. `row` is where to look first, and then the row after the one found: names
    /// in a profile are sorted, as a rule.
    pub(super) fn after(row: &mut usize, text: &str) -> Option<Self> {
        let name = Name::of(text)?;
        let near = (*row..SYSCALLS.len()).take(4).find(|&row| SYSCALLS[row].0 == name);
        let found = near.or_else(|| SYSCALLS.binary_search_by_key(&name, |(name, _)| *name).ok());
        *row = found.map_or(*row, |found| found + 1);
        let multiplexed = MULTIPLEXED.binary_search_by_key(&name, |(name, _)| *name).ok();
        if found.is_none() && multiplexed.is_none() {
            return None;
        }
        Some(Self {
            numbers: found.map_or([-1; 5], |row| SYSCALLS[row].1),
            multiplexed: multiplexed.map(|place| MULTIPLEXED[place].1),
        })
    }

    /// Its number in a convention, without the base.
    pub fn number(self, abi: Abi) -> Option<u32> {
        u32::try_from(self.numbers[abi as usize]).ok()
    }

    /// A number through which it reaches the kernel as well, with others.
    pub fn multiplexed(self, abi: Abi) -> Option<Multiplexed> {
        self.multiplexed.filter(|_| abi == Abi::X86)
    }
}

#[cfg(test)]
impl Abi {
    /// The number of a call of this name.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        Call::of(name)?.number(self)
    }

    /// The other way to a call of this name.
    pub(super) fn multiplexed(self, name: &str) -> Option<Multiplexed> {
        Call::of(name)?.multiplexed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_number_is_taken_once() {
        assert!(SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for abi in Abi::ALL {
            let mut numbers: Vec<_> = SYSCALLS.iter().map(|(_, row)| row[abi as usize]).filter(|&nr| nr >= 0).collect();
            assert!(numbers.len() > 300, "{abi:?}");
            numbers.sort_unstable();
            let count = numbers.len();
            numbers.dedup();
            // sync_file_range2 has two names on ARM.
            assert_eq!(count - numbers.len(), usize::from(abi == Abi::Arm), "{abi:?}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_numbers_are_the_c_librarys() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
            ("pidfd_getfd", libc::SYS_pidfd_getfd),
            ("futex_waitv", libc::SYS_futex_waitv),
        ] {
            assert_eq!(Abi::X86_64.number(name).map(i64::from), Some(number), "{name}");
        }
    }

    #[test]
    fn a_name_has_the_number_of_its_convention_or_none() {
        let numbers = |name| Abi::ALL.map(|abi| abi.number(name));
        assert_eq!(numbers("execve"), [Some(59), Some(11), Some(520), Some(221), Some(11)]);
        assert_eq!(numbers("set_tls"), [None, None, None, None, Some(0xf0005)]);
        assert_eq!(numbers("no_such_call"), [None; 5]);
        assert!(Call::of("recv").is_some() && Call::of("no_such_call").is_none());
    }

    #[test]
    fn a_name_is_found_wherever_the_search_begins() {
        let numbers = |call: Option<Call>| call.map(|call| call.numbers);
        for begin in 0..=SYSCALLS.len() {
            for name in ["_llseek", "read", "recv", "writev", "no_such_call"] {
                assert_eq!(
                    numbers(Call::after(&mut begin.clone(), name)),
                    numbers(Call::of(name)),
                    "{name} from {begin}"
                );
            }
        }
        let mut row = 0;
        for (name, expected) in SYSCALLS {
            assert_eq!(numbers(Call::after(&mut row, &name.text())), Some(*expected));
        }
        assert_eq!(row, SYSCALLS.len());
    }

    #[test]
    fn socket_calls_and_ipc_have_a_second_way_on_x86() {
        assert!(MULTIPLEXED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(Abi::X86.multiplexed("socket"), Some(Multiplexed { number: 102, call: 1, mask: !0 }));
        assert_eq!(Abi::X86.multiplexed("sendmmsg").unwrap().call, 20);
        assert_eq!(Abi::X86.multiplexed("shmctl"), Some(Multiplexed { number: 117, call: 24, mask: 0xffff }));
        assert_eq!(Abi::X86.multiplexed("read"), None);
        assert_eq!(Abi::X86_64.multiplexed("socket"), None);
    }
}
