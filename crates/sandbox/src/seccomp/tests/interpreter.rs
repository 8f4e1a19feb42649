//! Classic BPF as the kernel runs it for seccomp, and no more than a filter may have of it.

use seccompiler::sock_filter;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    /// What the program returns.
    pub(super) fn run(&self, program: &[sock_filter]) -> u32 {
        self.trace(program).0
    }

    /// The same, and how many instructions it took.
    pub(super) fn trace(&self, program: &[sock_filter]) -> (u32, usize) {
        let mut accumulator = 0;
        let mut at = 0;
        let mut steps = 0;
        // Jumps go forward only, so this ends; an index out of the program panics.
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            steps += 1;
            let mut jump = |condition: bool| at += usize::from(if condition { jt } else { jf });
            match u32::from(code) {
                0x20 => accumulator = self.word(k),
                0x54 => accumulator &= k,
                0x05 => at += usize::try_from(k).unwrap(),
                0x15 => jump(accumulator == k),
                0x25 => jump(accumulator > k),
                0x35 => jump(accumulator >= k),
                0x06 => return (k, steps),
                other => panic!("instruction {other:#x} at {}", at - 1),
            }
        }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[usize::try_from((offset - 16) / 8).unwrap()];
                u32::try_from(if offset.is_multiple_of(8) { arg & 0xffff_ffff } else { arg >> 32 }).unwrap()
            }
            _ => panic!("a load at {offset}"),
        }
    }
}
