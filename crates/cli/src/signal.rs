//! Signals by name or number.

use nix::libc;

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    #[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64")))]
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// SIGRTMIN as kill(1), runc and systemd count: glibc's. The C library of this program may have another.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `KILL`, `SIGKILL`, `9`, `RTMIN+3`, `RTMAX-1`, in any case. Numbers may be any signal of the kernel, 1 to 64,
/// or 0, which only looks whether the process is there.
///
/// # Errors
/// `unknown signal "X"`.
pub(crate) fn parse(word: &str) -> Result<i32, String> {
    let unknown = || format!("unknown signal {word:?}");
    let valid = |number: i32| (0..=RTMAX).contains(&number);
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.parse().ok().filter(|&number| valid(number)).ok_or_else(unknown);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    let real_time = |rest: &str, base: i32, sign: char| match rest {
        "" => Some(base),
        offset => {
            let digits = offset.strip_prefix(sign).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
            let offset: i32 = digits.parse().ok()?;
            if sign == '+' { base.checked_add(offset) } else { base.checked_sub(offset) }
        }
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(rest, RTMIN, '+'),
        (_, Some(rest)) => real_time(rest, RTMAX, '-'),
        _ => None,
    };
    number.filter(|&number| (RTMIN..=RTMAX).contains(&number)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let cases = [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("9", 9),
            ("0", 0),
            ("TERM", 15),
            ("64", 64),
            ("33", 33),
            ("SIGCLD", 17),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-14", 50),
        ];
        for (word, number) in cases {
            assert_eq!(parse(word), Ok(number), "{word}");
        }
        for word in [
            "",
            "65",
            "-9",
            "+9",
            "4294967305",
            "BOGUS",
            "SIG",
            "SIGSIGKILL",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN+-1",
            "RTMIN+99999999999",
            "KILL ",
        ] {
            assert_eq!(parse(word), Err(format!("unknown signal {word:?}")));
        }
    }
}
