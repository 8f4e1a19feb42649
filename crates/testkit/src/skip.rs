//! Nothing passes silently: a test that cannot run here says so, and is counted.

use std::fs::OpenOptions;
use std::io::Write;

/// Leaves the test, saying why: this host lacks what it needs.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::record_skip(&format!($($reason)*));
        return;
    }};
}

/// Leaves the test when the runtime under test is known to fail it, with the reason for each such runtime, or for those
/// releases of it whose version begins so: `Runc "1.1.": "CVE-…"`.
/// `TARE_RUN_KNOWN=1` runs it all the same, to see whether the runtime still does.
#[macro_export]
macro_rules! known {
    ($runtime:expr, $($kind:ident $($version:literal)?: $reason:expr),+ $(,)?) => {
        $(if $runtime.is_release($crate::Kind::$kind, concat!("", $($version)?))
            && $crate::record_known($runtime.kind(), $reason)
        {
            return;
        })+
    };
}

/// Counts a skipped test; see [`skip!`].
pub fn record_skip(reason: &str) {
    append(&format!("SKIPPED: {}: {reason}", test_name()));
}

/// Counts a test that a runtime is known to fail, and tells whether to leave it; see [`known!`].
pub fn record_known(kind: crate::Kind, reason: &str) -> bool {
    if std::env::var_os("TARE_RUN_KNOWN").is_some() {
        return false;
    }
    append(&format!("KNOWN: {}: {kind}: {reason}", test_name()));
    true
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

#[expect(clippy::print_stdout, reason = "the report of a skipped test")]
fn append(line: &str) {
    println!("{line}");
    if let Some(log) = std::env::var_os("TARE_SKIP_LOG") {
        let mut file = OpenOptions::new().create(true).append(true).open(log).expect("TARE_SKIP_LOG is writable");
        // One write: lines of parallel tests do not mix.
        file.write_all(format!("{line}\n").as_bytes()).expect("TARE_SKIP_LOG is writable");
    }
}
