//! regcomp(3), regexec(3): the expressions of `kill --regex`, which are crun's.

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// A POSIX extended regular expression, regex(7).
#[derive(Debug)]
pub struct Regex(Box<libc::regex_t>);

impl Regex {
    /// `regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB)`.
    ///
    /// # Errors
    /// What is wrong with the pattern, in the C library's words.
    pub fn new(pattern: &CStr) -> Result<Self, String> {
        // In a box: a compiled expression must not be assumed to survive a move.
        let mut regex = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the pattern ends with NUL and is not kept; the place is large enough for a regex_t and exclusively ours.
        let error = unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), flags) };
        if error == 0 {
            // SAFETY: regcomp has initialised it: it returned 0.
            return Ok(Self(unsafe { regex.assume_init() }));
        }
        let mut text = [0; 256];
        // SAFETY: regerror accepts the regex_t of the call that failed, which was zeroed before it, and writes at most
        // `text.len()` bytes with a NUL at the end.
        unsafe { libc::regerror(error, regex.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Err(text.to_string_lossy().into_owned())
    }

    /// `regexec(&regex, text, 0, NULL, 0)`: whether it matches anywhere in the text.
    pub fn is_match(&self, text: &CStr) -> bool {
        // SAFETY: the expression was compiled and not freed; the text ends with NUL; with REG_NOSUB and a length of 0 no
        // matches are written.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled once, freed once, here.
        unsafe { libc::regfree(&raw mut *self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_extended_and_match_anywhere() {
        for (pattern, text, expected) in [
            (c"^web-[0-9]+$", c"web-12", true),
            (c"^web-[0-9]+$", c"web-", false),
            (c"b-", c"web-12", true),
            (c"a|w", c"web", true),
        ] {
            assert_eq!(Regex::new(pattern).unwrap().is_match(text), expected, "{pattern:?} {text:?}");
        }
        assert!(!Regex::new(c"[").unwrap_err().is_empty());
    }
}
