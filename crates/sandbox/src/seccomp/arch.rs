//! Architectures: which calling conventions a machine has, and the numbers of system calls in each.

use oci_spec::runtime::Arch;

use super::name::Name;
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

    /// The number of a system call in the table, without the base.
    pub fn number(self, name: &str) -> Option<u32> {
        let row = row(name)?;
        u32::try_from(SYSCALLS[row].1[self as usize]).ok()
    }

    /// Calls that reach the kernel through one number as well, with the call's own in the first argument: that number,
    /// the call's, and the bits of the argument that hold it. `<linux/net.h>`, `<linux/ipc.h>`.
    pub fn multiplexed(self, name: &str) -> Option<Multiplexed> {
        if self != Self::X86 {
            return None;
        }
        let socket = SOCKETCALL.iter().position(|&call| call == name);
        let ipc = IPC.iter().find(|(call, _)| *call == name);
        match (socket, ipc) {
            (Some(place), _) => u64::try_from(place + 1).ok().map(|call| Multiplexed { number: 102, call, mask: !0 }),
            // The upper half holds a version.
            (_, Some(&(_, call))) => Some(Multiplexed { number: 117, call, mask: 0xffff }),
            _ => None,
        }
    }
}

/// One call of `socketcall` or `ipc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplexed {
    /// The number of the system call that takes others.
    pub number: u32,
    /// What its first argument is for this one.
    pub call: u64,
    /// The bits of it that count.
    pub mask: u64,
}

/// In the order of their numbers, from 1.
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The row of a name in the table.
fn row(name: &str) -> Option<usize> {
    let name = Name::of(name)?;
    SYSCALLS.binary_search_by_key(&name, |(name, _)| *name).ok()
}

/// A name looked up once, for every convention.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    row: Option<usize>,
    multiplexed: Option<Multiplexed>,
}

impl Call {
    /// None for a name that no convention known here has.
    pub fn of(name: &str) -> Option<Self> {
        let row = row(name);
        let multiplexed = Abi::X86.multiplexed(name);
        (row.is_some() || multiplexed.is_some()).then_some(Self { row, multiplexed })
    }

    /// Its number in a convention, without the base.
    pub fn number(self, abi: Abi) -> Option<u32> {
        u32::try_from(SYSCALLS[self.row?].1[abi as usize]).ok()
    }

    /// The other way to it in a convention, see [`Abi::multiplexed`].
    pub fn multiplexed(self, abi: Abi) -> Option<Multiplexed> {
        self.multiplexed.filter(|_| abi == Abi::X86)
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
    fn socket_calls_and_ipc_have_a_second_way_on_x86() {
        assert_eq!(Abi::X86.multiplexed("socket"), Some(Multiplexed { number: 102, call: 1, mask: !0 }));
        assert_eq!(Abi::X86.multiplexed("sendmmsg").unwrap().call, 20);
        assert_eq!(Abi::X86.multiplexed("shmctl"), Some(Multiplexed { number: 117, call: 24, mask: 0xffff }));
        assert_eq!(Abi::X86.multiplexed("read"), None);
        assert_eq!(Abi::X86_64.multiplexed("socket"), None);
    }
}
